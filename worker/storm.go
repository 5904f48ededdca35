package worker

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/faultpoint"
	"pmm-callgoose/worker/callgoose"
)

// When one data source breaks, all rules of a PMM fire at once: a storm of alerts. While
// it lasts one incident says so, and the event of each alert name that comes first goes
// out; the others of the name wait in the queue, where the deliverer reads past them.
//
//	too many new episodes          the storm is on, from this alert on      splitter
//	it is on, and not reported     its incident opens: a firing of our own  Brake
//	a window had few               the incident closes: a recovery          Brake
//	that recovery is split         it is off, what waits is to be released  splitter
//	there is something to release  a request to queue it again              Brake
//	that request is split          sent behind what is queued, or collapsed splitter
//
// The splitter decides, in the transaction of the alert. Brake only reads what is
// decided, and stores a notification when one is missing: if we die before it is stored,
// the next pass comes to the same; behind it, it is split first. A lost ledger finds all
// of it in the stream.
//
// Nothing is queued behind an event that waits here: a recovery ends both, a repeat
// changes nothing. What is not clear releases: a first of its name that Callgoose does
// not have, a clock that jumps, a service that is started without --storm.

// StormRule is --storm: more than Most new episodes of one PMM server Within a time are
// a storm. The zero value is off.
type StormRule struct {
	Most   int
	Within time.Duration
}

// stormErrors is how many alerts that say that their data source failed are a storm.
const stormErrors = 5

// stormLabel is the value of OurLabel of a storm's incident.
const stormLabel = "storm"

// count takes in a new episode received at a time. It reports whether a storm begins.
func (rule StormRule) count(s *store.Storm, at time.Time, failed bool) (begins bool) {
	s.Times = append(rule.window(s.Times, at), at)
	s.Times = s.Times[max(0, len(s.Times)-rule.Most-1):]
	if s.Errors = rule.window(s.Errors, at); failed {
		s.Errors = append(s.Errors, at)
		s.Errors = s.Errors[max(0, len(s.Errors)-stormErrors):]
	}
	if s.On() {
		s.Total++
		return false
	}
	if begins = len(s.Times) > rule.Most || len(s.Errors) == stormErrors; begins {
		s.Since, s.Total = at, int64(len(s.Times))
	}
	return begins
}

// window is the part of times that lies in the window up to at.
func (rule StormRule) window(times []time.Time, at time.Time) (in []time.Time) {
	for _, t := range times {
		if t.After(at.Add(-rule.Within)) && !t.After(at) {
			in = append(in, t)
		}
	}
	return in
}

// over reports whether a storm is over at now: a window had fewer than half of what
// makes one, or the clock was before its beginning.
func (rule StormRule) over(s *store.Storm, now time.Time) bool {
	age := now.Sub(s.Since)
	return rule.Most == 0 || age < 0 ||
		age >= rule.Within && 2*len(rule.window(s.Times, now)) < rule.Most && 2*len(rule.window(s.Errors, now)) < stormErrors
}

// sourceFailed reports whether the alert says that its data source failed.
func sourceFailed(a map[string]string, alertname string) bool {
	return alertname == "DatasourceError" || alertname == "DatasourceNoData" || a[callgoose.StateReason] == "Error"
}

func ofStorm(c *candidate) bool {
	return c.note.Origin == event.FromService && c.alert.Labels[OurLabel] == stormLabel
}

// brake counts a new episode, next, and says whether its event, r, waits for the end of a
// storm. One of the episode before, ep, that waits is over: nothing of it was sent.
func (b *batch) brake(c *candidate, r *event.Record, ep, next *store.Episode) (d delay) {
	if b.endWait(ep) && !b.cfg.Form.ByAlertname {
		next.Shared = ep.Shared
	}
	if ofStorm(c) {
		b.stormTold(r)
		return d
	}
	if from := c.note.Origin; b.cfg.Storm.Most == 0 || from != event.FromPMM && from != event.Reconciled || c.alert.Labels[OurLabel] != "" {
		return d
	}
	s := b.storm(r.Source)
	if b.cfg.Storm.count(s, r.ReceivedAt, sourceFailed(c.alert.Annotations, r.Alertname)) {
		b.tx.Count("storms", 1)
		b.tell(func() {
			b.log.Warn("a storm of alerts: what is not the first of its name waits", "source", s.Source, "storm", b.cfg.Storm, "alertname", r.Alertname)
		})
	}
	b.tx.PutStorm(s)
	if s.On() && b.wentOut(s, next) {
		return delay{reason: store.ReasonStorm, storm: true}
	}
	b.tx.PutFirst(r.Source, r.Alertname, &store.First{Pos: r.Pos, ReceivedAt: r.ReceivedAt})
	return d
}

func (b *batch) storm(source string) *store.Storm {
	return cmp.Or(b.tx.Storm(source), &store.Storm{Source: source})
}

// wentOut reports whether an event with the alert name of next went out, or is about to,
// in this storm, and not before it, when the clock was ahead. With --incident-by
// alertname the incident that it opened must be open still, too: another alert of the
// name fires.
func (b *batch) wentOut(s *store.Storm, next *store.Episode) bool {
	first := b.tx.First(next.Source, next.Alertname)
	if first == nil || !first.ReceivedAt.After(s.Since.Add(-b.cfg.Storm.Within)) || first.ReceivedAt.After(next.FiringAt) {
		return false
	}
	return reaches(b.tx, first) && (!b.cfg.Form.ByAlertname || b.tx.OpenNamed(next.Source, next.Alertname, next.Key, time.Time{}) != "")
}

// reaches reports whether Callgoose has an event, or will.
func reaches(tx *store.Tx, first *store.First) bool {
	r := tx.Brief(first.ReceivedAt, first.Pos)
	return r != nil && (r.Outcome == event.Delivered || r.Outcome == event.Queued)
}

// neverSent ends a firing that waits for the end of a storm, and the recovery r of it.
// The recovery goes out where the incident may be open because of another firing.
func (b *batch) neverSent(c *candidate, r *event.Record, ep *store.Episode) bool {
	if ofStorm(c) {
		b.stormOver(c)
		return false
	}
	if !b.endWait(ep) || ep.Shared || b.cfg.Form.ByAlertname || !b.closed(ep) {
		return false
	}
	b.settled(r, event.Collapsed, store.ReasonStorm)
	return true
}

// endWait ends the firing of the open episode ep, if it waits for the end of a storm.
func (b *batch) endWait(ep *store.Episode) bool {
	if !isOpen(ep) || b.tx.InStorm(ep.Source) == 0 {
		return false
	}
	fired, w := unsent(b.tx, ep.FiringAt, ep.Firing)
	if fired == nil || !w.Storm {
		return false
	}
	b.release(fired, store.ReasonStorm)
	return true
}

// fromStorm queues the event of r, if it waits for the end of a storm, at a place,
// when its alert still fires. It reports whether it waited.
func (b *batch) fromStorm(r *event.Record, at event.Position) bool {
	w, _ := b.tx.WaitingAt(r.At)
	if !w.Storm {
		return false
	}
	if ep := b.tx.Episode(r.Key); !isOpen(ep) || ep.Firing != r.Pos {
		b.release(r, store.ReasonStorm)
		return true
	}
	b.tx.DropWaiting(r.At)
	b.queueUp(r, w.Alertname, at, delay{})
	return true
}

// stormTold takes in the firing of a storm's own incident.
func (b *batch) stormTold(r *event.Record) {
	s := b.storm(r.Source)
	s.Key = r.Key
	b.tx.PutStorm(s)
}

// stormOver takes in its recovery, which ends the storm.
func (b *batch) stormOver(c *candidate) {
	s := b.storm(c.note.Source)
	b.tell(func() { b.log.Info("the storm of alerts is over", "source", s.Source, "alerts", s.Total) })
	b.tx.PutStorm(&store.Storm{Source: s.Source, Key: s.Key, Release: c.pos})
	b.tx.DropFirsts(s.Source)
}

// brakeEvery is the time between two passes of the Brake.
const brakeEvery = time.Second

// Brake tells Callgoose of storms, and ends them. It runs also when --storm is off: one
// may be left from before.
type Brake struct {
	rule   StormRule
	queue  Queue
	ledger *store.Store
	log    *slog.Logger
	// Owned by Run.
	reach uint64 // what must be decided on before anything is concluded
	last  uint64 // newest notification in the last pass
}

// NewBrake makes it.
func NewBrake(rule StormRule, queue Queue, ledger *store.Store, log *slog.Logger) *Brake {
	return &Brake{rule: rule, queue: queue, ledger: ledger, log: log.With("component", "storm"), reach: queue.Last()}
}

// Run makes passes until ctx ends or the ledger fails.
func (k *Brake) Run(ctx context.Context) error {
	tick := time.NewTicker(faultpoint.Often(brakeEvery))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := k.pass(ctx, time.Now()); err != nil {
			return ignore(ctx, err)
		}
	}
}

// telling is a notification that a storm needs.
type telling struct {
	moment string // of dying, for tests
	event.Notification
}

func (k *Brake) pass(ctx context.Context, now time.Time) error {
	type need struct {
		of   *store.Storm
		said *telling
	}
	var needs []need
	decided := k.last // all that had come in in the last pass
	k.last = k.queue.Last()
	if err := k.ledger.View(func(tx *store.Tx) {
		if !Decided(tx, k.reach) {
			return
		}
		for _, s := range tx.Storms() {
			needs = append(needs, need{s, k.needs(tx, s, now, Decided(tx, decided))})
		}
	}); err != nil {
		return fmt.Errorf("read the storms: %w", err)
	}
	for _, n := range needs {
		s, w := n.of, n.said
		if w == nil && !s.Release.IsZero() {
			var err error
			if w, err = k.released(ctx, s); err != nil {
				return fmt.Errorf("release what a storm held: %w", err)
			}
		}
		if w == nil {
			continue
		}
		pos, err := k.queue.Publish(ctx, w.Notification)
		if err != nil { // the next pass comes to the same
			k.log.WarnContext(ctx, "what a storm needs could not be stored", "source", s.Source, "moment", w.moment, "err", err)
			return nil
		}
		k.reach = pos.Seq
		faultpoint.Here(w.moment)
	}
	return nil
}

// needs is what has to be said of a storm now, nil for nothing. decided says that the
// alerts that came in until now are decided on.
func (k *Brake) needs(tx *store.Tx, s *store.Storm, now time.Time, decided bool) *telling {
	ep := tx.Episode(s.Key)
	switch open := isOpen(ep); {
	case s.On() && !open:
		return k.opens(tx, s, now)
	case s.On() && decided && (k.rule.over(s, now) || k.unclear(tx, s)), !s.On() && open:
		return k.closes(tx, ep, now)
	}
	return nil
}

// unclear reports whether events wait for the end of s because of one that Callgoose does
// not get. What waits may be much, so it is read only where there is such a one.
func (k *Brake) unclear(tx *store.Tx, s *store.Storm) bool {
	missed := func(first *store.First) bool { return first == nil || !reaches(tx, first) }
	if !slices.ContainsFunc(slices.Collect(tx.Firsts(s.Source)), missed) {
		return false
	}
	sent := map[string]bool{}              // alert names of which Callgoose gets one
	for w := range tx.Waiting(s.Release) { // what is before it is being released
		if !w.Storm || w.Source != s.Source || sent[w.Alertname] {
			continue
		}
		if missed(tx.First(w.Source, w.Alertname)) {
			return true
		}
		sent[w.Alertname] = true
	}
	return false
}

// StormName is the alert name, and the incident's title, of a storm.
func StormName(alerts int64, source string) string {
	return fmt.Sprintf("Storm: %d alerts from %s", alerts, source)
}

func (k *Brake) opens(tx *store.Tx, s *store.Storm, now time.Time) *telling {
	return own(tx, "storm-told", s.Source, now, OwnAlert{
		Status: event.Firing, StartsAt: s.Since,
		Labels: map[string]string{"alertname": StormName(s.Total, s.Source), "severity": "critical", "instance": s.Source, OurLabel: stormLabel},
		Annotations: map[string]string{
			"summary": "the first of each alert name was sent, the others wait",
			"description": fmt.Sprintf("More than %d alerts began within %s, or their data source failed. The others are sent when it is calm; pmm-callgoose events list --outcome queued names them.",
				k.rule.Most, k.rule.Within),
		},
	})
}

func (k *Brake) closes(tx *store.Tx, ep *store.Episode, now time.Time) *telling {
	return own(tx, "storm-over", ep.Source, now, OwnAlert{
		Status: event.Resolved, StartsAt: ep.StartsAt, EndsAt: now.UTC(), Labels: tx.Labels(ep.Key), Fingerprint: event.Fingerprint(ep.Key),
		Annotations: map[string]string{"summary": "the storm is over", "description": "What waited and still fires is sent now."},
	})
}

func own(tx *store.Tx, moment, source string, now time.Time, alert OwnAlert) *telling {
	n, err := alert.Notification(source, now)
	tx.Fail(err)
	return &telling{moment, n}
}

// released asks for what waited for the end of a storm, or some of it. When nothing is
// left, it writes that there is nothing to release.
func (k *Brake) released(ctx context.Context, s *store.Storm) (*telling, error) {
	var refs []Ref
	for at, more := (event.Position{}), true; more && len(refs) < requeueMost; {
		if err := k.ledger.View(func(tx *store.Tx) {
			n := 0
			for w := range tx.Waiting(at) {
				if n++; n > requeueMost || w.At.Compare(s.Release) > 0 || len(refs) == requeueMost {
					break
				}
				if at = w.At; w.Storm && w.Source == s.Source {
					refs = append(refs, Ref{w.ReceivedAt, w.Pos})
				}
			}
			more = n > requeueMost
		}); err != nil {
			return nil, err
		}
	}
	if len(refs) > 0 {
		k.log.InfoContext(ctx, "what waited for the end of a storm goes out, if it still fires", "source", s.Source, "count", len(refs))
		n := requeueOf(refs, false)
		return &telling{"storm-released", n}, nil
	}
	return nil, k.ledger.Do(ctx, func(tx *store.Tx) {
		if have := tx.Storm(s.Source); have != nil && have.Release == s.Release {
			have.Release = event.Position{}
			tx.PutStorm(have)
		}
	})
}
