// Package sdnotify tells systemd how the service is: ready, stopping, alive, a
// line of status. Without systemd it does nothing. The protocol is one datagram
// a message, see sd_notify(3): too little to import a library for.
package sdnotify

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Notifier sends to the service manager. nil is one that has none, and all its
// methods do nothing. Safe concurrently.
type Notifier struct {
	addr     *net.UnixAddr
	watchdog time.Duration
}

// New reads what systemd put into the environment; nil when it put nothing.
func New(environ []string) *Notifier {
	env := map[string]string{}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		env[name] = value
	}
	path := env["NOTIFY_SOCKET"]
	if path == "" {
		return nil
	}
	// A leading @ is an abstract name; package net knows that notation too.
	n := &Notifier{addr: &net.UnixAddr{Name: path, Net: "unixgram"}}
	if pid := env["WATCHDOG_PID"]; pid == "" || pid == strconv.Itoa(os.Getpid()) {
		if us, err := strconv.ParseInt(env["WATCHDOG_USEC"], 10, 64); err == nil && us > 0 {
			n.watchdog = time.Duration(us) * time.Microsecond
		}
	}
	return n
}

// Watchdog is how long systemd waits for Alive before it kills the service; 0 = it never does.
func (n *Notifier) Watchdog() time.Duration {
	if n == nil {
		return 0
	}
	return n.watchdog
}

// Ready says that the start is over.
func (n *Notifier) Ready(status string) { n.send("READY=1", "STATUS="+status) }

// Stopping says that an orderly stop has begun.
func (n *Notifier) Stopping(status string) { n.send("STOPPING=1", "STATUS="+status) }

// Status is the line that systemctl status shows.
func (n *Notifier) Status(status string) { n.send("STATUS=" + status) }

// Alive feeds the watchdog.
func (n *Notifier) Alive() { n.send("WATCHDOG=1") }

// Extend asks for d more before the start, or the stop, counts as hanging.
func (n *Notifier) Extend(d time.Duration) {
	n.send(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", d.Microseconds()))
}

// send is best effort: systemd kills the service if it matters and never arrives.
func (n *Notifier) send(lines ...string) {
	if n == nil {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, n.addr)
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // its queue may be full
	for i, line := range lines {
		lines[i] = strings.ReplaceAll(line, "\n", " ") // a newline would begin another message
	}
	_, _ = conn.Write([]byte(strings.Join(lines, "\n")))
}
