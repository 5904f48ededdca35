package selfbench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"pmm-callgoose/cmd/internal/bench"
	"pmm-callgoose/ingest"
)

// Discard is the intake's HTTP server with a handler that throws the body away:
// what HTTP alone costs here. stop ends it.
func Discard() (url string, stop func(), err error) {
	return server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusAccepted)
	}))
}

// FsyncEach is the intake with the plainest durable store: append and fsync, one
// webhook after the other, in a file in dir. stop ends it and removes the file.
func FsyncEach(dir string) (url string, stop func(), err error) {
	p := &appender{}
	if p.f, err = os.CreateTemp(dir, "bench-fsync-"); err != nil {
		return "", nil, err
	}
	remove := func() { _ = p.f.Close(); _ = os.Remove(p.f.Name()) }
	h, err := ingest.New(ingest.Config{Publisher: p})
	if err != nil {
		remove()
		return "", nil, err
	}
	url, end, err := server(h)
	if err != nil {
		remove()
		return "", nil, err
	}
	return url, func() { end(); remove() }, nil
}

type appender struct {
	mu sync.Mutex
	f  *os.File // guarded by mu
}

func (p *appender) Publish(_ context.Context, n ingest.Notification) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := p.f.Write(n.Body); err != nil {
		return "", err
	}
	return "n", p.f.Sync()
}

func server(h http.Handler) (url string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	srv, done := ingest.Server(h, nil), make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // ErrServerClosed
	}()
	return "http://" + l.Addr().String() + "/v1/webhook", func() { _ = srv.Close(); <-done }, nil
}

// Fsync appends bodies to a file in dir, one after the other, and fsyncs each.
func Fsync(ctx context.Context, dir string, bodies *bench.Bodies, count int) (l bench.Latency, err error) {
	f, err := os.CreateTemp(dir, "bench-fsync-")
	if err != nil {
		return l, fmt.Errorf("fsync in %s: %w", filepath.Clean(dir), err)
	}
	defer func() {
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	}()
	var took []time.Duration
	var body []byte
	for i := 0; i < count && ctx.Err() == nil; i++ {
		body = bodies.Body(body[:0], i)
		start := time.Now()
		if _, err := f.Write(body); err != nil {
			return l, err
		}
		if err := f.Sync(); err != nil {
			return l, err
		}
		took = append(took, time.Since(start))
	}
	return bench.Percentiles(took), ctx.Err()
}
