package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker"
	"pmm-callgoose/worker/callgoose"
)

// sandbox runs the real splitter, the real deliverer, the real client and the
// real ledger between streams in memory and a Callgoose that follows a script,
// and lets the oracle watch both ends. Nothing of it touches a network, and
// nothing is fsynced.
type sandbox struct {
	t    *testing.T
	seed uint64
	dir  string

	mu        sync.Mutex // guards everything below but the process
	oracle    *oracle
	all       []accepted
	fault     string // what Callgoose does to requests
	requests  map[string]int
	answers   uint64          // how often a request came or ended
	busy      map[string]bool // ordering keys with a request under way
	probing   int
	down      bool // an attempt told the process that Callgoose is away
	knew      bool // and that was before this step
	failures  int  // attempts that failed
	calm      int  // of them, before the last one that did not
	notes     [][]event.Notification
	events    [][]byte
	last      event.Position // the furthest At among the events
	acked     map[uint64]bool
	position  uint64
	wake      chan struct{}
	published chan struct{} // closed and replaced when events come

	ledger *store.Store
	p      *process
	lives  int
}

// process is one life: from a start to a stop or a kill.
type process struct {
	*sandbox
	splitter  *worker.Splitter
	deliverer *worker.Deliverer
	dead      atomic.Bool
	fuse      atomic.Int64 // durable steps until it dies; negative = never
	stop      context.CancelFunc
	ended     sync.WaitGroup
	next      uint64 // owned by the caller of Next
	closed    chan struct{}
}

var errKilled = errors.New("killed")

// dies reports whether the process is dead: it may die at every durable step,
// before it takes effect and after.
func (p *process) dies() bool {
	if p.fuse.Add(-1) == 0 {
		p.dead.Store(true)
	}
	return p.dead.Load()
}

// The ledger, for worker.Ledger.

func (p *process) mortal(fn func(event.Tx) error) func(event.Tx) error {
	return func(tx event.Tx) error {
		if p.dead.Load() {
			return errKilled
		}
		if err := fn(tx); err != nil {
			return err
		}
		if p.dies() { // before the commit
			return errKilled
		}
		return nil
	}
}

// done is after the commit: who died there did not learn of it.
func (p *process) done(err error) error {
	if err == nil && p.dies() {
		return errKilled
	}
	return err
}

func (p *process) Alone(fn func(event.Tx) error) error { return p.done(p.ledger.Alone(p.mortal(fn))) }

func (p *process) Do(ctx context.Context, fn func(event.Tx) error) error {
	return p.done(p.ledger.Do(ctx, p.mortal(fn)))
}

func (p *process) View(fn func(event.Tx) error) error { return p.ledger.View(fn) }

// The streams, for worker.Streams, Source and Bodies.

func (p *process) LastNotification() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return uint64(len(p.notes))
}

func (p *process) Wake() <-chan struct{} { return p.wake }

func (p *process) Notifications(_ context.Context, seq uint64) ([]event.Notification, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.notes[seq-1]), nil
}

func (p *process) PublishEvents(_ context.Context, evs []*event.Event) (first uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	first = uint64(len(p.events)) + 1
	defer func() {
		close(p.published)
		p.published = make(chan struct{})
	}()
	for _, e := range evs {
		if p.dies() { // a prefix is there
			return first, errKilled
		}
		p.events = append(p.events, e.Encode(nil))
		if e.At.Compare(p.last) > 0 {
			p.last = e.At
		}
		p.oracle.published(uint64(len(p.events)), e, p.lives, p.knew, p.calm)
	}
	return first, nil
}

func (p *process) Event(_ context.Context, seq uint64) (*event.Event, error) {
	return event.Decode(p.message(seq))
}

func (p *process) message(seq uint64) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.events[seq-1])
}

func (p *process) LastEvent() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return uint64(len(p.events))
}

func (p *process) FirstEvent(context.Context) (uint64, error)        { return 1, nil }
func (p *process) FirstNotification(context.Context) (uint64, error) { return 1, nil }
func (p *process) Room() (used, limit, free int64)                   { return 0, 1 << 40, 1 << 40 }
func (p *process) Purge(context.Context, uint64, uint64) error       { return nil }

func (p *process) Position(context.Context) (uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.position, nil
}

func (p *process) Next() (event.Delivery, error) {
	for {
		p.mu.Lock()
		more, there := p.published, uint64(len(p.events)) > p.next
		p.mu.Unlock()
		if there {
			p.next++
			e, err := event.DecodeBrief(p.message(p.next))
			return event.Delivery{Seq: p.next, Event: e, Err: err}, nil
		}
		select {
		case <-more:
		case <-p.closed:
			return event.Delivery{}, errKilled
		}
	}
}

func (p *process) Ack(seq uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead.Load() {
		return
	}
	for p.acked[seq] = true; p.acked[p.position+1]; p.position++ {
		delete(p.acked, p.position+1)
	}
}

func (p *process) Close() { close(p.closed) }

// Callgoose, for callgoose.Client.

// answer is what Callgoose does to one request.
type answer struct {
	code      int // 0 = the connection breaks
	body      string
	after     string // Retry-After
	delay     time.Duration
	refuse    bool // nobody listens: it is not received
	lost      bool // it is processed, and the answer lost
	duplicate bool
}

// The faults, by name. Each picks an answer by a number.
var faults = map[string]func(n uint64) answer{
	"none":         func(uint64) answer { return answer{code: 200, body: `{"id":1,"triggered":{"created":true}}`} },
	"refused":      func(uint64) answer { return answer{refuse: true} },
	"reset":        func(uint64) answer { return answer{} },
	"hang":         func(uint64) answer { return answer{delay: time.Hour} },
	"slow":         func(n uint64) answer { return answer{code: 200, body: "{}", delay: time.Duration(n%20) * time.Second} },
	"lost":         func(n uint64) answer { return answer{code: 200, body: "{}", lost: n%2 == 0} },
	"500":          func(uint64) answer { return answer{code: 500} },
	"503":          func(uint64) answer { return answer{code: 503, after: "90"} },
	"429":          func(uint64) answer { return answer{code: 429, after: "5"} },
	"401":          func(uint64) answer { return answer{code: 401} },
	"302":          func(uint64) answer { return answer{code: 302} },
	"discard":      func(uint64) answer { return answer{code: 202, body: `{"id":2}`} },
	"by event":     func(n uint64) answer { return answer{code: []int{200, 201, 202, 400, 413, 415, 422}[n%7], body: "{}"} },
	"one in three": func(n uint64) answer { return answer{code: []int{500, 200, 201}[n%3], body: "{}"} },
	"mixed": func(n uint64) answer {
		return []answer{
			{code: 200, body: "{}"},
			{code: 200, body: "no json"},
			{code: 201, body: "{}"},
			{code: 202, body: "{}"},
			{code: 400},
			{code: 422},
			{code: 202, body: `{"triggered":{"duplicate":true}}`, duplicate: true},
			{code: 202, body: `{"duplicate":true}`, duplicate: true},
			{code: 200, body: "{}", lost: true},
			{code: 429, after: "3"},
			{code: 500},
			{code: 408},
			{code: 425},
			{code: 502},
			{code: 200, body: "{}", delay: 2 * time.Second},
			{},
		}[n%16]
	},
}

// pick is a number that depends on the seed, the event and the attempt only.
func (s *sandbox) pick(id string, attempt int) uint64 {
	h := fnv.New64a()
	if s.fault == "by event" || s.fault == "one in three" {
		attempt = 0
	}
	fmt.Fprint(h, s.seed, id, attempt)
	return h.Sum64() >> 8
}

var errReset = &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)}

// RoundTrip implements http.RoundTripper.
func (p *process) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	var e struct {
		ID     string       `json:"event_id"`
		Key    string       `json:"incident_key"`
		Status event.Status `json:"status"`
		Late   string       `json:"delayed_by"`
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dies() {
		return nil, errReset
	}
	a := faults[p.fault](p.pick(e.ID, p.requests[e.ID]))
	p.requests[e.ID]++
	p.answers++
	m := p.oracle.requested(e.Key, e.Status, e.ID, e.Late, body, time.Now(), !a.refuse, p.lives, p.failures)
	line := p.oracle.order[e.Key]
	if p.busy[line] {
		p.oracle.fault("two requests of %s at once", line)
	}
	probe := p.knew
	if probe && p.probing > 0 {
		p.oracle.fault("a request goes out beside the probe")
	}
	if p.busy[line] = true; m == nil {
		return nil, errReset
	}
	if probe {
		p.probing++
	}
	defer func() {
		p.answers++
		if probe {
			p.probing--
		}
		delete(p.busy, line)
	}()
	if a.refuse {
		p.failures, p.down = p.failures+1, true
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	if a.delay > 0 {
		p.mu.Unlock()
		select {
		case <-time.After(a.delay):
		case <-r.Context().Done():
		}
		p.mu.Lock()
		if err := r.Context().Err(); err != nil {
			p.failures++
			if errors.Is(context.Cause(r.Context()), context.DeadlineExceeded) && !p.dead.Load() {
				p.oracle.answered(m, 0, false, time.Now())
			}
			return nil, err
		}
	}
	if p.dies() { // received, and we never heard of it
		return nil, errReset
	}
	if a.code == 0 || a.lost {
		p.failures++
		p.oracle.answered(m, 0, false, time.Now())
		return nil, errReset
	}
	switch p.oracle.answered(m, a.code, a.duplicate, time.Now()) {
	case true:
		p.down, p.knew, p.calm = false, false, p.failures
	default:
		p.failures++
		p.down = p.down || a.code < 408
	}
	resp := &http.Response{
		StatusCode: a.code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{},
		Body: io.NopCloser(strings.NewReader(a.body)), Request: r,
	}
	if a.after != "" {
		resp.Header.Set("Retry-After", a.after)
	}
	return resp, nil
}

// start begins a life. The deliverer starts after what was left is split: then
// it is certain which outcomes a decision knew of.
func (s *sandbox) start() {
	s.t.Helper()
	var fresh bool
	var err error
	if s.ledger, fresh, err = store.Open(store.Config{Dir: s.dir, NoSync: true}); err != nil {
		s.t.Fatal(err)
	}
	s.verifyDead(fresh)
	rules := s.oracle.rules
	s.lives++
	s.down, s.knew = false, false
	if state := s.ledger.Summary().Circuit.State; state == event.Down || state == event.Held {
		s.failures++ // it believes so, even if it died before it wrote down that this was over
	}
	p := &process{sandbox: s, closed: make(chan struct{})}
	p.fuse.Store(-1)
	log := slog.New(slog.DiscardHandler)
	client, err := callgoose.New(callgoose.Config{
		URL: "https://callgoose.test/v1/process", From: "PerconaPMM", Token: func() string { return token }, Transport: p,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	p.splitter = worker.NewSplitter(worker.SplitConfig{
		From: "PerconaPMM", ByAlertname: rules.byName, ResendAfter: rules.resend, Collapse: rules.collapse, LateAfter: rules.tellLate, Logger: log,
	}, p, p)
	p.deliverer = worker.NewDeliverer(worker.DeliverConfig{
		RetryFor: rules.retryFor, Concurrency: rules.concurrency, LateAfter: rules.tellLate, Collapse: rules.collapse,
		Restore: p.splitter.Restore, Logger: log,
	}, p, p, p, client)
	ctx, stop := context.WithCancel(context.Background())
	s.p, p.stop = p, stop
	if err := p.splitter.Recover(ctx, fresh); err != nil {
		s.t.Fatalf("recover: %v", err)
	}
	p.next = s.ledger.Summary().Floor
	watch := func(run func(context.Context) error) {
		p.ended.Go(func() {
			if err := run(ctx); err != nil && !p.dead.Load() {
				s.mu.Lock()
				s.oracle.fault("it ended by itself: %v", err)
				s.mu.Unlock()
			}
		})
	}
	watch(p.splitter.Run)
	s.rest()
	watch(p.deliverer.Run)
	s.rest()
}

// rest waits until nothing moves but what waits for seconds: a commit may wait for
// company.
func (s *sandbox) rest() {
	s.t.Helper()
	for before, moved := uint64(0), true; moved; {
		time.Sleep(2 * commitWithin)
		synctest.Wait()
		s.mu.Lock()
		now := s.ledger.Changes() + s.answers + uint64(len(s.events))
		s.mu.Unlock()
		moved, before = now != before, now
	}
}

// commitWithin is how long a commit waits for company at the most.
const commitWithin = time.Millisecond

// halt ends a life, in order or by a kill.
func (s *sandbox) halt(kill bool) {
	s.t.Helper()
	if kill {
		s.p.dead.Store(true)
	}
	s.p.stop()
	s.p.ended.Wait()
	if err := s.ledger.Close(); err != nil {
		s.t.Fatal(err)
	}
}

// lose removes the ledger of a process that has ended.
func (s *sandbox) lose() {
	if err := os.Remove(filepath.Join(s.dir, store.FileName)); err != nil {
		s.t.Fatal(err)
	}
}

// verifyDead finds out, from what a dead process left, which of the last
// answers it had written down.
func (s *sandbox) verifyDead(fresh bool) {
	o := s.oracle
	if fresh {
		o.forget(s.position, s.last, s.all)
		return
	}
	o.interrupted(s.ledger.Summary().Progress.At, s.last)
	if len(o.unsure) == 0 {
		return
	}
	known := map[uint64]bool{}
	floor := s.ledger.Summary().Floor
	if err := s.ledger.View(func(tx event.Tx) error {
		for seq := range tx.Settled() {
			known[seq] = true
		}
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
	for _, m := range slices.Backward(o.unsure) {
		if m.seq > floor && !known[m.seq] {
			o.unanswered(m)
		}
	}
	o.unsure = nil
}

// verify compares what was settled since the last time with the ledger, when
// nothing moves. It reports whether the process lives.
func (s *sandbox) verify() bool {
	s.t.Helper()
	if s.p.dead.Load() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.oracle
	if o.there < len(o.line) {
		m := o.line[o.there]
		o.fault("%s %s of %+v does not become an event; it must", m.key, m.status, m.pos)
	}
	if len(o.unsure) > 0 || s.overdue(time.Now()) {
		s.lookUp()
	}
	o.unsure = nil
	s.knew = s.down
	o.step++
	return len(o.faults) == 0
}

// overdue reports whether an event may have been settled without a request.
func (s *sandbox) overdue(now time.Time) bool {
	for _, line := range s.oracle.queues {
		if len(line) > 0 && (s.oracle.tooOld(line[0], now) || s.oracle.collapsible(line[0], s.failures)) {
			return true
		}
	}
	return false
}

// lookUp compares with the records what was settled, or may have been.
func (s *sandbox) lookUp() {
	s.t.Helper()
	o := s.oracle
	if err := s.ledger.View(func(tx event.Tx) error {
		for line := range o.queues {
			for len(o.queues[line]) > 0 && !s.busy[line] {
				m := o.queues[line][0]
				r, err := tx.Record(m.received, m.pos)
				if err != nil {
					return err
				}
				if r == nil || (r.Outcome != event.Dead || !o.tooOld(m, time.Now())) && (r.Outcome != event.Collapsed || !o.collapsible(m, s.failures)) {
					break
				}
				o.settle(m, r.Outcome, r.SettledAt)
			}
		}
		for _, m := range o.unsure {
			r, err := tx.Record(m.received, m.pos)
			if err != nil {
				return err
			}
			if r != nil && m.want == "" && (r.Outcome == event.Dead || r.Outcome == event.Collapsed) {
				m.outcome, m.want = r.Outcome, r.Outcome
			}
			if r != nil && m.settled.IsZero() {
				m.settled = r.SettledAt
			}
			switch {
			case r == nil || r.Outcome != m.outcome, m.outcome == m.want && (r.SettledAt.Before(m.settled) || r.SettledAt.After(m.settled.Add(2*commitWithin))):
				o.fault("%s %s %s is %+v, want %s since %s", m.key, m.status, m.id, r, m.outcome, m.settled)
			case m.outcome == m.want:
				m.settled = r.SettledAt // what --resend-after counts from
			}
		}
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
}

// replay puts events in line as an operator does.
func (s *sandbox) replay(closedToo bool) {
	s.t.Helper()
	_, refs, err := plan(&core{ledger: s.ledger}, admin.ReplayRequest{Filter: event.Filter{OldestFirst: true}, IncludeClosed: closedToo}, false)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	want := s.oracle.mayReplay(closedToo)
	if len(want) != len(refs) {
		s.oracle.fault("a replay takes %d events, want %d", len(refs), len(want))
		s.mu.Unlock()
		return
	}
	for i, f := range want {
		if f.pos != refs[i].Pos {
			s.oracle.fault("a replay takes the alert of %+v, want %s %s of %+v", refs[i].Pos, f.key, f.status, f.pos)
		}
		s.oracle.line = append(s.oracle.line, &message{fate: f, again: true})
	}
	s.mu.Unlock()
	n, err := s.p.splitter.Requeue(context.Background(), refs)
	if s.p.dead.Load() { // those that stand in the stream are in line
		s.oracle.line = s.oracle.line[:s.oracle.there]
		return
	}
	if err != nil || n != len(refs) {
		s.t.Errorf("put %d of %d in line again: %v", n, len(refs), err)
	}
}
