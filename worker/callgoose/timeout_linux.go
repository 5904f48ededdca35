package callgoose

import (
	"errors"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// setTimeout makes the kernel give up a connection that could not deliver for that long.
func setTimeout(c syscall.RawConn, within time.Duration) (err error) {
	failed := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(within.Milliseconds()))
	})
	return errors.Join(failed, err)
}
