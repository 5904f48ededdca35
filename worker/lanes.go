package worker

import (
	"container/heap"
	"slices"
	"time"

	"pmm-callgoose/store/event"
)

// item is one event in the window: pulled from the stream and not yet settled.
type item struct {
	seq  uint64
	ev   *event.Event // labels and annotations dropped; Body nil when it has to be read again
	size int          // of the body, while it is kept
	// since is when it was put in line, told by a clock that does not jump: what was
	// taken in young must not be given up because somebody corrected the time.
	since time.Time
	// backlog: it came in, or waited, while Callgoose was not up.
	backlog bool
	tries   int // failed attempts that were the event's own, for the backoff
}

// lane holds the events of one ordering key, oldest first. At most one of them
// is under way at any time.
type lane struct {
	key       string
	items     []*item
	busy      bool
	notBefore time.Time
	index     int // in its heap, -1 for none
}

func (l *lane) head() *item { return l.items[0] }

// laneHeap orders lanes: ready ones by age, waiting ones by when they may go on.
type laneHeap struct {
	lanes []*lane
	less  func(a, b *lane) bool
}

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
	l.index = -1
	return l
}

// lanes is the window: every event pulled and not settled, by ordering key.
// Owned by Deliverer.Run.
type lanes struct {
	byKey   map[string]*lane
	ready   laneHeap // may start now
	waiting laneHeap // wait for their backoff
	seqs    map[uint64]*item
	order   []uint64 // sequences as they came, settled ones at the front removed
	bytes   int      // bodies kept in memory
}

func newLanes() *lanes {
	return &lanes{
		byKey:   map[string]*lane{},
		seqs:    map[uint64]*item{},
		ready:   laneHeap{less: func(a, b *lane) bool { return a.head().seq < b.head().seq }},
		waiting: laneHeap{less: func(a, b *lane) bool { return a.notBefore.Before(b.notBefore) }},
	}
}

// add puts an event at the end of its lane. An event that is there already
// (handed out again by the stream) is left alone.
func (w *lanes) add(it *item) (*lane, bool) {
	if _, known := w.seqs[it.seq]; known {
		return nil, false
	}
	w.seqs[it.seq] = it
	w.order = append(w.order, it.seq)
	w.bytes += it.size
	l := w.byKey[it.ev.Lane]
	if l == nil {
		l = &lane{key: it.ev.Lane, index: -1}
		w.byKey[l.key] = l
	}
	l.items = append(l.items, it)
	if len(l.items) == 1 {
		w.enqueue(l, time.Time{})
	}
	return l, true
}

// enqueue makes a lane that is not under way ready, or lets it wait.
func (w *lanes) enqueue(l *lane, notBefore time.Time) {
	l.busy, l.notBefore = false, notBefore
	heap.Push(w.heapOf(l), l)
}

func (w *lanes) heapOf(l *lane) *laneHeap {
	if l.notBefore.IsZero() {
		return &w.ready
	}
	return &w.waiting
}

// take removes the lane from its heap; it is under way from now on.
func (w *lanes) take(l *lane) *item {
	heap.Remove(w.heapOf(l), l.index)
	l.busy = true
	return l.head()
}

// wake makes the lanes ready whose wait is over.
func (w *lanes) wake(now time.Time) {
	for w.waiting.Len() > 0 && !now.Before(w.waiting.lanes[0].notBefore) {
		l := heap.Pop(&w.waiting).(*lane)
		w.enqueue(l, time.Time{})
	}
}

// done removes the settled head of a lane that is under way.
func (w *lanes) done(l *lane) {
	it := l.items[0]
	l.items[0] = nil
	l.items = l.items[1:]
	delete(w.seqs, it.seq)
	w.bytes -= it.size
	for len(w.order) > 0 && w.seqs[w.order[0]] == nil {
		w.order = w.order[1:]
	}
	if len(w.order) > 2*len(w.seqs)+1024 { // one that is stuck keeps the settled behind it
		w.order = slices.DeleteFunc(w.order, func(seq uint64) bool { return w.seqs[seq] == nil })
	}
	if len(l.items) == 0 {
		delete(w.byKey, l.key)
		return
	}
	w.enqueue(l, time.Time{})
}

// oldest is the oldest event that is not settled, nil when there is none.
func (w *lanes) oldest() *item {
	if len(w.order) == 0 {
		return nil
	}
	return w.seqs[w.order[0]]
}
