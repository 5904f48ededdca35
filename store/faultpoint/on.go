//go:build faultpoint

//nolint:forbidigo // the environment is read only in builds for tests
package faultpoint

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

var (
	name, at, _ = strings.Cut(os.Getenv("FAULTPOINT"), "@")
	left        atomic.Int64
	file        = os.Getenv("FAULTPOINT_FILE")
	without     = os.Getenv("FAULTPOINT_WITHOUT")
)

func init() {
	n, _ := strconv.ParseInt(at, 10, 64)
	left.Store(n)
}

// Here dies or freezes when it is the moment to: nothing that follows happens before
// somebody continues the process, and what other goroutines do at this time ends where
// it is.
func Here(moment string) {
	if moment == name && left.Add(-1) == 0 {
		die()
	}
	if file == "" {
		return
	}
	text, _ := os.ReadFile(file)
	what, at, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	if at != moment || os.Remove(file) != nil { // another goroutine, or process, was faster
		return
	}
	if what == "kill" {
		die()
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
}

func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// Without reports whether a check is left out.
func Without(check string) bool { return check == without }

// Often is a period, shortened: a test cannot wait for it.
func Often(d time.Duration) time.Duration { return d / 50 }

// Few is an amount, smaller: a test cannot make so much.
func Few(n int64) int64 { return n / 256 }
