package queue

import (
	"time"

	"golang.org/x/sys/unix"
)

// limitUnsent ends a connection whose peer has not taken what was sent for d.
func limitUnsent(fd int, d time.Duration) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
}
