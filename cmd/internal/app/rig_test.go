package app

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose/callgoosetest"
)

// The server's clock for access times is shared by the whole process: it has to
// be started outside of every bubble, or time would stand still inside.
func TestMain(m *testing.M) {
	ats.Register()
	debug.SetGCPercent(400)            // little is live at a time
	_ = flag.Set("test.parallel", "8") // those of several instances wait more than they compute
	os.Exit(m.Run())
}

const token = "s3cr3t-t0ken-of-the-test"

// rig is a whole forwarder in a bubble: real JetStream, real bbolt, real
// handlers; only the network is memory and the clock is fake. Nothing is
// fsynced: a bubble cannot tell the difference, a power cut can (see faulttest).
type rig struct {
	t    *testing.T
	cfg  *config.Config
	fake *callgoosetest.Fake
	net  *network
	logs *logBuffer
	log  *slog.Logger // nil = text at info, into logs
	// outside is the network towards the heartbeat service and the other way out.
	outside *outside
	pmm     http.RoundTripper

	app   *App
	ready chan Addresses
	stop  context.CancelFunc
	done  chan error
}

// logBuffer is written by the forwarder while the test reads it.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// network counts the requests that were tried.
type network struct {
	*callgoosetest.Transport
	tried atomic.Int64
}

func (n *network) RoundTrip(r *http.Request) (*http.Response, error) {
	n.tried.Add(1)
	return n.Transport.RoundTrip(r)
}

// bubble runs fn with a forwarder of its own, and checks at the end that
// nothing went wrong on the side.
func bubble(t *testing.T, change func(*config.Config), fn func(r *rig)) {
	t.Helper()
	bubbleWith(t, callgoosetest.Config{KeepBodies: true, Tokens: []string{token}}, change, fn)
}

func bubbleWith(t *testing.T, fake callgoosetest.Config, change func(*config.Config), fn func(r *rig)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, outside: &outside{}, fake: callgoosetest.New(fake), logs: &logBuffer{}, cfg: &config.Config{
			DataDir: dir, CallgooseURL: "https://callgoose.test/v1/process", CallgooseToken: config.NewSecret(token),
			CallgooseAuth: "bearer", CallgooseFrom: "PerconaPMM", IncidentBy: "alert", OnBacklog: "deliver",
			RetryMin: time.Second, RetryMax: time.Minute, RetryFor: 72 * time.Hour, Timeout: 15 * time.Second,
			LateAfter: 5 * time.Minute, Concurrency: 16, MaxBody: 10 << 20, MaxStore: 2 << 30,
		}}
		r.net = &network{Transport: r.fake.RoundTripper()}
		if change != nil {
			change(r.cfg)
		}
		r.start()
		defer func() {
			r.halt()
			if t.Failed() {
				t.Logf("log:\n%s", r.logs)
			}
			if strings.Contains(r.logs.String(), token) {
				t.Error("the token stands in the log")
			}
		}()
		fn(r)
	})
}

func (r *rig) start() {
	r.t.Helper()
	r.make()
	r.run()
}

func (r *rig) make() {
	r.t.Helper()
	r.ready = make(chan Addresses, 1)
	log := r.log
	if log == nil {
		log = slog.New(slog.NewTextHandler(r.logs, &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	app, err := New(r.cfg, Options{
		Version: "test", NoListen: true, NoSync: true, Transport: r.net, Outside: r.outside, PMM: r.pmm, Ready: func(a Addresses) { r.ready <- a }, Logger: log,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.app = app
}

func (r *rig) run() {
	r.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	r.stop, r.done = stop, make(chan error, 1)
	go func() { r.done <- r.app.Run(ctx) }()
	select {
	case <-r.ready:
	case err := <-r.done:
		r.t.Fatal(err)
	}
}

func (r *rig) halt() {
	r.t.Helper()
	r.stop()
	if err := <-r.done; err != nil {
		r.t.Errorf("stop: %v", err)
	}
}

func (r *rig) restart() {
	r.t.Helper()
	r.halt()
	r.start()
}

// away lets so much time pass while the service does not run, which costs no ticks.
func (r *rig) away(d time.Duration) {
	r.t.Helper()
	r.halt()
	time.Sleep(d)
	r.start()
}

func (r *rig) post(body []byte) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r.app.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "http://127.0.0.1/v1/webhook", bytes.NewReader(body)))
	return w
}

// accept posts and demands a 202.
func (r *rig) accept(body []byte) {
	r.t.Helper()
	if w := r.post(body); w.Code != http.StatusAccepted {
		r.t.Fatalf("webhook answered %d: %s", w.Code, w.Body)
	}
}

func (r *rig) acceptFile(name string) { r.t.Helper(); r.accept(webhook(r.t, name)) }

// settle waits until nothing is queued, for at most a day.
func (r *rig) settle() admin.Status {
	r.t.Helper()
	for range 24 * 60 * 60 {
		time.Sleep(time.Second)
		if s := r.status(); s.Queued == 0 && s.InFlight == 0 {
			return s
		}
	}
	r.t.Fatalf("events are still queued after a day: %+v", r.status())
	return admin.Status{}
}

func (r *rig) status() admin.Status {
	s, err := r.app.Status(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *rig) events(f event.Filter) []*event.Record {
	r.t.Helper()
	list, err := r.app.Events(context.Background(), f, 10_000)
	if err != nil {
		r.t.Fatal(err)
	}
	return list
}

// statuses are the accepted events of each incident key, in order.
func (r *rig) statuses() map[string][]string {
	out := map[string][]string{}
	for _, q := range r.fake.Received() {
		if q.Accepted() {
			out[q.IncidentKey] = append(out[q.IncidentKey], q.Status)
		}
	}
	return out
}

func webhook(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "testdata", "webhook", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// alert is one member of a body made for a test.
type alert struct {
	Status      string            `json:"status"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations,omitempty"`
	StartsAt    time.Time         `json:"startsAt,omitzero"`
	EndsAt      time.Time         `json:"endsAt,omitzero"`
}

// mysqlDown is an alert of one of several servers under one rule.
func mysqlDown(server int, status string, starts time.Time) alert {
	a := alert{
		Status: status, StartsAt: starts,
		Labels:      map[string]string{"alertname": "MySQL down", "severity": "critical", "instance": fmt.Sprintf("mysql-%02d:3306", server)},
		Annotations: map[string]string{"summary": "MySQL is down", "description": fmt.Sprintf("mysql-%02d does not answer", server)},
	}
	if status == "resolved" {
		a.EndsAt = time.Now()
	}
	return a
}

func group(alerts ...alert) []byte {
	status := "resolved"
	for _, a := range alerts {
		if a.Status == "firing" {
			status = "firing"
		}
	}
	b, err := json.Marshal(map[string]any{
		"receiver": "callgoose", "status": status, "version": "4", "groupKey": `{}:{alertname="MySQL down"}`,
		"groupLabels": map[string]string{"alertname": "MySQL down"}, "alerts": alerts, "truncatedAlerts": 0,
	})
	if err != nil {
		panic(err)
	}
	return b
}

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("..", "..", "..", "testdata", "golden", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (a changed payload changes what Callgoose sees):\n got %s\nwant %s", name, got, want)
	}
}
