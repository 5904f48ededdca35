package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store/event"
)

// terminal is a pseudo-terminal of so many columns: what is written to tty can be read
// from screen.
func terminal(t *testing.T, columns uint16) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there are no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { _ = screen.Close() })
	err = unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tty.Close() })
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: columns}); err != nil {
		t.Fatal(err)
	}
	return screen, tty
}

// held is a service that Callgoose refuses, with a long error and a long name.
func held(t *testing.T) string {
	t.Helper()
	at := time.Now().Add(-time.Hour)
	s := admin.Status{Queued: 3, OldestQueuedAt: &at, Version: "1", Sources: []admin.PMM{{Name: "pmm", LastHeardAt: &at}}}
	s.Callgoose = admin.Callgoose{State: event.Held, Since: &at, LastError: "callgoose answered 401 " + strings.Repeat("and said why ", 20)}
	s.StillFiring = []admin.Waiting{{Severity: "critical", Name: strings.Repeat("Größe ", 40), Count: 3}}
	s.Store = admin.Store{Accepting: true, MaxBytes: 1}
	s.Conclude()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/v1/events") {
			_, _ = io.WriteString(w, `[{"id":"e1","status":"firing","alertname":"MySQL down","outcome":"dead","last_error":"`+strings.Repeat("x", 200)+`","labels":{}}]`)
			return
		}
		_ = json.NewEncoder(w).Encode(s)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

var escapes = regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]")

func TestATerminalGetsColourAndTablesOfItsWidth(t *testing.T) {
	url := held(t)
	for _, c := range []struct {
		name, command string
		environ       []string
		colour        string // "" = none at all
	}{
		{"status", "status", nil, red + "Callgoose refuses"},
		{"status without colour", "status", []string{"NO_COLOR=1"}, ""},
		{"status on a dumb terminal", "status", []string{"TERM=dumb"}, ""},
		{"a list", "events list", nil, red + "dead"},
	} {
		t.Run(c.name, func(t *testing.T) {
			screen, tty := terminal(t, 60)
			shown := make(chan string)
			go func() {
				b, _ := io.ReadAll(screen) // ends with an error when the terminal closes
				shown <- string(b)
			}()
			var stderr bytes.Buffer
			args := append([]string{"pmm-callgoose"}, strings.Fields(c.command)...)
			if code := Main(append(args, "--admin-url", url), append(c.environ, "HOME=/nonexistent"), tty, &stderr); code != 0 {
				t.Fatalf("%d: %s", code, &stderr)
			}
			_ = tty.Close()
			out := <-shown
			if c.colour != "" && !strings.Contains(out, c.colour) || c.colour == "" && strings.Contains(out, "\x1b") {
				t.Errorf("colour %q in %q", c.colour, out)
			}
			_, table, _ := strings.Cut(out, "\r\n\r\n") // behind headline and ways out
			if c.command != "status" {
				table = out
			}
			cut := 0
			for line := range strings.SplitSeq(table, "\r\n") {
				n := utf8.RuneCountInString(escapes.ReplaceAllString(line, ""))
				if n > 60 {
					t.Errorf("%d characters: %q", n, line)
				}
				if n == 60 && strings.Contains(line, "…") {
					cut++
				}
			}
			if cut == 0 {
				t.Errorf("no line was cut: %q", table)
			}
		})
	}
}

func TestStatusIsWatchedOnATerminalUntilItIsInterrupted(t *testing.T) {
	url := held(t)
	screen, tty := terminal(t, 100)
	code := make(chan int, 1)
	go func() {
		code <- Main([]string{"pmm-callgoose", "status", "--watch", "--admin-url", url}, []string{"HOME=/nonexistent"}, tty, io.Discard)
		_ = tty.Close()
	}()
	var out []byte
	for buf := make([]byte, 4096); bytes.Count(out, []byte("\x1b[H\x1b[2J")) < 2; { // it is drawn again
		n, err := screen.Read(buf)
		if err != nil {
			t.Fatalf("%v after %q", err, out)
		}
		out = append(out, buf[:n]...)
	}
	if !bytes.Contains(out, []byte("Ctrl-C ends it")) || !bytes.Contains(out, []byte("everything is held")) {
		t.Errorf("shown: %q", out)
	}
	go func() { _, _ = io.Copy(io.Discard, screen) }()
	if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if got := <-code; got != 0 {
		t.Errorf("it ended with %d", got)
	}
}
