package worker

import (
	"container/heap"
	"slices"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
)

// The bounds of the window.
const (
	windowItems = 50_000 // nothing more is read ahead
	laneItems   = 64     // of one lane; the rest of it is read past, and read again later
)

// claimFor is how old a claim may be that nothing was sent under: then it is made
// anew, so that the event says how late it is.
const claimFor = time.Second

// item is one queued event in memory. Its body is built when it is sent.
type item struct {
	at    event.Position
	size  int       // of a large body, 0 = it is not large
	claim time.Time // up to when lateness is counted, durable; zero = not claimed
	held  time.Time // not to be sent before, unless something is queued behind it
	ours  bool      // the claim was made in this life
	sent  bool      // Callgoose may have received it in this life: its record holds the claim
	tries int       // failed attempts that were its own, for the backoff
	// refusals counts failures that may be its own, others being accepted between them.
	// refusedAt is how many had been accepted at the latest.
	refusals  int
	refusedAt uint64
	suspect   bool // others were accepted after a refusal: it was its own
}

// claimed reports whether the item may be sent at now with the claim that it has.
func (it *item) claimed(now time.Time) bool {
	return !it.claim.IsZero() && (!it.ours || it.sent || now.Sub(it.claim) <= claimFor)
}

// lane holds the queued events of one ordering key, oldest first. At most one of
// them is under way at any time.
type lane struct {
	key       string
	items     []*item
	last      event.Position // the last that was taken in
	busy      bool
	notBefore time.Time
	turn      uint64 // of failures, the latest in this lane
	index     int    // in its heap
}

func (l *lane) head() *item { return l.items[0] }

// held is until when the head is held: it keeps nothing else waiting.
func (l *lane) held() time.Time {
	if len(l.items) > 1 {
		return time.Time{}
	}
	return l.head().held
}

// laneHeap orders lanes.
type laneHeap struct {
	lanes []*lane
	less  func(a, b *lane) bool
}

func older(a, b *lane) bool { return a.head().at.Compare(b.head().at) < 0 }

func (h *laneHeap) Len() int           { return len(h.lanes) }
func (h *laneHeap) Less(i, j int) bool { return h.less(h.lanes[i], h.lanes[j]) }
func (h *laneHeap) Swap(i, j int) {
	h.lanes[i], h.lanes[j] = h.lanes[j], h.lanes[i]
	h.lanes[i].index, h.lanes[j].index = i, j
}

func (h *laneHeap) Push(x any) {
	l := x.(*lane)
	l.index = len(h.lanes)
	h.lanes = append(h.lanes, l)
}

func (h *laneHeap) Pop() any {
	l := h.lanes[len(h.lanes)-1]
	h.lanes[len(h.lanes)-1] = nil
	h.lanes = h.lanes[:len(h.lanes)-1]
	return l
}

// window is the part of the queue that is in memory: of each lane the oldest
// events. Owned by Deliverer.Run.
type window struct {
	byAlertname bool
	// before is the last place decided on when this life began: a claim found at or
	// before it may be one that something was sent under.
	before event.Position
	// unsure is until when what another instance began to send may be on its way; zero =
	// nothing is.
	unsure time.Time

	lanes   map[string]*lane
	ready   laneHeap // may start now
	large   laneHeap // likewise, once there is room for the large body of the head
	waiting laneHeap // wait for their backoff
	probed  bool     // the last that was sent was a probe with a large body
	size    int      // items
	most    int      // of them, before nothing more is read

	cursor event.Position // how far the queue was read
	// behind are lanes of which events between their last and the cursor were read past.
	behind map[*lane]bool
	hungry bool // one of them runs low
	// A second reading fills up the lanes in again, from place: as long as it goes on,
	// all of theirs up to place are taken in.
	again map[*lane]bool
	place event.Position
}

func newWindow(byAlertname bool, before event.Position) *window {
	return &window{
		byAlertname: byAlertname, before: before, most: windowItems, lanes: map[string]*lane{}, behind: map[*lane]bool{},
		ready: laneHeap{less: older}, large: laneHeap{less: older}, waiting: laneHeap{less: func(a, b *lane) bool { return a.notBefore.Before(b.notBefore) }},
	}
}

// laneOf is the ordering key. It is not stored: the setting may change while events wait.
func (w *window) laneOf(e *store.Waiting) string {
	if w.byAlertname {
		return e.Source + "\x00" + e.Alertname
	}
	return e.Key
}

func (w *window) full() bool { return w.size >= w.most }

// add takes in what the queue holds behind the cursor.
func (w *window) add(list []store.Waiting) {
	for i := range list {
		e := &list[i]
		if w.cursor = e.At; e.Storm {
			continue
		}
		key := w.laneOf(e)
		l := w.lanes[key]
		if l == nil {
			l = &lane{key: key}
			w.lanes[key] = l
		}
		if len(l.items) >= laneItems {
			w.behind[l] = true
		}
		if !w.behind[l] {
			w.put(l, e)
		}
	}
}

// refill begins the second reading when a lane runs low. It reports whether there
// is something to read, behind which place.
func (w *window) refill() (event.Position, bool) {
	if w.again == nil && w.hungry {
		w.hungry = false
		for l := range w.behind {
			if len(l.items) > laneItems/2 {
				continue
			}
			if w.again == nil || l.last.Compare(w.place) < 0 {
				w.place = l.last
			}
			if w.again == nil {
				w.again = map[*lane]bool{}
			}
			w.again[l] = true
		}
	}
	return w.place, w.again != nil
}

// addAgain takes in what the queue holds behind place. end says that there is no more.
func (w *window) addAgain(list []store.Waiting, end bool) {
	for i := range list {
		e := &list[i]
		if e.At.Compare(w.cursor) > 0 {
			end = true
			break
		}
		w.place = e.At
		l := w.lanes[w.laneOf(e)]
		switch {
		case l == nil || !w.again[l] || e.At.Compare(l.last) <= 0 || e.Storm:
		case len(l.items) >= laneItems:
			delete(w.again, l) // it is behind as before
		default:
			w.put(l, e)
		}
	}
	if end {
		for l := range w.again {
			delete(w.behind, l)
			w.tidy(l)
		}
	}
	if end || len(w.again) == 0 {
		w.again = nil
	}
}

func (w *window) put(l *lane, e *store.Waiting) {
	l.last = e.At
	l.items = append(l.items, &item{at: e.At, size: e.Size, claim: e.ClaimedAt, ours: e.At.Compare(w.before) > 0, held: heldUntil(e, time.Now())})
	w.size++
	switch first := l.head(); {
	case len(l.items) == 1 && !first.claim.IsZero() && !first.ours && first.held.Before(w.unsure):
		w.enqueue(l, w.unsure)
	case len(l.items) == 1:
		w.enqueue(l, l.held())
	case !l.busy && !first.held.IsZero() && l.notBefore.Equal(first.held):
		w.take(l)
		w.enqueue(l, time.Time{})
	}
}

// heldUntil is until when an event is held, on a clock that does not jump: not longer from
// now on than it was to be held from its receipt. Zero = it is not held.
func heldUntil(e *store.Waiting, now time.Time) time.Time {
	if e.NotBefore.IsZero() {
		return e.NotBefore
	}
	return now.Add(min(e.NotBefore.Sub(now), e.NotBefore.Sub(e.ReceivedAt)))
}

// enqueue makes a lane that is not under way ready, or lets it wait.
func (w *window) enqueue(l *lane, notBefore time.Time) {
	l.busy, l.notBefore = false, notBefore
	heap.Push(w.heapOf(l), l)
}

func (w *window) heapOf(l *lane) *laneHeap {
	switch {
	case !l.notBefore.IsZero():
		return &w.waiting
	case l.head().size > 0:
		return &w.large
	}
	return &w.ready
}

// take removes the lane from its heap; it is under way from now on.
func (w *window) take(l *lane) {
	heap.Remove(w.heapOf(l), l.index)
	l.busy = true
}

// wake makes the lanes ready whose wait is over.
func (w *window) wake(now time.Time) {
	for w.waiting.Len() > 0 && !now.Before(w.waiting.lanes[0].notBefore) {
		w.enqueue(heap.Pop(&w.waiting).(*lane), time.Time{})
	}
}

// done removes the head of a lane that is under way: it is not queued any more.
func (w *window) done(l *lane) {
	w.drop(l, 0)
	if l.busy = false; len(l.items) > 0 {
		w.enqueue(l, l.held())
	}
	w.tidy(l)
}

// forget removes an event that left the queue, unless it is under way.
func (w *window) forget(e *store.Waiting) {
	l := w.lanes[w.laneOf(e)]
	if l == nil || w.underway(e) {
		return
	}
	i := slices.IndexFunc(l.items, func(it *item) bool { return it.at == e.At })
	switch {
	case i < 0:
	case i > 0:
		w.drop(l, i)
	default:
		w.take(l)
		w.done(l)
	}
}

// underway reports whether an attempt for the event is being made.
func (w *window) underway(e *store.Waiting) bool {
	l := w.lanes[w.laneOf(e)]
	return l != nil && l.busy && l.head().at == e.At
}

func (w *window) drop(l *lane, i int) {
	l.items = slices.Delete(l.items, i, i+1)
	w.size--
	if w.behind[l] && len(l.items) <= laneItems/2 {
		w.hungry = true
	}
}

// tidy forgets a lane that has nothing queued.
func (w *window) tidy(l *lane) {
	if len(l.items) == 0 && !w.behind[l] {
		delete(w.lanes, l.key)
	}
}

// next is the lane to send from, nil when there is none: the oldest that is ready and,
// with a large body, fits. Probes take turns: one prefers the lanes in which nothing
// failed since the turn, and then the one whose failure is the longest ago. fresh allows
// only the former. No two in a row are large where another lane is ready: they may be all
// that Callgoose does not take.
func (w *window) next(probe, fresh bool, since uint64, fits func(size int) bool) (best *lane) {
	before := older
	if probe {
		before = func(a, b *lane) bool {
			at, bt := max(a.turn, since-1), max(b.turn, since-1)
			return at < bt || at == bt && (a.head().size > 0) == (b.head().size > 0) && older(a, b)
		}
	}
	for _, lanes := range [...][]*lane{w.ready.lanes, w.large.lanes} {
		if probe && best != nil && w.probed {
			break
		} else if !probe {
			lanes = lanes[:min(1, len(lanes))]
		}
		for _, l := range lanes {
			if (best == nil || before(l, best)) && (!fresh || l.turn < since) && (l.head().size == 0 || fits(l.head().size)) {
				best = l
			}
		}
	}
	return best
}

// unclaimed takes up to most ready lanes, with no large body, whose heads have no claim to
// be sent under at now, the oldest first.
func (w *window) unclaimed(now time.Time, most int) (lanes []*lane) {
	var claimed []*lane
	for w.ready.Len() > 0 && len(lanes) < most && len(claimed) < most {
		l := w.ready.lanes[0]
		if w.take(l); l.head().claimed(now) {
			claimed = append(claimed, l)
		} else {
			lanes = append(lanes, l)
		}
	}
	for _, l := range claimed {
		w.enqueue(l, time.Time{})
	}
	return lanes
}
