package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// guardDataDir makes sure that nobody else can put files of theirs in the place
// of ours. A directory of our own that others may write is closed to them; one of
// somebody else's is refused, unless only a group of ours may write it: so a pod
// gets its volume, root's with the group that fsGroup names. Without repair
// nothing is changed.
func guardDataDir(dir string, repair bool) error {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it will be made
	} else if err != nil {
		return fmt.Errorf("--data-dir: %w", err)
	}
	st, _ := info.Sys().(*syscall.Stat_t)
	groups, _ := os.Getgroups()
	mode := info.Mode().Perm()
	switch open := mode & 0o022; {
	case open == 0, st == nil:
	case int(st.Uid) == os.Geteuid() && !repair:
	case int(st.Uid) == os.Geteuid():
		if err := os.Chmod(dir, info.Mode()&^0o022); err != nil {
			return fmt.Errorf("close --data-dir to others: %w", err)
		}
	case open == 0o020 && slices.Contains(append(groups, os.Getegid()), int(st.Gid)):
	default:
		return usagef("--data-dir: other users may write %s (mode %04o); chmod 700 would stop that", dir, mode)
	}
	for _, name := range []string{"ledger.db", "lock", "jetstream"} {
		if info, err := os.Lstat(filepath.Join(dir, name)); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			return usagef("--data-dir: %s is a symbolic link, which is not followed; move the file itself there", filepath.Join(dir, name))
		}
	}
	return nil
}
