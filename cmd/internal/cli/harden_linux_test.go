package cli

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The process cannot be traced, on no thread gains rights, and reads what it needs of
// itself.
func TestTheServiceGivesUpRights(t *testing.T) {
	defer func() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }()
	privileged := func() (n int) {
		threads, err := filepath.Glob("/proc/self/task/*/status")
		if err != nil || len(threads) == 0 {
			t.Skip("there is no /proc")
		}
		for _, name := range threads {
			if text, err := os.ReadFile(name); err == nil && strings.Contains(string(text), "NoNewPrivs:\t0") {
				n++
			}
		}
		return n
	}
	before := privileged()
	harden(true)
	if after := privileged(); (after == 0) != (before == 0) {
		t.Errorf("%d of %d threads may gain rights, and the operator's commands need them", after, before)
	}
	if n, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); n != 0 || err != nil {
		t.Errorf("dumpable is %d, %v", n, err)
	}
	if list, err := os.ReadDir("/proc/self/fd"); err != nil || len(list) < 3 {
		t.Errorf("it cannot see its own descriptors: %v", err)
	}
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); errno == syscall.ENOTSUP {
		t.Skip("built with cgo")
	}
	harden(false)
	if n := privileged(); n != 0 {
		t.Errorf("%d threads may gain rights", n)
	}
}
