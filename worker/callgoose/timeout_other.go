//go:build !linux

package callgoose

import (
	"syscall"
	"time"
)

// setTimeout is for Linux only.
func setTimeout(syscall.RawConn, time.Duration) error { return nil }
