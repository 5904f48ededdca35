package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"pmm-callgoose/store/event"
)

// Every event stands on disk twice: in EVENTS, and in the notification it came
// in. When one of EVENTS is damaged or gone it is made again from the other.

// read reads the event of a record, from either place.
func (s *Splitter) read(ctx context.Context, r *event.Record) (*event.Event, error) {
	e, err := s.streams.Event(ctx, r.Seq)
	if !event.Unreadable(err) {
		return e, err
	}
	if again, rerr := s.Restore(ctx, r); rerr == nil {
		return again, nil
	}
	return e, err
}

// readToSend reads an event that has a body, which retention does not keep with an
// open episode.
func (s *Splitter) readToSend(ctx context.Context, r *event.Record) (*event.Event, error) {
	e, err := s.read(ctx, r)
	if err == nil && len(e.Body) == 0 {
		return s.Restore(ctx, r)
	}
	return e, err
}

// Restore makes the event of r again: the same identity, and the same bytes as
// long as --callgoose-from and --incident-by are the same. (Annotations that a
// trimmed recovery took over from its alert are not in the record and are left
// out.) event.ErrGone or event.ErrDamaged when its notification cannot be read
// either. Safe concurrently.
func (s *Splitter) Restore(ctx context.Context, r *event.Record) (*event.Event, error) {
	notes, err := s.streams.Notifications(ctx, r.Pos.Seq)
	if err != nil {
		return nil, err
	}
	if int(r.Pos.Note) >= len(notes) {
		return nil, fmt.Errorf("notification %s: %w", r.Notification, event.ErrDamaged)
	}
	n := &notes[r.Pos.Note]
	candidates, _ := split(n, r.Pos.Seq, r.Pos.Note)
	for i := range candidates {
		c := &candidates[i]
		if c.pos != r.Pos || c.unusable != nil || c.status != r.Status {
			continue
		}
		c.alert.Labels = r.Labels
		e := &event.Event{
			ID: r.ID, Key: r.Key, Source: r.Source, Status: r.Status, Pos: r.Pos, At: r.Pos, Alertname: r.Alertname,
			Fingerprint: strings.TrimPrefix(r.Key, r.Source+"-"), Labels: r.Labels, Annotations: c.alert.Annotations,
			StartsAt: r.StartsAt, ReceivedAt: r.ReceivedAt, QueuedAt: r.ReceivedAt, Since: c.changedAt(s.cfg.LateAfter),
		}
		if r.Reason == againRepeat || r.Reason == againReplay { // when it was put in line again is not known
			e.QueuedAt, e.Since = time.Now().UTC(), time.Now().UTC()
		}
		s.finish(e, c)
		return e, nil
	}
	return nil, fmt.Errorf("notification %s holds no such alert: %w", r.Notification, event.ErrDamaged)
}

// checkGap finds the events that the stream skipped before seq: it hands out
// every message in order, and one that is damaged is left out without a word.
// At the start these are all above the floor: retention removes nothing there.
func (d *Deliverer) checkGap(ctx context.Context, seq uint64) error {
	var lost []uint64
	for missing := max(d.highest, d.floor) + 1; missing < seq; missing++ {
		if d.settled[missing] {
			delete(d.settled, missing)
			continue
		}
		switch _, err := d.bodies.Event(ctx, missing); {
		case event.Unreadable(err):
			lost = append(lost, missing)
		case err != nil:
			return err
		default:
			return fmt.Errorf("event %d was not handed out by the stream", missing) // reopening hands it out
		}
	}
	return d.lost(ctx, lost)
}

// lost takes care of messages that cannot be read: what waits among them is
// made again, or ends as a dead letter that says so. seqs only grow.
func (d *Deliverer) lost(ctx context.Context, seqs []uint64) error {
	if len(seqs) == 0 {
		return nil
	}
	records := make(map[uint64]*event.Record, len(seqs))
	for _, seq := range seqs {
		records[seq] = nil
	}
	if err := d.ledger.View(func(tx event.Tx) error {
		return tx.Each(event.Filter{Outcomes: []event.Outcome{event.Queued}}, func(r *event.Record) bool {
			if _, ours := records[r.Seq]; ours {
				records[r.Seq] = r
			}
			return true
		})
	}); err != nil {
		return err
	}
	for len(seqs) > 0 {
		some := seqs[:min(len(seqs), 1000)]
		seqs = seqs[len(some):]
		if err := d.lostSome(ctx, some, records); err != nil {
			return err
		}
	}
	return nil
}

func (d *Deliverer) lostSome(ctx context.Context, seqs []uint64, records map[uint64]*event.Record) error {
	var gone []uint64
	restored := 0
	for _, seq := range seqs {
		r := records[seq]
		if r == nil || d.cfg.Restore == nil {
			gone = append(gone, seq)
			continue
		}
		e, err := d.cfg.Restore(ctx, r)
		switch {
		case event.Unreadable(err):
			gone = append(gone, seq)
			d.log.ErrorContext(ctx, "an event is lost: neither it nor its notification can be read; it is kept as a dead letter",
				"event_id", r.ID, "event_key", r.Key, "alertname", r.Alertname, "status", r.Status, "seq", seq, "err", err)
		case err != nil:
			return err
		default:
			restored++
			d.take(seq, e)
		}
	}
	d.log.ErrorContext(ctx, "events are damaged or missing in the store; those that waited were made again from their notifications",
		"stream", "EVENTS", "seq", seqs[0], "until", seqs[len(seqs)-1], "count", len(seqs), "restored", restored)
	err := d.ledger.Do(ctx, func(tx event.Tx) error {
		tx.Count("damaged", int64(len(seqs)))
		for _, seq := range gone {
			if r := records[seq]; r != nil {
				if err := conclude(tx, seq, r, event.Dead, "lost: the store was damaged, and the notification it came in cannot be read either"); err != nil {
					return err
				}
			} else if err := tx.Settle(seq); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		for _, seq := range gone {
			d.source.Ack(seq)
		}
	}
	return err
}

// body reads an event again whose body was not kept in memory.
func (d *Deliverer) body(ctx context.Context, it *item) (*event.Event, error) {
	e, err := d.bodies.Event(ctx, it.seq)
	if d.cfg.Restore == nil || !event.Unreadable(err) {
		return e, err
	}
	var r *event.Record
	if verr := d.ledger.View(func(tx event.Tx) (err error) {
		r, err = tx.Record(it.ev.ReceivedAt, it.ev.Pos)
		return err
	}); verr != nil || r == nil {
		return nil, errors.Join(err, verr)
	}
	if again, rerr := d.cfg.Restore(ctx, r); rerr == nil {
		return again, nil
	}
	return nil, err
}
