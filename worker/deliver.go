package worker

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose"
)

// Bodies builds what is posted.
type Bodies interface {
	// Body builds the bytes of r, lateness counted up to claimedAt. They are the same
	// for the same arguments. The error is event.ErrGone or event.ErrDamaged when
	// nothing is left to send.
	Body(ctx context.Context, r *event.Record, claimedAt time.Time) ([]byte, error)
}

// Sender makes requests.
type Sender interface {
	// Send makes one. Its error is a *callgoose.Error.
	Send(ctx context.Context, body []byte) (callgoose.Reply, error)
	// Renew makes the next request use a new connection and look the name up again.
	Renew()
}

// DeliverConfig are the rules of delivery.
type DeliverConfig struct {
	RetryMin, RetryMax time.Duration // 0 = 1s, 1m
	RetryFor           time.Duration // 0 = 720h; older firing events become dead letters
	Concurrency        int           // requests under way; 0 = 16
	Rate               float64       // events a second, 0 = unlimited
	// Grace is how long attempts under way may go on at a stop. 0 = 10s.
	Grace time.Duration
	// ByAlertname orders the events of an alert name (per source) instead of those of an
	// incident key. It is so anyway when events may be waiting that were decided on under
	// --incident-by alertname: that order includes the other.
	ByAlertname bool
	// Unsure is until when requests of the instance that led before may be on their way:
	// lanes that it had claimed wait. Zero = there are none.
	Unsure time.Time
	// Refresh reads the token again and reports whether it changed. May be nil.
	Refresh  func() bool
	Logger   *slog.Logger
	Observer Observer // nil = none
}

// Deliverer brings queued events to Callgoose, the oldest first, and those of one lane
// strictly in order. Its loop decides who goes next, its gate whether anybody may, its
// book what the ledger says of it.
type Deliverer struct {
	cfg    DeliverConfig
	book   book
	bodies Bodies
	sender Sender
	log    *slog.Logger
	gate   *gate
	clocks clocks

	// Owned by Run.
	w         *window
	flying    int            // attempts under way
	claiming  bool           // a transaction of claims is under way
	announced string         // the state that was announced last
	refreshed time.Time      // when the token was last read again
	expired   event.Position // how far the queue was searched for events to give up
	expiring  time.Time      // when the failure was that they are given up for; zero = none
	last      Taken

	results chan result
	claims  chan claimed
	poke    chan struct{}
	unread  atomic.Bool // the queue may hold something behind the window's cursor
	kicked  atomic.Bool
	making  chan struct{} // held by who makes a body: one at a time
	turn    chan struct{} // the loop hands out one each time it comes round and somebody waits
	view    atomic.Pointer[View]
	storm   atomic.Pointer[event.Position] // see book.oldest
}

// claimAhead is how many events one transaction claims: they share its fsync.
const claimAhead = 128

// claimed is the end of a transaction of claims.
type claimed struct {
	lanes  []*lane
	claims []time.Time
	err    error
}

// NewDeliverer makes a deliverer; Run starts it. What is queued now may have been sent
// by an earlier process: make it before anything is split.
func NewDeliverer(cfg DeliverConfig, ledger *store.Store, bodies Bodies, sender Sender) *Deliverer {
	cfg.RetryMin = cmp.Or(cfg.RetryMin, time.Second)
	cfg.RetryMax = cmp.Or(cfg.RetryMax, time.Minute)
	cfg.RetryFor = cmp.Or(cfg.RetryFor, 720*time.Hour)
	cfg.Grace = cmp.Or(cfg.Grace, 10*time.Second)
	cfg.Concurrency = cmp.Or(cfg.Concurrency, 16)
	cfg.Observer = cmp.Or[Observer](cfg.Observer, silent{})
	known := ledger.Summary()
	byName := cfg.ByAlertname || slices.ContainsFunc(known.Forms, namesIncidents) && book{ledger}.waitsByName()
	now := time.Now()
	d := &Deliverer{
		cfg: cfg, book: book{ledger}, bodies: bodies, sender: sender, clocks: newClocks(now),
		log: cfg.Logger.With("component", "delivery"), w: newWindow(byName, known.Progress),
		results: make(chan result, mostUnrecorded), claims: make(chan claimed, 1),
		poke: make(chan struct{}, 1), making: make(chan struct{}, 1), turn: make(chan struct{}),
	}
	d.w.unsure = cfg.Unsure
	d.storm.Store(&event.Position{})
	d.gate = newGate(newCircuit(now, cfg.RetryMin, cfg.RetryMax), cfg.Concurrency, cfg.Rate, d.wake)
	d.gate.hold(known.Pause)
	d.unread.Store(true)
	d.announced = d.gate.stand(now).State
	d.publishView(now)
	return d
}

// MayClaim reports whether what is queued now would be sent at once, so that it may be
// claimed in the transaction that queues it. Safe concurrently.
func (d *Deliverer) MayClaim() bool {
	s := d.gate.stand(time.Now())
	return s.State == event.Up && !s.halted
}

// Wake says that events were queued. It never blocks. Safe concurrently.
func (d *Deliverer) Wake() {
	d.unread.Store(true)
	d.wake()
}

// Kick probes at once, and reads again whether delivery is paused: the token or the
// world may have changed. Safe concurrently.
func (d *Deliverer) Kick() {
	d.kicked.Store(true)
	d.wake()
}

func (d *Deliverer) wake() {
	select {
	case d.poke <- struct{}{}:
	default:
	}
}

// Alive returns nil once the loop of Run has come round, an error when ctx ends
// before that. Safe concurrently.
func (d *Deliverer) Alive(ctx context.Context) error { return turned(ctx, d.turn) }

func turned(ctx context.Context, turn <-chan struct{}) error {
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Run delivers until ctx ends; then attempts under way get their grace, and one that is
// interrupted costs nothing. It returns an error when the ledger or a body failed.
func (d *Deliverer) Run(ctx context.Context) error {
	attempts, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	err := d.loop(ctx, attempts)
	d.gate.halt()
	grace := time.AfterFunc(d.cfg.Grace, func() { cancel(callgoose.ErrInterrupted) })
	defer grace.Stop()
	for d.flying > 0 || d.claiming {
		if err != nil {
			cancel(callgoose.ErrInterrupted)
		}
		select {
		case r := <-d.results:
			err = cmp.Or(err, d.finish(ctx, r))
		case c := <-d.claims:
			err = cmp.Or(err, d.takeClaims(c))
		}
	}
	return err
}

func (d *Deliverer) loop(ctx, attempts context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now := time.Now()
		d.w.wake(now)
		d.refresh(ctx, now)
		more, err := d.read()
		if err != nil {
			return err
		}
		next := d.start(attempts, now)
		if err := d.expire(ctx, now); err != nil {
			return err
		}
		d.announce(ctx)
		d.publishView(now)
		if more || !d.expiring.IsZero() {
			next = now
		}
		timer.Reset(d.sleep(now, next))
		select {
		case <-ctx.Done():
			return nil
		case r := <-d.results: // often several of one commit
			for err = d.finish(ctx, r); err == nil && len(d.results) > 0; {
				err = d.finish(ctx, <-d.results)
			}
		case c := <-d.claims:
			err = d.takeClaims(c)
		case d.turn <- struct{}{}:
		case <-d.poke:
		case <-timer.C:
		}
		if err != nil {
			return err
		}
	}
}

// refresh obeys a kick. While everything is held it reads the token again each second.
func (d *Deliverer) refresh(ctx context.Context, now time.Time) {
	if d.kicked.Swap(false) {
		d.gate.hold(d.book.ledger.Summary().Pause)
		d.gate.kick()
	}
	if d.announced != event.Held || d.cfg.Refresh == nil || now.Sub(d.refreshed) < time.Second {
		return
	}
	d.refreshed = now
	if d.cfg.Refresh() {
		d.log.InfoContext(ctx, "the token changed, probing")
		d.gate.kick()
	}
}

// read reads a chunk of the queue into the window, and one for the lanes that were read
// past. It reports whether there is more to read now.
func (d *Deliverer) read() (more bool, err error) {
	if place, ok := d.w.refill(); ok {
		list, err := d.book.read(place)
		if err != nil {
			return false, err
		}
		d.w.addAgain(list, len(list) < chunk)
		_, more = d.w.refill()
	}
	if d.w.full() || !d.unread.Swap(false) {
		return more, nil
	}
	list, err := d.book.read(d.w.cursor)
	if err != nil {
		return false, err
	}
	d.w.add(list)
	if len(list) == chunk {
		d.unread.Store(true)
		more = more || !d.w.full()
	}
	return more, nil
}

// start begins as many attempts as may go out now, the oldest first. It returns when to
// ask again, zero when only an event changes the answer.
func (d *Deliverer) start(attempts context.Context, now time.Time) time.Time {
	for {
		p, since, again := d.gate.ask(now)
		probe := p == aProbe || p == freshProbe
		if p == nothing {
			return again
		}
		l := d.w.next(probe, p == freshProbe, since, d.gate.fits)
		if l == nil {
			return again
		}
		if it := l.head(); !it.claimed(now) {
			if d.claiming || !it.claim.IsZero() && d.gate.full() { // soon enough when there is a place
				return again
			}
			d.claim(attempts, now, l, probe)
			if probe {
				return again
			}
			continue
		}
		place, ok := d.gate.enter(now, l, probe)
		if !ok {
			return again
		}
		d.w.take(l)
		d.w.probed = probe && place.item.size > 0
		alone := len(l.items) == 1 && !d.w.behind[l]
		d.flying++
		go func() { d.results <- d.attempt(attempts, place, alone) }()
	}
}

// claim begins to claim the oldest events that may be sent, or the one of l alone: to
// probe with, or with a large body, which are few.
func (d *Deliverer) claim(ctx context.Context, now time.Time, l *lane, probe bool) {
	most := claimAhead
	if d.cfg.Rate > 0 { // a claim that waits longer than claimFor is made again
		most = min(most, max(1, int(d.cfg.Rate*claimFor.Seconds())))
	}
	lanes := []*lane{l}
	if probe || l.head().size > 0 {
		d.w.take(l)
	} else {
		lanes = d.w.unclaimed(now, most)
	}
	places := make([]event.Position, len(lanes))
	for i, l := range lanes {
		places[i] = l.head().at
	}
	d.claiming = true
	go func() {
		claims, err := d.book.claim(context.WithoutCancel(ctx), places)
		d.claims <- claimed{lanes, claims, err}
	}()
}

// takeClaims takes in the end of a transaction of claims.
func (d *Deliverer) takeClaims(c claimed) error {
	d.claiming = false
	if c.err != nil {
		return fmt.Errorf("claim %d events: %w", len(c.lanes), c.err)
	}
	for i, l := range c.lanes {
		if c.claims[i].IsZero() {
			d.w.done(l)
			continue
		}
		l.head().claim, l.head().ours = c.claims[i], true
		d.w.enqueue(l, time.Time{})
	}
	return nil
}

// finish takes in the end of an attempt.
func (d *Deliverer) finish(ctx context.Context, r result) error {
	d.flying--
	now := time.Now()
	it, v := r.lane.head(), r.ruling
	var next time.Time // zero: with the next probe, or at once
	if v.own && v.outcome == "" {
		it.tries++
		next = now.Add(max(v.wait, backoff(it.tries, d.cfg.RetryMin, d.cfg.RetryMax, roll)))
	}
	if r.number > 0 {
		s := d.gate.stand(now)
		d.logAttempt(ctx, r, now, cmp.Or(next, s.probeAt))
		if v.outcome == "" && v.class != interrupted && (s.seen == event.Down || s.seen == event.Held) {
			d.expired, d.expiring = event.Position{}, s.failedAt
		}
	}
	switch {
	case r.err != nil:
		return r.err
	case v.outcome != "" || r.gone:
		if w := &r.w; v.outcome == event.Delivered {
			d.last = Taken{At: r.attempt.At, Effect: r.attempt.Effect, Key: w.Key, Alertname: w.Alertname, Status: w.Status}
		}
		d.w.done(r.lane)
	default:
		if it.ours && !it.sent { // book.record took the claim back
			it.claim = time.Time{}
		}
		d.w.enqueue(r.lane, next)
	}
	return nil
}

// expire gives up a chunk of what waited longer than RetryFor, after a failure in this
// life of an attempt made when it was that old already.
func (d *Deliverer) expire(ctx context.Context, now time.Time) error {
	if seen := d.gate.stand(now).seen; d.expiring.IsZero() || seen == event.Up {
		d.expiring = time.Time{}
		return nil
	}
	list, err := d.book.read(d.expired)
	if err != nil {
		return err
	}
	var old []store.Waiting
	for i := range list {
		w := &list[i]
		if d.expiring.Sub(d.since(w.QueuedAt, now)) <= d.cfg.RetryFor { // those behind it are younger
			list = list[:i]
			break
		}
		d.expired = w.At
		if !d.w.underway(w) && !w.Storm {
			old = append(old, *w)
		}
	}
	if len(list) < chunk {
		d.expiring = time.Time{}
	}
	if len(old) == 0 {
		return nil
	}
	reason := d.overdue(d.gate.stand(now).LastError)
	ended, err := d.book.expire(ctx, old, reason)
	for id, w := range ended {
		d.w.forget(w)
		d.cfg.Observer.Settled(event.Dead, now.Sub(w.QueuedAt))
		d.log.ErrorContext(ctx, "event given up", "event_id", id, "event_key", w.Key, "alertname", w.Alertname, "status", w.Status,
			"notification_id", w.Pos.NotificationID(), "reason", reason)
	}
	return err
}

func (d *Deliverer) overdue(text string) string {
	reason := fmt.Sprintf("not delivered within %s (--retry-for)", d.cfg.RetryFor)
	if text != "" {
		reason += ": " + text
	}
	return reason
}

// since is when an event was queued, on a clock that does not jump: the later of what
// the wall clock says now and what it said when we began. A corrected wall clock must
// not give up what is young, nor one that is not set yet what was queued in an earlier life.
func (d *Deliverer) since(queued, now time.Time) time.Time {
	at := now.Add(max(d.clocks.ahead(now), 0) - now.Sub(queued.Round(0)))
	if at.Before(d.clocks.began) && now.Sub(d.clocks.began) < notSetYet {
		return d.clocks.began
	}
	return at
}

// sleep is how long nothing will happen by itself. next is when the gate wants to be asked.
func (d *Deliverer) sleep(now, next time.Time) time.Duration {
	until := now.Add(time.Minute)
	soonest := func(t time.Time) {
		if !t.IsZero() && t.Before(until) {
			until = t
		}
	}
	soonest(next)
	if d.w.waiting.Len() > 0 {
		soonest(d.w.waiting.lanes[0].notBefore)
	}
	if d.announced == event.Held && d.cfg.Refresh != nil {
		soonest(now.Add(time.Second)) // the token file may be replaced
	}
	return max(until.Sub(now), 0)
}
