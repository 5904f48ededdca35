package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// lockName is the file whose lock is that of the whole data directory. It is
// never renamed or deleted: whoever deletes the ledger does not let a second
// process in.
const lockName = "lock"

// Lock is the hold on a data directory. The kernel gives it back when the
// process dies, however it dies.
type Lock struct{ f *os.File }

// LockDir takes the lock of a data directory, which it makes when it is not
// there. ErrLocked when another process holds it, after a second.
func LockDir(dir string) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	path := filepath.Join(dir, lockName)
	for end := time.Now().Add(time.Second); ; time.Sleep(20 * time.Millisecond) {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock the data directory: %w", err)
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil && sameFile(f) {
			return &Lock{f}, nil
		}
		_ = f.Close()
		switch {
		case err == nil: // somebody put another file in its place
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return nil, fmt.Errorf("lock %s: %w", path, err)
		case time.Now().After(end):
			return nil, fmt.Errorf("%w: %s", ErrLocked, dir)
		}
	}
}

// Unlock gives it back.
func (l *Lock) Unlock() { _ = l.f.Close() }

// sameFile reports whether f still stands under its name.
func sameFile(f *os.File) bool {
	own, err1 := f.Stat()
	named, err2 := os.Stat(f.Name())
	return err1 == nil && err2 == nil && os.SameFile(own, named)
}
