package queue

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What a connection to NATS could not deliver is not delivered later: not after it was
// closed, and not when the peer takes nothing for longer than a publish is tried.
func TestAConnectionDeliversNothingLate(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := newDialer().Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var within int
	if err := errors.Join(raw.Control(func(fd uintptr) { within, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT) }), err); err != nil {
		t.Fatal(err)
	}
	if d := time.Duration(within) * time.Millisecond; d != storeWithin {
		t.Errorf("the kernel tries for %s", d)
	}
	written := 0
	for more := make([]byte, 64<<20); ; { // more than sockets hold
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second / 4))
		n, err := conn.Write(more)
		if written += n; err == nil {
			t.Fatal("the sockets hold all of it")
		}
		if n == 0 && written > 0 {
			break
		}
	}
	_ = conn.Close()
	read, err := io.Copy(io.Discard, peer)
	if !errors.Is(err, syscall.ECONNRESET) || read >= int64(written) {
		t.Errorf("%d bytes of %d came after the connection was closed, %v", read, written, err)
	}
}
