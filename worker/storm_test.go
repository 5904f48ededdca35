package worker

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
)

// three is a rule small enough for a table.
var three = StormRule{Most: 3, Within: time.Minute}

func TestWhenAStormBeginsAndEnds(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name   string
		times  []int // seconds of new episodes
		failed []int // seconds of those whose data source failed
		begins int   // second, -1 = never
		over   int   // second after which it is over
	}{
		{name: "as many as allowed are none", times: []int{0, 1, 2}, begins: -1},
		{name: "one more is a storm", times: []int{0, 1, 2, 3}, begins: 3, over: 63},
		{name: "slow ones are none", times: []int{0, 20, 40, 60, 80, 100}, begins: -1},
		{name: "a window that slides", times: []int{0, 50, 55, 65, 66}, begins: 66, over: 126},
		{name: "it lasts as long as they come", times: []int{0, 1, 2, 3, 30, 60, 61, 90, 91, 120, 121}, begins: 3, over: 180},
		{name: "one data source that failed is one at five", failed: []int{0, 10, 20, 30, 40}, begins: 40, over: 100},
		{name: "four of them are none", failed: []int{0, 10, 20, 30}, begins: -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rule, s, began := three, &store.Storm{}, -1
			if tt.failed != nil {
				rule.Most = 30
			}
			after := func(n int) time.Time { return at.Add(time.Duration(n) * time.Second) }
			for _, n := range append(tt.times, tt.failed...) {
				if rule.count(s, after(n), tt.failed != nil) {
					began = n
				}
			}
			if began != tt.begins || s.On() != (tt.begins >= 0) {
				t.Fatalf("began at %d, %+v", began, s)
			}
			if !s.On() {
				return
			}
			if rule.over(s, after(tt.over-1)) || !rule.over(s, after(tt.over)) {
				t.Errorf("not over at second %d: %+v", tt.over, s)
			}
			if !rule.over(s, at.Add(-time.Hour)) || !(StormRule{}).over(s, after(tt.begins)) {
				t.Error("neither a clock that jumps nor a start without the setting ends it")
			}
		})
	}
}

// stormStage is a stage with a Brake, on which a storm began: a0 to a2 went out.
type stormStage struct {
	*stage
	brake *Brake
	now   time.Time
}

func newStorm(t *testing.T, cfg SplitConfig) *stormStage {
	cfg.Storm = three
	r := &stormStage{stage: newStage(t, cfg), now: time.Now().UTC().Truncate(time.Second)}
	r.watch()
	for n := range 3 {
		r.fires(fmt.Sprintf("a%d", n))
	}
	return r
}

func (r *stormStage) watch() {
	r.brake = NewBrake(r.cfg.Storm, r.queue, r.ledger, slog.New(slog.DiscardHandler))
}

func (r *stormStage) fires(names ...string) {
	for _, name := range names {
		r.post(r.now, 0, named(firing(name, r.now)))
	}
	r.decide()
}

func (r *stormStage) recovers(name string) {
	r.post(r.now.Add(time.Second), 0, named(resolved(name, r.now, r.now.Add(time.Second))))
	r.decide()
}

// named gives an alert the first letter of its instance as its name.
func named(m member) member { m.Labels["alertname"] = m.Labels["instance"][:1]; return m }

// passes are some passes of the Brake, so long after the storm began.
func (r *stormStage) passes(after time.Duration) {
	r.t.Helper()
	for range 6 {
		if err := r.brake.pass(r.t.Context(), r.now.Add(after)); err != nil {
			r.t.Fatal(err)
		}
		r.decide()
	}
}

// keys is the line without the hosts of the storm's own incident.
func (r *stormStage) keys() (list []string) {
	for _, what := range r.line() {
		status, key, _ := strings.Cut(what, " pmm-")
		if len(key) > 3 {
			key = "storm"
		}
		list = append(list, status+" "+key)
	}
	return list
}

// waits are the keys that wait for the end of the storm.
func (r *stormStage) waits() (list []string) {
	for _, rec := range r.records() {
		if rec.Outcome == event.Queued && rec.Reason == store.ReasonStorm {
			list = append(list, rec.Key)
		}
	}
	return list
}

func TestInAStormTheFirstOfEachNameGoesOutAndTheRestWaits(t *testing.T) {
	r := newStorm(t, SplitConfig{})
	r.fires("a3", "b0", "a4", "b1", "c0")
	r.want(r.waits(), "pmm-a3", "pmm-a4", "pmm-b1")
	r.settle(event.Delivered) // also what waits: only the names count here
	r.fires("b2", "d0")
	r.want(r.line(), "firing pmm-b2", "firing pmm-d0")
	r.want(r.waits(), "pmm-b2")
	if err := r.ledger.View(func(tx *store.Tx) {
		for _, w := range waiting(tx) {
			if w.Storm != (w.Key == "pmm-b2") || w.Storm && !w.ClaimedAt.IsZero() {
				t.Errorf("%s waits for the storm: %t, claimed at %s", w.Key, w.Storm, w.ClaimedAt)
			}
		}
	}); err != nil {
		t.Error(err)
	}
}

// An alert of the name that went out while the clock was ahead is none of this storm.
func TestInAStormTheFirstOfANameGoesOutAfterTheClockWasSetBack(t *testing.T) {
	r := &stormStage{stage: newStage(t, SplitConfig{Storm: three}), now: time.Now().UTC().Add(24 * time.Hour)}
	r.fires("b0")
	r.recovers("b0")
	r.settle(event.Delivered)
	r.now = r.now.Add(-24 * time.Hour)
	r.fires("a0", "a1", "a2", "a3", "b1", "b2")
	r.want(r.waits(), "pmm-a3", "pmm-b2")
}

func TestAStormIsOneIncidentAndReleasesWhatStillFires(t *testing.T) {
	r := newStorm(t, SplitConfig{})
	r.fires("a3", "a4", "a5", "a6")
	r.passes(time.Second)
	r.want(r.keys(), "firing a0", "firing a1", "firing a2", "firing a3", "firing a4", "firing a5", "firing a6", "firing storm")
	r.recovers("a4")
	r.fires("a5") // a repeat
	r.recovers("a0")
	r.post(r.now.Add(10*time.Minute), 0, named(firing("a6", r.now.Add(10*time.Minute)))) // a new start, without a recovery
	r.decide()
	r.passes(30 * time.Second)
	r.want(r.waits(), "pmm-a3", "pmm-a5", "pmm-a6")
	r.passes(2 * time.Minute)
	r.want(r.waits())
	r.want(r.keys(), "firing a0", "firing a1", "firing a2", "firing storm", "resolved a0", "resolved storm", "firing a3", "firing a5", "firing a6")
	r.want(r.became()[3:8], "queued", "collapsed storm", "queued", "collapsed storm", "queued")
	for _, rec := range r.records() {
		if n := rec.Labels["alertname"]; len(n) > 1 && (n != "Storm: 7 alerts from pmm" || rec.Key == "") {
			t.Errorf("the incident of the storm is called %q", n)
		}
	}
	// It is calm: the next ones go out.
	r.settle(event.Delivered)
	r.passes(2 * time.Minute)
	r.fires("a7", "a8", "a9")
	r.want(r.keys(), "firing a7", "firing a8", "firing a9")
}

// Whatever is not delivered, or not certain, must not keep others of its name waiting.
func TestWhatWaitsForOneThatCallgooseDoesNotGetIsReleased(t *testing.T) {
	for i, outcome := range []event.Outcome{event.Dead, event.Discarded, event.Collapsed, event.Dead, event.Discarded, event.Collapsed} {
		another := i < 3
		t.Run(fmt.Sprintf("%s, another comes %v", outcome, another), func(t *testing.T) {
			r := newStorm(t, SplitConfig{})
			r.fires("b0", "b1")
			r.passes(time.Second)
			r.want(r.waits(), "pmm-b1")
			if err := r.ledger.Do(t.Context(), func(tx *store.Tx) {
				w := waiting(tx)[3]
				rec := tx.Record(w.ReceivedAt, w.Pos)
				if rec.Key != "pmm-b0" {
					t.Fatalf("first is %v", rec)
				}
				rec.Outcome = outcome
				tx.PutRecord(rec)
				tx.DropWaiting(w.At)
			}); err != nil {
				t.Fatal(err)
			}
			if another {
				r.fires("b2") // goes out, as the first of its name
				r.passes(2 * time.Second)
				r.want(r.waits(), "pmm-b1")
				r.want(r.keys()[3:], "firing b1", "firing storm", "firing b2")
				return
			}
			r.passes(2 * time.Second)
			r.want(r.waits())
			r.want(r.keys()[3:], "firing storm", "resolved storm", "firing b1")
		})
	}
}

// With one incident for each name the recovery of the last one must come, and a firing
// must open the incident again.
func TestAStormWithOneIncidentForEachName(t *testing.T) {
	r := newStorm(t, SplitConfig{Form: Form{ByAlertname: true}})
	r.fires("a3", "a4")
	r.want(r.waits(), "pmm-a3", "pmm-a4")
	r.settleSent()
	for _, name := range []string{"a0", "a1", "a2", "a3"} {
		r.recovers(name)
	}
	r.want(r.line(), "firing pmm-a4")
	r.recovers("a4")
	r.want(r.line(), "resolved pmm-a4")
	r.settleSent()
	r.fires("a5", "a6")
	r.want(r.waits(), "pmm-a6")
	r.want(r.line(), "firing pmm-a5", "firing pmm-a6")
}

// settleSent delivers what does not wait for the end of the storm.
func (r *stormStage) settleSent() {
	r.t.Helper()
	if err := r.ledger.Do(r.t.Context(), func(tx *store.Tx) {
		for _, w := range waiting(tx) {
			if rec := tx.Record(w.ReceivedAt, w.Pos); !w.Storm {
				rec.Outcome, rec.SettledAt, rec.ClaimedAt = event.Delivered, t0, t0
				tx.PutRecord(rec)
				tx.DropWaiting(w.At)
			}
		}
	}); err != nil {
		r.t.Fatal(err)
	}
}

// Whenever the process dies, with its ledger or not, and whatever it is started with,
// the storm ends, once, and what still fires goes out.
func TestAStormThatIsInterruptedEnds(t *testing.T) {
	for _, lose := range []bool{false, true} {
		for name, die := range map[string]func(r *stormStage, again func()){
			"before it is told":   func(_ *stormStage, again func()) { again() },
			"once it is told":     func(r *stormStage, again func()) { r.passes(time.Second); again() },
			"told, and not split": func(r *stormStage, again func()) { r.pass(time.Second); again() },
			"ended, and not split": func(r *stormStage, again func()) {
				r.passes(time.Second)
				r.pass(2 * time.Minute)
				r.pass(2 * time.Minute)
				again()
			},
			"ended, and not released": func(r *stormStage, again func()) {
				r.passes(time.Second)
				r.pass(2 * time.Minute)
				r.pass(2 * time.Minute)
				r.decide()
				again()
			},
			"released, and not split": func(r *stormStage, again func()) {
				r.passes(time.Second)
				for range 2 {
					r.pass(2 * time.Minute)
					r.decide()
				}
				r.pass(2 * time.Minute)
				again()
			},
			"the setting is off then": func(r *stormStage, again func()) { r.passes(time.Second); r.cfg.Storm = StormRule{}; again() },
		} {
			t.Run(fmt.Sprintf("%s, ledger lost %v", name, lose), func(t *testing.T) {
				r := newStorm(t, SplitConfig{})
				r.fires("a3", "a4", "b0")
				die(r, func() { r.reopen(lose); r.watch() })
				r.decide()
				r.recovers("a4")
				r.passes(3 * time.Minute)
				r.want(r.waits())
				open, sent := map[string]int{}, r.keys()
				for _, what := range sent {
					status, key, _ := strings.Cut(what, " ")
					open[key] += map[string]int{"firing": 1, "resolved": -1}[status]
				}
				for _, key := range []string{"a0", "a1", "a2", "a3", "b0"} {
					if open[key] != 1 {
						t.Errorf("%s is left with %d, sent are %q", key, open[key], sent)
					}
				}
				over := open["a4"] == 0 || lose && open["a4"] == -1 // nobody knows what was sent of it
				if open["storm"] != 0 || !over || slices.Contains(sent, "firing storm") != slices.Contains(sent, "resolved storm") {
					t.Errorf("sent are %q", sent)
				}
				if err := r.ledger.View(func(tx *store.Tx) {
					for _, s := range tx.Storms() {
						if s.On() || !s.Release.IsZero() {
							t.Errorf("left is %+v", s)
						}
					}
				}); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// pass is one pass, of which nothing is split yet.
func (r *stormStage) pass(after time.Duration) {
	r.t.Helper()
	if err := r.brake.pass(r.t.Context(), r.now.Add(after)); err != nil {
		r.t.Fatal(err)
	}
}

func TestAPersonEndsAStorm(t *testing.T) {
	r := newStorm(t, SplitConfig{})
	r.fires("a3", "a4")
	r.passes(time.Second)
	var key string
	for _, rec := range r.records() {
		if strings.HasPrefix(rec.Alertname, "Storm: ") {
			key = rec.Key
		}
	}
	r.closes(key, r.now.Add(10*time.Second))
	r.decide()
	r.passes(11 * time.Second)
	r.want(r.waits())
	r.want(r.keys(), "firing a0", "firing a1", "firing a2", "firing storm", "resolved storm", "firing a3", "firing a4")
}

func TestOneIncidentClosedByHandEndsWhatWaits(t *testing.T) {
	r := newStorm(t, SplitConfig{})
	r.fires("a3", "a4")
	r.closes("pmm-a3", r.now.Add(time.Second))
	r.decide()
	r.want(r.waits(), "pmm-a4")
	r.want(r.became(), "queued", "queued", "queued", "collapsed storm", "queued storm", "collapsed storm")
}

func TestWhatDoesNotCountForAStorm(t *testing.T) {
	r := newStorm(t, SplitConfig{})
	body := body(t, named(firing("a3", r.now)), named(firing("a4", r.now)))
	r.store(event.Notification{Source: "pmm", Origin: event.Imported, BeganAt: r.now, ReceivedAt: r.now, Body: body, Alerts: 2})
	r.store(event.Notification{Source: "other", BeganAt: r.now, ReceivedAt: r.now, Body: body, Alerts: 2})
	test := named(firing("a5", r.now))
	test.Labels[OurLabel] = "test"
	r.post(r.now, 0, test)
	r.post(r.now, 0, named(firing("a0", r.now)), named(resolved("a9", r.now, r.now)))
	r.decide()
	r.want(r.waits())
}

func TestAnEventThatIsParkedDoesNotWaitForTheEndOfAStorm(t *testing.T) {
	r := newStorm(t, SplitConfig{})
	r.fires("a3", "a4", "a5")
	if err := r.ledger.Do(t.Context(), func(tx *store.Tx) {
		for _, w := range waiting(tx) {
			if w.Key != "pmm-a4" && w.Key != "pmm-a0" { // one that waits for it, and one that does not
				continue
			}
			if !Park(tx, tx.Record(w.ReceivedAt, w.Pos), "parked") {
				t.Errorf("%s is not parked", w.Key)
			}
		}
		if n := tx.InStorm("pmm"); n != 2 {
			t.Errorf("%d wait, want 2", n)
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// An event that a storm holds goes out after it, or ends as a dead letter, when its record
// is missing, too: it is not asked for again and again.
func TestAnEventWithoutARecordIsReleasedOnce(t *testing.T) {
	r := newStorm(t, SplitConfig{})
	r.fires("a3", "a4")
	if err := r.ledger.Do(t.Context(), func(tx *store.Tx) {
		for _, w := range waiting(tx) {
			if w.Key == "pmm-a3" {
				tx.DropRecord(tx.Record(w.ReceivedAt, w.Pos))
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	for after := range 100 {
		r.passes(time.Duration(61+after) * time.Second)
	}
	stored := r.queue.Last()
	r.passes(170 * time.Second)
	r.passes(171 * time.Second)
	if n := r.queue.Last(); n != stored {
		t.Errorf("%d more requests to release what waits", n-stored)
	}
	r.want(r.waits())
	if got := r.keys(); !slices.Contains(got, "firing a3") {
		t.Errorf("a3 is not sent: %q", got)
	}
}
