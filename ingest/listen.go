package ingest

import (
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// Connections is how many connections a listener may hold: want, or the given
// part (2 = half) of the descriptors this process may open where that is less, so
// that descriptors stay free for the disk and the operators' socket.
func Connections(want, part int) int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return want
	}
	return max(1, int(min(uint64(want), limit.Cur/uint64(part))))
}

// How much a connection is worth when there are more than may be open.
const (
	worthNothing = iota // nothing of it is known
	worthSome           // it has shown the secret: its body is on the way, or it is idle
	ranks
	worthAll = ranks // its request is known whole, and is being answered
)

// spared is how long a connection may stay worth what it is before it has to give way:
// long enough for the head of a sender far away.
const spared = 250 * time.Millisecond

// LimitListener returns a listener that keeps at most n connections of l open. A
// further one takes the place of the one that is worth least, of those the oldest: who
// opens many and sends nothing keeps nobody out. While there is none that has to give
// way it waits. A server needs ConnContext too, else all are worth nothing.
func LimitListener(l net.Listener, n int) net.Listener {
	return &limited{Listener: l, most: n, freed: make(chan struct{}, 1), closed: make(chan struct{})}
}

type limited struct {
	net.Listener
	most   int
	freed  chan struct{}
	closed chan struct{}
	once   sync.Once

	mu   sync.Mutex
	open int              // guarded by mu
	ends [ranks]list.List // *limitedConn by worth, the oldest first; guarded by mu
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	inner, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &limitedConn{Conn: inner, of: l}
	for !l.place(c) {
		select {
		case <-l.freed:
		case <-time.After(spared / 10):
		case <-l.closed:
			_ = inner.Close()
			return nil, net.ErrClosed
		}
	}
	return c, nil
}

// place gives c a place, if need be that of another, and reports whether there is one.
func (l *limited) place(c *limitedConn) bool {
	l.mu.Lock()
	if l.open < l.most {
		defer l.mu.Unlock()
		l.open++
		c.enter(worthNothing)
		return true
	}
	oldest := l.oldest()
	l.mu.Unlock()
	if oldest == nil {
		return false
	}
	_ = oldest.Close()
	return l.place(c)
}

// oldest is the connection that has to give way, nil when none has. It needs mu.
func (l *limited) oldest() *limitedConn {
	for i := range l.ends {
		if e := l.ends[i].Front(); e != nil {
			if c := e.Value.(*limitedConn); time.Since(c.since) >= spared {
				return c
			}
		}
	}
	return nil
}

// Close implements net.Listener.
func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	of *limited

	// The rest is guarded by of.mu.
	in    *list.List // nil when it keeps its place
	at    *list.Element
	since time.Time // in that list
	gone  bool
}

// enter, exit need of.mu.
func (c *limitedConn) enter(rank int) {
	c.in, c.since = &c.of.ends[rank], time.Now()
	c.at = c.in.PushBack(c)
}

func (c *limitedConn) exit() {
	if c.in != nil {
		c.in.Remove(c.at)
		c.in = nil
	}
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

func (c *limitedConn) leave() {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if c.gone {
		return
	}
	c.gone = true
	c.exit()
	c.of.open--
	select {
	case c.of.freed <- struct{}{}: // an Accept may wait
	default:
	}
}

type connKey struct{} // the key of a request's connection in its context

// ConnContext is for http.Server: it lets a request say what its connection is worth.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return context.WithValue(ctx, connKey{}, c)
}

// worth says what the connection of a request is worth from now on.
func worth(ctx context.Context, rank int) {
	c, ok := ctx.Value(connKey{}).(*limitedConn)
	if !ok {
		return
	}
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if c.gone {
		return
	}
	if c.exit(); rank != worthAll {
		c.enter(rank)
	}
}

// Keep has a request keep the place of its connection while h answers it.
func Keep(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		worth(r.Context(), worthAll)
		defer worth(r.Context(), worthNothing)
		h.ServeHTTP(w, r)
	})
}
