package worker

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
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
	})
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

// Whatever is queued, in lanes of any length, goes out once and in the order of its lane,
// while more is queued, attempts are under way, and little of it is in memory.
func TestEverythingQueuedComesThroughTheWindow(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := newWindow(false, event.Position{})
		w.most = 3 * laneItems
		var queue []store.Waiting // what the ledger holds
		var newest uint64
		var flying []*lane
		unread, left := false, 1500
		behind := func(at event.Position) (list []store.Waiting, end bool) {
			from, _ := slices.BinarySearchFunc(queue, at, func(e store.Waiting, at event.Position) int { return cmp.Compare(e.At.Compare(at), 1) })
			list = queue[from:min(len(queue), from+1+r.IntN(40))]
			return list, from+len(list) == len(queue)
		}
		read := func() { // as the deliverer does
			if place, ok := w.refill(); ok {
				w.addAgain(behind(place))
			}
			if unread && !w.full() {
				list, end := behind(w.cursor)
				w.add(list)
				unread = !end
			}
		}
		for left > 0 || len(queue) > 0 {
			for range min(left, r.IntN(300)) {
				key := []string{"a", "b", "c", "d", fmt.Sprint(r.IntN(50))}[min(r.IntN(12), r.IntN(6), 4)]
				newest, left = newest+1, left-1
				queue = append(queue, store.Waiting{At: event.Position{Seq: newest}, Key: key, Storm: r.IntN(20) == 0 && left > 0})
				unread = true
			}
			for range r.IntN(40) {
				read()
				for l := w.next(false, false, 0, nil); l != nil && len(flying) < 16; l = w.next(false, false, 0, nil) {
					at := l.head().at
					i := slices.IndexFunc(queue, func(e store.Waiting) bool { return e.At == at })
					if i < 0 || slices.ContainsFunc(queue[:i], func(e store.Waiting) bool { return e.Key == l.key && !e.Storm }) {
						t.Fatalf("seed %d: %v of %s goes out of turn", seed, at, l.key)
					}
					w.take(l)
					flying = append(flying, l)
				}
				for range min(r.IntN(12), len(flying)) {
					i := r.IntN(len(flying))
					l := flying[i]
					flying = slices.Delete(flying, i, i+1)
					at := l.head().at
					queue = slices.DeleteFunc(queue, func(e store.Waiting) bool { return e.At == at })
					w.done(l)
				}
			}
			if left == 0 {
				queue = slices.DeleteFunc(queue, func(e store.Waiting) bool { return e.Storm })
			}
		}
		if w.size > 0 || len(w.lanes) > 0 || len(w.behind) > 0 {
			t.Errorf("seed %d: %d events and %d lanes are left", seed, w.size, len(w.lanes))
		}
	}
}
