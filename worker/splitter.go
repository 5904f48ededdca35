package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pmm-callgoose/ingest/pmm"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/event/faultpoint"
	"pmm-callgoose/worker/callgoose"
)

// Streams is what the splitter needs of the queue.
type Streams interface {
	// LastNotification is the newest envelope; Wake yields when it moved.
	LastNotification() uint64
	Wake() <-chan struct{}
	Notifications(ctx context.Context, seq uint64) ([]event.Notification, error)
	// PublishEvents appends in order, all or a prefix, and returns the first sequence.
	PublishEvents(ctx context.Context, evs []*event.Event) (first uint64, err error)
	Event(ctx context.Context, seq uint64) (*event.Event, error)
	LastEvent() uint64
	FirstEvent(ctx context.Context) (uint64, error)
	Position(ctx context.Context) (uint64, error)

	// Room and Purge are for retention.
	FirstNotification(ctx context.Context) (uint64, error)
	Room() (used, limit, free int64)
	Purge(ctx context.Context, notification, event uint64) error
}

// Ledger is the durable state. Alone runs fn in a transaction of its own, Do
// shares one with others; both are durable when they return nil.
type Ledger interface {
	Alone(fn func(event.Tx) error) error
	Do(ctx context.Context, fn func(event.Tx) error) error
	View(fn func(event.Tx) error) error
}

// SplitConfig are the rules of the splitter.
type SplitConfig struct {
	// From is the flat key "source" of every event: --callgoose-from.
	From string
	// ByAlertname keeps one incident per alert name instead of one per alert.
	ByAlertname bool
	ResendAfter time.Duration // 0 = off
	Collapse    bool          // --on-backlog collapse
	LateAfter   time.Duration
	Retention   time.Duration // of what is settled, 0 = for ever
	MinFree     int64         // bytes that must stay free on the disk: settled history goes for them
	Logger      *slog.Logger
	Observer    Observer // nil = none; told only of events settled before any attempt
}

// Splitter turns notifications into events: one goroutine, Run.
type Splitter struct {
	cfg     SplitConfig
	streams Streams
	ledger  Ledger
	log     *slog.Logger
	split   atomic.Int64
	behind  atomic.Bool // there are notifications not yet decided on
	began   uint64      // newest notification when we started
	asked   chan *requeue
	turn    chan struct{} // as in Deliverer
	ended   chan struct{} // closed when Run has returned, or will never be called
	end     func()        // closes ended, once
	pruned  time.Time     // owned by Run
	futile  time.Time     // no room can be made before it; owned by Run
	vain    int           // looks on end that made none; owned by Run
}

// NewSplitter makes a splitter. It does nothing before Recover and Run.
func NewSplitter(cfg SplitConfig, streams Streams, ledger Ledger) *Splitter {
	cfg.Observer = cmp.Or[Observer](cfg.Observer, silent{})
	s := &Splitter{
		cfg: cfg, streams: streams, ledger: ledger, log: cfg.Logger.With("component", "splitter"),
		asked: make(chan *requeue), turn: make(chan struct{}), ended: make(chan struct{}),
		began: streams.LastNotification(),
	}
	s.end = sync.OnceFunc(func() { close(s.ended) })
	b := batch{Splitter: s}
	err := ledger.View(func(tx event.Tx) error { b.progress = tx.Progress(); return nil })
	s.behind.Store(err != nil || b.next() <= s.began)
	return s
}

// Split counts the alerts decided on, of those accepted since the start. Behind
// says that there are more to decide on, of whatever age. Safe concurrently.
func (s *Splitter) Split() int64 { return s.split.Load() }

// Behind reports whether notifications wait for a decision. See Split.
func (s *Splitter) Behind() bool { return s.behind.Load() }

// Alive returns nil once the loop of Recover or Run has come round, an error when
// ctx ends before that. Safe concurrently.
func (s *Splitter) Alive(ctx context.Context) error { return turned(ctx, s.turn) }

// comeRound tells Alive, if it waits, and goes on.
func (s *Splitter) comeRound() {
	select {
	case s.turn <- struct{}{}:
	default:
	}
}

// How much one publish and one commit take together: so many alerts, or so many
// bytes of events. The second bounds the memory that one body can cost: an event
// repeats what its notification holds once.
const (
	gatherEvents = 500
	gatherBytes  = 16 << 20
)

// maxEvent is the largest event, as stored. It holds the labels of its alert
// several times; the raw alert alone always fits (--max-body).
const maxEvent = 24 << 20

// Recover brings the ledger up to what the streams hold: after a crash between
// publish and commit, or when its file was deleted. It returns before anything
// is split or delivered.
func (s *Splitter) Recover(ctx context.Context, fresh bool) error {
	err := s.recover(ctx, fresh)
	if err != nil {
		s.end()
	}
	return err
}

func (s *Splitter) recover(ctx context.Context, fresh bool) error {
	position, err := s.streams.Position(ctx)
	if err != nil {
		return err
	}
	first, err := s.streams.FirstEvent(ctx)
	if err != nil {
		return err
	}
	position = max(position, max(first, 1)-1) // retention removes only what is settled
	var from uint64
	if err := s.ledger.Alone(func(tx event.Tx) error {
		applied := tx.Progress().Applied
		from = max(applied+1, first)
		// The position counts only for a ledger that knows nothing; one that does
		// has every settled event on disk before it is acknowledged.
		if fresh || applied == 0 && tx.Floor() == 0 {
			return tx.SetFloor(position)
		}
		return nil
	}); err != nil {
		return err
	}
	last := s.streams.LastEvent()
	if fresh && last > 0 {
		s.log.WarnContext(ctx, "the ledger's file is new, rebuilding it from the streams; gone are attempts and answers, suppressed alerts, and the outcomes of settled events, which count as delivered",
			"events", last+1-first, "settled", position)
	}
	for start := from; start <= last; start += gatherEvents {
		stop := min(start+gatherEvents-1, last)
		if err := s.ledger.Alone(func(tx event.Tx) error {
			return s.reapply(ctx, tx, start, stop)
		}); err != nil {
			return fmt.Errorf("rebuild the ledger: %w", err)
		}
		faultpoint.Here("recovering")
		s.comeRound()
	}
	return nil
}

func (s *Splitter) reapply(ctx context.Context, tx event.Tx, start, stop uint64) error {
	progress := tx.Progress()
	for seq := start; seq <= stop; seq++ {
		e, err := s.streams.Event(ctx, seq)
		switch {
		case errors.Is(err, event.ErrGone):
			s.log.ErrorContext(ctx, "an event is missing in the store", "stream", "EVENTS", "seq", seq)
			continue
		case errors.Is(err, event.ErrNewer):
			return err
		case err != nil && ctx.Err() != nil:
			return err
		case err != nil:
			s.log.ErrorContext(ctx, "an event cannot be read", "stream", "EVENTS", "seq", seq, "err", err)
			continue
		}
		if e.Again == "" {
			if e.Pos.NotificationID() != progress.At.NotificationID() {
				tx.Count("notifications", 1)
			}
			countAlert(tx, e.Pos, e.Status)
			if e.Labels[OurLabel] == "" {
				tx.SetHeard(e.Source, e.ReceivedAt)
			}
		}
		if e.At.Compare(progress.At) > 0 {
			progress.At = e.At
		}
		ep, err := tx.Episode(e.Key)
		if err != nil {
			return err
		}
		e.Shared = ep != nil && ep.Shared
		if err := s.record(tx, e, seq); err != nil {
			return err
		}
		if e.Again == "" && e.Settled != event.Dead || e.Again == againKeep {
			if e.Again != againKeep || ep == nil || !ep.Open || ep.ID != e.Episode { // a copy of what is known
				if err := s.putEpisode(tx, ep, e); err != nil {
					return err
				}
			}
		}
		if seq <= tx.Floor() {
			if err := assumeDelivered(tx, e); err != nil {
				return err
			}
		}
	}
	progress.Applied = stop
	tx.SetProgress(progress)
	return nil
}

// countAlert counts an alert that came in; the recovery that we make for a Test
// button alert is none. An alert that cannot be used has no status.
func countAlert(tx event.Tx, pos event.Position, status event.Status) {
	if !pos.Made() {
		tx.Count("alerts", 1)
		tx.Count("alerts:"+cmp.Or(string(status), "unusable"), 1)
	}
}

// assumeDelivered is for events below the floor of a ledger that is rebuilt: they are
// settled, and how was known only to the ledger that is gone.
func assumeDelivered(tx event.Tx, e *event.Event) error {
	r, err := tx.Record(e.ReceivedAt, e.Pos)
	if err != nil || r == nil || r.Outcome != event.Queued {
		return err
	}
	r.Outcome, r.Reason, r.SettledAt = event.Delivered, "settled before the ledger was rebuilt", e.QueuedAt
	r.Frozen = true
	return tx.PutRecord(r)
}

// Run splits until ctx ends or the store fails.
func (s *Splitter) Run(ctx context.Context) error {
	defer s.end()
	look := time.NewTicker(faultpoint.Often(pruneEvery))
	defer look.Stop()
	always := make(chan struct{})
	close(always)
	for {
		more, err := s.step(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		// Under steady load there is always more: a replay and retention must get
		// their turn all the same.
		var goOn chan struct{}
		if more {
			goOn = always
		}
		select {
		case <-ctx.Done():
			return nil
		case <-goOn:
		case <-s.streams.Wake():
		case s.turn <- struct{}{}:
		case r := <-s.asked:
			r.done <- s.requeue(ctx, r)
		case <-look.C:
			if err := s.prune(ctx, time.Now()); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

// step decides on the next notifications, up to gatherEvents alerts, in one
// transaction. The events are published inside of it: see Ledger.Alone.
func (s *Splitter) step(ctx context.Context) (more bool, err error) {
	last := s.streams.LastNotification()
	b := batch{Splitter: s, ctx: ctx}
	err = s.ledger.View(func(tx event.Tx) error {
		b.progress = tx.Progress()
		return nil
	})
	s.behind.Store(err != nil || b.next() <= last)
	if !s.behind.Load() || err != nil {
		return false, err
	}
	err = s.ledger.Alone(func(tx event.Tx) error {
		b.tx = tx
		for b.next() <= last && b.alerts < gatherEvents && b.size < gatherBytes {
			if err := b.envelope(b.next()); err != nil {
				return err
			}
		}
		return b.publish()
	})
	if err == nil {
		faultpoint.Here("split-committed")
		s.split.Add(int64(b.young))
		for _, e := range b.events {
			if e.Settled != "" {
				s.cfg.Observer.Settled(e.Settled, time.Since(e.QueuedAt))
			}
		}
	}
	return err == nil, err
}

// batch is the work of one step.
type batch struct {
	*Splitter
	ctx      context.Context //nolint:containedctx // lives as long as one step
	tx       event.Tx
	progress event.Progress
	events   []*event.Event
	size     int // of their bodies
	alerts   int
	young    int // of them, accepted since the start
}

// add gathers an event for the publish at the end of the step.
func (b *batch) add(e *event.Event) {
	b.events = append(b.events, e)
	b.size += len(e.Body)
}

// whole is the Note and Item of a position that stands for a whole envelope.
const whole = math.MaxUint32

func (b *batch) next() uint64 {
	if b.progress.At.Note == whole || b.progress.At == (event.Position{}) {
		return b.progress.At.Seq + 1
	}
	return b.progress.At.Seq // stopped in the middle of it
}

func (b *batch) envelope(seq uint64) error {
	notes, err := b.streams.Notifications(b.ctx, seq)
	switch {
	case event.Unreadable(err):
		// Never stuck behind it, never silent about it.
		until := seq
		if first, ferr := b.streams.FirstNotification(b.ctx); ferr == nil && first > seq {
			until = min(first-1, b.streams.LastNotification()) // all of these are gone
		}
		b.log.ErrorContext(b.ctx, "accepted notifications cannot be read from the store", "stream", "NOTIFICATIONS",
			"seq", seq, "until", until, "count", until-seq+1, "err", err)
		b.tx.Count("damaged", int64(until-seq+1))
		seq = until
	case err != nil:
		return err
	}
	for i := range notes {
		n := &notes[i]
		candidates, truncated := split(n, seq, uint32(i))
		if end := len(candidates); end > 0 && candidates[end-1].pos.Compare(b.progress.At) <= 0 {
			continue // decided on in an earlier step, and counted there
		}
		if len(candidates) > 0 && candidates[0].pos.Compare(b.progress.At) > 0 {
			b.tx.Count("notifications", 1)
			if truncated > 0 {
				b.tx.Count("truncated", truncated)
			}
		}
		if !ours(candidates) {
			b.tx.SetHeard(n.Source, n.ReceivedAt)
		}
		for j := range candidates {
			if candidates[j].pos.Compare(b.progress.At) <= 0 {
				continue // published before a crash, or in an earlier step
			}
			if b.size >= gatherBytes {
				return nil // the next step goes on here
			}
			countAlert(b.tx, candidates[j].pos, candidates[j].status)
			if err := b.candidate(&candidates[j]); err != nil {
				return fmt.Errorf("notification %s: %w", event.NotificationID(seq, uint32(i)), err)
			}
			b.progress.At = candidates[j].pos
		}
		b.alerts += n.Alerts
		if seq > b.began {
			b.young += n.Alerts
		}
	}
	b.progress.At = event.Position{Seq: seq, Note: whole, Item: whole}
	return nil
}

func (b *batch) candidate(c *candidate) error {
	if c.unusable != nil {
		return b.unusable(c)
	}
	key, fingerprint := c.identity()
	if c.alert.Labels[OurLabel] == Heartbeat {
		return b.suppress(c, key, nil, event.ReasonHeartbeat)
	}
	ep, err := b.tx.Episode(key)
	if err != nil {
		return err
	}
	if c.status == event.Resolved && (ep == nil || ep.Adopted && !ep.Open) {
		adopted, labels, err := b.adopt(c)
		if err != nil {
			return err
		}
		if adopted != nil {
			if err := b.tx.PutEpisode(&event.Episode{Key: key, Source: c.note.Source, Alertname: c.alert.Labels["alertname"], Adopted: true, FiringAt: c.note.ReceivedAt}); err != nil {
				return err
			}
			if err := b.complete(c, adopted, labels); err != nil {
				return err
			}
			key, fingerprint, ep = adopted.Key, adopted.Fingerprint, adopted
		}
	}
	var last *event.Record
	if ep != nil && ep.Open {
		if last, err = b.tx.Brief(ep.FiringAt, ep.Firing); err != nil {
			return err
		}
	}
	verdict, reason := decide(arrival{
		firing: c.status == event.Firing, startsAt: c.alert.StartsAt, episode: ep, last: last,
		now: c.note.ReceivedAt, resendAfter: b.cfg.ResendAfter,
	})
	switch verdict {
	case suppress:
		return b.suppress(c, key, ep, reason)
	case again:
		if err := b.remember(c, ep); err != nil {
			return err
		}
		return b.again(c, last)
	}
	e := b.event(c, key, fingerprint, ep, verdict)
	if e.Size() > maxEvent {
		c.unusable = &pmm.Unusable{Raw: c.alert.Raw, Reason: fmt.Sprintf("its event would be larger than %d MiB", maxEvent>>20)}
		return b.unusable(c)
	}
	if e.Status == event.Resolved && b.cfg.ByAlertname && b.othersOpen(e) {
		// The incident of that name must stay open, also when this is the recovery of
		// something never seen. An episode ends all the same, and the stream has to know.
		e.Settled, e.Reason = event.Suppressed, event.ReasonStillFiring
		b.tx.Count("suppressed:"+e.Reason, 1)
	}
	e.Shared = ep != nil && ep.Shared
	if err := b.putEpisode(b.tx, ep, e); err != nil {
		return err
	}
	b.add(e)
	b.log.DebugContext(b.ctx, "event", "event_id", e.ID, "event_key", e.Key, "alertname", e.Alertname,
		"status", e.Status, "notification_id", c.pos.NotificationID())
	return nil
}

// identity is the incident key of the alert: the fingerprint as PMM sent it,
// else one over its labels.
func (c *candidate) identity() (key, fingerprint string) {
	fingerprint = c.alert.Fingerprint
	if fingerprint == "" {
		fingerprint = pmm.Fingerprint(c.alert.Labels)
	}
	return event.Key(c.note.Source, fingerprint), fingerprint
}

// adopt finds the one open alert of the same source that a recovery unknown
// under its own key can mean. With none or several it means none: a wrong
// close is worse than a stale incident.
func (b *batch) adopt(c *candidate) (found *event.Episode, labels map[string]string, err error) {
	some := c.alert.Labels
	if len(some) == 0 {
		return nil, nil, nil
	}
	for ep := range b.tx.OpenEpisodes(c.note.Source, some["alertname"]) {
		all, err := b.openLabels(ep)
		if err != nil {
			return nil, nil, err
		}
		if !includes(all, some) {
			continue
		}
		if found != nil {
			b.log.WarnContext(b.ctx, "a recovery could belong to several open alerts; none is closed by it",
				"alertname", some["alertname"], "notification_id", c.pos.NotificationID(), "one", found.Key, "other", ep.Key)
			return nil, nil, nil
		}
		found, labels = ep, all
	}
	if found == nil {
		b.log.WarnContext(b.ctx, "a recovery belongs to no open alert",
			"alertname", some["alertname"], "notification_id", c.pos.NotificationID())
	}
	return found, labels, nil
}

// openLabels are the labels of an open episode.
func (b *batch) openLabels(ep *event.Episode) (map[string]string, error) {
	switch r, err := b.tx.Record(ep.FiringAt, ep.Firing); {
	case err != nil:
		return nil, err
	case r != nil:
		return r.Labels, nil
	}
	if e := b.gathered(ep); e != nil {
		return e.Labels, nil
	}
	return b.tx.Labels(ep.Key) // retention, and then a rebuilt ledger
}

// gathered is the firing event of an episode that began in this very batch: it
// has no record yet.
func (b *batch) gathered(ep *event.Episode) *event.Event {
	for _, e := range slices.Backward(b.events) {
		if e.Pos == ep.Firing {
			return e
		}
	}
	return nil
}

func includes(all, some map[string]string) bool {
	for k, v := range some {
		if got, ok := all[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// complete fills what a trimmed recovery lacks from the alert it belongs to.
// Its own bytes stay as they came.
func (b *batch) complete(c *candidate, ep *event.Episode, labels map[string]string) error {
	c.alert.Labels = union(labels, c.alert.Labels)
	fired := b.gathered(ep)
	if fired == nil {
		r, err := b.tx.Record(ep.FiringAt, ep.Firing)
		if err != nil || r == nil {
			return err
		}
		switch fired, err = b.read(b.ctx, r); {
		case event.Unreadable(err):
			return nil
		case err != nil:
			return err
		}
	}
	c.alert.Annotations = union(fired.Annotations, c.alert.Annotations)
	return nil
}

func union(under, over map[string]string) map[string]string {
	out := maps.Clone(under)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, over)
	return out
}

// othersOpen reports whether another alert of that name and source is open.
func (b *batch) othersOpen(e *event.Event) bool {
	for ep := range b.tx.OpenEpisodes(e.Source, e.Alertname) {
		if ep.Key != e.Key {
			return true
		}
	}
	return false
}

// event makes the event, with the body that is posted for it.
func (b *batch) event(c *candidate, key, fingerprint string, ep *event.Episode, verdict decision) *event.Event {
	e := &event.Event{
		Key: key, Source: c.note.Source, Status: c.status, Pos: c.pos, At: c.pos,
		Alertname: c.alert.Labels["alertname"], Fingerprint: fingerprint,
		Labels: c.alert.Labels, Annotations: c.alert.Annotations,
		ReceivedAt: c.note.ReceivedAt, QueuedAt: time.Now().UTC(), Since: c.changedAt(b.cfg.LateAfter),
	}
	count := uint64(1)
	if ep != nil {
		count = ep.Count + 1
	}
	switch verdict {
	case end:
		e.Episode, e.StartsAt, e.Firing = ep.ID, ep.StartsAt, ep.Firing
	case orphan:
		e.StartsAt = c.alert.StartsAt
		e.Episode = event.EpisodeID(cmp.Or(c.alert.StartsAt, c.alert.EndsAt), count)
	default:
		e.StartsAt = c.alert.StartsAt
		e.Episode = event.EpisodeID(c.alert.StartsAt, count)
	}
	e.ID = event.ID(key, c.status, e.Episode)
	b.finish(e, c)
	return e
}

// finish gives an event its lane and the body that is posted for it.
func (s *Splitter) finish(e *event.Event, c *candidate) {
	e.Lane = e.Key
	if s.cfg.ByAlertname {
		e.Lane = e.Source + "\x00" + e.Alertname
	}
	out := callgoose.Alert{
		Status: string(c.status), Raw: c.alert.Raw, GroupLabels: c.group.GroupLabels,
		Labels: c.alert.Labels, Annotations: c.alert.Annotations,
		Fingerprint: e.Fingerprint, HasFinger: c.alert.Fingerprint != "",
		Source: s.cfg.From, IncidentKey: e.Key, EventID: e.ID, UniqueName: !s.cfg.ByAlertname, Link: c.alert.Link,
		Envelope: make([]callgoose.Member, 0, len(c.group.Envelope)), Members: len(c.group.Alerts),
	}
	for _, f := range c.group.Envelope {
		out.Envelope = append(out.Envelope, callgoose.Member(f))
	}
	e.Body = callgoose.Body(out)
}

// again puts the episode's firing event in line once more: the same event, the
// same bytes.
func (b *batch) again(c *candidate, last *event.Record) error {
	r, err := b.tx.Record(last.ReceivedAt, last.Pos)
	if err != nil {
		return err
	}
	old, err := b.readToSend(b.ctx, r)
	if event.Unreadable(err) {
		b.log.WarnContext(b.ctx, "a discarded event is no longer stored and cannot be sent again", "event_id", r.ID)
		return b.suppress(c, r.Key, nil, event.ReasonRepeat)
	}
	if err != nil {
		return err
	}
	old.Again, old.At, old.QueuedAt, old.Settled, old.Reason = againRepeat, c.pos, time.Now().UTC(), "", ""
	old.Since = c.note.ReceivedAt
	b.add(old)
	// At once, not when it is published: another repeat may stand behind this one.
	r.Outcome, r.Reason, r.SettledAt = event.Queued, old.Again, time.Time{}
	return b.tx.PutRecord(r)
}

// remember keeps what a repeat gives as the start of its episode: the other PMM of
// a pair has one of its own, by which its late word is known.
func (b *batch) remember(c *candidate, ep *event.Episode) error {
	starts := c.alert.StartsAt
	if starts.IsZero() || ep.StartsAt.IsZero() || starts.Equal(ep.StartsAt) ||
		slices.ContainsFunc(ep.Seen, starts.Equal) || len(ep.Seen) >= maxStarts-1 {
		return nil
	}
	ep.Seen = append(ep.Seen, starts)
	return b.tx.PutEpisode(ep)
}

func (b *batch) suppress(c *candidate, key string, ep *event.Episode, reason string) error {
	if reason == event.ReasonRepeat && ep != nil {
		if err := b.remember(c, ep); err != nil {
			return err
		}
	}
	b.tx.Count("suppressed:"+reason, 1)
	return b.tx.PutRecord(&event.Record{
		ID: c.pos.SuppressedID(), Key: key, Source: c.note.Source,
		Status: c.status, Alertname: c.alert.Labels["alertname"], Labels: c.alert.Labels, StartsAt: c.alert.StartsAt,
		ReceivedAt: c.note.ReceivedAt, Pos: c.pos, Notification: c.pos.NotificationID(),
		Outcome: event.Suppressed, Reason: reason, SettledAt: c.note.ReceivedAt,
	})
}

// unusable keeps the raw bytes of a member as a dead letter, in the stream.
func (b *batch) unusable(c *candidate) error {
	e := &event.Event{
		ID:  c.pos.UnusableID(),
		Key: event.Key(c.note.Source, "unusable"), Source: c.note.Source, Pos: c.pos, At: c.pos,
		ReceivedAt: c.note.ReceivedAt, QueuedAt: time.Now().UTC(), Since: c.note.ReceivedAt,
		Settled: event.Dead, Reason: "unusable alert: " + c.unusable.Reason, Body: c.unusable.Raw,
	}
	e.Lane = e.Key
	b.log.WarnContext(b.ctx, "an alert cannot be used and is kept as a dead letter", "event_id", e.ID,
		"notification_id", c.pos.NotificationID(), "reason", c.unusable.Reason)
	b.add(e)
	return nil
}

// publish appends the events to the stream, then writes their records. If we
// die in between, Recover finds the events and writes the records.
func (b *batch) publish() error {
	if len(b.events) > 0 {
		first, err := b.streams.PublishEvents(b.ctx, b.events)
		if err != nil {
			return err
		}
		faultpoint.Here("split-published")
		for i, e := range b.events {
			if err := b.record(b.tx, e, first+uint64(i)); err != nil {
				return err
			}
		}
		b.progress.Applied = first + uint64(len(b.events)) - 1
	}
	b.tx.SetProgress(b.progress)
	return nil
}

// record writes the record of an event that stands in the stream at seq.
func (s *Splitter) record(tx event.Tx, e *event.Event, seq uint64) error {
	if e.Again == "" {
		if err := over(tx, e); err != nil {
			return err
		}
		return tx.PutRecord(event.NewRecord(e, seq))
	}
	r, err := tx.Record(e.ReceivedAt, e.Pos)
	switch {
	case err != nil:
		return err
	case r == nil && e.Again == againKeep: // its day is over; the episode is not
		_, err := tx.PutLabels(e.Key, e.Labels)
		return err
	case r == nil: // its day is gone from the ledger
		return tx.PutRecord(event.NewRecord(e, seq))
	case e.Again == againKeep:
		r.Seq = seq // where its body stands now
		return tx.PutRecord(r)
	}
	r.Outcome, r.Reason, r.Seq, r.SettledAt = event.Queued, e.Again, seq, time.Time{}
	return tx.PutRecord(r)
}
