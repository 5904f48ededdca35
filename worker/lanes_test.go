package worker

import (
	"testing"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
)

// What another instance claimed may be on its way, so its lane waits; what nobody claimed,
// and what this instance claims itself, does not.
func TestWhatAnotherInstanceMayBeSendingWaits(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	w := newWindow(false, event.Position{Seq: 10})
	w.unsure = now.Add(3 * time.Second)
	w.add([]store.Waiting{
		{At: event.Position{Seq: 1}, Key: "claimed", ClaimedAt: now.Add(-time.Minute)},
		{At: event.Position{Seq: 2}, Key: "not claimed"},
		{At: event.Position{Seq: 3}, Key: "claimed", ClaimedAt: now.Add(-time.Minute)},
		{At: event.Position{Seq: 11}, Key: "ours", ClaimedAt: now},
	}, true)
	ready := func(at time.Time) (keys []string) {
		w.wake(at)
		for l := w.next(false, false, 0, nil); l != nil; l = w.next(false, false, 0, nil) {
			w.take(l)
			keys = append(keys, l.key)
		}
		return keys
	}
	if keys := ready(now); len(keys) != 2 || keys[0] != "not claimed" || keys[1] != "ours" {
		t.Errorf("%q go out at once", keys)
	}
	if keys := ready(now.Add(3 * time.Second)); len(keys) != 1 || keys[0] != "claimed" {
		t.Errorf("%q go out later", keys)
	}
}
