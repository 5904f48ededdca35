package ingest

import (
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
	worthAll            // its request is known whole, and is being answered: it keeps its place
)

// spared is how long a connection may stay worth what it is before it has to give way:
// long enough for the head of a sender far away. It also bounds how often one gives way.
const spared = 250 * time.Millisecond

// LimitListener returns a listener that keeps at most n connections of l open. A
// further one takes the place of the one that is worth least, of those the oldest: who
// opens many and sends nothing keeps nobody out. While there is none that has to give
// way it waits. A server needs ConnContext too, else all are worth nothing.
func LimitListener(l net.Listener, n int) net.Listener {
	return &limited{Listener: l, most: n, open: map[*limitedConn]struct{}{}, closed: make(chan struct{})}
}

type limited struct {
	net.Listener
	most   int
	closed chan struct{}
	once   sync.Once

	mu   sync.Mutex
	open map[*limitedConn]struct{} // guarded by mu
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
	defer l.mu.Unlock()
	if len(l.open) >= l.most {
		least := l.least()
		if least == nil {
			return false
		}
		delete(l.open, least)
		_ = least.Conn.Close()
	}
	c.since, l.open[c] = time.Now(), struct{}{}
	return true
}

// least is the connection that has to give way, nil when none has. It needs mu.
func (l *limited) least() (least *limitedConn) {
	for c := range l.open {
		if c.worth == worthAll || time.Since(c.since) < spared {
			continue
		}
		if least == nil || c.worth < least.worth || c.worth == least.worth && c.since.Before(least.since) {
			least = c
		}
	}
	return least
}

// Close implements net.Listener.
func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	of *limited

	worth int       // guarded by of.mu
	since time.Time // that; guarded by of.mu
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	delete(c.of.open, c)
	return err
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
	if c, ok := ctx.Value(connKey{}).(*limitedConn); ok {
		c.of.mu.Lock()
		defer c.of.mu.Unlock()
		c.worth, c.since = rank, time.Now()
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
