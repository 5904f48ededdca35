package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// A shared ledger is a copy of a log, so no commit waits for the disk: an fsync follows
// within a second, and tells of a disk that fails. If we die
//
//	the process alone           the kernel has all that was written, in order
//	the machine, or its power   the disk has some of it; a page that is merely old has a
//	                            true check sum, so the file is moved aside, and the copy is
//	                            made again from the snapshot and the log
//	after Close                 the disk has it
//
// What tells these apart is a file that is there while the ledger is open, and says in
// which run of the machine it was opened.
const (
	unsyncedName = "ledger.unsynced"
	syncEvery    = time.Second
)

// bootID identifies a run of the machine. Other systems than Linux have none.
var bootID = "/proc/sys/kernel/random/boot_id"

var errStopped = errors.New("the machine stopped while the file was written without fsync")

// stopped moves a ledger aside of which the disk may have got only some of what was
// written. One that is no copy is never that.
func (c Config) stopped() error {
	path := filepath.Join(c.Dir, unsyncedName)
	was, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !c.Shared:
		return os.Remove(path)
	}
	if boot, err := os.ReadFile(bootID); err == nil && bytes.Equal(was, boot) {
		return nil
	}
	if err := c.aside(errStopped); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return c.synced()
}

// unsynced reports whether commits need not wait for the disk, and leaves the file that
// says so.
func (c Config) unsynced() (bool, error) {
	boot, err := os.ReadFile(bootID)
	if !c.Shared || c.NoSync || err != nil {
		return false, nil //nolint:nilerr // where there is none, they wait
	}
	f, err := os.OpenFile(filepath.Join(c.Dir, unsyncedName), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return false, err
	}
	_, err = f.Write(boot)
	return true, errors.Join(err, f.Sync(), f.Close(), SyncDir(c.Dir))
}

// synced says that the disk has the ledger as it is.
func (c Config) synced() error {
	return errors.Join(SyncDir(c.Dir), os.Remove(filepath.Join(c.Dir, unsyncedName)), SyncDir(c.Dir))
}

// keepSynced syncs what was committed, until the ledger is closed.
func (s *Store) keepSynced() {
	tick := time.NewTicker(syncEvery)
	defer tick.Stop()
	for done := s.Changes(); ; {
		select {
		case <-tick.C:
		case <-s.stop:
			return
		}
		now := s.Changes()
		if now == done {
			continue
		}
		if err := s.sync(); err != nil {
			s.fail(err)
			return
		}
		done = now
	}
}

// sync makes the disk have what was committed. When it failed once nobody knows what the
// disk has, also when it does not fail again: the file is not to be trusted in this run of
// the machine either.
func (s *Store) sync() error {
	if s.torn != nil {
		return s.torn
	}
	if err := s.db.Sync(); err != nil {
		err = errors.Join(err, os.Truncate(filepath.Join(s.cfg.Dir, unsyncedName), 0))
		s.torn = fmt.Errorf("%w: sync the copy of the ledger: %w", ErrFailed, err)
	}
	return s.torn
}
