package clustertest

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The modes of a proxy.
type mode int

const (
	passing mode = iota
	cut          // connections are reset, and new ones too
	silent       // half-open: what is sent waits, and arrives when the mode ends
)

// proxy passes TCP connections on to one address.
type proxy struct {
	l      net.Listener
	target string
	delay  atomic.Int64 // of each piece of data, nanoseconds
	wg     sync.WaitGroup

	mu    sync.Mutex // guards all below
	mode  mode
	gate  chan struct{} // closed unless silent
	conns map[net.Conn]bool
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l, target: target, gate: make(chan struct{}), conns: map[net.Conn]bool{}}
	close(p.gate)
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.set(cut)
		p.wg.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.l.Addr().String() }

// set changes the mode, also for the connections that are open.
func (p *proxy) set(m mode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode != silent && m == silent {
		p.gate = make(chan struct{})
	}
	if p.mode == silent && m != silent {
		close(p.gate)
	}
	p.mode = m
	if m == cut {
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

func (p *proxy) accept() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(c) })
	}
}

func (p *proxy) serve(c net.Conn) {
	defer c.Close()
	if !p.keep(c) {
		return
	}
	defer p.forget(c)
	p.pass()
	to, err := net.Dial("tcp", p.target)
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
func (p *proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode == cut {
		reset(c)
		return false
	}
	p.conns[c] = true
	return true
}

func (p *proxy) forget(c net.Conn) {
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}

// pass waits while the proxy is silent.
func (p *proxy) pass() {
	p.mu.Lock()
	gate := p.gate
	p.mu.Unlock()
	<-gate
}

// copy passes on what it reads, and the end of it.
func (p *proxy) copy(to, from net.Conn) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if d := p.delay.Load(); d > 0 {
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
