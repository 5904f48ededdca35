package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/faultpoint"
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
	began  time.Time

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

// View is what operators see of the deliverer.
type View struct {
	InFlight int // requests
	Window   int // queued events in memory
	// Oldest is when the oldest waiting event was queued, zero when none waits.
	Oldest    time.Time
	Circuit   Circuit
	Pause     *store.Pause // what holds delivery by hand, nil = nothing
	NextProbe time.Time
	// Next are events that wait for their next attempt, a bounded number of them.
	Next []NextTry
	// Last is the event that Callgoose took last, in this life.
	Last Taken
}

// NextTry is when an event of the window may be tried again.
type NextTry struct {
	Place event.Position // in the queue
	At    time.Time
}

// Taken is an event that Callgoose took.
type Taken struct {
	At        time.Time // zero: none
	Effect    string
	Key       string
	Alertname string
	Status    event.Status
}

// nextTries bounds View.Next: the picture is made anew at every turn.
const nextTries = 64

// claimAhead is how many events one transaction claims: they share its fsync.
const claimAhead = 128

// claimed is the end of a transaction of claims.
type claimed struct {
	lanes  []*lane
	claims []time.Time
	err    error
}

// result is what an attempt comes to.
type result struct {
	lane    *lane
	probe   bool
	w       store.Waiting
	id      string    // of the event
	claim   time.Time // up to when lateness is counted in its body
	unmade  bool      // nothing was sent under the claim before this attempt
	overdue string    // why it is given up when its age allows it, "" = it is young
	ruling  ruling
	attempt event.Attempt
	number  int  // of this attempt among all of the event, 0 when none was made
	gone    bool // it is not queued any more
	err     error
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
	d := &Deliverer{
		cfg: cfg, book: book{ledger}, bodies: bodies, sender: sender, began: time.Now(),
		log: cfg.Logger.With("component", "delivery"), w: newWindow(byName, known.Progress),
		results: make(chan result, mostUnrecorded), claims: make(chan claimed, 1),
		poke: make(chan struct{}, 1), making: make(chan struct{}, 1), turn: make(chan struct{}),
	}
	d.w.unsure = cfg.Unsure
	d.storm.Store(&event.Position{})
	d.gate = newGate(newCircuit(d.began, cfg.RetryMin, cfg.RetryMax), cfg.Concurrency, cfg.Rate, d.wake)
	d.gate.hold(known.Pause)
	d.unread.Store(true)
	d.announced = d.gate.stand(d.began).State
	d.publishView(d.began)
	return d
}

// View is the newest picture. Safe concurrently.
func (d *Deliverer) View() View {
	v := *d.view.Load()
	var storm event.Position
	v.InFlight = d.gate.stand(time.Now()).requests
	v.Oldest, storm = d.book.oldest(*d.storm.Load())
	d.storm.Store(&storm)
	return v
}

// MayClaim reports whether what is queued now would be sent at once, so that it may be
// claimed in the transaction that queues it. Safe concurrently.
func (d *Deliverer) MayClaim() bool {
	s := d.gate.stand(time.Now())
	return s.State == event.Up && !s.halted
}

// Outage reports whether the last attempts said that Callgoose takes nothing. Safe
// concurrently.
func (d *Deliverer) Outage() bool {
	seen := d.gate.stand(time.Now()).seen
	return seen == event.Down || seen == event.Held
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
		it := d.w.take(l)
		d.w.probed = probe && it.size > 0
		alone := len(l.items) == 1 && !d.w.behind[l]
		d.flying++
		go func() { d.results <- d.attempt(attempts, place, it, alone) }()
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

// attempt sends the claimed head of a lane, which has entered the gate, once, and records
// the answer. It runs in a goroutine of its own, one at a time for each lane.
func (d *Deliverer) attempt(ctx context.Context, place *pass, it *item, alone bool) (res result) {
	res.lane, res.probe = place.lane, place.probe
	w, r, queued, err := d.book.open(it.at)
	if res.w = w; err != nil || !queued {
		place.unused()
		res.gone, res.err = !queued, err
		return res
	}
	res.id, res.number = r.ID, r.Tries+1
	res.claim, res.unmade = w.ClaimedAt, it.ours && !it.sent
	if !r.ClaimedAt.IsZero() {
		res.claim = r.ClaimedAt
	}
	body, err := d.body(ctx, r, res.claim)
	if err != nil {
		place.unused()
		d.unsent(ctx, &res, err)
		return res
	}
	reply, failed, err := d.send(ctx, &res, body)
	if err != nil {
		res.err = fmt.Errorf("send event %s: %w", r.ID, err)
		return res
	}
	a := &res.attempt
	it.sent = it.sent || a.Sent
	res.ruling = place.answered(w.Key, classify(reply, failed), a.Status, a.Error)
	a.Result = res.ruling.result
	step := ""
	if failed != nil {
		step = failed.Step
	}
	d.cfg.Observer.Attempt(*a, step)
	if res.ruling.class == interrupted {
		return res
	}
	if res.ruling.own && time.Since(d.since(w.QueuedAt, time.Now())) > d.cfg.RetryFor {
		res.overdue = d.overdue(a.Error)
	}
	d.record(ctx, &res, alone && !d.gate.short())
	if res.err == nil { // else Callgoose may have what our disk does not know
		place.recorded()
	}
	faultpoint.Here("recorded")
	return res
}

// body makes the body of r, one at a time: some take many times their size.
func (d *Deliverer) body(ctx context.Context, r *event.Record, claim time.Time) ([]byte, error) {
	select {
	case d.making <- struct{}{}:
		defer func() { <-d.making }()
		return d.bodies.Body(ctx, r, claim)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// send makes the request, and puts down the attempt.
func (d *Deliverer) send(ctx context.Context, res *result, body []byte) (callgoose.Reply, *callgoose.Error, error) {
	if res.probe {
		d.sender.Renew()
	}
	faultpoint.Here("claimed")
	start := time.Now()
	reply, err := d.sender.Send(ctx, body)
	faultpoint.Here("answered")
	res.attempt = event.Attempt{At: start.UTC(), Duration: time.Since(start), Probe: res.probe, Sent: true}
	a := &res.attempt
	if err == nil {
		a.Status, a.ID, a.Effect = reply.Status, reply.ID, reply.Effect()
		return reply, nil, nil
	}
	failed, ok := errors.AsType[*callgoose.Error](err)
	if !ok {
		return reply, nil, err
	}
	a.Status, a.Error, a.Sent = failed.Status, failed.Error(), failed.Sent
	if failed.Status == 0 { // other connections may be as bad
		d.sender.Renew()
	}
	return reply, failed, nil
}

// unsent ends an attempt that has no body. What cannot be read is a dead letter that
// says so, never in the way.
func (d *Deliverer) unsent(ctx context.Context, res *result, err error) {
	switch {
	case event.Unreadable(err):
		res.ruling = ruling{verdict: verdict{result: "dead", outcome: event.Dead, reason: reasonLost + err.Error()}}
		res.attempt = event.Attempt{At: time.Now().UTC(), Result: "dead", Error: err.Error()}
		d.record(ctx, res, false)
	case context.Cause(ctx) != nil:
		res.ruling.class, res.number = interrupted, 0
	default:
		res.err = fmt.Errorf("body of the event at %v: %w", res.w.At, err)
	}
}

// record writes what an attempt came to.
func (d *Deliverer) record(ctx context.Context, res *result, soon bool) {
	res.err = d.book.record(ctx, res, soon)
	if outcome := res.ruling.outcome; res.err == nil && outcome != "" {
		d.cfg.Observer.Settled(outcome, time.Since(res.w.QueuedAt))
	}
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
// not give up what is young.
func (d *Deliverer) since(queued, now time.Time) time.Time {
	queued = queued.Round(0) // of the wall clock alone
	now, began := now.Add(-now.Sub(queued)), d.began.Add(queued.Sub(d.began))
	if began.After(now) {
		return began
	}
	return now
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

// announce tells of a change of the state, once.
func (d *Deliverer) announce(ctx context.Context) {
	s := d.gate.stand(time.Now())
	if s.State == d.announced {
		return
	}
	d.announced = s.State
	d.cfg.Observer.Circuit(s.State)
	switch s.State {
	case event.Up:
		d.log.InfoContext(ctx, "callgoose is up", "waiting", d.w.size)
	case event.Held:
		d.log.ErrorContext(ctx, "callgoose refuses every request: everything is held until token and address are right", "err", s.LastError)
	case event.Down:
		d.log.WarnContext(ctx, "callgoose is down: events wait, one probe at a time goes out", "err", s.LastError)
	case event.Paused:
		d.log.WarnContext(ctx, "delivery is paused", "reason", s.pause.Reason, "by", s.pause.By)
	default:
		d.log.InfoContext(ctx, "delivery goes on, callgoose was not reached yet")
	}
}

func (d *Deliverer) publishView(now time.Time) {
	s := d.gate.stand(now)
	v := &View{Window: d.w.size, Circuit: s.Circuit, Pause: s.pause, Last: d.last}
	if s.seen != event.Up {
		v.NextProbe = s.probeAt
	} else {
		for _, l := range d.w.waiting.lanes[:min(nextTries, len(d.w.waiting.lanes))] {
			v.Next = append(v.Next, NextTry{l.head().at, l.notBefore})
		}
	}
	d.view.Store(v)
}

// logAttempt is one line with everything about the attempt. next is when the event may
// go out again, if it does.
func (d *Deliverer) logAttempt(ctx context.Context, r result, now, next time.Time) {
	a, v, w := r.attempt, r.ruling, &r.w
	level := slog.LevelInfo
	switch {
	case v.outcome == event.Dead:
		level = slog.LevelError
	case v.outcome == event.Discarded, v.outcome == "" && v.class != interrupted, a.Effect == "unknown":
		level = slog.LevelWarn
	}
	attrs := append(make([]slog.Attr, 0, 20),
		slog.String("event_id", r.id), slog.String("event_key", w.Key), slog.String("alertname", w.Alertname),
		slog.String("status", string(w.Status)), slog.String("source", w.Source),
		slog.String("notification_id", w.Pos.NotificationID()), slog.Int("attempt", r.number), slog.String("outcome", a.Result),
		slog.Duration("duration", a.Duration.Round(time.Microsecond)),
		slog.Duration("waited", now.Sub(w.QueuedAt).Round(time.Millisecond)))
	if r.probe {
		attrs = append(attrs, slog.Bool("probe", true))
	}
	if a.Status != 0 {
		attrs = append(attrs, slog.Int("http_status", a.Status))
	}
	if a.Effect != "" {
		attrs = append(attrs, slog.String("effect", a.Effect))
	}
	if a.ID != "" {
		attrs = append(attrs, slog.String("callgoose_id", a.ID))
	}
	if a.Error != "" {
		attrs = append(attrs, slog.String("err", a.Error))
	}
	if v.outcome == "" && v.class != interrupted && !next.IsZero() {
		attrs = append(attrs, slog.Duration("retry_in", max(next.Sub(now), 0).Round(time.Millisecond)))
	}
	switch v.outcome {
	case event.Discarded:
		attrs = append(attrs, slog.String("hint", "no filter of Callgoose matched; repair it, then replay --outcome discarded"))
	case event.Dead:
		attrs = append(attrs, slog.String("reason", v.reason), slog.String("hint", "dead-letters list, then retry or drop"))
	}
	d.log.LogAttrs(ctx, level, "attempt", attrs...)
}
