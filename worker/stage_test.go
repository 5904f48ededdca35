package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/queue"
)

// The server's clock for access times is shared by the whole process: it has to
// be started outside of every bubble, or time would stand still inside.
func TestMain(m *testing.M) {
	ats.Register()
	debug.SetGCPercent(400) // little is live at a time
	os.Exit(m.Run())
}

// stage is a stream and a ledger with a splitter between them, real ones, and no
// Callgoose: what is queued stays queued until a test settles it.
type stage struct {
	t      *testing.T
	dir    string
	cfg    SplitConfig
	queue  *queue.Queue
	ledger *store.Store
	notes  *Notes
	build  *Builder
	split  *Splitter
	marker *Marker

	damaged uint64 // the envelope that cannot be read, 0 = none
}

func newStage(t *testing.T, cfg SplitConfig) *stage {
	t.Helper()
	cfg.Form.From, cfg.Logger = "PerconaPMM", slog.New(slog.DiscardHandler)
	r := &stage{t: t, dir: t.TempDir(), cfg: cfg}
	r.open()
	t.Cleanup(r.close)
	return r
}

func (r *stage) open() {
	r.t.Helper()
	var err error
	if r.ledger, _, err = store.Open(store.Config{Dir: r.dir, NoSync: true}); err != nil {
		r.t.Fatal(err)
	}
	if r.queue, err = queue.Open(r.t.Context(), queue.Config{Dir: r.dir, NoSync: true, After: r.ledger.Summary().Progress.Seq}); err != nil {
		r.t.Fatal(err)
	}
	if r.marker, err = Begin(r.t.Context(), r.queue, r.ledger, r.cfg.Logger); err != nil {
		r.t.Fatal(err)
	}
	r.notes = NewNotes(func(ctx context.Context, seq uint64) ([]event.Notification, error) {
		if seq == r.damaged {
			return nil, event.ErrDamaged
		}
		return r.queue.Read(ctx, seq)
	})
	r.build = NewBuilder(r.notes, r.ledger)
	r.split = NewSplitter(r.cfg, r.queue, r.notes, r.ledger)
}

func (r *stage) close() {
	_ = r.queue.Close()
	_ = r.ledger.Close()
}

// reopen is a crash and a start. lose deletes the ledger in between.
func (r *stage) reopen(lose bool) {
	r.t.Helper()
	r.close()
	if lose {
		if err := os.Remove(r.dir + "/" + store.FileName); err != nil {
			r.t.Fatal(err)
		}
	}
	r.open()
}

// member is one alert of a body.
type member struct {
	Status       event.Status      `json:"status"`
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	Fingerprint  string            `json:"fingerprint,omitempty"`
	GeneratorURL string            `json:"generatorURL"`
}

// firing and resolved are alerts of one rule on one host.
func firing(name string, at time.Time) member {
	return member{
		Status: event.Firing, Labels: map[string]string{"alertname": "MySQL Down", "instance": name}, Annotations: map[string]string{"summary": "down"},
		StartsAt: at, Fingerprint: name,
	}
}

func resolved(name string, at, ended time.Time) member {
	a := firing(name, at)
	a.Status, a.EndsAt = event.Resolved, ended
	return a
}

// post stores a notification received at a time, its request begun took before.
func (r *stage) post(at time.Time, took time.Duration, alerts ...member) event.Position {
	r.t.Helper()
	return r.store(event.Notification{Source: "pmm", BeganAt: at.Add(-took), ReceivedAt: at, Alerts: len(alerts), Body: body(r.t, alerts...)})
}

func (r *stage) store(n event.Notification) event.Position {
	r.t.Helper()
	pos, err := r.queue.Publish(r.t.Context(), n)
	if err != nil {
		r.t.Fatal(err)
	}
	return pos
}

func body(t *testing.T, alerts ...member) []byte {
	t.Helper()
	b, err := json.Marshal(map[string]any{"receiver": "callgoose", "status": "firing", "version": "1", "groupKey": "{}", "alerts": alerts})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// decide splits all that is stored.
func (r *stage) decide() {
	r.t.Helper()
	for {
		more, err := r.split.step(r.t.Context())
		if err != nil {
			r.t.Fatal(err)
		}
		if !more {
			return
		}
	}
}

// closes ends an open episode by hand.
func (r *stage) closes(key string, at time.Time) {
	r.t.Helper()
	var n event.Notification
	if err := r.ledger.View(func(tx *store.Tx) { n = CloseBody(tx, key, at) }); err != nil {
		r.t.Fatal(err)
	}
	r.store(n)
}

// settle ends what is waiting with an outcome, oldest first.
func (r *stage) settle(outcome event.Outcome) { r.settleOnly(outcome, "") }

// settleOnly ends only what is waiting of a key, "" = of all.
func (r *stage) settleOnly(outcome event.Outcome, key string) {
	r.t.Helper()
	if err := r.ledger.Do(r.t.Context(), func(tx *store.Tx) {
		for _, w := range waiting(tx) {
			if key != "" && w.Key != key {
				continue
			}
			rec := tx.Record(w.ReceivedAt, w.Pos)
			rec.Outcome, rec.SettledAt, rec.ClaimedAt = outcome, t0, t0
			tx.PutRecord(rec)
			tx.DropWaiting(w.At)
		}
	}); err != nil {
		r.t.Fatal(err)
	}
}

func waiting(tx *store.Tx) []store.Waiting { return slices.Collect(tx.Waiting(event.Position{})) }

// line is what is waiting, as "STATUS KEY", oldest first.
func (r *stage) line() (list []string) {
	r.t.Helper()
	if err := r.ledger.View(func(tx *store.Tx) {
		for _, w := range waiting(tx) {
			list = append(list, fmt.Sprintf("%s %s", w.Status, w.Key))
		}
	}); err != nil {
		r.t.Fatal(err)
	}
	return list
}

// records are all of them, oldest first.
func (r *stage) records() (list []*event.Record) {
	r.t.Helper()
	if err := r.ledger.Each(event.Filter{OldestFirst: true}, func(rec *event.Record) bool { list = append(list, rec); return true }); err != nil {
		r.t.Fatal(err)
	}
	slices.SortFunc(list, func(a, b *event.Record) int { return a.Pos.Compare(b.Pos) })
	return list
}

// became is what became of the alerts that came in, as "OUTCOME REASON".
func (r *stage) became() (list []string) {
	for _, rec := range r.records() {
		what := string(rec.Outcome)
		if rec.Reason != "" {
			what += " " + rec.Reason
		}
		list = append(list, what)
	}
	return list
}

// sent is the body of a record as Callgoose would get it.
func (r *stage) sent(rec *event.Record) map[string]any {
	r.t.Helper()
	b, err := r.build.Body(context.Background(), rec, rec.ClaimedAt)
	if err != nil {
		r.t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		r.t.Fatal(err)
	}
	return m
}

func (r *stage) want(got []string, want ...string) {
	r.t.Helper()
	if !slices.Equal(got, want) {
		r.t.Errorf("got %q\nwant %q", got, want)
	}
}
