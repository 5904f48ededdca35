package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pmm-callgoose/ingest/pmm"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/queue"
	"pmm-callgoose/worker/callgoose"
	"pmm-callgoose/worker/callgoose/callgoosetest"
)

// sandbox is the whole worker, on a real stream and a real ledger, between an oracle
// and a fake Callgoose. It can die at each durable step: it goes on with a copy of what
// was on disk then.
type sandbox struct {
	t      *testing.T
	root   string
	oracle *oracle
	fake   *callgoosetest.Fake
	far    *callgoosetest.Transport
	away   atomic.Bool // nobody listens
	set    settings
	did    *tally
	vague  bool          // Callgoose may not have all that was settled
	offset time.Duration // of the clock that receives
	logs   bytes.Buffer  // of the process that lives
	p      *process
	notes  []event.Notification // those that were answered 202
}

// settings may differ between lives.
type settings struct {
	From        string
	ByName      bool
	Collapse    bool
	ResendAfter time.Duration
	LateAfter   time.Duration
	RetryMin    time.Duration
	RetryFor    time.Duration
	Keep        time.Duration
	Concurrency int
	Storm       StormRule
}

// life is the whole worker on a directory, wired as the service does it.
type life struct {
	dir       string
	ledger    *store.Store
	queue     *queue.Queue
	splitter  *Splitter
	deliverer *Deliverer
	ctx       context.Context //nolint:containedctx // its life
	stop      context.CancelFunc
	ended     sync.WaitGroup
	failed    func(error) // may be nil
}

// open opens the directory, and calls committed after each commit of the ledger.
func (l *life) open(synced bool, committed func(time.Duration), log *slog.Logger) (*Marker, error) {
	l.ctx, l.stop = context.WithCancel(context.Background())
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if l.ledger, _, err = store.Open(store.Config{Dir: l.dir, NoSync: !synced, Logger: log, Committed: committed}); err != nil {
		return nil, err
	}
	if l.queue, err = queue.Open(l.ctx, queue.Config{Dir: l.dir, NoSync: !synced, After: l.ledger.Summary().Progress.Seq, Logger: log}); err != nil {
		return nil, err
	}
	return Begin(l.ctx, l.queue, l.ledger, log)
}

// run makes the workers and starts them.
func (l *life) run(set *settings, marker *Marker, far http.RoundTripper, observer Observer, log *slog.Logger) error {
	client, err := callgoose.New(callgoose.Config{
		URL: "https://callgoose.test/v1/process", From: set.From, Token: func() string { return "token" }, Transport: far, Concurrency: set.Concurrency,
	})
	if err != nil {
		return err
	}
	notes := NewNotes(l.queue.Read)
	l.deliverer = NewDeliverer(DeliverConfig{
		RetryMin: set.RetryMin, RetryFor: set.RetryFor, Concurrency: set.Concurrency, ByAlertname: set.ByName, Logger: log, Observer: observer,
	}, l.ledger, NewBuilder(notes, l.ledger), client)
	l.splitter = NewSplitter(SplitConfig{
		Form:        Form{From: set.From, ByAlertname: set.ByName, LateAfter: set.LateAfter},
		ResendAfter: set.ResendAfter, Collapse: set.Collapse, Storm: set.Storm,
		Claim: l.deliverer.MayClaim, Outage: l.deliverer.Outage, Decided: l.deliverer.Wake, Logger: log, Observer: observer,
	}, l.queue, notes, l.ledger)
	retention := NewRetention(RetentionConfig{Keep: set.Keep, Logger: log}, l.queue, l.ledger)
	brake := NewBrake(set.Storm, l.queue, l.ledger, log)
	for _, run := range []func(context.Context) error{l.splitter.Run, l.deliverer.Run, retention.Run, marker.Run, brake.Run} {
		l.ended.Go(func() {
			if err := run(l.ctx); err != nil && l.failed != nil {
				l.failed(err)
			}
		})
	}
	return nil
}

// close stops the workers, and closes what open opened.
func (l *life) close() {
	l.stop()
	l.ended.Wait()
	if l.queue != nil {
		_ = l.queue.Close()
	}
	if l.ledger != nil {
		_ = l.ledger.Close()
	}
}

// idle reports whether all is decided on, and nothing waits.
func (l *life) idle() (idle bool, err error) {
	err = l.ledger.View(func(tx *store.Tx) {
		idle = next(tx.Progress()) > l.queue.Last()
		for range tx.Waiting(event.Position{}) {
			idle = false
			break
		}
	})
	return idle, err
}

// process is one life of a sandbox. It can be killed.
type process struct {
	*sandbox
	life

	fuse    atomic.Int64 // durable steps until it dies; not positive = never
	dead    atomic.Bool
	copied  sync.Once
	refused atomic.Value // the key of the last failure while Callgoose is away
}

var errDead = errors.New("the process is dead")

func (s *sandbox) start(dir string) {
	s.t.Helper()
	s.logs.Reset()
	p := &process{sandbox: s}
	s.p, p.dir = p, dir
	p.failed = func(err error) {
		if !p.dead.Load() {
			s.oracle.mu.Lock()
			s.oracle.fault("it ended by itself: %v", err)
			s.oracle.mu.Unlock()
		}
	}
	log := slog.New(slog.NewTextHandler(&s.logs, nil))
	marker, err := p.open(false, p.committed, log)
	if err != nil {
		s.t.Fatal(err)
	}
	if r := p.ledger.Summary().Rebuild; r != nil && len(r.Mark.Waiting) > 0 {
		s.did.count("rebuilt with events waiting")
	}
	if err := p.run(&s.set, marker, p, p, log); err != nil {
		s.t.Fatal(err)
	}
}

// halt ends the process: killed, when it is not dead yet, or in order.
func (s *sandbox) halt(kill bool) {
	p := s.p
	if kill {
		p.die()
	}
	p.close()
	s.did.counts(p.ledger.Summary().Counts)
}

// restart goes on in what the process left. lose removes its ledger before.
func (s *sandbox) restart(kill, lose bool) {
	s.t.Helper()
	dir := s.p.dir
	if s.halt(kill); s.p.dead.Load() {
		dir += "+"
	}
	if lose {
		if err := os.Remove(filepath.Join(dir, store.FileName)); err != nil {
			s.t.Fatal(err)
		}
	}
	if s.oracle.dies(lose); lose && s.vague {
		s.oracle.doubt("") // what was given up is unknown now, and goes out with the next repeat
	}
	s.start(dir)
}

// die takes a copy of the disk as it is between two commits. Whatever happens after it
// happens to nobody.
func (p *process) die() {
	_ = p.ledger.Do(context.Background(), func(tx *store.Tx) {
		p.snapshot()
		tx.Fail(errDead)
	})
}

func (p *process) snapshot() {
	p.copied.Do(func() {
		p.dead.Store(true)
		if err := copyDir(p.dir, p.dir+"+"); err != nil {
			p.t.Error(err)
		}
	})
}

// copyDir copies files that others may be removing.
func copyDir(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		target := to + path[len(from):]
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case d.IsDir():
			return os.MkdirAll(target, 0o700)
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return errors.Join(err, os.WriteFile(target, b, 0o600))
	})
}

// burns reports whether this durable step is the one to die at.
func (p *process) burns() bool { return p.fuse.Load() > 0 && p.fuse.Add(-1) == 0 }

// committed is told of each commit, before anybody else.
func (p *process) committed(time.Duration) {
	if p.burns() {
		p.snapshot()
	}
}

// step is a durable step outside of the ledger.
func (p *process) step() {
	if p.burns() {
		p.die()
	}
}

// publish stores a notification, and reports whether it was answered 202.
func (p *process) publish(n event.Notification) bool {
	if p.dead.Load() {
		return false
	}
	pos, err := p.queue.Publish(p.ctx, n)
	p.step()
	if p.dead.Load() {
		return false
	}
	if err != nil || pos.IsZero() {
		p.t.Errorf("publish: %v, %v", pos, err)
	}
	return true
}

// RoundTrip is the way to Callgoose.
func (p *process) RoundTrip(r *http.Request) (*http.Response, error) {
	gone := func() (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() }
	body, err := io.ReadAll(r.Body)
	var post posted
	if err != nil || json.Unmarshal(body, &post) != nil || len(post.Alerts) != 1 {
		p.t.Errorf("request %s: %v", body, err)
		return nil, errDead
	}
	if p.step(); p.dead.Load() { // it never arrived
		return gone()
	}
	if p.away.Load() {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	p.oracle.begins(&post, body)
	away := false
	switch p.deliverer.View().Circuit.State {
	case event.Down, event.Held:
		if last, _ := p.refused.Load().(string); last != "" && last != post.Key {
			p.did.count("probe of another key")
		}
		away = true
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	resp, err := p.far.RoundTrip(r)
	if p.step(); p.dead.Load() { // nobody learned of the answer
		return gone()
	}
	code := 0
	if err == nil {
		code = resp.StatusCode
	}
	if page := err == nil && resp.Header.Get("Content-Type") == "text/html"; page {
		code = 0 // it came from somebody else
	}
	if p.oracle.ends(&post, code) {
		p.did.count("again after a discard")
	}
	refused := ""
	if away && code/100 != 2 {
		refused = post.Key
	}
	p.refused.Store(refused)
	return resp, err
}

// Attempt, Settled, FirstTaken and Circuit make it an Observer.
func (p *process) Attempt(event.Attempt, string) {}
func (p *process) FirstTaken(time.Duration)      {}
func (p *process) Circuit(string)                {}
func (p *process) Settled(o event.Outcome, _ time.Duration) {
	p.did.count(string(o))
}

// deliver hands PMM's request to the process.
func (s *sandbox) deliver(req *request202) (ok bool) {
	time.Sleep(time.Millisecond) // no two are received at once
	now := time.Now().UTC()
	var alerts []member
	for _, m := range req.members {
		n := s.oracle.say(event.Key(req.source, m.finger()), m.Labels["alertname"], word{status: m.Status, starts: m.StartsAt, ends: m.EndsAt, began: req.began, whole: now, now: m.now, old: m.old})
		if m.Fingerprint == "" {
			s.oracle.trim(n, event.Key(req.source, pmm.Fingerprint(m.Labels)))
		}
		a := m.member
		a.Annotations = map[string]string{"summary": "it is so", "word": jsonInt(n)}
		alerts = append(alerts, a)
	}
	n := event.Notification{
		Source: req.source, BeganAt: req.began.Add(s.offset), ReceivedAt: now.Add(s.offset), Alerts: len(alerts), Body: body(s.t, alerts...),
	}
	if ok = s.p.publish(n); !ok {
		return false
	}
	s.notes = append(s.notes, n)
	for _, m := range req.members {
		s.oracle.ack(event.Key(req.source, m.finger()))
	}
	return true
}

func jsonInt(n int) string { b, _ := json.Marshal(n); return string(b) }

// queued is what waits.
func (s *sandbox) queued() (list []store.Waiting) {
	s.t.Helper()
	if err := s.p.ledger.View(func(tx *store.Tx) { list = waiting(tx) }); err != nil {
		s.t.Fatal(err)
	}
	return list
}

// tally is what a campaign went through.
type tally struct {
	mu sync.Mutex // guards the map
	n  map[string]int64
}

func (d *tally) count(what string) { d.counts(map[string]int64{what: 1}) }

func (d *tally) counts(n map[string]int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for what, n := range n {
		d.n[what] += n
	}
}
