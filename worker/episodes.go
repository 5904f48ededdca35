package worker

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose"
)

// stillNamed is how long an open alert keeps the incident of its name open after
// PMM last named it (--incident-by alertname): PMM loses recoveries, and hosts go.
const stillNamed = 24 * time.Hour

// candidate decides on one alert, or queues an event again.
func (b *batch) candidate(c *candidate) {
	if c.again != nil {
		b.requeue(c)
		return
	}
	if from := c.note.Origin; from == event.FromPMM || from == event.Imported {
		b.tx.Count("alerts", 1)
		b.tx.Count("alerts:"+cmp.Or(string(c.status), "unusable"), 1)
		if from == event.FromPMM {
			b.tx.CountSent(c.note.Source, c.note.ReceivedAt)
		}
	}
	if c.unusable != nil {
		b.unusable(c, c.unusable.Reason)
		return
	}
	key := c.identity()
	if c.alert.Labels[OurLabel] == Heartbeat {
		b.suppress(c, key, event.ReasonHeartbeat)
		return
	}
	ep := b.tx.Episode(key)
	var facts event.Facts
	labels := c.alert.Labels
	switch {
	case c.alert.Fingerprint != "":
	case c.status == event.Resolved && (ep == nil || ep.Adopted && !ep.Open):
		if ep, labels, facts = b.adopt(c, key, ep); ep != nil {
			key = ep.Key
		}
	case c.status == event.Firing && (ep == nil || !ep.Open):
		if listed := b.listed(c); listed != nil {
			ep, key = listed, listed.Key
		}
	}
	last, n := b.last(ep), c.note
	a := arrival{
		firing: c.status == event.Firing, startsAt: c.alert.StartsAt, endsAt: c.alert.EndsAt,
		began: n.BeganAt, received: n.ReceivedAt, origin: n.Origin,
		episode: ep, last: last, resendAfter: b.cfg.ResendAfter,
	}
	what, reason := b.decide(c, &a)
	if what == again {
		if b.again(c, last) {
			b.named(c, ep)
			return
		}
		what, reason = b.instead(c)
	}
	if what == suppress {
		b.suppress(c, key, reason)
		b.named(c, ep)
		return
	}
	b.event(c, key, ep, what, labels, facts)
}

// decide is the decision of the table, and what the queue and the other alerts of a name
// change in it.
func (b *batch) decide(c *candidate, a *arrival) (what decision, reason string) {
	what, reason = decide(*a)
	switch {
	case reason == event.ReasonResolved && b.supersede(c, a):
		what = end
	case what == again && !a.episode.Open && b.kept(c, a.episode):
		what, reason = suppress, event.ReasonStillFiring
	}
	return what, reason
}

// instead is what becomes of a word that asks for an event that cannot be sent
// again: an event of its own. While a ledger is rebuilt nobody knows whether it
// was let through then; the next one is.
func (b *batch) instead(c *candidate) (decision, string) {
	switch {
	case b.rebuild != nil && c.status == event.Firing:
		return suppress, event.ReasonRepeat
	case b.rebuild != nil:
		return suppress, event.ReasonResolved
	case c.status == event.Firing:
		return reopen, ""
	}
	return end, ""
}

// last is the record of the event that brought the episode into its state.
func (b *batch) last(ep *store.Episode) *event.Record {
	switch {
	case ep == nil:
		return nil
	case ep.Open:
		return b.tx.Brief(ep.FiringAt, ep.Firing)
	}
	return b.tx.Brief(ep.RecoveredAt, ep.Recovery)
}

// named keeps what a word says of an episode that it does not change: that PMM names it
// still, what start the other PMM of a pair gives, and when a closed one ended, by which
// late words are known.
func (b *batch) named(c *candidate, ep *store.Episode) {
	if ep == nil || ep.Open != (c.status == event.Firing) {
		return
	}
	every, starts, ends := b.cfg.NamedEvery, c.alert.StartsAt, c.alert.EndsAt
	which := endOf(ep, ends)
	if !ep.Open {
		if every = 1; which > 0 { // of an episode before the last
			return
		}
	}
	since := c.note.ReceivedAt.Sub(ep.NamedAt)
	changed := c.note.Origin != event.Reconciled && (since >= every || since < -clockSlack && c.note.Origin != event.Imported)
	if changed {
		ep.NamedAt = c.note.ReceivedAt
	}
	switch {
	case !ep.Open && changed && which < 0 && !ends.IsZero():
		ep.Past = past(ep, starts, ends)
	case ep.Open && sameEpisode(ep, starts) && !starts.IsZero() && !ep.StartsAt.IsZero() && !starts.Equal(ep.StartsAt) &&
		len(ep.Seen) < keepSeen && !slices.ContainsFunc(ep.Seen, starts.Equal):
		ep.Seen, changed = append(ep.Seen, starts), true
	}
	if changed {
		b.tx.PutEpisode(ep)
	}
}

// event moves the episode, and queues an event unless its incident needs none.
func (b *batch) event(c *candidate, key string, ep *store.Episode, what decision, labels map[string]string, facts event.Facts) {
	labels = noted(labels)
	next, suffix := b.move(c, key, ep, what, labels)
	r := &event.Record{
		ID: event.ID(key, c.status, next.ID), Key: key, Source: c.note.Source, Status: c.status,
		Alertname: labels["alertname"], Labels: labels, StartsAt: next.StartsAt, ReceivedAt: c.note.ReceivedAt,
		Pos: c.pos, Notification: c.pos.NotificationID(), Outcome: event.Queued, Facts: facts,
	}
	r.Facts.Form, r.Facts.Since, r.Facts.Suffix = b.form(next.ByName), c.changedAt(b.cfg.Form.LateAfter), suffix
	r.Facts.Size = large(2 * len(c.alert.Raw)) // its labels and annotations stand in the body a second time
	r.Facts.Reopened, r.Facts.Reconciled = what == reopen, c.note.Origin == event.Reconciled
	var hold delay
	if what == end {
		r.Firing = ep.Firing
		hold = b.cfg.Hold.of(c, labels, time.Now())
	}
	over := b.needless(c, r, ep, next)
	if !over && c.status == event.Firing {
		hold = b.brake(c, r, ep, next)
	}
	if b.tx.PutEpisode(next); over {
		return
	}
	if what == reopen {
		b.tx.Count("reopened", 1)
	}
	if !hold.until.IsZero() {
		r.Facts.Since = hold.until
	}
	b.tell(func() {
		b.log.Debug("event", "event_id", r.ID, "event_key", r.Key, "alertname", r.Alertname, "status", r.Status, "notification_id", r.Notification)
	})
	b.queueUp(r, next.Alertname, c.pos, hold)
}

// move is the episode after a decision, and what tells the shown name of its event
// from that of others.
func (b *batch) move(c *candidate, key string, ep *store.Episode, what decision, labels map[string]string) (next *store.Episode, suffix string) {
	ch := change{
		key: key, source: c.note.Source, alertname: labels["alertname"], what: what, pos: c.pos, byName: b.cfg.Form.ByAlertname,
		startsAt: c.alert.StartsAt, endsAt: c.alert.EndsAt, received: c.note.ReceivedAt,
		shown: callgoose.ShownName(labels, event.Fingerprint(key)),
	}
	if what == begin || what == reopen || what == orphan {
		ch.suffix = b.suffix(&ch, ep)
	} else if ep != nil {
		ch.suffix = ep.Suffix
	}
	next = apply(ep, &ch)
	if what == end && !ep.Open { // a second recovery of this episode
		next.Count++
		next.ID += event.EpisodeID(time.Time{}, next.Count)
	}
	return next, ch.suffix
}

// needless settles an event that must not be sent, or need not. It reports whether it did.
func (b *batch) needless(c *candidate, r *event.Record, ep, next *store.Episode) (over bool) {
	if r.Status == event.Firing {
		b.opens(next, r.Labels)
		b.share(next)
		next.Shared = next.Shared || b.rebuild != nil // Callgoose may have it
		return b.flap(r, ep, next)
	}
	switch {
	case b.neverSent(c, r, ep):
	case b.kept(c, next):
		b.tx.Count("suppressed:"+event.ReasonStillFiring, 1)
		b.settled(r, event.Suppressed, event.ReasonStillFiring)
	case b.collapse(c, ep, next):
		b.settled(r, event.Collapsed, reasonCollapsed)
	default:
		return false
	}
	return true
}

// form is the number of the settings that a body is made with. An incident is closed by
// the name that opened it, whatever --incident-by says by now.
func (b *batch) form(byName bool) uint32 {
	f := b.cfg.Form
	f.ByAlertname = byName
	return b.tx.FormOf(f.String())
}

// queueUp queues the event of r at the place of the alert that asks for it,
// with the name that its episode has, held as hold says.
// What was settled before a ledger was lost is not sent again.
func (b *batch) queueUp(r *event.Record, alertname string, at event.Position, hold delay) {
	r.At, r.Outcome, r.Reason, r.SettledAt = at, event.Queued, hold.reason, time.Time{}
	if b.settledBefore(at) {
		b.settled(r, event.Unknown, "settled before the ledger was rebuilt")
		return
	}
	now := time.Now().UTC()
	w := &store.Waiting{
		At: at, Pos: r.Pos, ReceivedAt: r.ReceivedAt, Status: r.Status,
		Key: r.Key, Source: r.Source, Alertname: alertname, QueuedAt: now, ClaimedAt: r.ClaimedAt, NotBefore: hold.until, Storm: hold.storm, Size: r.Facts.Size,
	}
	// Born claimed: it can be sent as soon as this transaction is durable. No more
	// of them than may be sent at once.
	if w.ClaimedAt.IsZero() && hold == (delay{}) && b.tx.Counted(string(event.Queued)) < bornClaimed && b.cfg.Claim != nil && b.cfg.Claim() {
		w.ClaimedAt = now
	}
	b.tx.PutRecord(r)
	b.tx.PutWaiting(w)
}

// bornClaimed bounds the events that are claimed as they are queued.
const bornClaimed = 32

// settled writes a record whose outcome is known before any attempt.
func (b *batch) settled(r *event.Record, outcome event.Outcome, reason string) {
	r.Outcome, r.Reason, r.SettledAt = outcome, reason, r.ReceivedAt
	if r.At.IsZero() && outcome == event.Collapsed {
		r.At = r.Pos
	}
	if outcome == event.Collapsed || outcome == event.Dead {
		waited := time.Since(r.ReceivedAt)
		b.tell(func() { b.cfg.Observer.Settled(outcome, waited) })
	}
	b.tx.PutRecord(r)
}

// again queues an event once more: the same event, the same bytes. False
// when it cannot be built any more.
func (b *batch) again(c *candidate, last *event.Record) bool {
	if last == nil {
		return false
	}
	r := b.tx.Record(last.ReceivedAt, last.Pos)
	if r == nil || strings.HasPrefix(r.Reason, reasonLost) || !b.stored(r.Pos) {
		return false
	}
	if b.fromStorm(r, c.pos) {
		return true
	}
	if b.rebuild != nil && !b.wasWaiting(c.pos) {
		return false // whether it was let through is not known: the next one is
	}
	if r.ClaimedAt.IsZero() { // nothing was sent: it is late from now on
		r.Facts.Since = c.note.ReceivedAt
	}
	b.queueUp(r, r.Alertname, c.pos, delay{})
	return true
}

// reasonLost begins the reason of a dead letter that cannot be built again.
const reasonLost = "lost: "

// stored reports whether the notification at a position is still stored.
func (b *batch) stored(pos event.Position) bool {
	first, err := b.queue.First(b.ctx)
	return err == nil && pos.Seq >= first
}

// suppress keeps a record of an alert that becomes no event.
func (b *batch) suppress(c *candidate, key, reason string) {
	b.tx.Count("suppressed:"+reason, 1)
	labels := noted(c.alert.Labels)
	b.tx.PutRecord(&event.Record{
		ID: c.pos.RecordID('s'), Key: key, Source: c.note.Source,
		Status: c.status, Alertname: labels["alertname"], Labels: labels, StartsAt: c.alert.StartsAt,
		ReceivedAt: c.note.ReceivedAt, Pos: c.pos, Notification: c.pos.NotificationID(),
		Outcome: event.Suppressed, Reason: reason, SettledAt: c.note.ReceivedAt,
	})
}

// unusable keeps a dead letter of a member that cannot be used. Its raw bytes
// stand in the notification.
func (b *batch) unusable(c *candidate, reason string) {
	r := &event.Record{
		ID: c.pos.RecordID('u'), Key: c.note.Source + "-%unusable", Source: c.note.Source,
		ReceivedAt: c.note.ReceivedAt, Pos: c.pos, Notification: c.pos.NotificationID(),
	}
	if b.told != r.Notification { // one body may hold 100,000 of them
		b.told = r.Notification
		b.tell(func() {
			b.log.Warn("alerts cannot be used, each is kept as a dead letter", "event_id", r.ID, "notification_id", r.Notification, "reason", reason)
		})
	}
	b.settled(r, event.Dead, "unusable alert: "+reason)
}

// suffix tells the shown name of a new incident, or of a recovery of none, from one that
// shows the same: two disks of a host, or two PMMs. The later one gets a part of its
// incident key.
func (b *batch) suffix(ch *change, ep *store.Episode) string {
	switch {
	case ch.byName:
		return ""
	case ep != nil && ep.Suffix != "":
		return ep.Suffix
	}
	for other := range b.tx.ShownBy(store.ShownName(&store.Episode{Shown: ch.shown})) {
		if other.Key != ch.key {
			return callgoose.Suffix(ch.key)
		}
	}
	return ""
}

// kept reports whether the incident of a recovery must stay open, because it is
// that of all alerts of the name, or has the shown name of another's, and that one
// still fires.
func (b *batch) kept(c *candidate, next *store.Episode) bool {
	if !next.ByName {
		return b.tx.OpenShown(store.ShownName(next), next.Key)
	}
	since := c.note.ReceivedAt.Add(-stillNamed)
	if b.jumped.After(since) { // a jump of our own is not PMM's silence
		since = time.Time{}
	}
	if b.tx.OpenNamed(next.Source, next.Alertname, next.Key, since) != "" {
		return true
	}
	forgotten := b.tx.OpenNamed(next.Source, next.Alertname, next.Key, time.Time{})
	if forgotten == "" || b.warned[forgotten] {
		return false
	}
	b.tell(func() {
		b.warned[forgotten] = true
		b.log.Warn("an incident is closed although an alert of its name is open: PMM has not named that one for a day; events close ends it",
			"alertname", next.Alertname, "source", next.Source, "event_key", forgotten)
	})
	return false
}

// share marks a firing beside another one of its name, where they have one
// incident: neither may be collapsed.
func (b *batch) share(next *store.Episode) {
	if !next.ByName || !b.cfg.Collapse {
		return
	}
	key := b.tx.OpenNamed(next.Source, next.Alertname, next.Key, time.Time{})
	if key == "" {
		return
	}
	next.Shared = true
	if other := b.tx.Episode(key); other != nil && !other.Shared { // one that is not shared yet is the only one
		other.Shared = true
		b.tx.PutEpisode(other)
	}
}

const reasonCollapsed = "fired and resolved before anything of it could be sent (--on-backlog collapse)"

// collapse settles the firing event of an episode that ends during an outage, when
// Callgoose can have none of it. The pair of a Test button does not count,
// somebody waits to see it arrive.
func (b *batch) collapse(c *candidate, ep, next *store.Episode) bool {
	if ep == nil || !b.cfg.Collapse || next.Shared || c.note.Origin == event.FromService || b.cfg.Outage == nil || !b.cfg.Outage() || !b.closed(ep) {
		return false
	}
	fired, _ := unsent(b.tx, next.FiringAt, next.Firing)
	if fired == nil || fired.At != fired.Pos {
		return false
	}
	b.release(fired, reasonCollapsed)
	return true
}

// closed reports whether the recovery before the open episode reached Callgoose, or
// will: else the incident of then is still open, and this episode's recovery closes it.
func (b *batch) closed(ep *store.Episode) bool {
	if ep.RecoveredAt.IsZero() {
		return true
	}
	r := b.tx.Brief(ep.RecoveredAt, ep.Recovery)
	return r != nil && (r.Outcome == event.Delivered || r.Outcome == event.Collapsed || r.Outcome == event.Queued)
}
