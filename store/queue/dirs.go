package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"pmm-callgoose/store"
)

// directories makes the names of the embedded server's files durable. A file's own
// fsync does that on ext4, xfs and btrfs, but not everywhere. The zero value is
// that of an external queue and does nothing.
type directories struct {
	msgs string    // where blocks appear
	at   time.Time // when msgs was last changed before it was fsynced
}

// tick is the resolution of the times that a file system keeps, at most. A
// directory that changed that recently may change again without a new time.
const tick = 20 * time.Millisecond

// sync fsyncs the blocks' directory if a name in it may have changed.
func (d *directories) sync() error {
	if d.msgs == "" {
		return nil
	}
	info, err := os.Stat(d.msgs)
	if err != nil {
		return fmt.Errorf("directory of the blocks: %w", err)
	}
	changed := info.ModTime()
	if changed.Equal(d.at) {
		return nil
	}
	if err := store.SyncDir(d.msgs); err != nil {
		return err
	}
	if time.Since(changed).Abs() > tick {
		d.at = changed
	}
	return nil
}

// Sync makes an embedded queue durable that was opened with NoSync, after Close.
func Sync(dir string) error { return syncTree(dir, true) }

// syncTree fsyncs the data directory and the server's directories in it, and with files
// all that stands in them.
func syncTree(dir string, files bool) error {
	err := filepath.WalkDir(filepath.Join(dir, "jetstream"), func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() && !files {
			return err
		}
		return store.SyncDir(name)
	})
	return errors.Join(err, store.SyncDir(dir))
}
