package app

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
)

// However many events there are, an export holds few of them: its reader may be slow.
// Not parallel, for what others hold would count.
func TestAnExportHoldsFewEvents(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		const n, most = 20_000, 4 << 20
		c := r.app.core.Load()
		if err := c.ledger.Do(context.Background(), func(tx *store.Tx) {
			for i := range n {
				tx.PutRecord(&event.Record{
					ID: fmt.Sprintf("%020x", i), Key: fmt.Sprintf("pmm-%016x", i), Source: "pmm", Status: event.Firing, Outcome: event.Delivered,
					Alertname: "A", Pos: event.Position{Seq: uint64(i + 1)}, ReceivedAt: time.Now().UTC(), LastError: strings.Repeat("x", 500),
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
		before, lines, held := live(), 0, int64(0)
		if err := r.app.Export(context.Background(), admin.KindEvent, event.Filter{}, 0, func(admin.Carried) error {
			if lines++; lines%(n/4) == 0 || lines == 1 {
				held = max(held, live()-before)
			}
			return nil
		}); err != nil || lines != n {
			t.Fatalf("%d lines, %v", lines, err)
		}
		if held > most {
			t.Errorf("%d bytes are held for %d events, more than %d", held, n, most)
		}
	})
}

func TestFewReplaysAreRemembered(t *testing.T) {
	for name, c := range map[string]struct {
		events, want int // of each of 300
	}{"small ones": {10, keepJobs}, "large ones": {keepEvents / 4, 4}, "huge ones": {2 * keepEvents, 1}} {
		var j jobs
		for n := range 300 {
			j.add(&job{state: admin.Job{ID: n, Total: c.events}})
		}
		if len(j.all) != c.want || j.all[len(j.all)-1].state.ID != 299 {
			t.Errorf("%s: %d are remembered, want %d", name, len(j.all), c.want)
		}
	}
}
