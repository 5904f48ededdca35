package callgoose

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"
)

// errMayNot: whoever led here does not any more.
var errMayNot = errors.New("nothing may be sent any more")

// guarded dials connections that write only while they may. A process that was frozen in
// front of a write does not make it, and a kernel does not deliver later than within what
// was written.
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
