package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/bench"
	"pmm-callgoose/ingest"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/queue"
)

// BenchmarkIntake posts bodies of five alerts over real connections, to
//
//	discard   the same server, throwing the body away
//	fsync     the same handler, appending to a file, one fsync for each webhook
//	durable   the same handler, the real queue
//
// The ratios within one run are what counts.
func BenchmarkIntake(b *testing.B) {
	for _, kind := range []string{"10KB", "5KB"} {
		bodies := benchBodies(b, kind)
		for _, connections := range []int{1, 64} {
			for _, name := range []string{"discard", "fsync", "durable"} {
				b.Run(fmt.Sprintf("body=%s/connections=%d/%s", kind, connections, name), func(b *testing.B) {
					var h http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						_, _ = io.Copy(io.Discard, r.Body)
						w.WriteHeader(http.StatusAccepted)
					})
					if name != "discard" {
						h = benchHandler(b, name)
					}
					benchPosts(b, ingest.Server(h, nil), bodies, connections)
				})
			}
		}
	}
}

// benchBodies are 64 bodies of one kind: that of testdata, each with alerts of its
// own, or what bench sends. No two are alike, as what is stored is compressed.
func benchBodies(b *testing.B, kind string) (bodies [][]byte) {
	const count, alerts = 64, 5
	made := bench.NewBodies(alerts, 5500, count*alerts)
	if kind == "5KB" {
		for n := range count {
			bodies = append(bodies, made.Body(nil, n))
		}
		return bodies
	}
	body, err := os.ReadFile(filepath.Join("..", "..", "..", "testdata", "webhook", "grafana-firing-group-5.json"))
	if err != nil {
		b.Fatal(err)
	}
	fingerprint := regexp.MustCompile(`"fingerprint":"[0-9a-f]{16}"`)
	for range count {
		bodies = append(bodies, fingerprint.ReplaceAllFunc(body, func([]byte) []byte {
			return fmt.Appendf(nil, `"fingerprint":"%016x"`, rand.Uint64())
		}))
	}
	return bodies
}

func benchHandler(b *testing.B, name string) http.Handler {
	var p ingest.Publisher = &onePerFsync{dir: b.TempDir()}
	if name != "fsync" {
		var of commits
		q, err := queue.Open(context.Background(), queue.Config{Dir: b.TempDir(), MaxStore: 1 << 40, Observer: &of})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			_ = q.Close()
			if n := of.n.Load(); n > 0 {
				b.ReportMetric(float64(of.took.Load())/float64(n)/1e6, "ms/commit")
				b.ReportMetric(float64(b.N)/float64(n), "webhooks/commit")
			}
		})
		p = queued(q.Publish)
	}
	h, err := ingest.New(ingest.Config{Publisher: p, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	return h
}

// commits counts what a queue that is embedded tells.
type commits struct {
	queue.Observer
	n, took atomic.Int64
}

func (c *commits) IntakeCommit(d time.Duration, _ int) { c.n.Add(1); c.took.Add(int64(d)) }

type queued func(context.Context, event.Notification) (event.Position, error)

func (p queued) Publish(ctx context.Context, n ingest.Notification) (string, error) {
	pos, err := p(ctx, event.Notification{Source: n.Source, BeganAt: n.BeganAt, ReceivedAt: n.ReceivedAt, Body: n.Body, Alerts: n.Alerts})
	return pos.NotificationID(), err
}

// onePerFsync is what a store without group commit does at its best: append,
// fsync, one after the other.
type onePerFsync struct {
	dir string
	mu  sync.Mutex
	f   *os.File
}

func (p *onePerFsync) Publish(_ context.Context, n ingest.Notification) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.f == nil {
		f, err := os.Create(filepath.Join(p.dir, "log"))
		if err != nil {
			return "", err
		}
		p.f = f
	}
	if _, err := p.f.Write(n.Body); err != nil {
		return "", err
	}
	return "x", p.f.Sync()
}

// benchPosts reports also the median time of a webhook, and the processor time it
// cost both sides: that hardly depends on what else the machine does.
func benchPosts(b *testing.B, srv *http.Server, bodies [][]byte, connections int) {
	s := httptest.NewUnstartedServer(srv.Handler)
	s.Config = srv
	s.Start()
	defer s.Close()
	target := &bench.Target{URL: s.URL + "/v1/webhook"}
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	took := make([][]time.Duration, connections)
	for i := range took {
		took[i] = make([]time.Duration, 0, b.N)
	}
	cpu := cpuTime()
	b.ResetTimer()
	for i := range connections {
		wg.Go(func() {
			c, err := bench.NewConn(target)
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close()
			for {
				n := left.Add(-1)
				if n < 0 {
					return
				}
				start := time.Now()
				code, err := c.Post(b.Context(), bodies[int(n)%len(bodies)])
				if err != nil || code != http.StatusAccepted {
					b.Errorf("answered %d: %v", code, err)
					return
				}
				took[i] = append(took[i], time.Since(start))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "webhooks/s")
	b.ReportMetric(float64(all[len(all)/2])/1e6, "p50-ms")
	b.ReportMetric(float64(cpuTime()-cpu)/1e3/float64(b.N), "cpu-µs/webhook")
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
