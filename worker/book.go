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
	err = b.ledger.View(func(tx *store.Tx) {
		for w := range tx.Waiting(after) {
			if list = append(list, w); len(list) == chunk {
				break
			}
		}
	})
	return list, err
}

// claim makes the claims of events that nothing was sent of in this life, in one
// transaction. If we die after it, their bytes are the same at the next start. It returns
// up to when the lateness of each is counted, zero when it is not queued any more. What
// was sent before it was queued again has a claim in its record, which stands.
func (b book) claim(ctx context.Context, places []event.Position) (claims []time.Time, err error) {
	now := time.Now()
	err = b.ledger.Do(ctx, func(tx *store.Tx) {
		claims = make([]time.Time, len(places))
		for i, at := range places {
			if w, ok := tx.WaitingAt(at); ok {
				claims[i], w.ClaimedAt = now, now
				tx.PutWaiting(&w)
			}
		}
	})
	return claims, err
}

// waitsByName reports whether an event of --incident-by alertname is queued, from before
// the setting changed: then the order is kept by name.
func (b book) waitsByName() (found bool) {
	err := b.ledger.View(func(tx *store.Tx) {
		for w := range tx.Waiting(event.Position{}) {
			r := tx.Brief(w.ReceivedAt, w.Pos)
			if found = r != nil && namesIncidents(tx.Form(r.Facts.Form)); found {
				break
			}
		}
	})
	return found || err != nil // whoever sends reports what is wrong
}

// oldest is when the oldest event queued behind a place was queued that is not held, zero
// when there is none. storm is up to where only events stand that wait for the end of a
// storm: they leave the queue there and come in again at its end.
func (b book) oldest(after event.Position) (at time.Time, storm event.Position) {
	storm = after
	_ = b.ledger.View(func(tx *store.Tx) { // whoever writes reports what is wrong
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
	})
	return at, storm
}

// open reads a queued event and its record, not ok when it is not queued any more.
func (b book) open(at event.Position) (w store.Waiting, r *event.Record, ok bool, err error) {
	err = b.ledger.View(func(tx *store.Tx) {
		if w, ok = tx.WaitingAt(at); ok {
			r = recordOf(tx, &w)
		}
	})
	return w, r, ok, err
}

// recordOf is the record of a queued event, in brief. What stands for one that the ledger
// does not have says enough to send it: what can still be sent must be.
func recordOf(tx *store.Tx, w *store.Waiting) *event.Record {
	if r := tx.Brief(w.ReceivedAt, w.Pos); r != nil {
		return r
	}
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
	return write(context.WithoutCancel(ctx), func(tx *store.Tx) {
		w, queued := tx.WaitingAt(res.w.At)
		res.ruling, res.number, res.gone, res.began = ruled, 0, !queued, time.Time{}
		if !queued && tx.Brief(res.w.ReceivedAt, res.w.Pos) == nil { // somebody dropped it
			return
		}
		r := recordOf(tx, &res.w)
		r.AddAttempt(res.attempt)
		res.number = r.Tries
		if res.attempt.Sent && r.ClaimedAt.IsZero() {
			r.ClaimedAt = res.claim
		}
		v := &res.ruling
		if res.overdue != "" && v.outcome == "" && mayExpire(tx, &res.w) {
			v.outcome, v.reason = event.Dead, res.overdue
		}
		// Taken out of the queue meanwhile, or put in again: its record says more than a
		// failure does, and less than a delivery.
		if !queued && (v.outcome == event.Dead || r.At != res.w.At) {
			v.outcome, v.reason = "", ""
		}
		if v.outcome != "" {
			if v.outcome == event.Delivered && r.Status == event.Firing && r.TimesTaken() == 1 {
				res.began = r.StartsAt
			}
			count(tx, r.Status, &res.attempt, v.outcome)
			conclude(tx, res.w.At, r, v.outcome, v.reason)
			return
		}
		if queued && res.unmade && !res.attempt.Sent { // it can still say how late it is, or collapse
			w.ClaimedAt = time.Time{}
			tx.PutWaiting(&w)
		}
		tx.PutRecord(r)
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
func mayExpire(tx *store.Tx, w *store.Waiting) bool {
	return w.Status == event.Firing || isOpen(tx.Episode(w.Key))
}

// isOpen reports whether there is such an episode, and it is open.
func isOpen(ep *store.Episode) bool { return ep != nil && ep.Open }

// conclude settles an event: its record says so, and it leaves its place in the queue.
func conclude(tx *store.Tx, at event.Position, r *event.Record, outcome event.Outcome, reason string) {
	if r.Status == event.Resolved && (outcome == event.Dead || outcome == event.Discarded) {
		// An alert that fires again has the incident of before: its next recovery closes
		// that, and must not be collapsed.
		if ep := tx.Episode(r.Key); isOpen(ep) {
			ep.Shared = true
			tx.PutEpisode(ep)
		}
	}
	r.Outcome, r.Reason, r.SettledAt = outcome, reason, time.Now().UTC()
	tx.DropWaiting(at)
	tx.PutRecord(r)
}

// expire gives up those of list that are queued and may be given up for their age, in
// one transaction. It returns them by id.
func (b book) expire(ctx context.Context, list []store.Waiting, reason string) (ended map[string]*store.Waiting, err error) {
	err = b.ledger.Do(context.WithoutCancel(ctx), func(tx *store.Tx) {
		ended = map[string]*store.Waiting{}
		for i := range list {
			w := &list[i]
			if _, queued := tx.WaitingAt(w.At); queued && mayExpire(tx, w) {
				r := recordOf(tx, w)
				conclude(tx, w.At, r, event.Dead, reason)
				ended[r.ID] = w
			}
		}
	})
	return ended, err
}
