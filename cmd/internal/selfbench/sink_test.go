package selfbench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/bench"
)

// Sink stands where Callgoose does. It does as little as it can, so that what is
// measured is the forwarder, and still checks that the events of each key
// arrive once and in order.
type Sink struct {
	URL string
	// Delay is before every answer.
	Delay time.Duration

	down     atomic.Bool
	Calls    atomic.Int64 // all
	Received atomic.Int64 // accepted
	Wrong    atomic.Int64 // of them, twice or out of turn
	first    atomic.Int64 // when the first was accepted since Open, Unix nanoseconds
	hook     atomic.Pointer[func(key, turn int)]
	turns    []atomic.Uint32 // by key number: how many were accepted

	mu     sync.Mutex
	bodies [][]byte // a sample; guarded by mu
	srv    *http.Server
	done   chan struct{}
}

// sample is how many bodies are kept for the bare client.
const sample = 1000

// NewSink starts a sink for that many keys.
func NewSink(keys int) (*Sink, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Sink{URL: "http://" + l.Addr().String() + "/v1/process", turns: make([]atomic.Uint32, keys), done: make(chan struct{})}
	s.srv = &http.Server{Handler: s, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		defer close(s.done)
		_ = s.srv.Serve(l) // ErrServerClosed
	}()
	return s, nil
}

// Close ends it.
func (s *Sink) Close() { _ = s.srv.Close(); <-s.done }

// Shut makes it answer 503; Open ends that.
func (s *Sink) Shut() { s.down.Store(true) }

// Open makes it accept events again.
func (s *Sink) Open() { s.first.Store(0); s.down.Store(false) }

// Hook sets what is called with each event that is accepted: the number of its
// key, and how many events of that key came so far. nil ends that.
func (s *Sink) Hook(fn func(key, turn int)) {
	if fn == nil {
		s.hook.Store(nil)
		return
	}
	s.hook.Store(&fn)
}

// FirstAt is when it accepted the first event since Open.
func (s *Sink) FirstAt() time.Time { return time.Unix(0, s.first.Load()) }

// Since is how long ago it accepted the first event since Open.
func (s *Sink) Since() time.Duration { return time.Since(s.FirstAt()) }

// prefix is what the fingerprints of a bench begin with, digits are the rest.
const (
	prefix = "be7c"
	digits = 16 - len(prefix)
)

var (
	fieldFinger = []byte(`"fingerprint":"` + prefix)
	fieldStatus = []byte(`"status":"`)
)

func (s *Sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.Calls.Add(1)
	body := make([]byte, max(r.ContentLength, 0))
	_, err := io.ReadFull(r.Body, body)
	if s.down.Load() || err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if r.URL.Query().Get("from") != bareFrom {
		s.take(body)
	}
	if s.Delay > 0 {
		time.Sleep(s.Delay)
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"id":"1","triggered":{"created":false,"duplicate":false},"resolved":{"resolved":false,"duplicate":false}}`)
}

// take notes one event.
func (s *Sink) take(body []byte) {
	s.first.CompareAndSwap(0, time.Now().UnixNano())
	s.Received.Add(1)
	_, finger, _ := bytes.Cut(body, fieldFinger)
	_, status, _ := bytes.Cut(body, fieldStatus)
	if len(finger) < digits {
		s.Wrong.Add(1)
		return
	}
	n64, err := strconv.ParseUint(string(finger[:digits]), 16, 32)
	n := int(n64)
	if err != nil || n >= len(s.turns) {
		s.Wrong.Add(1)
		return
	}
	firing := bytes.HasPrefix(status, []byte("firing"))
	turn := s.turns[n].Add(1)
	if (turn%2 == 1) != firing {
		s.Wrong.Add(1)
	}
	if hook := s.hook.Load(); hook != nil {
		(*hook)(n, int(turn))
	}
	s.mu.Lock()
	if len(s.bodies) < sample {
		s.bodies = append(s.bodies, body)
	}
	s.mu.Unlock()
}

// bareFrom marks the requests of Bare.
const bareFrom = "bare"

// Bare is what an HTTP client alone reaches towards the sink: count of the
// bodies that it received before, with the same concurrency as the forwarder.
func (s *Sink) Bare(ctx context.Context, concurrency, count int) (perSecond float64, err error) {
	s.mu.Lock()
	bodies := s.bodies
	s.mu.Unlock()
	if len(bodies) == 0 {
		return 0, fmt.Errorf("the sink received nothing yet")
	}
	c := &http.Client{
		Transport: &http.Transport{MaxIdleConns: concurrency, MaxIdleConnsPerHost: concurrency},
		Timeout:   time.Minute,
	}
	defer c.CloseIdleConnections()
	to := s.URL + "?from=" + bareFrom
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var sent atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for range concurrency {
		wg.Go(func() {
			for n := sent.Add(1) - 1; n < int64(count) && ctx.Err() == nil; n = sent.Add(1) - 1 {
				if code, err := post(ctx, c, to, bodies[n%int64(len(bodies))]); err != nil {
					stop(err)
				} else if code != http.StatusOK {
					stop(fmt.Errorf("the sink answered %d", code))
				}
			}
		})
	}
	wg.Wait()
	return float64(count) / time.Since(began).Seconds(), context.Cause(ctx)
}

// post sends one body and reads the whole answer.
func post(ctx context.Context, c *http.Client, url string, body []byte) (code int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, errors.Join(err, resp.Body.Close())
}

func TestSinkNoticesWhatIsWrong(t *testing.T) {
	s, err := NewSink(3)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b := bench.NewBodies(1, 400, 3)
	c, err := bench.NewConn(&bench.Target{URL: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	send := func(group int, firing bool, wantCode int, wantWrong int64) {
		t.Helper()
		n := group // three fire, then three recover
		if !firing {
			n += 3
		}
		code, err := c.Post(t.Context(), b.Body(nil, n))
		if err != nil || code != wantCode || s.Wrong.Load() != wantWrong {
			t.Errorf("answered %d %v, wrong %d", code, err, s.Wrong.Load())
		}
	}
	send(0, true, 200, 0)
	send(1, true, 200, 0)
	send(0, false, 200, 0)
	s.Shut()
	send(1, false, 503, 0)
	s.Open()
	send(1, true, 200, 1) // twice
	send(2, false, 200, 2)
	b = bench.NewBodies(1, 400, 8)
	send(7, true, 200, 3) // nobody sent that
	if s.Received.Load() != 6 || s.Calls.Load() != 7 {
		t.Errorf("received %d of %d calls", s.Received.Load(), s.Calls.Load())
	}
	if rate, err := s.Bare(t.Context(), 2, 20); err != nil || rate <= 0 || s.Received.Load() != 6 {
		t.Errorf("bare %f %v, received %d", rate, err, s.Received.Load())
	}
}
