package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pmm-callgoose/store/event"
)

// Whatever stands in a record and whatever is asked, what the sieve leaves out
// must be what Match would not have chosen.
func TestAFilterChoosesTheSameWithTheSieve(t *testing.T) {
	s, _ := open(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	values := []string{
		"", "a", "A", "mysql-1", `"outcome":"dead"`, `\"`, `"`, "<b>&", "\u2028", "\xff", "\ufffd", "Größe", "GRÖSSE", "İ", "K", "\x00\n",
		`received_at":"2020-01-01T00:00:00Z`, "2020-01-01T00:00:00Z", "firing", "dead",
	}
	names := []string{"outcome", "status", "received_at", "incident_key", "instance", `q"`, "<", "\xff", "\ufffd"}
	pick := func(from []string) string { return from[rnd.IntN(len(from))] }
	var all []*event.Record
	for n := range 400 {
		r := record(n, event.Outcomes[rnd.IntN(len(event.Outcomes))])
		r.Key, r.Alertname, r.LastError, r.Reason = pick(values), pick(values), pick(values), pick(values)
		r.Status = []event.Status{event.Firing, event.Resolved, ""}[rnd.IntN(3)]
		r.ReceivedAt = at.Add(time.Duration(rnd.IntN(48*3600)) * time.Second / 2)
		r.Labels = map[string]string{pick(names): pick(values), pick(names): pick(values)}
		r.Attempts = []event.Attempt{{Error: pick(values)}}
		all = append(all, r)
	}
	if err := s.Do(context.Background(), func(tx *Tx) {
		for _, r := range all {
			tx.PutRecord(r)
		}
	}); err != nil {
		t.Fatal(err)
	}
	all = nil // as they are read again
	if err := s.Each(event.Filter{}, func(r *event.Record) bool { all = append(all, r); return true }); err != nil || len(all) != 400 {
		t.Fatal(err, len(all))
	}
	chosen := 0
	for n := range 1000 {
		var f event.Filter
		for range 1 + n%3 {
			switch rnd.IntN(8) {
			case 0:
				f.Status = event.Firing
			case 1:
				f.Outcomes = append(f.Outcomes, event.Outcomes[rnd.IntN(len(event.Outcomes))])
			case 2:
				f.Incident = pick(values)
			case 3:
				f.Labels = map[string]string{pick(names): pick(values)}
			case 4:
				f.Text = pick(values)
			case 5:
				f.Since = at.Add(time.Duration(rnd.IntN(24*3600)) * time.Second).In(time.FixedZone("x", 3600))
			case 6:
				f.Until = at.Add(time.Duration(rnd.IntN(24*3600)) * time.Second)
			case 7:
				f.Before = event.Position{Seq: uint64(rnd.IntN(500))}
			}
		}
		f.OldestFirst = rnd.IntN(2) == 0
		var want, got []string
		for _, r := range all {
			if f.Match(r) {
				want = append(want, r.ID)
			}
		}
		if f.OldestFirst {
			slices.Reverse(want)
		}
		if err := s.Each(f, func(r *event.Record) bool { got = append(got, r.ID); return true }); err != nil {
			t.Fatal(err)
		}
		chosen += len(want)
		if !slices.Equal(got, want) {
			t.Fatalf("filter %+v chose %v, want %v", f, got, want)
		}
	}
	if chosen < 5_000 {
		t.Errorf("only %d were chosen: the filters are too narrow to show anything", chosen)
	}
}

// What was imported stands under an earlier day than what came in before it. A list
// in the order of arrival goes across the days, and goes on behind its last record.
func TestTheOrderOfArrivalGoesAcrossDays(t *testing.T) {
	s, _ := open(t)
	if err := s.Do(t.Context(), func(tx *Tx) {
		for n, d := range []int{5, 5, 1, 5, 1, 3, 1, 5, 3, 3} {
			r := record(n, event.Dead)
			r.ReceivedAt = at.AddDate(0, 0, d)
			tx.PutRecord(r)
		}
	}); err != nil {
		t.Fatal(err)
	}
	for _, page := range []int{1, 2, 3, 10} {
		var got []string
		f := event.Filter{OldestFirst: true}
		for more := true; more; {
			n := 0
			if err := s.Each(f, func(r *event.Record) bool {
				got, f.After = append(got, r.ID), r.Pos
				n++
				return n < page
			}); err != nil {
				t.Fatal(err)
			}
			more = n == page
		}
		if fmt.Sprint(got) != "[e0 e1 e2 e3 e4 e5 e6 e7 e8 e9]" {
			t.Errorf("%d at once: %v", page, got)
		}
	}
}

func TestIDsAreLookedUp(t *testing.T) {
	s, _ := open(t)
	if err := s.Do(context.Background(), func(tx *Tx) {
		for n := range 10 {
			tx.PutRecord(record(n, event.Dead))
		}
	}); err != nil {
		t.Fatal(err)
	}
	ids := func(f event.Filter) (list []string) {
		if err := s.Each(f, func(r *event.Record) bool { list = append(list, r.ID); return len(list) < 3 }); err != nil {
			t.Fatal(err)
		}
		return list
	}
	for name, c := range map[string]struct {
		f    event.Filter
		want []string
	}{
		"newest first":     {event.Filter{IDs: []string{"e0", "e7", "none", "e4", "e7"}}, []string{"e7", "e4", "e0"}},
		"oldest first":     {event.Filter{IDs: []string{"e0", "e7", "e4"}, OldestFirst: true}, []string{"e0", "e4", "e7"}},
		"with a filter":    {event.Filter{IDs: []string{"e0", "e7"}, Incident: "pmm-1"}, []string{"e7"}},
		"until it is over": {event.Filter{IDs: []string{"e1", "e2", "e3", "e4"}}, []string{"e4", "e3", "e2"}},
	} {
		if got := ids(c.f); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestTheHistoryCountsByMinuteAndSurvives(t *testing.T) {
	s, dir := open(t)
	ctx := context.Background()
	now := time.Now().UTC().Truncate(time.Minute).Add(-time.Hour)
	put := func(n int, outcome event.Outcome, change func(*event.Record)) *event.Record {
		t.Helper()
		r := record(n, outcome)
		r.ReceivedAt, r.SettledAt = now, now
		if change != nil {
			change(r)
		}
		if err := s.Do(ctx, func(tx *Tx) { tx.PutRecord(r) }); err != nil {
			t.Fatal(err)
		}
		return r
	}
	settle := func(outcome event.Outcome, after time.Duration) func(*event.Record) {
		return func(r *event.Record) { r.Outcome, r.SettledAt = outcome, now.Add(after) }
	}
	put(1, event.Queued, nil)
	put(2, event.Queued, nil)
	put(3, event.Queued, nil)
	put(4, event.Suppressed, nil)
	put(5, event.Dead, nil)    // unusable: in and given up at once
	put(6, event.Unknown, nil) // a rebuild: nobody knows when
	put(1, event.Delivered, settle(event.Delivered, 90*time.Second))
	put(2, event.Discarded, settle(event.Discarded, 91*time.Second))
	put(3, event.Dead, settle(event.Dead, 92*time.Second))
	put(3, event.Dead, settle(event.Dead, 93*time.Second)) // written again, unchanged
	put(7, event.Suppressed, func(r *event.Record) { r.ReceivedAt, r.SettledAt = now.Add(-keepHistory), now.Add(-keepHistory) })
	if err := s.Do(context.Background(), func(tx *Tx) {
		tx.PutRecord(record(8, event.Queued))
		tx.Fail(fmt.Errorf("undone"))
	}); err == nil {
		t.Fatal("no error")
	}
	want := []event.Minute{{At: now, In: 4, Suppressed: 1, Dead: 1}, {At: now.Add(time.Minute), Out: 1, Discarded: 1, Dead: 1}}
	got, err := s.History(now.Add(-keepHistory * 2))
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("the history is %+v, %v; want %+v", got, err, want)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, _, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	if got, err := again.History(now); err != nil || !slices.Equal(got, want) {
		t.Errorf("after a restart it is %+v, %v", got, err)
	}
	// A replay queues an event now.
	r := record(1, event.Queued)
	r.ReceivedAt = now
	if err := again.Do(ctx, func(tx *Tx) { tx.PutRecord(r) }); err != nil {
		t.Fatal(err)
	}
	if got, err := again.History(now.Add(2 * time.Minute)); err != nil || len(got) != 1 || got[0].In != 1 {
		t.Errorf("a replay is counted as %+v, %v", got, err)
	}
}
