package app

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store/queue"
	"pmm-callgoose/worker/callgoose/callgoosetest"
)

// overNATSConfig is the configuration of a service whose store is at that port.
func overNATSConfig(t *testing.T, port string, flags ...string) *config.Config {
	t.Helper()
	fake, err := callgoosetest.New(callgoosetest.Config{}).Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fake.Close() })
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("any-t0ken"), 0o600); err != nil {
		t.Fatal(err)
	}
	set := map[string]string{
		"data-dir": t.TempDir(), "listen": "127.0.0.1:0", "admin-listen": "127.0.0.1:0", "callgoose-url": fake.URL(), "callgoose-token-file": token,
		"nats-url": "nats://127.0.0.1:" + port, "nats-replicas": "1",
	}
	for _, f := range flags {
		name, value, _ := strings.Cut(f, "=")
		set[name] = value
	}
	cfg, _, err := config.Load(config.Input{Flags: set, Serve: true})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// A service that is started before NATS runs, refuses webhooks with 503, says why, and
// goes on by itself as soon as NATS is there.
func TestAStartWithoutNATSWaitsForIt(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	number := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()

	ready := make(chan Addresses, 1)
	a, err := New(overNATSConfig(t, port), Options{Ready: func(addrs Addresses) { ready <- addrs }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	addrs := <-ready
	post := func() int {
		resp, err := http.Post(addrs.Webhooks, "application/json", strings.NewReader(string(webhook(t, "grafana-firing-group-5.json"))))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	if err := a.Ready(); err == nil {
		t.Error("it is ready without a store")
	}
	if code := post(); code != http.StatusServiceUnavailable {
		t.Errorf("a webhook was answered %d", code)
	}
	if s, err := a.Status(ctx); err != nil || s.Store.Accepting || !strings.Contains(s.Store.Problem, "nats") {
		t.Errorf("status says %+v, %v", s.Store, err)
	} else if !slices.ContainsFunc(s.Attention, func(a admin.Attention) bool { return a.Code == admin.NATSUnreachable }) {
		t.Errorf("nobody is told that NATS is away: %+v", s.Attention)
	}
	waiting := make(chan int)
	go func() { waiting <- post() }()
	natsServer(t, server.Options{Port: number})
	if code := <-waiting; code != http.StatusAccepted {
		t.Errorf("a webhook that came shortly before NATS was answered %d", code)
	}
	s, err := a.Status(ctx)
	if err != nil || s.Cluster == nil || s.Cluster.NATS == nil || !s.Cluster.NATS.Connected || s.Cluster.NATS.Sync != "unknown" || len(s.Cluster.NATS.Streams) != 3 || s.Cluster.NATS.Streams[0].Current != 1 {
		t.Errorf("status says %+v, %v", s.Cluster, err)
	}
	if err := a.Ready(); err != nil {
		t.Error(err)
	}
}

// NATS takes 1 MiB unless its configuration says otherwise, and PMM must learn at once what
// does not fit.
func TestABodyThatIsTooLargeForNATSIsRefusedWithTheNumber(t *testing.T) {
	t.Parallel()
	_, port, _ := net.SplitHostPort(natsServer(t, server.Options{MaxPayload: 1 << 20}).Addr().String())
	var logged bytes.Buffer
	started := make(chan Addresses, 1)
	a, err := New(overNATSConfig(t, port), Options{Ready: func(addrs Addresses) { started <- addrs }, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	addrs := <-started
	body := webhook(t, "grafana-firing-group-5.json")
	for size, want := range map[int]int{1<<20 - 128<<10 - 16: http.StatusAccepted, 1<<20 - 128<<10 - 15: http.StatusRequestEntityTooLarge, 2 << 20: http.StatusRequestEntityTooLarge} {
		resp, err := http.Post(addrs.Webhooks+"/name-of-16-bytes", "application/json", strings.NewReader(string(body)+strings.Repeat(" ", size-len(body))))
		if err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != want || want != http.StatusAccepted && !strings.Contains(string(answer), "larger than 917488 bytes") {
			t.Errorf("a body of %d bytes was answered %d: %s", size, resp.StatusCode, answer)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !strings.Contains(logged.String(), "level=WARN msg=\"the max_payload of the NATS servers is too small for --max-body") {
		t.Errorf("nobody is told: %s", logged.String())
	}
}

// What waiting cannot heal ends the start.
func TestAServerThatIsUnfitEndsTheStart(t *testing.T) {
	t.Parallel()
	_, port, _ := net.SplitHostPort(natsServer(t, server.Options{}).Addr().String())
	a, err := New(overNATSConfig(t, port, "nats-replicas=3"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context()); !errors.Is(err, queue.ErrUnfit) {
		t.Error(err)
	}
}

// Credentials are those of the file as it is, and bad ones change nothing.
func TestCredentialsOfNATSAreReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "user")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("svc:first-word")
	q := overNATS(overNATSConfig(t, "4222", "nats-user-file="+file), nil, queue.Config{})
	if q.Creds != nil || q.User() != "svc:first-word" {
		t.Error(q.User())
	}
	write("svc:second-word")
	if q.User() != "svc:second-word" {
		t.Error(q.User())
	}
}
