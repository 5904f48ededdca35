package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// directories makes the names of the embedded server's files durable. A file's own
// fsync does that on ext4, xfs and btrfs, but not everywhere. The zero value is
// that of an external queue and does nothing.
type directories struct {
	msgs string // where blocks appear
	off  bool
	at   time.Time // when msgs was last changed before it was fsynced
}

// tick is the resolution of the times that a file system keeps, at most. A
// directory that changed that recently may change again without a new time.
const tick = 20 * time.Millisecond

// sync fsyncs the blocks' directory if a name in it may have changed.
func (d *directories) sync() error {
	if d.msgs == "" || d.off {
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
	if err := syncDir(d.msgs); err != nil {
		return err
	}
	if time.Since(changed).Abs() > tick {
		d.at = changed
	}
	return nil
}

// syncAll fsyncs the data directory, and all directories of the server in it.
func (d *directories) syncAll(dir string) error {
	if d.off {
		return nil
	}
	err := filepath.WalkDir(filepath.Join(dir, "jetstream"), func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return syncDir(name)
	})
	return errors.Join(err, syncDir(dir))
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("fsync directory %s: %w", name, err)
	}
	return nil
}
