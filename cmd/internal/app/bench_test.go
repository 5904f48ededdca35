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
