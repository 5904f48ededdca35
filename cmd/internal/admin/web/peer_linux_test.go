package web

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"pmm-callgoose/cmd/internal/admin"
)

// dialAs connects to addr with a socket of another user. Only root can.
func dialAs(t *testing.T, uid int, addr string) net.Conn {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can make a socket of another user")
	}
	runtime.LockOSThread() // whose user it is
	defer runtime.UnlockOSThread()
	if err := unix.Setfsuid(uid); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", addr)
	if back := unix.Setfsuid(0); err != nil || back != nil {
		t.Fatal(err, back)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// act is a call that its sender means, by the header or as a page of this service does.
func act(method, path, header string) string {
	return method + " " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n" + header + "\r\n\r\n"
}

// Whoever else is on this machine may look, and change nothing without the token.
func TestAnotherUserOfThisMachineChangesNothing(t *testing.T) {
	const drop = "/api/v1/dead-letters/drop?all=1"
	for name, c := range map[string]struct {
		uid     int
		listen  string
		token   string
		request string
		want    int
		drops   int
	}{
		"another user's command":           {1234, "127.0.0.1:0", "", act("POST", drop, admin.Intent+": 1"), 403, 0},
		"another user's page":              {1234, "127.0.0.1:0", "", act("POST", "/dead-letters/drop?all=1", "Sec-Fetch-Site: same-origin"), 403, 0},
		"another user over IPv6":           {1234, "[::1]:0", "", act("POST", drop, admin.Intent+": 1"), 403, 0},
		"users that are not told apart":    {nobody, "127.0.0.1:0", "", act("POST", drop, admin.Intent+": 1"), 403, 0},
		"another user who looks":           {1234, "127.0.0.1:0", "", act("GET", "/api/v1/events", "Accept: */*"), 200, 0},
		"another user who has the token":   {1234, "127.0.0.1:0", opsToken, act("POST", drop, "Authorization: Bearer "+opsToken), 200, 1},
		"root":                             {0, "127.0.0.1:0", "", act("POST", drop, admin.Intent+": 1"), 200, 1},
		"root over IPv6":                   {0, "[::1]:0", "", act("POST", drop, admin.Intent+": 1"), 200, 1},
		"root, as IPv4 to an IPv6 address": {0, "[::]:0", "", act("POST", drop, admin.Intent+": 1"), 200, 1},
	} {
		t.Run(name, func(t *testing.T) {
			m := some(3)
			cfg := Config{Source: m, Replayer: m}
			if c.token != "" {
				cfg.Token = func() string { return c.token }
			}
			srv := httptest.NewUnstartedServer(New(cfg))
			_ = srv.Listener.Close()
			var err error
			if srv.Listener, err = net.Listen("tcp", c.listen); err != nil {
				t.Skip(err)
			}
			srv.Start()
			defer srv.Close()
			conn := dialAs(t, c.uid, strings.Replace(srv.Listener.Addr().String(), "[::]", "127.0.0.1", 1))
			if _, err := io.WriteString(conn, c.request); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != c.want || len(m.drops) != c.drops {
				t.Errorf("%d, %d drops: %s", resp.StatusCode, len(m.drops), body)
			}
			if c.want == 403 && !strings.Contains(string(body), "--admin-token-file") {
				t.Errorf("no way out is told: %s", body)
			}
		})
	}
}

// The kernel shows a connection whose client closed it, and whose end is known at the
// other side, as root's.
func TestWhoClosesTheConnectionIsNotRoot(t *testing.T) {
	m := some(3)
	var code int
	h := New(Config{Source: m, Replayer: m})
	closed, done := make(chan struct{}), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		defer close(done)
		<-closed
		for !rootsByNow(t, r.RemoteAddr) {
			runtime.Gosched()
		}
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, r)
		code = answer.Code
	}))
	defer srv.Close()
	conn := dialAs(t, 1234, srv.Listener.Addr().String())
	if _, err := io.WriteString(conn, act("POST", "/api/v1/dead-letters/drop?all=1", admin.Intent+": 1")); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	close(closed)
	<-done
	if code != 403 || len(m.drops) > 0 {
		t.Errorf("%d, %d drops", code, len(m.drops))
	}
}

// rootsByNow reports whether the kernel shows a client's end as closed and root's, or
// not at all any more.
func rootsByNow(t *testing.T, client string) bool {
	text, err := os.ReadFile("/proc/self/net/tcp")
	if err != nil {
		t.Error(err)
		return true
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); addrPort(f[1]).String() == client {
			return f[7] == "0"
		}
	}
	return true
}
