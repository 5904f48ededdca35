package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"pmm-callgoose/cmd/internal/config"
)

// refuseRoot keeps root's files out of a service's own directory: the service could
// not read them, and would not start again. command is what should run as its owner.
func refuseRoot(dir string, uid int, unit bool, command string) error {
	var st syscall.Stat_t
	_ = syscall.Stat(dir, &st) // a missing directory will be made, or is refused later
	if uid != 0 || st.Uid == 0 {
		return nil
	}
	owner := "user " + strconv.Itoa(int(st.Uid))
	instead := fmt.Sprintf("sudo -u '#%d' pmm-callgoose %s", st.Uid, command)
	if u, err := user.LookupId(strconv.Itoa(int(st.Uid))); err == nil {
		owner, instead = u.Username, fmt.Sprintf("runuser -u %s -- pmm-callgoose %s", u.Username, command)
	}
	if unit {
		instead = startUnit
	}
	return usagef("--data-dir: %s belongs to %s, who could not read what root writes there; instead: %s", dir, owner, instead)
}

const startUnit = "sudo systemctl start pmm-callgoose"

// unitInstalled tells whether systemd runs the service of a data directory.
func unitInstalled(dir string) bool {
	return dir == config.Var && slices.ContainsFunc([]string{"/etc", "/usr/lib", "/lib"}, func(at string) bool {
		_, err := os.Stat(filepath.Join(at, "systemd/system/pmm-callgoose.service"))
		return err == nil
	})
}

// guardDataDir makes sure that no other user can replace the files in the data
// directory. If others may write a directory of this user, it is closed to them; a
// directory of another user is refused, unless only a group of this user may write it:
// a pod gets its volume so, owned by root with the group that fsGroup names. Without
// repair nothing is changed.
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
		if err := filepath.WalkDir(filepath.Join(dir, name), onlyFiles); err != nil {
			return err
		}
	}
	return nil
}

// onlyFiles refuses what is no file and no directory of this data directory. What cannot
// be read, or is gone by now, is not refused here.
func onlyFiles(path string, entry fs.DirEntry, err error) error {
	switch {
	case err != nil, entry.Type().IsRegular(), entry.IsDir():
		return nil //nolint:nilerr // the service says it when it opens the file
	case entry.Type() == fs.ModeSymlink:
		return usagef("--data-dir: %s is a symbolic link, which is not followed; move the file itself there", path)
	}
	return usagef("--data-dir: %s is neither a file nor a directory; move it away", path) // opening a named pipe waits for ever
}
