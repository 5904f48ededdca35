package worker

import (
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose"
)

// A recovery may be none: the data is gone, or the alert flaps. It can be held in the
// queue, where it waits durably behind what its incident has to say; the episode is
// closed meanwhile. It ends in one of these ways:
//
//	its time is over, or something is queued behind it  sent
//	the alert fires again                               both collapsed (flap): the incident goes on
//	a recovery comes that is not hollow, or by hand     collapsed (superseded): that one goes out
//
// If we die while it is held, it is held until the same time at the next start.

// Reasons of a recovery that is held, and of what becomes of it.
const (
	reasonHollow     = "hollow"     // it rests on lost data: --hollow-recovery hold
	reasonSettling   = "settling"   // the alert may fire again at once: --hold-recovery
	reasonFlap       = "flap"       // the alert fired again meanwhile, the incident goes on
	reasonSuperseded = "superseded" // a recovery that counts more came meanwhile
)

// Hold says which recoveries are held, and for how long.
type Hold struct {
	// Hollow is how long one that rests on lost data is held. 0 = not.
	Hollow time.Duration
	// Match are labels of further alerts of which hollow recoveries are held, besides
	// those of PMM's own templates. Empty = none.
	Match map[string]string
	// Recovery is how long any recovery is held. 0 = not.
	Recovery time.Duration
}

// delay is until when an event is held, and why; zero = it is not. One that waits for the
// end of a storm has no time.
type delay struct {
	until  time.Time
	reason string
	storm  bool
}

// of says how long a recovery with these labels is held. What the service itself says
// is not: a person, or PMM's lists, stand behind it.
func (h Hold) of(c *candidate, labels map[string]string, now time.Time) (d delay) {
	if from := c.note.Origin; from == event.FromService || from == event.Reconciled {
		return d
	}
	if h.Recovery > 0 {
		d = delay{until: c.note.ReceivedAt.Add(h.Recovery), reason: reasonSettling}
	}
	if hollow(c) && (template(labels) || h.matches(labels)) && h.Hollow > h.Recovery {
		d = delay{until: c.note.ReceivedAt.Add(h.Hollow), reason: reasonHollow}
	}
	if !d.until.After(now) {
		return delay{}
	}
	return d
}

func hollow(c *candidate) bool {
	return callgoose.RecoveryKind(c.alert.Annotations) == callgoose.RecoveryHollow
}

// template reports whether one of PMM's templates made the alert. They compare with
// bool: a series that is gone is lost data. In a rule such as x > 10 it is the recovery.
func template(labels map[string]string) bool { return labels["percona_alerting"] == "1" }

func (h Hold) matches(labels map[string]string) bool {
	for name, value := range h.Match {
		if labels[name] != value {
			return false
		}
	}
	return len(h.Match) > 0
}

// heldRecovery is the recovery that closed an episode and is held at that time, of which
// nothing was sent; nil when there is none, or when more is queued of its incident.
func heldRecovery(tx *store.Tx, ep *store.Episode, at time.Time) *event.Record {
	if ep == nil || ep.Open || ep.Recovery.IsZero() {
		return nil
	}
	r, w := unsent(tx, ep.RecoveredAt, ep.Recovery)
	if r == nil || !at.Before(w.NotBefore) || followed(tx, ep, w.At) {
		return nil
	}
	return r
}

// unsent is the record of the event that came in at pos, and its place in the queue, when
// nothing of it was sent; nil when it is not queued, or something may have been sent.
func unsent(tx *store.Tx, receivedAt time.Time, pos event.Position) (*event.Record, store.Waiting) {
	r := tx.Record(receivedAt, pos)
	if r == nil || r.Outcome != event.Queued || !r.ClaimedAt.IsZero() {
		return nil, store.Waiting{}
	}
	w, queued := tx.WaitingAt(r.At)
	if !queued || !w.ClaimedAt.IsZero() {
		return nil, w
	}
	return r, w
}

// lookBehind bounds how many queued events are looked at behind a held one.
const lookBehind = 1000

// followed reports whether an event of the episode's incident is queued behind a place,
// or may be: what it closes or opens there counts more than what waits before it.
func followed(tx *store.Tx, ep *store.Episode, at event.Position) bool {
	n := 0
	for w := range tx.Waiting(at) {
		if n++; n > lookBehind || w.Key == ep.Key || ep.ByName && w.Source == ep.Source && w.Alertname == ep.Alertname {
			return true
		}
	}
	return false
}

// flap ends a held recovery and the firing r that follows it: the incident that the
// episode began at Callgoose goes on. Not where Callgoose may have none.
func (b *batch) flap(r *event.Record, ep, next *store.Episode) bool {
	held := heldRecovery(b.tx, ep, r.ReceivedAt)
	if held == nil {
		return false
	}
	fired := b.tx.Brief(ep.FiringAt, ep.Firing)
	if fired == nil || fired.Outcome != event.Delivered && fired.Outcome != event.Queued {
		return false
	}
	b.release(held, reasonFlap)
	next.Firing, next.FiringAt, next.Suffix, next.ByName = ep.Firing, ep.FiringAt, ep.Suffix, ep.ByName
	r.Facts.Suffix, r.Facts.Form = ep.Suffix, b.form(ep.ByName)
	b.settled(r, event.Collapsed, reasonFlap)
	return true
}

// supersede ends a held recovery where c says more: that it is a true one, or that a
// person closes the incident. It reports whether it did.
func (b *batch) supersede(c *candidate, a *arrival) bool {
	held := heldRecovery(b.tx, a.episode, c.note.ReceivedAt)
	if held == nil {
		return false
	}
	byHand := c.note.Origin == event.FromService
	if !byHand && (held.Reason != reasonHollow || hollow(c) || a.stale(a.episode)) {
		return false
	}
	b.release(held, reasonSuperseded)
	return true
}

// release takes an event out of the queue of which nothing was sent.
func (b *batch) release(r *event.Record, reason string) {
	waited := time.Since(r.ReceivedAt)
	b.tell(func() { b.cfg.Observer.Settled(event.Collapsed, waited) })
	conclude(b.tx, r.At, r, event.Collapsed, reason)
}
