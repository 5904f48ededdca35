package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestOthersCannotWriteTheDataDirectory(t *testing.T) {
	for mode, want := range map[os.FileMode]os.FileMode{0o700: 0o700, 0o755: 0o755, 0o777: 0o755, 0o770: 0o750, 0o777 | os.ModeSticky: 0o755 | os.ModeSticky} {
		dir := t.TempDir()
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if err := guardDataDir(dir, true); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
		if info, err := os.Stat(dir); err != nil || info.Mode()&^os.ModeDir != want {
			t.Errorf("%s became %s, want %s", mode, info.Mode(), want)
		}
	}
	if err := guardDataDir(filepath.Join(t.TempDir(), "not-yet"), true); err != nil {
		t.Error(err)
	}
}

func TestADataDirectoryOfSomebodyElse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	for _, tt := range []struct {
		name string
		mode os.FileMode
		gid  int
		ok   bool
	}{
		{"the volume of a pod", 0o775 | os.ModeSetgid, os.Getegid(), true},
		{"another group may write it", 0o775, 54321, false},
		{"everybody may write it", 0o777, os.Getegid(), false},
		{"nobody else may write it", 0o755, 54321, true},
	} {
		dir := t.TempDir()
		if err := errors.Join(os.Chown(dir, 54321, tt.gid), os.Chmod(dir, tt.mode)); err != nil {
			t.Fatal(err)
		}
		if err := guardDataDir(dir, true); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestRootDoesNotServeOnTheDirectoryOfAnother(t *testing.T) {
	dir := t.TempDir()
	const serve, systemctl = "pmm-callgoose serve", "sudo systemctl start pmm-callgoose"
	for _, tt := range []struct {
		name       string
		owner, uid int
		unit       bool
		want       string // "" = it may
	}{
		{"root's own", 0, 0, true, ""},
		{"the service's, and it is the service", 54321, 54321, true, ""},
		{"the service's, and a unit runs it", 54321, 0, true, systemctl},
		{"the service's, and no unit runs it", 54321, 0, false, "sudo -u '#54321' " + serve},
		{"of somebody with a name", 65534, 0, false, "runuser -u nobody -- " + serve},
	} {
		if err := os.Chown(dir, tt.owner, -1); err != nil {
			t.Skip("only root can give a directory away")
		}
		err := refuseRoot(dir, tt.uid, tt.unit, "serve")
		if _, usage := errors.AsType[usageError](err); usage != (tt.want != "") || usage && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if err := refuseRoot(filepath.Join(dir, "not-yet"), 0, false, "serve"); err != nil {
		t.Error(err)
	}
}

func TestOnlyFilesAreTakenForWhatIsStored(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(elsewhere, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ledger.db", "lock", "jetstream", "jetstream/streams/1.blk"} {
		for want, put := range map[string]func(path string) error{
			"":                               func(path string) error { return os.WriteFile(path, nil, 0o600) },
			"symbolic link":                  func(path string) error { return os.Symlink(elsewhere, path) },
			"neither a file nor a directory": func(path string) error { return syscall.Mkfifo(path, 0o600) },
		} {
			dir := t.TempDir()
			path := filepath.Join(dir, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), put(path)); err != nil {
				t.Fatal(err)
			}
			err := guardDataDir(dir, true)
			if text := fmt.Sprint(err); want == "" && err != nil || !strings.Contains(text, want) || err != nil && !strings.Contains(text, path) {
				t.Errorf("%s, %q: %v", name, want, err)
			}
		}
	}
}
