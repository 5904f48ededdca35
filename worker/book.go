package worker

import (
	"context"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
)

// book is what delivery reads from and writes to the ledger.
type book struct{ ledger *store.Store }

// chunk bounds what one read transaction reads: a long one keeps pages from being used again.
const chunk = 256

// read reads the queue behind a place. A shorter list than chunk is its end.
func (b book) read(after event.Position) (list []store.Waiting, err error) {
	err = b.ledger.View(func(tx *store.Tx) error {
		for w := range tx.Waiting(after) {
			if list = append(list, w); len(list) == chunk {
				break
			}
		}
		return nil
	})
	return list, err
}

// claim makes the claims of events that nothing was sent of in this life, in one
// transaction. If we die after it, their bytes are the same at the next start. It returns
// up to when the lateness of each is counted, zero when it is not queued any more. What
// was sent before it was queued again has a claim in its record, which stands.
func (b book) claim(ctx context.Context, places []event.Position) (claims []time.Time, err error) {
	now := time.Now()
	err = b.ledger.Do(ctx, func(tx *store.Tx) error {
		claims = make([]time.Time, len(places))
		for i, at := range places {
			w, ok, err := tx.WaitingAt(at)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			claims[i], w.ClaimedAt = now, now
			if err := tx.PutWaiting(&w); err != nil {
				return err
			}
		}
		return nil
	})
	return claims, err
}

// waitsByName reports whether an event of --incident-by alertname is queued, from before
// the setting changed: then the order is kept by name.
func (b book) waitsByName() (found bool) {
	err := b.ledger.View(func(tx *store.Tx) error {
		for w := range tx.Waiting(event.Position{}) {
			r, err := tx.Brief(w.ReceivedAt, w.Pos)
			if err != nil {
				return err
			}
			if found = r != nil && namesIncidents(tx.Form(r.Facts.Form)); found {
				break
			}
		}
		return nil
	})
	return found || err != nil // whoever sends reports what is wrong
}

// oldest is when the oldest event queued behind a place was queued that is not held, zero
// when there is none. storm is up to where only events stand that wait for the end of a
// storm: they leave the queue there and come in again at its end.
func (b book) oldest(after event.Position) (at time.Time, storm event.Position) {
	storm = after
	_ = b.ledger.View(func(tx *store.Tx) error { // whoever writes reports what is wrong
		alone := true
		for w := range tx.Waiting(after) {
			if alone = alone && w.Storm; alone {
				storm = w.At
			}
			if !w.NotBefore.After(time.Now()) && !w.Storm {
				at = w.QueuedAt
				break
			}
		}
		return nil
	})
	return at, storm
}

// open reads a queued event and its record, not ok when it is not queued any more.
func (b book) open(at event.Position) (w store.Waiting, r *event.Record, ok bool, err error) {
	err = b.ledger.View(func(tx *store.Tx) error {
		if w, ok, err = tx.WaitingAt(at); err != nil || !ok {
			return err
		}
		if r, err = tx.Brief(w.ReceivedAt, w.Pos); err == nil && r == nil {
			r = missing(&w)
		}
		return err
	})
	return w, r, ok, err
}

// missing stands for the record of a queued event that the ledger does not have: what
// can still be sent must be.
func missing(w *store.Waiting) *event.Record {
	return &event.Record{
		ID: w.Pos.RecordID('q'), Key: w.Key, Source: w.Source, Status: w.Status, Alertname: w.Alertname,
		ReceivedAt: w.ReceivedAt, Pos: w.Pos, At: w.At, Notification: w.Pos.NotificationID(), Outcome: event.Queued,
	}
}

// record writes an attempt, and takes the event out of the queue when it is settled. If
// we die before that, the same bytes go out again. What the ledger says of the event now
// is put into res. soon lets it wait for others to share its commit.
func (b book) record(ctx context.Context, res *result, soon bool) error {
	write := b.ledger.Do
	if soon {
		write = b.ledger.Soon
	}
	ruled := res.ruling
	return write(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		w, queued, err := tx.WaitingAt(res.w.At)
		if err != nil {
			return err
		}
		r, err := tx.Brief(res.w.ReceivedAt, res.w.Pos)
		res.ruling, res.number, res.gone = ruled, 0, !queued
		if err != nil || r == nil && !queued { // somebody dropped it
			return err
		}
		if r == nil {
			r = missing(&res.w)
		}
		r.AddAttempt(res.attempt)
		res.number = r.Tries
		if res.attempt.Sent && r.ClaimedAt.IsZero() {
			r.ClaimedAt = res.claim
		}
		v := &res.ruling
		if res.overdue != "" && v.outcome == "" {
			if over, err := mayExpire(tx, &res.w); err != nil {
				return err
			} else if over {
				v.outcome, v.reason = event.Dead, res.overdue
			}
		}
		// Taken out of the queue meanwhile, or put in again: its record says more than a
		// failure does, and less than a delivery.
		if !queued && (v.outcome == event.Dead || r.At != res.w.At) {
			v.outcome, v.reason = "", ""
		}
		if v.outcome != "" {
			count(tx, r.Status, &res.attempt, v.outcome)
			return conclude(tx, res.w.At, r, v.outcome, v.reason)
		}
		if queued && res.unmade && !res.attempt.Sent { // it can still say how late it is, or collapse
			w.ClaimedAt = time.Time{}
			if err := tx.PutWaiting(&w); err != nil {
				return err
			}
		}
		return tx.PutRecord(r)
	})
}

// count keeps what operators are told of the answers: what Callgoose did with what it
// took, and how many firing events it discarded.
func count(tx *store.Tx, status event.Status, a *event.Attempt, outcome event.Outcome) {
	switch {
	case outcome == event.Delivered:
		tx.Count("effect:"+a.Effect, 1)
	case outcome == event.Discarded && status == event.Firing:
		tx.Count("discarded_firing", 1)
	}
}

// mayExpire reports whether an event may be given up for its age. A late recovery is
// right as long as its alert does not fire again, a missing one never.
func mayExpire(tx *store.Tx, w *store.Waiting) (bool, error) {
	if w.Status == event.Firing {
		return true, nil
	}
	ep, err := tx.Episode(w.Key)
	return ep != nil && ep.Open, err
}

// conclude settles an event: its record says so, and it leaves its place in the queue.
func conclude(tx *store.Tx, at event.Position, r *event.Record, outcome event.Outcome, reason string) error {
	if r.Status == event.Resolved && (outcome == event.Dead || outcome == event.Discarded) {
		if err := leftOpen(tx, r.Key); err != nil {
			return err
		}
	}
	r.Outcome, r.Reason, r.SettledAt = outcome, reason, time.Now().UTC()
	if err := tx.DropWaiting(at); err != nil {
		return err
	}
	return tx.PutRecord(r)
}

// leftOpen marks an alert that fires again while the incident of before is open, because
// its recovery was given up: the next recovery closes it, and must not be collapsed.
func leftOpen(tx *store.Tx, key string) error {
	ep, err := tx.Episode(key)
	if err != nil || ep == nil || !ep.Open {
		return err
	}
	ep.Shared = true
	return tx.PutEpisode(ep)
}

// expire gives up those of list that are queued and may be given up for their age, in
// one transaction. It returns them by id.
func (b book) expire(ctx context.Context, list []store.Waiting, reason string) (ended map[string]*store.Waiting, err error) {
	err = b.ledger.Do(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		ended = map[string]*store.Waiting{}
		for i := range list {
			w := &list[i]
			_, queued, err := tx.WaitingAt(w.At)
			if err != nil {
				return err
			}
			over, err := mayExpire(tx, w)
			if err != nil {
				return err
			}
			r, err := tx.Brief(w.ReceivedAt, w.Pos)
			switch {
			case err != nil:
				return err
			case !queued || !over:
				continue
			case r == nil:
				r = missing(w)
			}
			if err := conclude(tx, w.At, r, event.Dead, reason); err != nil {
				return err
			}
			ended[r.ID] = w
		}
		return nil
	})
	return ended, err
}
