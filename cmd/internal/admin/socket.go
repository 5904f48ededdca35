package admin

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// SocketName is the Unix socket in the data directory.
const SocketName = "admin.sock"

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

// ListenSocket opens the socket in the data directory, for its owner only. The
// caller holds the lock on the directory, so a socket that is there is stale. When
// the file is deleted later, it comes back.
func ListenSocket(dataDir string) (net.Listener, error) {
	l, file, err := openSocket(dataDir)
	if err != nil {
		return nil, err
	}
	return &socket{dir: dataDir, l: l, file: file}, nil
}

func openSocket(dataDir string) (*net.UnixListener, os.FileInfo, error) {
	path := filepath.Join(dataDir, SocketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, fmt.Errorf("remove the stale socket: %w", err)
	}
	short, done, err := shortPath(path)
	if err != nil {
		return nil, nil, err
	}
	defer done()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, nil, fmt.Errorf("open the operators' socket: %w", err)
	}
	l.SetUnlinkOnClose(false) // it may know a short name only
	err = os.Chmod(path, 0o600)
	file, statErr := os.Lstat(path)
	if err = errors.Join(err, statErr); err != nil {
		_ = l.Close()
		return nil, nil, fmt.Errorf("protect the operators' socket: %w", err)
	}
	return l, file, nil
}

// shortPath is another name for path that fits into the 108 bytes which the
// kernel allows for a socket's name. It is good until done is called.
func shortPath(path string) (short string, done func(), err error) {
	if len(path) < 100 {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), func() { _ = dir.Close() }, nil
}
