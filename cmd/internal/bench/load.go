package bench

import (
	"context"
	"crypto/tls"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Target is an intake and the way into it.
type Target struct {
	URL    string
	Header http.Header // credentials
	// HMACSecret signs the bodies as Grafana does; "" = not. HMACTimestamp is
	// the header with the signed time, "" for none.
	HMACSecret, HMACTimestamp string
	TLS                       *tls.Config
}

// Load is load on one intake: Connections clients, each of which sends its next
// webhook when it has the answer to the one before.
type Load struct {
	Target      Target
	Bodies      *Bodies
	Connections int
	// It ends after Count webhooks, or after Duration, whichever is set and first.
	Count    int
	Duration time.Duration
	// Progress is called before each webhook, by one connection at a time, and may hold the
	// load up. May be nil.
	Progress func(sent int)
}

// Measured is what a load came to. Latencies are those of the accepted webhooks,
// from before the request to the end of the answer, in milliseconds.
type Measured struct {
	Connections int            `json:"connections"`
	Webhooks    int            `json:"webhooks"` // answered 202
	Alerts      int            `json:"alerts"`
	Seconds     float64        `json:"seconds"`
	PerSecond   float64        `json:"webhooks_per_second"`
	Latency     Latency        `json:"latency_ms"`
	Refused     map[string]int `json:"refused,omitempty"` // by status code
}

// Latency is a distribution, in milliseconds.
type Latency struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// Percentiles is the distribution of list, which it sorts.
func Percentiles(list []time.Duration) Latency {
	if len(list) == 0 {
		return Latency{}
	}
	slices.Sort(list)
	at := func(q float64) float64 {
		d := list[max(int(math.Ceil(q*float64(len(list))))-1, 0)]
		return float64(d.Round(time.Microsecond)) / float64(time.Millisecond)
	}
	return Latency{P50: at(0.5), P90: at(0.9), P99: at(0.99), Max: at(1)}
}

// maxRefusals is the number of consecutive refusals after which a load gives up.
const maxRefusals = 20

// Run sends the load. It returns what was measured also when ctx ended it.
func (l *Load) Run(ctx context.Context) (Measured, error) {
	if err := l.Bodies.atLeast(l.Connections); err != nil {
		return Measured{}, err
	}
	first := l.Bodies.next
	r := &run{Load: l, began: time.Now(), refused: map[string]int{}, body: func(dst []byte, n int) []byte { return l.Bodies.Body(dst, first+n) }}
	err := r.sendAll(ctx)
	m := Measured{Connections: l.Connections, Seconds: time.Since(r.began).Seconds(), Refused: r.refused}
	m.Webhooks, m.Alerts, m.Latency = len(r.took), len(r.took)*l.Bodies.alerts, Percentiles(r.took)
	m.PerSecond = float64(m.Webhooks) / m.Seconds
	l.Bodies.next += int(r.sent.Load())
	return m, err
}

// Resolve sends the recovery of everything that still fires, over a few
// connections at once.
func (l *Load) Resolve(ctx context.Context) error {
	groups := l.Bodies.open()
	defer l.Bodies.closed()
	if len(groups) == 0 {
		return nil
	}
	r := &run{Load: &Load{Target: l.Target, Connections: 16, Count: len(groups)}, began: time.Now(), refused: map[string]int{}, body: func(dst []byte, n int) []byte {
		return l.Bodies.append(dst, groups[n], false, time.Now())
	}}
	err := r.sendAll(ctx)
	if missing := len(groups) - len(r.took); err == nil && missing > 0 {
		err = fmt.Errorf("%d of %d recoveries were refused: %v", missing, len(groups), r.refused)
	}
	if err != nil {
		return fmt.Errorf("resolve the alerts of the bench: %w", err)
	}
	return nil
}

// run is a load under way.
type run struct {
	*Load
	body  func(dst []byte, n int) []byte // appends its n-th body to dst
	began time.Time
	sent  atomic.Int64
	bad   atomic.Int64 // consecutive refusals

	mu      sync.Mutex
	took    []time.Duration // of the accepted webhooks; guarded by mu
	refused map[string]int  // guarded by mu
}

// sendAll sends over all connections, until the load is over or an error ends it.
func (r *run) sendAll(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	for range r.Connections {
		wg.Go(func() {
			if err := r.send(ctx); err != nil {
				stop(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// send is one connection: it sends until the load is over, or an error ends it.
func (r *run) send(ctx context.Context) error {
	c, err := NewConn(&r.Target)
	if err != nil {
		return err
	}
	defer c.Close()
	var took []time.Duration
	defer func() { r.mu.Lock(); r.took = append(r.took, took...); r.mu.Unlock() }()
	var body []byte
	for ctx.Err() == nil && (r.Duration == 0 || time.Since(r.began) < r.Duration) {
		n := int(r.sent.Add(1)) - 1
		if r.Count > 0 && n >= r.Count {
			r.sent.Add(-1)
			return nil
		}
		if r.Progress != nil {
			r.mu.Lock()
			r.Progress(n)
			r.mu.Unlock()
		}
		body = r.body(body[:0], n)
		start := time.Now()
		code, err := c.Post(ctx, body)
		switch {
		case err != nil && ctx.Err() != nil:
		case err != nil:
			return err
		case code == http.StatusAccepted:
			r.bad.Store(0)
			took = append(took, time.Since(start))
		default:
			r.mu.Lock()
			r.refused[strconv.Itoa(code)]++
			r.mu.Unlock()
			if r.bad.Add(1) == maxRefusals {
				return fmt.Errorf("%d consecutive webhooks were answered %d", maxRefusals, code)
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}
