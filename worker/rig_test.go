package worker

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose"
)

// rig is a deliverer on a real ledger, in a bubble. The splitter is played by put, the
// network and Callgoose by far.
type rig struct {
	t      *testing.T
	dir    string
	cfg    DeliverConfig
	far    *far
	bodies *builder
	logs   *bytes.Buffer

	ledger *store.Store
	d      *Deliverer
	cancel context.CancelFunc
	ended  chan error
	seq    uint64
}

// bubble runs fn with a deliverer that is running, and checks at the end that Callgoose
// got nothing out of order.
func bubble(t *testing.T, cfg DeliverConfig, fn func(r *rig)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, dir: dir, cfg: cfg, far: &far{t: t}, bodies: &builder{}, logs: &bytes.Buffer{}}
		r.far.fails = r.far.passes
		r.cfg.Logger = slog.New(slog.NewTextHandler(r.logs, nil))
		r.start()
		defer func() {
			r.halt()
			if t.Failed() && r.logs.Len() < 20_000 {
				t.Logf("log:\n%s", r.logs)
			}
		}()
		fn(r)
	})
}

func (r *rig) start() {
	r.t.Helper()
	var err error
	if r.ledger, _, err = store.Open(store.Config{Dir: r.dir, NoSync: true}); err != nil {
		r.t.Fatal(err)
	}
	r.d = NewDeliverer(r.cfg, r.ledger, r.bodies, r.far)
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.ended = cancel, make(chan error, 1)
	go func() { r.ended <- r.d.Run(ctx) }()
}

func (r *rig) halt() {
	r.t.Helper()
	r.cancel()
	if err := <-r.ended; err != nil {
		r.t.Errorf("it ended with %v", err)
	}
	if err := r.ledger.Close(); err != nil {
		r.t.Error(err)
	}
}

func (r *rig) restart() { r.halt(); r.start() }

// crash goes on with what is on disk now, as if the process had been killed.
func (r *rig) crash() {
	r.t.Helper()
	b, err := os.ReadFile(filepath.Join(r.dir, store.FileName))
	if err != nil {
		r.t.Fatal(err)
	}
	r.halt() // what it still writes is lost
	if r.dir = filepath.Join(r.dir, "next"); os.Mkdir(r.dir, 0o700) != nil || os.WriteFile(filepath.Join(r.dir, store.FileName), b, 0o600) != nil {
		r.t.Fatal("cannot copy the ledger")
	}
	r.start()
}

// alert is what put queues. Its zero values: firing, first, queued now, name of the key.
type alert struct {
	key, name string
	resolved  bool
	queuedAt  time.Time
	claimed   time.Time // born claimed
	recorded  time.Time // claimed in the record, too: it was sent before
	held      time.Duration
	ahead     time.Duration // how far the clock was ahead when it came in
	began     time.Time     // as PMM says
	attempts  []event.Attempt
	storm     bool
	size      int // of its body, as the queue has it
}

// put queues alerts in one transaction, as the splitter does, and wakes the deliverer.
func (r *rig) put(alerts ...alert) (places []event.Position) {
	r.t.Helper()
	r.seq++
	err := r.ledger.Do(context.Background(), func(tx *store.Tx) {
		places = nil
		for i, a := range alerts {
			at := event.Position{Seq: r.seq, Item: uint32(i)}
			places = append(places, at)
			w := store.Waiting{
				At: at, Pos: at, ReceivedAt: time.Now().Add(a.ahead).UTC(), Status: event.Firing, Key: a.key, Source: "pmm",
				Alertname: a.name, QueuedAt: time.Now(), ClaimedAt: a.claimed, Size: a.size, Storm: a.storm,
			}
			if a.name == "" {
				w.Alertname = a.key
			}
			if a.resolved {
				w.Status = event.Resolved
			}
			if a.held > 0 {
				w.NotBefore = w.ReceivedAt.Add(a.held)
			}
			if !a.queuedAt.IsZero() {
				w.QueuedAt = a.queuedAt
			}
			rec := recordOf(tx, &w)
			rec.Facts.Since = w.QueuedAt
			rec.ID, rec.ClaimedAt = event.ID(a.key, w.Status, fmt.Sprint(at)), a.recorded
			rec.StartsAt, rec.Attempts = a.began, a.attempts
			rec.Labels = map[string]string{"alertname": w.Alertname}
			tx.PutRecord(rec)
			tx.PutWaiting(&w)
			tx.PutEpisode(&store.Episode{Key: a.key, Source: "pmm", Alertname: w.Alertname, Open: !a.resolved})
			tx.SetProgress(at)
		}
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.d.Wake()
	return places
}

// many are n alerts of keys of their own.
func many(prefix string, n int) (list []alert) {
	for i := range n {
		list = append(list, alert{key: fmt.Sprintf("%s%d", prefix, i)})
	}
	return list
}

func (r *rig) record(at event.Position) *event.Record {
	r.t.Helper()
	var rec *event.Record
	if err := r.ledger.View(func(tx *store.Tx) { rec = tx.Record(time.Time{}, at) }); err != nil || rec == nil {
		r.t.Fatalf("the record of %v: %v, %v", at, rec, err)
	}
	return rec
}

// queued is what the ledger's queue holds.
func (r *rig) queued() (list []store.Waiting) {
	r.t.Helper()
	if err := r.ledger.View(func(tx *store.Tx) { list = slices.Collect(tx.Waiting(event.Position{})) }); err != nil {
		r.t.Fatal(err)
	}
	return list
}

func (r *rig) count(o event.Outcome) int { return int(r.ledger.Summary().Counts[string(o)]) }

// settle waits until nothing is queued, and returns how long that took.
func (r *rig) settle() time.Duration {
	r.t.Helper()
	began := time.Now()
	for r.count(event.Queued) > 0 {
		if time.Since(began) > 48*time.Hour {
			r.t.Fatalf("%d events still wait: %+v", r.count(event.Queued), r.d.View().Circuit)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return time.Since(began)
}

func (r *rig) want(at event.Position, outcome event.Outcome, reason string) {
	r.t.Helper()
	if rec := r.record(at); rec.Outcome != outcome || !strings.Contains(rec.Reason, reason) {
		r.t.Errorf("%s %s ended as %s (%s), want %s (%s)", rec.Key, rec.Status, rec.Outcome, rec.Reason, outcome, reason)
	}
}

func (r *rig) state(want string) {
	r.t.Helper()
	synctest.Wait()
	if c := r.d.View().Circuit; c.State != want {
		r.t.Errorf("the state is %s (%s), want %s", c.State, c.LastError, want)
	}
}

// builder makes bodies of one line.
type builder struct {
	mu  sync.Mutex
	err map[string]error // by key

	made      int // bodies
	now, most int // being made, now and at most
}

func (b *builder) Body(_ context.Context, r *event.Record, claimedAt time.Time) ([]byte, error) {
	b.mu.Lock()
	b.made++
	b.now++
	b.most = max(b.most, b.now)
	b.mu.Unlock()
	runtime.Gosched()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now--
	if claimedAt.IsZero() {
		return nil, fmt.Errorf("%v is sent without a claim", r.At)
	}
	late := claimedAt.Sub(r.Facts.Since).Round(time.Second)
	return fmt.Appendf(nil, "%s %s %d.%d late %s labels %d", r.Key, r.Status, r.At.Seq, r.At.Item, late, len(r.Labels)), b.err[r.Key]
}

// request is one that far got.
type request struct {
	key, status string
	at          event.Position
	body        string
	when        time.Time
	passed      bool
	renewed     bool // on a new connection
}

// far is Callgoose and the way to it. It checks that the events of a key come one at a
// time, and each behind the one before.
type far struct {
	t       *testing.T
	mu      sync.Mutex
	fails   func(ctx context.Context, q request) *callgoose.Error // nil = passes
	list    []request
	busy    map[string]bool
	at      map[string]event.Position
	renewed bool
	most    int // requests at once
}

func (*far) passes(context.Context, request) *callgoose.Error { return nil }

func (f *far) set(fails func(ctx context.Context, q request) *callgoose.Error) {
	f.mu.Lock()
	f.fails = fails
	f.mu.Unlock()
}

// answers makes each request end with err.
func (f *far) answers(err *callgoose.Error) {
	f.set(func(context.Context, request) *callgoose.Error { return err })
}

func (f *far) Renew() { f.mu.Lock(); f.renewed = true; f.mu.Unlock() }

func (f *far) Send(ctx context.Context, body []byte) (callgoose.Reply, error) {
	q := request{body: string(body), when: time.Now()}
	if _, err := fmt.Sscanf(q.body, "%s %s %d.%d", &q.key, &q.status, &q.at.Seq, &q.at.Item); err != nil {
		f.t.Errorf("body %q: %v", body, err)
	}
	f.mu.Lock()
	if f.busy == nil {
		f.busy, f.at = map[string]bool{}, map[string]event.Position{}
	}
	if f.busy[q.key] {
		f.t.Errorf("two requests of %s at once", q.key)
	}
	if q.at.Compare(f.at[q.key]) < 0 {
		f.t.Errorf("%s: %v after %v", q.key, q.at, f.at[q.key])
	}
	q.renewed, f.renewed = f.renewed, false
	f.busy[q.key], f.at[q.key] = true, q.at
	f.most = max(f.most, len(f.busy))
	fails, place := f.fails, len(f.list)
	f.list = append(f.list, q)
	f.mu.Unlock()
	err := fails(ctx, q)
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.busy, q.key)
	if err != nil {
		return callgoose.Reply{}, err
	}
	f.list[place].passed = true
	return callgoose.Reply{Status: 201, ID: "c", Effect: "created"}, nil
}

func (f *far) requests() []request { f.mu.Lock(); defer f.mu.Unlock(); return slices.Clone(f.list) }

// of are the requests of a key.
func (f *far) of(key string) []request {
	return slices.DeleteFunc(f.requests(), func(q request) bool { return q.key != key })
}

// The ways in which a request fails.
func status(s int) *callgoose.Error { return &callgoose.Error{Status: s, Sent: true} }

func step(s string) *callgoose.Error {
	return &callgoose.Error{Step: s, Sent: s == "timeout" || s == "reset"}
}

func page() *callgoose.Error      { return &callgoose.Error{Status: 200, Sent: true, Foreign: true} }
func unreached() *callgoose.Error { return step("connect") }

// only fails the requests of one key with err.
func only(key string, err *callgoose.Error) func(context.Context, request) *callgoose.Error {
	return func(_ context.Context, q request) *callgoose.Error {
		if q.key == key {
			return err
		}
		return nil
	}
}
