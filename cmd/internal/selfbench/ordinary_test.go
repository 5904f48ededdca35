package selfbench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/bench"
)

// ordinary is what one webhook of an ordinary load costs, seen from outside.
type ordinary struct {
	webhooks int
	cpu      float64 // seconds
	written  int64   // bytes to the disk
	syncs    int     // fsync and fdatasync; -1 = not counted
	own      int64   // anonymous memory at the end
	answer   bench.Latency
	delay    bench.Latency // from the 202 to the sink, of each event
	rate     float64       // events a second, from the first webhook until all was delivered
}

// TestOrdinaryLoad sends -per-second webhooks a second for -for over -senders
// connections to a forwarder whose Callgoose answers in 1 ms, and prints what each of
// them costs; more than it takes is full speed. CPU time,
// bytes and latencies are those of a run without a tracer; the calls of fsync are
// counted by strace in another.
func TestOrdinaryLoad(t *testing.T) {
	s := required(t)
	var slow []string
	if s.SlowSync > 0 {
		slow = []string{
			"strace", "--seccomp-bpf", "-f", "-qq", "-o", os.DevNull, "-e", "trace=fsync,fdatasync",
			"-e", fmt.Sprintf("inject=fsync,fdatasync:delay_exit=%d", s.SlowSync.Microseconds()),
		}
	}
	cost, err := s.ordinary(t.Context(), slow, "")
	if err != nil {
		t.Fatal(err)
	}
	cost.syncs = -1
	why := "strace is not installed"
	if strace, err := exec.LookPath("strace"); err == nil {
		trace := filepath.Join(s.Dir, "trace")
		tracer := []string{strace, "--seccomp-bpf", "-f", "-qq", "-e", "trace=fsync,fdatasync", "-o", trace}
		traced, err := s.ordinary(t.Context(), tracer, trace)
		if cost.syncs = traced.syncs; err != nil {
			cost.syncs, why = -1, err.Error()
		}
	}
	n := float64(cost.webhooks)
	syncs := "not counted: " + why
	if cost.syncs >= 0 {
		syncs = fmt.Sprintf("%.2f", float64(cost.syncs)/n)
	}
	table(t.Output(), [][]string{
		{"load", fmt.Sprintf("%d webhooks/s of %d alerts for %s, the sink answers in 1 ms, each fsync takes %s longer", s.PerSecond, s.Alerts, s.For, s.SlowSync)},
		{"fsync and fdatasync, each webhook", syncs},
		{"bytes written, each webhook", fmt.Sprintf("%.0f", float64(cost.written)/n)},
		{"CPU milliseconds, each webhook", fmt.Sprintf("%.3f", 1000*cost.cpu/n)},
		{"anonymous memory, MiB", fmt.Sprintf("%.1f", float64(cost.own)/(1<<20))},
		{"202 after", fmt.Sprintf("p50 %.2f ms, p99 %.2f ms", cost.answer.P50, cost.answer.P99)},
		{"events a second, all delivered", fmt.Sprintf("%.0f", cost.rate)},
		{"202 to sink", fmt.Sprintf("p50 %.2f ms, p99 %.2f ms, max %.2f ms", cost.delay.P50, cost.delay.P99, cost.delay.Max)},
	})
}

// ordinary is one run, with tracer in front of the program; trace is the file
// with a line for each call of fsync.
func (s settings) ordinary(ctx context.Context, tracer []string, trace string) (cost ordinary, err error) {
	cost.webhooks = int(s.For.Seconds() * float64(s.PerSecond))
	l := &timed{settings: s, bodies: bench.NewBodies(s.Alerts, s.Size, s.Keys), answered: make([]time.Time, cost.webhooks), took: make([]time.Duration, cost.webhooks)}
	l.arrived = make([]time.Time, cost.webhooks*s.Alerts)
	sink, err := NewSink(l.bodies.Keys())
	if err != nil {
		return cost, err
	}
	defer sink.Close()
	sink.Delay = time.Millisecond
	sink.Hook(l.note)
	dir, err := os.MkdirTemp(s.Dir, "ordinary-")
	if err != nil {
		return cost, err
	}
	p, err := Start(ctx, append(tracer, s.Program), dir, "127.0.0.1:0", "--callgoose-url", sink.URL, "--allow-unauthenticated")
	if err != nil {
		return cost, err
	}
	defer p.Stop()
	pause(ctx, 2*time.Second) // what a start does is over
	before, calls, began := p.Usage(), count(trace), time.Now()
	if err := l.send(ctx, p.URL); err != nil {
		return cost, err
	}
	if err := settled(ctx, p.Status, sink, int64(len(l.arrived))); err != nil {
		return cost, err
	}
	after := p.Usage()
	cost.rate = float64(len(l.arrived)) / time.Since(began).Seconds()
	cost.cpu, cost.written, cost.syncs = after.CPU-before.CPU, after.Written-before.Written, count(trace)-calls
	cost.own = after.Own
	cost.answer, cost.delay = bench.Percentiles(l.took), bench.Percentiles(l.delays())
	if wrong := sink.Wrong.Load(); wrong > 0 {
		return cost, fmt.Errorf("%d events came twice or out of order", wrong)
	}
	return cost, nil
}

// count is how many calls a trace holds. strace writes one that others interrupt
// in two lines, of which only the second has a result.
func count(trace string) int {
	lines, _ := os.ReadFile(trace)
	return len(result.FindAll(lines, -1))
}

var result = regexp.MustCompile(`\) += `)

func settled(ctx context.Context, status *admin.Client, sink *Sink, events int64) error {
	end := time.Now().Add(time.Minute)
	return until(ctx, 5*time.Millisecond, func() (bool, error) {
		if time.Now().After(end) {
			return false, fmt.Errorf("%d of %d events arrived within a minute", sink.Received.Load(), events)
		}
		if sink.Received.Load() < events {
			return false, nil
		}
		st, err := status.Status(ctx)
		return err == nil && st.Queued == 0, nil
	})
}

// timed is a load at a fixed rate that notes when what happened to each webhook.
type timed struct {
	settings
	bodies   *bench.Bodies
	answered []time.Time     // by webhook
	took     []time.Duration // by webhook: until its answer
	mu       sync.Mutex
	arrived  []time.Time // by webhook and alert; guarded by mu
}

func (l *timed) send(ctx context.Context, url string) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	began, every := time.Now(), time.Second/time.Duration(l.PerSecond)
	for range l.Senders {
		wg.Go(func() {
			c, err := bench.NewConn(&bench.Target{URL: url})
			if err != nil {
				stop(err)
				return
			}
			defer c.Close()
			for n := int(next.Add(1)) - 1; n < len(l.answered) && ctx.Err() == nil; n = int(next.Add(1)) - 1 {
				pause(ctx, time.Until(began.Add(time.Duration(n)*every)))
				start := time.Now()
				code, err := c.Post(ctx, l.bodies.Body(nil, n))
				if err == nil && code != 202 {
					err = fmt.Errorf("a webhook was answered %d", code)
				}
				if err != nil {
					stop(errors.Join(err, context.Cause(ctx)))
					return
				}
				l.answered[n], l.took[n] = time.Now(), time.Since(start)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// note is the hook of the sink: which webhook the event came in follows from its
// key and its turn.
func (l *timed) note(key, turn int) {
	groups := l.bodies.Keys() / l.Alerts
	webhook := (turn-1)*groups + key/l.Alerts
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := webhook*l.Alerts + key%l.Alerts; i < len(l.arrived) {
		l.arrived[i] = time.Now()
	}
}

// delays are the times from the 202 to the sink, 0 for what overtook its answer.
func (l *timed) delays() (list []time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, at := range l.arrived {
		list = append(list, max(at.Sub(l.answered[i/l.Alerts]), 0))
	}
	return list
}
