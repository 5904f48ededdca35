package worker

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
)

// A lost ledger is rebuilt by splitting NOTIFICATIONS again from its first
// message: episodes, records and ids come out as they were. What was settled is
// known from the mark that each envelope carries: up to it, but for the events it
// names, all was settled, with an outcome that nobody knows any more. What came
// behind it goes out. Gone are attempts, answers, counters, and which dead letters
// were dropped.

// Begin prepares ledger and stream for each other, before anything is accepted:
// a ledger that knows nothing beside a stream that holds something is rebuilt, and
// what is written to the stream carries the mark of what is settled. If we die in
// between, it is done again.
func Begin(ctx context.Context, queue Queue, ledger *store.Store, log *slog.Logger) (*Marker, error) {
	m := &Marker{queue: queue, ledger: ledger, written: true}
	last := queue.Last()
	switch known := ledger.Summary(); {
	case known.Rebuild != nil:
		m.set = known.Rebuild.Mark
	case known.Progress.IsZero() && last > 0:
		first, err := queue.Oldest(ctx)
		if err != nil {
			return nil, fmt.Errorf("rebuild the ledger: %w", err)
		}
		if m.set, err = queue.NewestMark(ctx); err != nil {
			return nil, fmt.Errorf("read the mark of what was settled: %w", err)
		}
		log.WarnContext(ctx, "the ledger is new: it is rebuilt from the notifications that are stored; gone are attempts, answers, counters, and the outcomes of settled events, which are unknown",
			"component", "splitter", "from", first, "until", last, "settled_up_to", m.set.UpTo.Seq, "waiting_before", len(m.set.Waiting))
		if err := ledger.Do(ctx, func(tx *store.Tx) {
			tx.SetRebuild(&store.Rebuild{Mark: m.set, Until: last})
			tx.SetProgress(event.Position{Seq: first - 1, Note: whole, Item: whole})
		}); err != nil {
			return nil, err
		}
	default:
		var err error
		if m.set, err = m.settled(); err != nil {
			return nil, err
		}
	}
	queue.SetMark(m.set)
	return m, nil
}

func (b *batch) endRebuild() {
	b.rebuild = nil
	b.tx.SetRebuild(nil)
	b.tell(func() { b.log.Info("the ledger is rebuilt") })
}

// wasWaiting reports whether the event queued at a place was not settled when
// the ledger was lost.
func (b *batch) wasWaiting(at event.Position) bool {
	_, waiting := slices.BinarySearchFunc(b.rebuild.Mark.Waiting, at, event.Position.Compare)
	return waiting
}

// settledBefore reports whether the event queued at a place was settled when
// the ledger was lost.
func (b *batch) settledBefore(at event.Position) bool {
	return b.rebuild != nil && at.Compare(b.rebuild.Mark.UpTo) <= 0 && !b.wasWaiting(at)
}

const (
	// markEvery is the time between two passes over what is settled.
	markEvery = time.Second
	// markQuiet is after how long without a notification an envelope is written that
	// holds the mark alone.
	markQuiet = 30 * time.Second
)

// Marker keeps the mark of what is settled in the stream, for a ledger that is
// lost: it is never older than a minute. Begin makes it.
type Marker struct {
	queue  Queue
	ledger *store.Store

	set     event.Mark // what envelopes carry from now on
	setAt   time.Time
	last    uint64 // newest envelope when it was set
	written bool   // an envelope carries it
	changes uint64 // of the ledger, in the last pass
	own     uint64 // the newest envelope that holds a mark alone
	follows bool   // another instance writes it when nothing else does
}

// FollowMarks sets the mark from a ledger that follows another instance, until ctx ends:
// what this instance stores carries it too.
func FollowMarks(ctx context.Context, queue Queue, ledger *store.Store) error {
	return (&Marker{queue: queue, ledger: ledger, written: true, follows: true}).Run(ctx)
}

// Run keeps the mark until ctx ends; then what is settled is written once more.
func (m *Marker) Run(ctx context.Context) error {
	tick := time.NewTicker(markEvery)
	defer tick.Stop()
	for {
		if err := m.pass(ctx, time.Now(), markQuiet); err != nil {
			return ignore(ctx, err)
		}
		select {
		case <-ctx.Done():
			if m.follows {
				return nil
			}
			return m.pass(context.WithoutCancel(ctx), time.Now(), 0)
		case <-tick.C:
		}
	}
}

// pass sets the mark, and writes it when nothing else did for a while.
func (m *Marker) pass(ctx context.Context, now time.Time, quiet time.Duration) error {
	if changes := m.ledger.Changes(); changes != m.changes {
		m.changes = changes
		mark, err := m.settled()
		if err != nil {
			return err
		}
		if mark.UpTo != m.set.UpTo || !slices.Equal(mark.Waiting, m.set.Waiting) {
			if m.written {
				m.setAt = now
			}
			m.set, m.last, m.written = mark, m.queue.Last(), false
			m.queue.SetMark(mark)
		}
	}
	switch {
	case m.written:
		return nil
	case m.queue.Last() > m.last:
		m.written = true
		return nil
	case m.follows, now.Sub(m.setAt) < quiet:
		return nil
	}
	m.written = true
	own, err := m.queue.PublishMark(ctx)
	m.own = own
	return err
}

// settled is the newest mark: what is decided on, but for what is waiting, or, where too
// much is, up to the last that it names, which says less and stays true.
func (m *Marker) settled() (mark event.Mark, err error) {
	err = m.ledger.View(func(tx *store.Tx) {
		if r := tx.Rebuild(); r != nil { // the mark in the stream is the better one
			mark = r.Mark
			return
		}
		if mark.UpTo = tx.Progress(); mark.UpTo.Seq == m.own { // only the mark itself was split
			mark.UpTo = m.set.UpTo
		}
		for at := range tx.Places() {
			if mark.Waiting = append(mark.Waiting, at); len(mark.Waiting) == event.MaxMarked {
				mark.UpTo = at
				break
			}
		}
	})
	return mark, err
}
