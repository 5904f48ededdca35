// Package queuetest has what tests of instances on external servers share.
package queuetest

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Mode is what a Proxy does with its connections.
type Mode int

// The modes of a Proxy.
const (
	Passing Mode = iota
	Cut          // connections are reset, and new ones too
	Silent       // half-open: what is sent waits, and arrives when the mode ends
)

// Proxy passes TCP connections on to one address. Safe concurrently.
type Proxy struct {
	Delay atomic.Int64 // of each piece of data, nanoseconds

	l      net.Listener
	target string
	wg     sync.WaitGroup

	mu    sync.Mutex // guards all below
	mode  Mode
	gate  chan struct{} // closed unless silent
	conns map[net.Conn]bool
}

// NewProxy listens on loopback for the length of the test.
func NewProxy(t *testing.T, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it takes no time
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{l: l, target: target, gate: make(chan struct{}), conns: map[net.Conn]bool{}}
	close(p.gate)
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.Set(Cut)
		p.wg.Wait()
	})
	return p
}

// Addr is what to dial in place of the target.
func (p *Proxy) Addr() string { return p.l.Addr().String() }

// Set changes the mode, also for the connections that are open.
func (p *Proxy) Set(m Mode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode != Silent && m == Silent {
		p.gate = make(chan struct{})
	}
	if p.mode == Silent && m != Silent {
		close(p.gate)
	}
	p.mode = m
	if m == Cut {
		for c := range p.conns {
			reset(c)
		}
	}
}

func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

func (p *Proxy) accept() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(c) })
	}
}

func (p *Proxy) serve(c net.Conn) {
	defer c.Close()
	if !p.keep(c) {
		return
	}
	defer p.forget(c)
	p.pass()
	to, err := net.Dial("tcp", p.target) //nolint:noctx // the same
	if err != nil {
		reset(c)
		return
	}
	defer to.Close()
	if !p.keep(to) {
		return
	}
	defer p.forget(to)
	var wg sync.WaitGroup
	wg.Go(func() { p.copy(to, c) })
	wg.Go(func() { p.copy(c, to) })
	wg.Wait()
}

// keep remembers a connection; false when there must be none.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode == Cut {
		reset(c)
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) forget(c net.Conn) {
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}

// pass waits while the proxy is silent.
func (p *Proxy) pass() {
	p.mu.Lock()
	gate := p.gate
	p.mu.Unlock()
	<-gate
}

// copy passes on what it reads, and the end of it.
func (p *Proxy) copy(to, from net.Conn) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if d := p.Delay.Load(); d > 0 {
			time.Sleep(time.Duration(d))
		}
		p.pass()
		if n > 0 {
			if _, werr := to.Write(buffer[:n]); werr != nil {
				reset(from)
				return
			}
		}
		if err != nil {
			_ = to.Close()
			return
		}
	}
}
