package app

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker"
)

// outlook is what the status says that has to be looked up in the ledger. It is
// kept, so that a page or an alarm that asks every second costs next to nothing.
type outlook struct {
	mu        sync.Mutex // guards the rest, held while it is looked up
	searched  bool       // the last delivered event of an earlier life, or of another instance, was looked for
	found     uint64     // changes at that time
	last      *admin.LastDelivered
	lastTaken worker.Taken // that last is about; zero = of an earlier life

	changes   uint64 // of the ledger when the rest was read
	next      time.Time
	severity  map[string]string // by incident key
	waiting   map[string]int64
	firing    []admin.Waiting
	discarded int64
}

const (
	// outlookEvery is how often what waits is counted, at most. Where much waits it is
	// counted less often: a twentieth of the time may go into it.
	outlookEvery = time.Second
	outlookShare = 20
	// outlookChunk bounds one read transaction: a long one keeps pages from being used again.
	outlookChunk = 2000
	// keepSeverities bounds what is remembered of incident keys.
	keepSeverities = 200_000
	// mostFiring is how many names of what is still firing the status lists.
	mostFiring = 50
)

// outlook adds to s what is looked up in the ledger.
func (a *App) outlook(c *core, s *admin.Status, now time.Time) (err error) {
	if s.Sources, err = sources(c, a.cfg.ExpectEvery); err != nil {
		return err
	}
	s.Refused = a.handler.Refused()
	s.Drain.PerSecond = a.opts.metrics.Pace()
	if rate := s.Drain.PerSecond; rate >= 0.01 && s.Queued > 0 && s.Callgoose.State == event.Up {
		s.Drain.ETA = timeOrNil(now.Add(time.Duration(min(float64(s.Queued)/rate, 1e8) * float64(time.Second))))
	}
	o := &c.seen
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.count(c, now); err != nil {
		return err
	}
	if err := o.delivered(c); err != nil {
		return err
	}
	s.LastDelivered, s.DiscardedDay = o.last, o.discarded
	s.WaitingBySeverity, s.StillFiring = maps.Clone(o.waiting), o.firing
	return nil
}

// slo is how many firing events were taken in time, nil when that cannot be read.
func slo(c *core) *admin.SLO {
	served, recent, err := c.ledger.Served()
	if err != nil {
		return nil
	}
	o := &admin.SLO{
		WithinSeconds: store.ServedWithin.Seconds(), Days: store.ServedDays, Events: served.Events, InTime: served.InTime,
		Objective: admin.SLOObjective, Late: recent.Events - recent.InTime,
	}
	if served.Events > 0 {
		o.Share = new(float64(served.InTime) / float64(served.Events))
	}
	return o
}

// delivered finds the event that Callgoose took last: of this life, else the one of
// the ledger that was settled last among the newest.
func (o *outlook) delivered(c *core) error {
	taken := c.deliver().View().Last
	if !taken.At.IsZero() {
		if taken == o.lastTaken {
			return nil
		}
		r := &event.Record{Key: taken.Key, Alertname: taken.Alertname, Status: taken.Status}
		if err := c.ledger.View(func(tx *store.Tx) { r.Labels = tx.Labels(taken.Key) }); err != nil {
			return err
		}
		o.last, o.lastTaken = lastDelivered(r, taken.At, taken.Effect), taken
		return nil
	}
	if o.searched && (c.log == nil || o.found == o.changes) {
		return nil
	}
	const newest = 200
	var last *event.Record
	n := 0
	err := c.ledger.Each(event.Filter{Outcomes: []event.Outcome{event.Delivered}}, func(r *event.Record) bool {
		if last == nil || r.SettledAt.After(last.SettledAt) {
			last = r
		}
		n++
		return n < newest
	})
	if err != nil {
		return err
	}
	if o.searched, o.found = true, o.changes; last != nil {
		effect := ""
		for _, at := range last.Attempts {
			effect = cmp.Or(at.Effect, effect)
		}
		o.last = lastDelivered(last, last.SettledAt, effect)
	}
	return nil
}

func lastDelivered(r *event.Record, at time.Time, effect string) *admin.LastDelivered {
	title := cmp.Or(r.Alertname, "an alert without a name")
	if where := admin.Where(r.Labels); where != "" {
		title += " on " + where
	}
	return &admin.LastDelivered{At: at.UTC(), Title: title, Effect: effect, Status: r.Status, Key: r.Key}
}

// count counts what waits, and what was discarded within a day.
func (o *outlook) count(c *core, now time.Time) error {
	changes := c.ledger.Changes()
	if o.waiting != nil && (changes == o.changes && now.Sub(o.next) < time.Minute || now.Before(o.next)) {
		return nil
	}
	began := time.Now()
	minutes, err := c.ledger.History(now.Add(-24 * time.Hour))
	if err != nil {
		return err
	}
	discarded := int64(0)
	for _, m := range minutes {
		discarded += m.Discarded
	}
	waiting, last := map[string]int64{}, map[string]store.Waiting{}
	for at, more := (event.Position{}), true; more; {
		if at, more, err = o.countSome(c, at, waiting, last); err != nil {
			return err
		}
	}
	o.waiting, o.firing, o.discarded = waiting, o.stillFiring(last), discarded
	o.changes, o.next = changes, now.Add(max(outlookEvery, outlookShare*time.Since(began)))
	return nil
}

// countSome counts the next of what waits. last is the newest event of each
// incident that waits.
func (o *outlook) countSome(c *core, after event.Position, waiting map[string]int64, last map[string]store.Waiting) (at event.Position, more bool, err error) {
	if o.severity == nil || len(o.severity) > keepSeverities {
		o.severity = map[string]string{}
	}
	n := 0
	err = c.ledger.View(func(tx *store.Tx) {
		for w := range tx.Waiting(after) {
			severity, known := o.severity[w.Key]
			if !known {
				severity = cmp.Or(tx.Labels(w.Key)["severity"], "none")
				o.severity[w.Key] = severity
			}
			waiting[severity]++
			last[w.Key] = store.Waiting{Status: w.Status, Alertname: w.Alertname}
			at = w.At
			if n++; n == outlookChunk {
				break
			}
		}
	})
	return at, n == outlookChunk, err
}

// stillFiring counts the incidents whose newest waiting event fires, by severity and
// name, the most first.
func (o *outlook) stillFiring(last map[string]store.Waiting) []admin.Waiting {
	counts := map[admin.Waiting]int64{}
	for key, w := range last {
		if w.Status == event.Firing {
			counts[admin.Waiting{Severity: o.severity[key], Name: w.Alertname}]++
		}
	}
	list := make([]admin.Waiting, 0, len(counts))
	for what, n := range counts {
		what.Count = n
		list = append(list, what)
	}
	slices.SortFunc(list, func(a, b admin.Waiting) int {
		return cmp.Or(cmp.Compare(admin.SeverityRank(a.Severity), admin.SeverityRank(b.Severity)), cmp.Compare(b.Count, a.Count), cmp.Compare(a.Name, b.Name))
	})
	return list[:min(len(list), mostFiring)]
}
