package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// ErrMoved says that what a data directory holds is elsewhere now, or not all there yet.
var ErrMoved = errors.New("this data directory cannot be served")

// Files that say so, for Mark. Adopted: the directory's contents are on NATS servers.
// Leaving: they are being brought here from there.
const (
	Adopted = "ADOPTED"
	Leaving = "LEAVING"
)

// Moved says why nothing may be served from a directory, nil when it may: ErrMoved, with
// the way out.
func Moved(dir string) error {
	for name, why := range map[string]string{
		Adopted: "its contents are on NATS servers since pmm-callgoose cluster adopt; serve with --nats-url and another --data-dir, or bring them back with pmm-callgoose cluster leave",
		Leaving: "pmm-callgoose cluster leave did not end here; run it again",
	} {
		switch _, err := os.Lstat(filepath.Join(dir, name)); {
		case err == nil:
			return fmt.Errorf("%w: %s (%s): %s", ErrMoved, dir, name, why)
		case !errors.Is(err, os.ErrNotExist):
			return fmt.Errorf("look for %s: %w", name, err)
		}
	}
	return nil
}

// Mark puts one of those files into a directory, durably, or takes it away.
func Mark(dir, name string, there bool) error {
	path := filepath.Join(dir, name)
	var err error
	if there {
		err = os.WriteFile(path, nil, 0o600)
	} else if err = os.Remove(path); errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("mark %s: %w", dir, err)
	}
	return SyncDir(dir)
}

// ClearLeaving removes what an interrupted move left in a directory. It refuses a
// directory that holds anything else. The caller holds its Lock.
func ClearLeaving(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look into the data directory: %w", err)
	}
	_, err = os.Lstat(filepath.Join(dir, Leaving))
	for _, e := range entries {
		switch {
		case slices.Contains([]string{lockName, Leaving, "lost+found"}, e.Name()):
		case err != nil:
			return fmt.Errorf("%w: %s is not empty; name a directory that is", ErrMoved, dir)
		default:
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("clear the data directory: %w", err)
			}
		}
	}
	return nil
}
