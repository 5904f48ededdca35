package cli

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// harden gives up what the service never needs, however it was started: other processes
// of its user can then neither trace it nor read its memory and environment, and no
// core is written. Unless it runs commands of the operator, some of which need it
// (sendmail's queue belongs to another group), no program can give it more rights.
// What the kernel refuses is left as it is: the service works without.
//
// Landlock is not used, not even where no command would inherit it: a data directory
// that is mounted again, from which the service recovers by itself, would then be
// read-only for it. What it would forbid, the unit and the image forbid already.
func harden(runsCommands bool) {
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	if !runsCommands {
		// Each thread has its own. With cgo, which no release has, it is not possible.
		_, _, _ = syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
	}
}
