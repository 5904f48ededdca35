package alarm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func notice() Notice {
	return Notice{Alarm: Away, LastedSeconds: 300, Queued: 2, At: epoch, Text: quotable("Callgoose cannot be reached (no 'answer' $(id)).")}
}

func body() []byte {
	b, _ := json.Marshal(notice())
	return b
}

func TestCommandGetsTheNoticeAndNoSecrets(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PMM_CALLGOOSE_CALLGOOSE_TOKEN", "hush")
	t.Setenv("PMM_CALLGOOSE_ALARM", "stale")
	t.Setenv("CREDENTIALS_DIRECTORY", "/run/hush")
	t.Setenv("CREDENTIALS_DIRECTORY_NAME", "kept")
	line := fmt.Sprintf(`cat >%[1]s/stdin; env >%[1]s/env; printf %%s "$PMM_CALLGOOSE_ALARM $PMM_CALLGOOSE_ALARM_OVER $PMM_CALLGOOSE_ALARM_TEXT" >%[1]s/vars`, dir)
	n := notice()
	a := New(Config{Command: line})
	if !a.try(t.Context(), a.ways[0], n) {
		t.Fatal("nobody was told")
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	var got Notice
	if err := json.Unmarshal([]byte(read("stdin")), &got); err != nil || got.Text != n.Text || got.Queued != 2 {
		t.Errorf("stdin: %v, %+v", err, got)
	}
	if vars := read("vars"); vars != Away+" false "+n.Text {
		t.Errorf("vars: %s", vars)
	}
	if env := read("env"); strings.Contains(env, "hush") || strings.Contains(env, "stale") ||
		!strings.Contains(env, "CREDENTIALS_DIRECTORY_NAME=kept") || !strings.Contains(env, "PATH=") {
		t.Errorf("environment:\n%s", env)
	}
}

// The texts are those of alerts, and a script may put them between quotation marks.
func TestACommandsVariablesEndNoQuotation(t *testing.T) {
	file := filepath.Join(t.TempDir(), "said")
	list := Ways(nil, nil, `sh -c "printf %s \"$SAID\" >`+file+`; printf %s '$SAID' >>`+file+`"`, time.Minute)
	if err := list[0].Send(t.Context(), nil, "SAID=- db'1\"; `id` $(id) \\"); err != nil {
		t.Fatal(err)
	}
	if said, err := os.ReadFile(file); err != nil || string(said) != strings.Repeat("- db’1”; ’id’ ＄(id) /", 2) {
		t.Errorf("it said %q, %v", said, err)
	}
}

func TestCommandThatFails(t *testing.T) {
	tests := []struct{ name, line, want string }{
		{"says why", "echo no route >&2; exit 3", "run command: exit status 3: no route"},
		{"takes too long", "sleep 1000", "run command: killed after 200ms"},
		{"ignores what it is told, and its input", "true", ""},
		{"leaves a child with our pipes open", "setsid -f sleep 3 >&2; exit 0", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := exec.LookPath("setsid"); err != nil && strings.Contains(tt.line, "setsid") {
				t.Skip("no setsid here")
			}
			timeout := 200 * time.Millisecond
			if !strings.Contains(tt.want, "killed") {
				timeout = 30 * time.Second
			}
			err := runCommand(t.Context(), tt.line, timeout, body())
			if got := fmt.Sprint(err); (err == nil) != (tt.want == "") || err != nil && got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// A stop leaves no process behind: end of file comes only when the last one
// that holds the pipe is gone.
func TestStopKillsTheWholeGroup(t *testing.T) {
	for _, tt := range []struct{ name, line string }{
		{"while the command runs", "exec 3>%s; sleep 1000 & echo started >&3; wait"},
		{"what the command left behind", "exec 3>%s; sleep 1000 2>/dev/null </dev/null & echo started >&3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fifo := filepath.Join(t.TempDir(), "fifo")
			if err := syscall.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			a := New(Config{Command: fmt.Sprintf(tt.line, fifo), After: time.Nanosecond, Every: time.Millisecond, Status: outage})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() { defer close(ended); a.Run(ctx) }()
			f, err := os.Open(fifo) // waits for the writer
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := io.ReadFull(f, make([]byte, len("started\n"))); err != nil {
				t.Fatal(err)
			}
			cancel()
			<-ended
			if _, err := io.ReadAll(f); err != nil {
				t.Fatal(err)
			}
		})
	}
}

const secret = "s3cr3t"

func TestWebhook(t *testing.T) {
	var status atomic.Int32
	var elsewhere atomic.Int32
	bodies := make(chan string, 10)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			elsewhere.Add(1)
			return
		}
		b, _ := io.ReadAll(r.Body)
		bodies <- r.Method + " " + r.Header.Get("Content-Type") + " " + string(b)
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(int(status.Load()))
		_, _ = io.WriteString(w, "you came to "+r.URL.String())
	}))
	defer srv.Close()
	h := NewHook(func() string { return srv.URL + "/" + secret + "?key=" + secret }, nil, hookTimeout)
	for code, want := range map[int32]string{
		200: "", 204: "", 302: "call webhook: answered 302: redirects are not followed",
		307: "call webhook: answered 307: redirects are not followed", 404: "call webhook: answered 404 Not Found", 503: "call webhook: answered 503 Service Unavailable",
	} {
		status.Store(code)
		err := h.Call(t.Context(), http.MethodPost, body())
		if got := fmt.Sprint(err); (err == nil) != (want == "") || err != nil && got != want {
			t.Errorf("%d: got %q, want %q", code, got, want)
		}
		body, ok := strings.CutPrefix(<-bodies, "POST application/json ")
		var n Notice
		if err := json.Unmarshal([]byte(body), &n); !ok || err != nil || n.Alarm != Away {
			t.Errorf("%d: body %s", code, body)
		}
	}
	if elsewhere.Load() != 0 {
		t.Error("a redirect was followed")
	}
}

// Whoever answers does not choose how much memory that takes.
func TestLittleIsReadOfTheHeadOfAnAnswer(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for i := range 1000 {
			w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", 100))
		}
	}))
	defer srv.Close()
	if err := NewHook(func() string { return srv.URL }, nil, hookTimeout).Call(t.Context(), http.MethodGet, nil); err == nil {
		t.Error("it was read")
	}
}

type failing struct{ err error }

func (f failing) RoundTrip(*http.Request) (*http.Response, error) { return nil, f.err }

func TestWebhookErrorsHoldNoSecret(t *testing.T) {
	hang := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-hang
	}))
	defer slow.Close()
	defer close(hang)
	tlsServer := httptest.NewTLSServer(http.NotFoundHandler())
	defer tlsServer.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	tests := []struct {
		name, url string
		transport http.RoundTripper
		want      string
	}{
		{"nobody listens", "http://" + l.Addr().String(), nil, "connection refused"},
		{"no answer", slow.URL, nil, "no answer in time"},
		{"a certificate nobody knows", tlsServer.URL, nil, "TLS handshake failed: x509: certificate signed by unknown authority"},
		{"TLS to a plain port", strings.Replace(slow.URL, "http:", "https:", 1), nil, ""},
		{"a host that is none", "http://nowhere.invalid", nil, ""},
		{"no scheme we know", "gopher://host", nil, "the request failed"},
		{"not a URL", "http://host:port", nil, "its URL is not valid"},
		{"an error that tells everything", "http://host", failing{errors.New("invalid proxy http://u:" + secret + "@p")}, "the request failed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			timeout := time.Minute
			if tt.want == "no answer in time" {
				timeout = time.Second
			}
			h := NewHook(func() string {
				return strings.Replace(tt.url, "://", "://user:"+secret+"@", 1) + "/" + secret + "?k=" + secret
			}, tt.transport, timeout)
			err := h.Call(t.Context(), http.MethodPost, body())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %s", err, tt.want)
			}
			if strings.Contains(err.Error(), secret) || strings.Contains(fmt.Sprintf("%#v", err), secret) {
				t.Errorf("the secret is in %v", err)
			}
		})
	}
}

func TestEnviron(t *testing.T) {
	got := environ([]string{"A=1", "PMM_CALLGOOSE_X=2", "CREDENTIALS_DIRECTORY=3", "XPMM_CALLGOOSE_X=4", "B=PMM_CALLGOOSE_=5"})
	if want := []string{"A=1", "XPMM_CALLGOOSE_X=4", "B=PMM_CALLGOOSE_=5"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}
