package worker

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/faultpoint"
	"pmm-callgoose/store/wire"
	"pmm-callgoose/worker/callgoose"
)

// Ref finds a record.
type Ref struct {
	ReceivedAt time.Time
	Pos        event.Position
}

// Choice is what an operator chose to send again, and what of it can be.
type Choice struct {
	Refs      []Ref `json:"-"` // in the order of arrival
	Firing    int   `json:"firing"`
	Resolved  int   `json:"resolved"`
	Incidents int   `json:"incidents"`
	// Outcomes is what became of them so far.
	Outcomes map[event.Outcome]int `json:"outcomes,omitempty"`
	// Left out, and why.
	Closed     int `json:"left_out_closed"`     // firing events whose episode has closed since
	Superseded int `json:"left_out_superseded"` // recoveries of an alert, or of a name that an alert shows, that is open again
	Gone       int `json:"left_out_gone"`       // no longer stored
	Waiting    int `json:"left_out_queued"`     // queued already
	NoEvent    int `json:"left_out_no_event"`   // suppressed or unusable alerts: nothing to send
}

// Rules of a choice.
type Rules struct {
	IncludeClosed bool   // take what would make an incident wrong, too
	Queued        bool   // take what is queued: nobody else sends it
	Limit         int    // the oldest so many, 0 = all
	First         uint64 // oldest sequence that is stored
	Count         bool   // no Refs
}

// Choose says which of the records chosen can be sent again. found is told of each.
// Of all that is read it keeps the Refs alone.
func Choose(tx *store.Tx, f event.Filter, r Rules, found func(*event.Record)) (c Choice) {
	c.Outcomes = map[event.Outcome]int{}
	incidents, seed := map[uint64]bool{}, maphash.MakeSeed() // by a hash: the keys of all would be much
	f.OldestFirst = true
	for rec := range tx.Records(f) {
		found(rec)
		switch {
		case rec.Outcome == event.Queued && !r.Queued:
			c.Waiting++
		case !rec.IsEvent():
			c.NoEvent++
		case rec.Pos.Seq < r.First:
			c.Gone++
		case r.Limit > 0 && c.Firing+c.Resolved == r.Limit:
		case c.take(tx, rec, r):
			incidents[maphash.String(seed, rec.Key)] = true
		}
	}
	c.Incidents = len(incidents)
	return c
}

// take counts a record, and takes it unless that would make an incident wrong.
func (c *Choice) take(tx *store.Tx, rec *event.Record, r Rules) bool {
	if !r.IncludeClosed && rec.Outcome != event.Queued && wouldBeWrong(tx, rec) {
		if rec.Status == event.Firing {
			c.Closed++
		} else {
			c.Superseded++
		}
		return false
	}
	if c.Outcomes[rec.Outcome]++; rec.Status == event.Firing {
		c.Firing++
	} else {
		c.Resolved++
	}
	if !r.Count {
		c.Refs = append(c.Refs, Ref{rec.ReceivedAt, rec.Pos})
	}
	return true
}

// wouldBeWrong reports whether sending the event again would open an incident of what
// is over, or close that of what fires.
func wouldBeWrong(tx *store.Tx, rec *event.Record) bool {
	ep := tx.Episode(rec.Key)
	switch {
	case rec.Status == event.Firing:
		return !isOpen(ep) || ep.Firing != rec.Pos
	case isOpen(ep):
		return true
	case ep != nil && ep.ByName:
		return tx.OpenNamed(rec.Source, ep.Alertname, rec.Key, time.Time{}) != ""
	}
	shown := store.Episode{Shown: callgoose.ShownName(rec.Labels, event.Fingerprint(rec.Key)), Suffix: rec.Facts.Suffix}
	return tx.OpenShown(store.ShownName(&shown), rec.Key)
}

// requeueMost bounds the events of one request.
const requeueMost = 2000

// Requeue queues settled events again, in the order given, behind
// everything that is waiting; the rules of episodes have no say in it. It returns
// those that it queued: others are queued already, no longer stored, or, without
// includeClosed, would make an incident wrong by now (see Choose). Durable when it
// returns nil. Safe concurrently.
//
// The request is a notification of its own: if we die after it is stored, it is
// carried out at the next start; before, the caller was told nothing and asks again.
func (s *Splitter) Requeue(ctx context.Context, refs []Ref, includeClosed bool) (queued []Ref, err error) {
	for some := range slices.Chunk(refs, requeueMost) {
		pos, err := s.queue.Publish(ctx, requeueOf(some, includeClosed))
		if err != nil {
			return queued, fmt.Errorf("queue events again: %w", err)
		}
		faultpoint.Here("requeue-stored")
		if err := s.reach(ctx, pos); err != nil {
			return queued, err
		}
		if err := s.ledger.View(func(tx *store.Tx) {
			for _, ref := range some {
				if r := tx.Brief(ref.ReceivedAt, ref.Pos); r != nil && r.At.Seq == pos.Seq && r.At.Note == pos.Note {
					queued = append(queued, ref)
				}
			}
		}); err != nil {
			return queued, err
		}
	}
	return queued, nil
}

// requeueOf is a notification that asks to queue events again.
func requeueOf(refs []Ref, includeClosed bool) event.Notification {
	var c wire.Coder
	codeRequest(&c, &refs, &includeClosed)
	now := time.Now().UTC()
	return event.Notification{Origin: event.Requeue, BeganAt: now, ReceivedAt: now, Body: c.B}
}

func codeRequest(c *wire.Coder, refs *[]Ref, includeClosed *bool) {
	c.Flags(includeClosed)
	wire.Len(c, refs)
	for i := range *refs {
		c.Position(&(*refs)[i].Pos)
		c.Time(&(*refs)[i].ReceivedAt)
	}
}

// reach waits until the notification at pos is decided on. Without a service it decides.
func (s *Splitter) reach(ctx context.Context, pos event.Position) error {
	done := event.Position{Seq: pos.Seq, Note: pos.Note, Item: whole}
	for s.ledger.Summary().Progress.Compare(done) < 0 {
		if s.alone {
			if err := s.CatchUp(ctx); err != nil {
				return err
			}
			continue
		}
		select {
		case <-s.ended:
			return ErrStopping
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// ErrStopping says that the splitter takes no requests any more.
var ErrStopping = errors.New("the service is stopping")

// requested takes a notification of requeueOf apart.
func (n *note) requested() *note {
	c := wire.Reader(n.Body)
	var refs []Ref
	codeRequest(&c, &refs, &n.includeClosed)
	if err := c.End("request to send again"); err != nil {
		return n.lost(err.Error())
	}
	for item := range refs {
		n.members = append(n.members, candidate{pos: n.at(item), note: n, again: &refs[item]})
	}
	return n
}

// requeue queues one event again, where it can be. PMM may have said more since it was
// chosen.
func (b *batch) requeue(c *candidate) {
	rec := b.tx.Record(c.again.ReceivedAt, c.again.Pos)
	if rec == nil { // one that a storm holds would be asked for again and again
		w, queued := b.tx.WaitingAt(c.again.Pos)
		if !queued {
			return
		}
		rec = recordOf(b.tx, &w)
	}
	if b.fromStorm(rec, c.pos) || !rec.IsEvent() || rec.Outcome == event.Queued || !b.stored(rec.Pos) || b.settledBefore(c.pos) {
		return
	}
	if !c.note.includeClosed && wouldBeWrong(b.tx, rec) {
		return
	}
	if ep := b.tx.Episode(rec.Key); ep != nil && rec.Status == event.Resolved {
		b.tx.PutEpisode(ep) // what fires before it is sent shows another name
	}
	if rec.ClaimedAt.IsZero() {
		rec.Facts.Since = c.note.ReceivedAt
	}
	b.queueUp(rec, rec.Alertname, c.pos, delay{})
}

// Forget drops a dead letter of which Callgoose never had anything. What PMM says again
// then goes out, as an event of its own: an id stands for one body, and Callgoose may
// know that of the dropped one. Callgoose is not told of a recovery from what it does
// not know; where an earlier firing may have opened the incident, it is.
func Forget(tx *store.Tx, r *event.Record) {
	tx.DropRecord(r)
	ep := tx.Episode(r.Key)
	if ep == nil || slices.ContainsFunc(r.Attempts, func(a event.Attempt) bool { return a.Result == string(event.Delivered) }) {
		return
	}
	switch {
	case ep.Open && ep.Firing == r.Pos && !ep.Shared:
		ep.Open, ep.NamedAt, ep.Past = false, ep.RecoveredAt, past(ep, time.Time{}, time.Time{})
	case !ep.Open && ep.Recovery == r.Pos:
		ep.Recovery = event.Position{} // see Dropped
	default:
		return
	}
	tx.PutEpisode(ep)
}

// Park takes a queued event out of the queue and keeps it as a dead letter, by an
// operator's word. False when it is not queued.
func Park(tx *store.Tx, r *event.Record, reason string) bool {
	if r.Outcome != event.Queued {
		return false
	}
	conclude(tx, r.At, r, event.Dead, reason)
	return true
}

// CloseBody is the notification that ends an open episode by an operator's word,
// as PMM would have said it. store.ErrNotFound fails tx when none is open.
func CloseBody(tx *store.Tx, key string, now time.Time) (n event.Notification) {
	ep := tx.Episode(key)
	if !isOpen(ep) && heldRecovery(tx, ep, now) == nil {
		tx.Fail(fmt.Errorf("incident %s: %w", key, store.ErrNotFound))
		return n
	}
	labels := tx.Labels(key)
	if labels == nil {
		labels = map[string]string{"alertname": ep.Alertname}
	}
	alert := OwnAlert{
		Status: event.Resolved, Labels: labels, StartsAt: ep.StartsAt, EndsAt: now, Fingerprint: event.Fingerprint(key),
		Annotations: map[string]string{"summary": "closed by hand", "description": "An operator closed this incident; PMM did not say that the alert ended."},
	}
	n, err := alert.Notification(ep.Source, now)
	tx.Fail(err)
	return n
}
