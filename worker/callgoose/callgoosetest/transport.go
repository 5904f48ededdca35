package callgoosetest

import (
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
)

// Transport reaches a Fake without sockets. Safe concurrently.
type Transport struct {
	fake    *Fake
	refused atomic.Bool
}

// RoundTripper returns a transport that calls ServeHTTP in the goroutine of the caller.
func (f *Fake) RoundTripper() *Transport { return &Transport{fake: f} }

// Refuse makes following requests fail as if nothing listened.
func (t *Transport) Refuse(on bool) { t.refused.Store(on) }

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(req *http.Request) (resp *http.Response, err error) {
	if req.Body != nil {
		defer func() { _ = req.Body.Close() }()
	}
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	if t.refused.Load() {
		return nil, netError("dial", "connect", syscall.ECONNREFUSED)
	}
	r := req.Clone(req.Context()) // the request stays the caller's
	if r.Body == nil {
		r.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	defer func() {
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
				panic(p)
			}
			if resp, err = nil, req.Context().Err(); err == nil {
				err = netError("read", "read", syscall.ECONNRESET)
			}
		}
	}()
	t.fake.ServeHTTP(w, r)
	return w.Result(), nil
}

func netError(op, call string, errno syscall.Errno) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443}, Err: os.NewSyscallError(call, errno)}
}

// Server serves a Fake on a real socket.
type Server struct {
	fake *Fake

	mu   sync.Mutex // guards all below
	addr string
	http *http.Server
	done chan struct{} // closed when the goroutine of http has ended
}

// Start listens on addr. Port 0 picks a free one that no kernel gives to others
// (Linux: from 32768, the rest: from 49152), for it has to be free at Reopen, too.
func (f *Fake) Start(addr string) (*Server, error) {
	s := &Server{fake: f, addr: addr}
	host, port, err := net.SplitHostPort(addr)
	if err != nil || port != "0" {
		return s, s.Reopen()
	}
	for range 100 {
		s.addr = net.JoinHostPort(host, strconv.Itoa(10_000+rand.IntN(20_000)))
		if err = s.Reopen(); err == nil {
			break
		}
	}
	return s, err
}

// Addr is the address it listens on, or did before Close.
func (s *Server) Addr() string { s.mu.Lock(); defer s.mu.Unlock(); return s.addr }

// URL is the process endpoint.
func (s *Server) URL() string { return "http://" + s.Addr() + "/v1/process" }

// Close cuts all connections; new ones are refused until Reopen.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http == nil {
		return nil
	}
	err := s.http.Close()
	<-s.done
	s.http = nil
	return err
}

// Reopen listens on the same port again.
func (s *Server) Reopen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http != nil {
		return nil
	}
	l, err := net.Listen("tcp", s.addr) //nolint:noctx // a fake has no context to give
	if err != nil {
		return err
	}
	s.addr = l.Addr().String()
	server, done := &http.Server{Handler: s.fake}, make(chan struct{})
	s.http, s.done = server, done
	go func() {
		defer close(done)
		_ = server.Serve(l) // ErrServerClosed
	}()
	return nil
}
