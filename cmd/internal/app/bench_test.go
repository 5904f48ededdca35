package app

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/bench"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/ingest"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/queue"
)

// BenchmarkIntake posts bodies of five alerts over real connections, to
//
//	discard   the same server, throwing the body away
//	fsync     the same handler, one fsync for each webhook
//	durable   the same handler, the real queue
//
// The ratios within one run are what counts.
func BenchmarkIntake(b *testing.B) {
	body, err := os.ReadFile(filepath.Join("..", "..", "..", "testdata", "webhook", "grafana-firing-group-5.json"))
	if err != nil {
		b.Fatal(err)
	}
	for _, connections := range []int{1, 64} {
		for _, name := range []string{"discard", "fsync", "durable"} {
			b.Run(fmt.Sprintf("%s/connections=%d", name, connections), func(b *testing.B) {
				var h http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					w.WriteHeader(http.StatusAccepted)
				})
				if name != "discard" {
					h = benchHandler(b, name)
				}
				benchPosts(b, ingest.Server(h, nil), body, connections)
			})
		}
	}
}

func benchHandler(b *testing.B, name string) http.Handler {
	var p ingest.Publisher = &onePerFsync{dir: b.TempDir()}
	if name == "durable" {
		q, err := queue.Open(context.Background(), queue.Config{Dir: b.TempDir(), MaxStore: 1 << 40})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = q.Close() })
		p = queued{q}
	}
	h, err := ingest.New(ingest.Config{Publisher: p, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	return h
}

type queued struct{ q *queue.Queue }

func (p queued) Publish(ctx context.Context, n ingest.Notification) (string, error) {
	return p.q.PublishNotification(ctx, event.Notification(n))
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

func benchPosts(b *testing.B, srv *http.Server, body []byte, connections int) {
	s := httptest.NewUnstartedServer(srv.Handler)
	s.Config = srv
	s.Start()
	defer s.Close()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
	defer client.CloseIdleConnections()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ResetTimer()
	for range connections {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				resp, err := client.Post(s.URL+"/v1/webhook", "application/json", bytes.NewReader(body))
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusAccepted {
					b.Errorf("answered %d", resp.StatusCode)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "webhooks/s")
}

// BenchmarkDrain queues events while the sink is shut and opens it: a whole
// forwarder with a real ledger, a real queue and real connections. Beside it the
// same bodies, sent by a bare HTTP client with the same concurrency.
func BenchmarkDrain(b *testing.B) {
	const alerts, keys = 5, 10_000
	events := max(b.N/alerts, 1) * alerts
	sink, err := bench.NewSink(keys)
	if err != nil {
		b.Fatal(err)
	}
	defer sink.Close()
	sink.Shut()
	ready := make(chan Addresses, 1)
	app, err := New(&config.Config{
		DataDir: b.TempDir(), Listen: "127.0.0.1:0", CallgooseURL: sink.URL, CallgooseToken: config.NewSecret(token),
		CallgooseAuth: "bearer", CallgooseFrom: "PerconaPMM", MaxStore: 1 << 40, LateAfter: time.Hour,
		RetryMax: time.Second, MaxBody: 10 << 20,
	}, Options{Ready: func(a Addresses) { ready <- a }})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- app.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}()
	load := &bench.Load{
		Target: bench.Target{URL: (<-ready).Webhooks}, Bodies: bench.NewBodies(alerts, 5500, keys),
		Connections: 64, Count: events / alerts,
	}
	if _, err := load.Run(ctx); err != nil {
		b.Fatal(err)
	}
	for {
		if s, _ := app.Status(ctx); s.Alerts >= int64(events) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	b.ResetTimer()
	sink.Open()
	for sink.Received.Load() < int64(events) {
		time.Sleep(time.Millisecond)
	}
	took := sink.Since()
	b.StopTimer()
	drained := float64(events) / took.Seconds()
	bare, err := sink.Bare(ctx, 16, events)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(drained, "events/s")
	b.ReportMetric(100*drained/bare, "%-of-bare")
	if n := sink.Wrong.Load(); n > 0 {
		b.Errorf("%d events came twice or out of order", n)
	}
}
