package sdnotify

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestMessages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	n := New([]string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=30000000", fmt.Sprintf("WATCHDOG_PID=%d", os.Getpid())})
	if n.Watchdog() != 30*time.Second {
		t.Errorf("watchdog %s", n.Watchdog())
	}
	for _, c := range []struct {
		call func()
		want string
	}{
		{func() { n.Ready("up\nREADY=0") }, "READY=1\nSTATUS=up READY=0"},
		{func() { n.Stopping("bye") }, "STOPPING=1\nSTATUS=bye"},
		{func() { n.Status("3 waiting") }, "STATUS=3 waiting"},
		{n.Alive, "WATCHDOG=1"},
		{func() { n.Extend(90 * time.Second) }, "EXTEND_TIMEOUT_USEC=90000000"},
	} {
		c.call()
		b := make([]byte, 512)
		size, err := l.Read(b)
		if err != nil || string(b[:size]) != c.want {
			t.Errorf("sent %q (%v), want %q", b[:size], err, c.want)
		}
	}
}

func TestWithoutSystemd(t *testing.T) {
	n := New([]string{"HOME=/root", "WATCHDOG_USEC=1000"})
	if n != nil || n.Watchdog() != 0 {
		t.Errorf("a notifier without a socket: %+v", n)
	}
	n.Ready("") // must do nothing
	n = New([]string{"NOTIFY_SOCKET=/nonexistent/x", "WATCHDOG_USEC=1000", "WATCHDOG_PID=1"})
	if n.Watchdog() != 0 {
		t.Error("the watchdog of another process is ours")
	}
	n.Alive() // nobody listens: must not panic
}
