package store

import (
	"context"
	"fmt"
	"testing"
	"time"

	"pmm-callgoose/store/event"
)

func TestTheShareOfFiringEventsTakenInTime(t *testing.T) {
	s, _ := open(t)
	now, n := time.Now().UTC(), 0
	put := func(received time.Time, status event.Status, outcomes ...event.Outcome) {
		t.Helper()
		n++
		r := record(n, event.Queued)
		r.ID, r.Key, r.Status, r.ReceivedAt, r.At = fmt.Sprint("e", n), fmt.Sprint("pmm-", n), status, received, r.Pos
		for i, o := range outcomes {
			r.Outcome, r.SettledAt = o, time.Time{}
			if o != event.Queued {
				r.SettledAt = now.Add(time.Duration(i) * time.Millisecond)
				r.AddAttempt(event.Attempt{Result: string(o)})
			}
			if err := s.Do(context.Background(), func(tx *Tx) { tx.PutRecord(r) }); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := func(what string, events, inTime int64) {
		t.Helper()
		if got, _, err := s.Served(); err != nil || got != (Served{events, inTime}) {
			t.Errorf("%s: %+v, %v, want %d of %d", what, got, err, inTime, events)
		}
	}
	want("nothing happened", 0, 0)
	put(now, event.Firing, event.Queued, event.Delivered)
	want("taken at once", 1, 1)
	put(now, event.Firing, event.Queued)
	want("one waits", 2, 1)
	put(now.Add(-2*time.Minute), event.Firing, event.Queued, event.Delivered)
	want("taken too late", 3, 1)
	put(now, event.Firing, event.Queued, event.Discarded)
	put(now, event.Firing, event.Queued, event.Dead)
	want("taken by no filter, or given up", 5, 1)
	put(now, event.Resolved, event.Queued, event.Delivered)
	put(now, event.Firing, event.Suppressed)
	put(now.Add(-48*time.Hour), event.Firing, event.Queued, event.Delivered)
	want("recoveries, repeats and imports do not count", 5, 1)
	put(now, event.Firing, event.Queued, event.Delivered, event.Queued, event.Delivered)
	want("a replay", 6, 2)
}

// The record of an open episode stays when the rest of its day goes, and is not counted
// once more.
func TestDroppedDaysChangeNoShare(t *testing.T) {
	s, _ := open(t)
	now := time.Now().UTC()
	if err := s.Do(t.Context(), func(tx *Tx) {
		for n, late := range []time.Duration{0, 0, time.Hour} {
			r := record(n+1, event.Queued)
			r.ID, r.Key, r.Status, r.ReceivedAt, r.At = fmt.Sprint("e", n), fmt.Sprint("pmm-", n), event.Firing, now, r.Pos
			tx.PutRecord(r)
			r.Outcome, r.SettledAt = event.Delivered, now.Add(late)
			r.AddAttempt(event.Attempt{Result: "delivered"})
			tx.PutRecord(r)
			tx.PutEpisode(&Episode{Key: r.Key, Source: "pmm", Open: n == 0, Firing: r.Pos, FiringAt: now})
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Do(t.Context(), func(tx *Tx) { tx.DropDays(now.Add(48 * time.Hour)) }); err != nil {
		t.Fatal(err)
	}
	if got, _, err := s.Served(); err != nil || got != (Served{3, 2}) {
		t.Errorf("%+v, %v, want 2 of 3", got, err)
	}
	if _, err := s.Find("e0"); err != nil {
		t.Errorf("the record of what is open: %v", err)
	}
	if _, err := s.Find("e1"); err == nil {
		t.Error("a record of what is over is still there")
	}
}
