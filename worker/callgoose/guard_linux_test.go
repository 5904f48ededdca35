package callgoose

import (
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel does not go on delivering what the service gave up.
func TestTheKernelGivesUpWhenTheRequestDoes(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const timeout = 7 * time.Second
	conn, err := guarded(func() bool { return true }, timeout)(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(guardedConn).Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var within int
	if err := errors.Join(raw.Control(func(fd uintptr) { within, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT) }), err); err != nil {
		t.Fatal(err)
	}
	if d := time.Duration(within) * time.Millisecond; d != timeout {
		t.Errorf("the kernel tries for %s", d)
	}
}
