package admin

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// socketCheck is how often a socket looks whether it is still in the data directory.
const socketCheck = 2 * time.Second

// socket is a listener in the data directory that comes back when its file was
// deleted. Safe concurrently.
type socket struct {
	dir string

	mu     sync.Mutex
	l      *net.UnixListener // guarded by mu
	file   os.FileInfo       // what l made, guarded by mu
	closed bool              // guarded by mu
}

// Accept implements net.Listener.
func (s *socket) Accept() (net.Conn, error) {
	for {
		s.mu.Lock()
		l := s.l
		s.mu.Unlock()
		if err := l.SetDeadline(time.Now().Add(socketCheck)); err != nil {
			return nil, err
		}
		c, err := l.Accept()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return c, err
		}
		s.renew()
	}
}

// renew listens anew where the file is gone. What fails is tried again later.
func (s *socket) renew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := filepath.Join(s.dir, SocketName)
	now, err := os.Lstat(path)
	if s.closed || err == nil && os.SameFile(now, s.file) {
		return
	}
	l, file, err := openSocket(s.dir)
	if err != nil {
		return
	}
	_ = s.l.Close()
	s.l, s.file = l, file
}

// Close implements net.Listener.
func (s *socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return s.l.Close()
}

// Addr implements net.Listener.
func (s *socket) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.l.Addr()
}
