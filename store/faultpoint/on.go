//go:build faultpoint

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
	name, at, _ = strings.Cut(os.Getenv("FAULTPOINT"), "@") //nolint:forbidigo // only in builds for tests
	left        atomic.Int64
)

func init() {
	n, _ := strconv.ParseInt(at, 10, 64)
	left.Store(n)
}

// Here dies when it is the moment to die at: nothing that follows happens, and
// what other goroutines do at this time ends where it is.
func Here(moment string) {
	if moment == name && left.Add(-1) == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

// NoSync reports whether the queue should leave out its fsyncs.
func NoSync() bool { return os.Getenv("FAULTPOINT_NOSYNC") != "" } //nolint:forbidigo // only in builds for tests

// StaleReads reports whether reads are answered by replicas that lag behind.
func StaleReads() bool { return os.Getenv("FAULTPOINT_STALE_READS") != "" } //nolint:forbidigo // only in builds for tests

// Often is a period, shortened: a test cannot wait for it.
func Often(d time.Duration) time.Duration { return d / 50 }
