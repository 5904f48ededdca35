package clustertest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pmm-callgoose/worker/callgoose/callgoosetest"
)

// mark is one transition of one alert; the body carries it as the summary.
type mark struct {
	key int
	n   int // even is firing, odd is resolved
}

func (m mark) String() string { return fmt.Sprintf("%d/%d", m.key, m.n) }

// sink is a fake Callgoose that remembers the order in which it accepted.
type sink struct {
	fake *callgoosetest.Fake
	srv  *httptest.Server

	mu     sync.Mutex // guards all below
	first  map[mark]int
	times  []time.Time // of each acceptance
	again  int
	latest map[int]mark // by key: the latest of those accepted
	overt  []mark       // accepted first when a later one of their key had been
	stale  []mark       // accepted again when a later one of their key had been
}

func newSink(t *testing.T) *sink {
	s := &sink{fake: callgoosetest.New(callgoosetest.Config{Tokens: []string{token}}), first: map[mark]int{}, latest: map[int]mark{}}
	s.srv = httptest.NewServer(s)
	t.Cleanup(s.srv.Close)
	return s
}

func (s *sink) addr() string { return s.srv.Listener.Addr().String() }

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var in struct {
		Alerts []struct{ Annotations map[string]string }
	}
	var m mark
	ours := json.Unmarshal(body, &in) == nil && len(in.Alerts) == 1
	if ours {
		_, err = fmt.Sscanf(in.Alerts[0].Annotations["summary"], "%d/%d", &m.key, &m.n)
		ours = err == nil
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	answer := httptest.NewRecorder()
	s.mu.Lock()
	s.fake.ServeHTTP(answer, r)
	if ours && answer.Code/100 == 2 {
		s.accept(m)
	}
	s.mu.Unlock()
	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

// accept notes that m was accepted; s.mu is held.
func (s *sink) accept(m mark) {
	s.times = append(s.times, time.Now())
	if _, ok := s.first[m]; ok {
		if s.again++; s.latest[m.key].n > m.n {
			s.stale = append(s.stale, m)
		}
		return
	}
	s.first[m] = len(s.times)
	if latest, ok := s.latest[m.key]; ok && latest.n > m.n {
		s.overt = append(s.overt, m)
		return
	}
	s.latest[m.key] = m
}

// since counts what was accepted within the last d.
func (s *sink) since(d time.Duration) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.times) - 1; i >= 0 && time.Since(s.times[i]) < d; i-- {
		n++
	}
	return n
}

// stales counts what was accepted again behind a later one.
func (s *sink) stales() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.stale)
}

// reached is the latest transition of each key.
func (s *sink) reached() map[int]mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.latest)
}

// load sends, each alert from a goroutine of its own.
type load struct {
	c      *cluster
	client *http.Client
	next   atomic.Uint64 // which forwarder comes next
	stop   context.CancelFunc
	wg     sync.WaitGroup

	repeats  atomic.Int64 // posts that were not answered 202
	mu       sync.Mutex   // guards accepted
	accepted map[mark]bool
}

const (
	keys     = 32
	episodes = 10 * time.Minute // between two episodes of an alert: not the same, and nothing late is taken for new
)

// newLoad is one that sends nothing by itself. It is as patient as PMM.
func (c *cluster) newLoad() *load {
	return &load{c: c, stop: func() {}, accepted: map[mark]bool{}, client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: keys}}}
}

// startLoad sends until the load is finished.
func (c *cluster) startLoad(dice *rand.Rand) *load {
	ctx, stop := context.WithCancel(context.Background())
	l := c.newLoad()
	l.stop = stop
	c.t.Cleanup(stop)
	origin := time.Now().Add(-30 * 24 * time.Hour).UTC().Truncate(time.Second)
	for key := range keys {
		own := rand.New(rand.NewPCG(dice.Uint64(), uint64(key)))
		l.wg.Go(func() {
			for n := 0; ctx.Err() == nil || n%2 == 1; n++ { // none is left firing
				if !l.accept(mark{key, n}, origin) {
					return
				}
				select {
				case <-time.After(time.Duration(200+own.IntN(800)) * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
	}
	return l
}

// accept sends a transition until it is accepted.
func (l *load) accept(m mark, origin time.Time) bool {
	if !l.post(body(m, origin)) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accepted[m] = true
	return true
}

// post sends a body to one forwarder after the other until one answers 202.
func (l *load) post(body []byte) bool {
	for end := time.Now().Add(2 * patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		f := l.c.forwarders[l.next.Add(1)%uint64(len(l.c.forwarders))]
		url := f.url.Load()
		if url == nil {
			continue
		}
		resp, err := l.client.Post(*url, "application/json", bytes.NewReader(body))
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusAccepted {
				return true
			}
			if resp.StatusCode != http.StatusServiceUnavailable {
				l.c.t.Errorf("a webhook was answered %d", resp.StatusCode)
				return false
			}
		}
		l.repeats.Add(1)
	}
	l.c.t.Errorf("a webhook was not accepted within %s", 2*patience)
	return false
}

func body(m mark, origin time.Time) []byte {
	starts := origin.Add(time.Duration(m.n/2) * episodes)
	status, ends := "firing", time.Time{}
	if m.n%2 == 1 {
		status, ends = "resolved", starts.Add(episodes/2)
	}
	b, err := json.Marshal(map[string]any{"version": "4", "status": status, "groupKey": `{}:{alertname="Fault"}`, "alerts": []any{map[string]any{
		"status": status, "annotations": map[string]string{"summary": m.String()}, "startsAt": starts, "endsAt": ends,
		"labels": map[string]string{"alertname": "Fault", "severity": "critical", "instance": fmt.Sprintf("db-%03d", m.key)},
	}}})
	if err != nil {
		panic(err)
	}
	return b
}

// account is the sum of a run.
type account struct {
	accepted, again, refused             int
	missing, overtaken, invented, opened []mark
	stale                                []mark // delivered again behind a later one
}

// wrong reports whether a promise was broken.
func (a account) wrong() bool {
	return len(a.missing)+len(a.overtaken)+len(a.invented)+len(a.opened) > 0
}

func (a account) String() string {
	return fmt.Sprintf("accepted %d, missing %d, again %d (%d of them behind a later one), overtaken %d, not accepted and arrived %d, incidents left open %d; posts sent again %d",
		a.accepted, len(a.missing), a.again, len(a.stale), len(a.overtaken), len(a.invented), len(a.opened), a.refused)
}

// finish ends the load, waits until what was accepted has arrived, or nothing has
// arrived for quiet, and counts.
func (l *load) finish(quiet time.Duration) (a account) {
	l.stop()
	l.wg.Wait()
	s := l.c.sink
	arrived := func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.first) >= len(l.accepted) }
	for began := time.Now(); !arrived() && (s.since(quiet) > 0 || time.Since(began) < quiet); {
		time.Sleep(50 * time.Millisecond)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a = account{accepted: len(l.accepted), again: s.again, refused: int(l.repeats.Load()), overtaken: s.overt, stale: s.stale}
	for m := range l.accepted {
		if s.first[m] == 0 {
			a.missing = append(a.missing, m)
		}
	}
	for m := range s.first {
		if !l.accepted[m] {
			a.invented = append(a.invented, m)
		}
	}
	for range s.fake.Open() {
		a.opened = append(a.opened, mark{})
	}
	return a
}
