package worker

import (
	"testing"
	"time"

	"pmm-callgoose/store/event"
)

// A wall clock that is set forward, and may be set back in a moment, removes nothing that
// is young.
func TestRetentionDoesNotFollowAClockThatJumps(t *testing.T) {
	const month = 30 * 24 * time.Hour
	for name, c := range map[string]struct {
		ahead time.Duration // how far it was set forward
		kept  int
	}{"nobody set it": {0, 0}, "it was set a month on": {month, 2}} {
		t.Run(name, func(t *testing.T) {
			r := newStage(t, SplitConfig{})
			now := time.Now()
			then := now.Add(-month - time.Hour).UTC()
			r.post(then, 0, firing("a", then))
			r.post(then, 0, resolved("a", then, then))
			r.decide()
			r.settle(event.Delivered)
			keep := NewRetention(RetentionConfig{Keep: 24 * time.Hour, Logger: r.cfg.Logger}, r.queue, r.ledger)
			keep.clocks[0] = clocks{now, now.Add(-c.ahead).Round(0)}
			if err := keep.prune(t.Context(), now.Add(pruneTime-time.Second), false); err != nil || len(r.records()) != 2 {
				t.Errorf("right after the start %d records are left, %v", len(r.records()), err)
			}
			if err := keep.prune(t.Context(), now.Add(pruneTime+time.Second), false); err != nil || len(r.records()) != c.kept {
				t.Errorf("%d records are left, want %d, %v", len(r.records()), c.kept, err)
			}
			for day := range time.Duration(3) { // it was right: by now nobody set it back
				if err := keep.prune(t.Context(), now.Add((day+1)*25*time.Hour), false); err != nil {
					t.Fatal(err)
				}
			}
			if n := len(r.records()); n > 0 {
				t.Errorf("%d records are left three days later", n)
			}
		})
	}
}
