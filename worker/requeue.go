package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pmm-callgoose/store/event"
	"pmm-callgoose/store/event/faultpoint"
)

// Why a message stands in the events stream a second time: Event.Again.
const (
	againRepeat = "repeat" // PMM said it again, and it is let through
	againReplay = "replay" // an operator wants it sent again
	againKeep   = "keep"   // retention removes the first one, but its episode is open
)

// Ref finds a record.
type Ref struct {
	ReceivedAt time.Time
	Pos        event.Position
}

// requeue is a request to put events in line again.
type requeue struct {
	refs   []Ref
	queued int
	done   chan error
}

// ErrStopping says that the splitter takes no requests any more.
var ErrStopping = errors.New("the service is stopping")

// Requeue puts settled events in line again, in the order given, behind
// everything that waits; section 5 has no say in it. It returns how many: those
// that are queued already, or are no longer stored, are left out. Durable when
// it returns nil. Safe concurrently.
//
// If we die in between, the events that stand in the stream are in line, the
// others are not: the caller was told nothing and asks again.
func (s *Splitter) Requeue(ctx context.Context, refs []Ref) (int, error) {
	r := &requeue{refs: refs, done: make(chan error, 1)}
	select {
	case s.asked <- r:
	case <-s.ended:
		return 0, ErrStopping
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	select {
	case err := <-r.done:
		return r.queued, err
	case <-s.ended:
		return 0, ErrStopping
	}
}

func (s *Splitter) requeue(ctx context.Context, r *requeue) error {
	err := s.alone(ctx, func(b *batch) error {
		for _, ref := range r.refs {
			rec, err := b.tx.Record(ref.ReceivedAt, ref.Pos)
			if err != nil {
				return err
			}
			if rec == nil || rec.Outcome == event.Queued || rec.Seq == 0 {
				continue
			}
			e, err := s.readToSend(ctx, rec)
			switch {
			case event.Unreadable(err):
				continue
			case err != nil:
				return err
			case e.Settled == event.Dead: // never was an event
				continue
			}
			b.putAgain(e, againReplay)
			r.queued++
		}
		return nil
	})
	faultpoint.Here("again-committed")
	return err
}

// CatchUp splits what waits, without Run. For a directory with no service.
func (s *Splitter) CatchUp(ctx context.Context) error {
	for {
		if more, err := s.step(ctx); err != nil || !more {
			return err
		}
	}
}

// alone runs fn with a batch of its own and publishes what it gathered.
func (s *Splitter) alone(ctx context.Context, fn func(*batch) error) error {
	return s.ledger.Alone(func(tx event.Tx) error {
		b := &batch{Splitter: s, ctx: ctx, tx: tx, progress: tx.Progress()}
		if err := fn(b); err != nil {
			return err
		}
		if err := b.publish(); err != nil {
			return err
		}
		faultpoint.Here("again-published")
		return nil
	})
}

// putAgain gathers a copy of e, an event read from the stream.
func (b *batch) putAgain(e *event.Event, why string) {
	e.Again, e.At, e.QueuedAt, e.Settled, e.Reason = why, b.progress.At, time.Now().UTC(), "", ""
	if why == againKeep {
		e.Settled = event.Delivered // nothing is to be sent
	}
	b.add(e)
}

// pruneEvery is how often retention looks, which costs nothing while there is
// room: it removes by time every pruneTime, and at once when the store fills,
// because PMM gets 503 until settled events have given way.
const (
	pruneEvery = time.Second
	pruneTime  = 10 * time.Minute
	// pruneLooks bounds the looks on end: what waits wants to be split meanwhile.
	pruneLooks = 4
	// After pruneVain looks that made no room, which write as much as they remove,
	// none is made for pruneFutile.
	pruneVain   = 5
	pruneFutile = 10 * time.Minute
)

// prune removes what is settled: older than Retention, and, when the store
// fills, the oldest first. What is not settled is never removed: both streams
// are cut only below the floor, and below what is split.
//
// Order: copies of what open episodes still need are published first, then the
// streams are cut, then days of the ledger go. If we die in between, something
// is there twice, and the next look goes on.
func (s *Splitter) prune(ctx context.Context, now time.Time) error {
	byTime := s.cfg.Retention > 0 && now.Sub(s.pruned) >= pruneTime
	for range pruneLooks {
		used, limit, free := s.streams.Room()
		share := 0.0
		if used > limit/10*9 { // down to three quarters
			share = float64(used-limit/4*3) / float64(used)
		}
		short := free >= 0 && free < s.cfg.MinFree
		if short && used > 0 { // history must not keep alerts out; a tenth more, for what comes next
			share = max(share, min(1, float64(s.cfg.MinFree/10*11-free)/float64(used)))
		}
		if now.Before(s.futile) {
			share = 0
		}
		if share == 0 && !byTime {
			return nil
		}
		removed, kept, err := s.pruneOnce(ctx, now, share)
		if err != nil || removed == 0 {
			return err
		}
		if share > 0 && 50*kept > 49*removed { // nearly all
			if s.vain++; s.vain < pruneVain {
				return nil // more may be settled at the next look
			}
			// What is left belongs to open alerts, and is only written again.
			s.vain, s.futile = 0, now.Add(pruneFutile)
			s.log.ErrorContext(ctx, "no room can be made: what is left belongs to alerts that are open; raise --max-store or free the disk, and see why their recoveries do not come",
				"used_bytes", used, "max_bytes", limit, "free_bytes", free, "min_free_bytes", s.cfg.MinFree)
			return nil
		}
		s.vain = 0
		if short {
			s.log.WarnContext(ctx, "the disk is short of --min-free: removed settled history", "free_bytes", free, "min_free_bytes", s.cfg.MinFree)
		}
		byTime = false // a share is counted in messages: large ones may be left
	}
	return nil
}

// pruneOnce removes the oldest share of what is settled, and what is too old. It
// returns how many messages it removed, and how many it wrote again for open alerts.
func (s *Splitter) pruneOnce(ctx context.Context, now time.Time, share float64) (removed, kept uint64, err error) {
	s.pruned = now
	cutoff := time.Time{}
	if s.cfg.Retention > 0 {
		cutoff = now.Add(-s.cfg.Retention)
	}
	var floor, split uint64
	if err := s.ledger.View(func(tx event.Tx) error {
		floor = tx.Floor()
		if at := tx.Progress().At; at.Seq > 0 {
			split = at.Seq - 1
		}
		return nil
	}); err != nil {
		return 0, 0, err
	}
	events, err := s.cut(ctx, floor, share, cutoff, s.streams.FirstEvent, func(seq uint64) (time.Time, error) {
		e, err := s.streams.Event(ctx, seq)
		if err != nil {
			return time.Time{}, err
		}
		return e.QueuedAt, nil
	})
	if err != nil {
		return 0, 0, err
	}
	notes, err := s.cut(ctx, split, share, cutoff, s.streams.FirstNotification, func(seq uint64) (time.Time, error) {
		n, err := s.streams.Notifications(ctx, seq)
		if err != nil || len(n) == 0 {
			return time.Time{}, err
		}
		return n[0].ReceivedAt, nil
	})
	if err != nil || notes.count+events.count == 0 {
		return 0, 0, err
	}
	if events.more || notes.more {
		s.pruned = time.Time{} // at the next look
	}
	if kept, err = s.keepOpen(ctx, events.upTo); err != nil {
		return 0, 0, fmt.Errorf("keep open episodes: %w", err)
	}
	faultpoint.Here("prune-kept")
	if err := s.streams.Purge(ctx, notes.upTo, events.upTo); err != nil {
		return 0, 0, err
	}
	faultpoint.Here("prune-cut")
	s.log.DebugContext(ctx, "removed settled history", "notifications_up_to", notes.upTo, "events_up_to", events.upTo, "kept", kept)
	if !cutoff.IsZero() {
		err = s.ledger.Alone(func(tx event.Tx) error {
			_, err := tx.DropDays(cutoff)
			return err
		})
	}
	return notes.count + events.count, kept, err
}

// atALook is how many messages are asked for their age at one look: each is read,
// and the splitter waits meanwhile.
const atALook = 2000

// stretch is the beginning of a stream that can go: up to a sequence, 0 for nothing.
type stretch struct {
	upTo, count uint64
	more        bool // there may be others as old
}

// cut finds what can go, of the messages up to most: what is older than cutoff, and
// the oldest share. It stops at the first that is young: a clock that was wrong, or
// an import, puts old ones behind it.
func (s *Splitter) cut(ctx context.Context, most uint64, share float64, cutoff time.Time,
	first func(context.Context) (uint64, error), at func(uint64) (time.Time, error),
) (cut stretch, err error) {
	from, err := first(ctx)
	if err != nil || from > most {
		return cut, err
	}
	upTo := from - 1 + uint64(share*float64(most-from+1))
	for n := 0; upTo < most && !cutoff.IsZero(); n++ {
		if n == atALook {
			cut.more = true
			break
		}
		t, err := at(upTo + 1)
		if err != nil && !event.Unreadable(err) {
			return stretch{}, err
		}
		if err == nil && !t.Before(cutoff) {
			break
		}
		upTo++
	}
	if upTo >= from {
		cut.upTo, cut.count = upTo, upTo-from+1
	}
	return cut, nil
}

// keptAnnotations bounds what is kept of an open alert that was delivered.
const keptAnnotations = 4 << 10

func size(texts map[string]string) (n int) {
	for k, v := range texts {
		n += len(k) + len(v)
	}
	return n
}

// keepOpen copies the firing events of open episodes that are about to go: a
// rebuilt ledger must still know them, and a repeat may have to be sent.
func (s *Splitter) keepOpen(ctx context.Context, upTo uint64) (kept uint64, err error) {
	for more := upTo > 0; more; {
		if err := s.alone(ctx, func(b *batch) (err error) {
			more, err = b.keepSome(upTo)
			kept += uint64(len(b.events))
			return err
		}); err != nil {
			return 0, err
		}
	}
	return kept, nil
}

// keepSome copies as many as one batch takes, and reports whether there are more:
// those copied stand behind upTo.
func (b *batch) keepSome(upTo uint64) (more bool, err error) {
	for ep := range b.tx.OpenEpisodes("", "") {
		if len(b.events) >= 10*gatherEvents || b.size >= gatherBytes {
			return true, nil
		}
		rec, err := b.tx.Record(ep.FiringAt, ep.Firing)
		if err != nil {
			return false, err
		}
		if rec == nil || rec.Seq == 0 || rec.Seq > upTo {
			continue
		}
		e, err := b.read(b.ctx, rec)
		if event.Unreadable(err) {
			continue
		}
		if err != nil {
			return false, err
		}
		if rec.Outcome == event.Delivered && b.cfg.ResendAfter == 0 {
			e.Body = nil // it will not be sent again
			if size(e.Annotations) > keptAnnotations {
				e.Annotations = nil // only a trimmed recovery takes them over
			}
		}
		b.putAgain(e, againKeep)
	}
	return false, nil
}
