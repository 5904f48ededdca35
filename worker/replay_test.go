package worker

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
)

// What a choice holds of each event is its Ref, and where it only counts nothing.
func TestAChoiceHoldsLittleOfEachEvent(t *testing.T) {
	const n, slack = 30_000, 1 << 20
	s, _, err := store.Open(store.Config{Dir: t.TempDir(), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	at := time.Date(2026, 11, 23, 3, 0, 0, 0, time.UTC)
	if err := s.Do(t.Context(), func(tx *store.Tx) {
		for i := range n {
			tx.PutRecord(&event.Record{
				ID: fmt.Sprintf("%020x", i), Key: fmt.Sprintf("pmm-%016x", i%3000), Source: "pmm", Status: event.Firing, Outcome: event.Delivered,
				Alertname: "A", Pos: event.Position{Seq: uint64(i + 1)}, At: event.Position{Seq: uint64(i + 1)}, ReceivedAt: at, LastError: fmt.Sprintf("answer %064d", i),
			})
		}
	}); err != nil {
		t.Fatal(err)
	}
	live := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	for _, tt := range []struct {
		name  string
		rules Rules
		each  int64 // bytes
	}{
		{"to be sent", Rules{IncludeClosed: true}, 64},
		{"counted", Rules{IncludeClosed: true, Count: true}, 0},
	} {
		before, most, seen := live(), int64(0), 0
		if err := s.View(func(tx *store.Tx) {
			c := Choose(tx, event.Filter{}, tt.rules, func(*event.Record) {
				if seen++; seen%(n/4) == 0 {
					most = max(most, live()-before)
				}
			})
			if c.Firing != n || c.Incidents != 3000 || tt.each > 0 && len(c.Refs) != n {
				t.Errorf("%s: chose %d events of %d incidents", tt.name, c.Firing, c.Incidents)
			}
		}); err != nil {
			t.Fatal(err)
		}
		if bound := tt.each*n + slack; most > bound {
			t.Errorf("%s: holds %d bytes for %d events, more than %d", tt.name, most, n, bound)
		}
	}
}
