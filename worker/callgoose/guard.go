package callgoose

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"
)

// errMayNot is the error of a write that is no longer allowed.
var errMayNot = errors.New("nothing may be sent any more")

// guarded dials connections that write only while may allows it: a process that was frozen
// just before a write does not make it afterwards. What was written and could not be
// delivered within that time, the kernel throws away.
func guarded(may func() bool, within time.Duration) func(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second, Control: func(_, _ string, c syscall.RawConn) error {
		return setTimeout(c, within)
	}}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return guardedConn{c, may}, nil
	}
}

type guardedConn struct {
	net.Conn
	may func() bool
}

func (c guardedConn) Write(b []byte) (int, error) {
	if !c.may() {
		return 0, errMayNot
	}
	return c.Conn.Write(b)
}
