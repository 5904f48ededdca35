package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"pmm-callgoose/store/event"
	"pmm-callgoose/store/event/faultpoint"
	"pmm-callgoose/worker/callgoose"
)

// Source hands out the events that wait, in order. Ack says that one is
// settled; it may be lost, the ledger knows better.
type Source interface {
	Next() (event.Delivery, error)
	Ack(seq uint64)
	Close()
}

// Bodies reads an event again whose body was not kept in memory.
type Bodies interface {
	Event(ctx context.Context, seq uint64) (*event.Event, error)
}

// Sender makes one request. Its error is a *callgoose.Error.
type Sender interface {
	Send(ctx context.Context, body []byte) (callgoose.Reply, error)
}

// DeliverConfig are the rules of delivery.
type DeliverConfig struct {
	RetryMin, RetryMax time.Duration // 0 = 1s, 1m
	RetryFor           time.Duration // 0 = 72h; older events become dead letters
	Concurrency        int           // 0 = 16
	Rate               float64       // events a second, 0 = unlimited
	LateAfter          time.Duration // 0 = never say so
	Collapse           bool          // settle what fired and resolved while nothing could be sent
	// Grace is how long attempts under way may go on at a stop. 0 = 10s.
	Grace time.Duration
	// Restore makes an event again that cannot be read from the stream, from its
	// notification. May be nil: then such an event is a dead letter.
	Restore func(ctx context.Context, r *event.Record) (*event.Event, error)
	// Refresh reads the token again and reports whether it changed. May be nil.
	Refresh  func() bool
	Logger   *slog.Logger
	Observer Observer // nil = none
}

// Deliverer brings events to Callgoose. See the package comment.
type Deliverer struct {
	cfg    DeliverConfig
	source Source
	bodies Bodies
	ledger Ledger
	sender Sender
	log    *slog.Logger
	limit  *rate.Limiter
	slots  chan struct{} // one for each request under way
	// unrecorded has one for each event that Callgoose may have and our disk not yet:
	// what a crash can double.
	unrecorded chan struct{}
	halt       chan struct{} // closed when nothing new may be sent

	// Owned by Run.
	w       *lanes
	circuit *circuit
	flying  int
	passed  chan struct{}   // closed when the attempt started last has its place, or gave up
	settled map[uint64]bool // known as settled when we started
	floor   uint64          // everything up to it is settled
	saved   uint64          // the floor in the ledger
	savedAt time.Time
	looked  time.Time // when the token was last looked for
	hurry   bool      // there is more to settle without an attempt
	out     bool      // nothing could be sent, until now
	// recovered is when the last outage ended: what was put in line before waited in
	// it, even when it is pulled only now.
	recovered time.Time
	highest   uint64 // newest sequence pulled
	results   chan result
	probed    map[string]bool // lanes probed in this outage, so that every one gets its turn

	kick   chan struct{}
	turn   chan struct{} // the loop hands out one each time it comes round and somebody waits
	save   chan event.Circuit
	view   atomic.Pointer[View]
	allSet atomic.Bool // circuit is up: attempts that are not probes may go out
	// failing counts failures on end before Run hears of them: an attempt that
	// waits for a slot must not go out when those before it have just failed.
	failing atomic.Int32
}

// View is what operators see of the deliverer.
type View struct {
	InFlight  int
	Window    int
	Oldest    time.Time // when the oldest waiting event was put in line
	Circuit   event.Circuit
	NextProbe time.Time
	// Next are events that wait for their next attempt, a bounded number of them.
	Next []NextTry
}

// NextTry is when an event of the window may be tried again.
type NextTry struct {
	Seq uint64 // in the events stream
	At  time.Time
}

// nextTries bounds View.Next: the picture is made anew at every turn.
const nextTries = 64

// The bounds of the window: how much of the backlog is in memory. Beyond
// windowReady runnable lanes nothing more is pulled; a lane that is stuck may
// fill the rest without stopping the others.
const (
	windowItems = 60_000
	windowReady = 1_024
	windowDown  = 2_048
	windowBytes = 12 << 20
	// claimAhead is how many events are claimed beyond those that are sent: they
	// share its fsyncs.
	claimAhead = 128
)

// result is the end of an attempt.
type result struct {
	lane    *lane
	probe   bool
	verdict verdict
	attempt event.Attempt
	number  int  // of this attempt among all of the event, 0 when nothing was sent
	skipped bool // nothing was sent: the circuit opened first
	known   bool // nothing was sent: it is settled, says the ledger
	err     error
}

// NewDeliverer makes a deliverer; Run starts it.
func NewDeliverer(cfg DeliverConfig, source Source, bodies Bodies, ledger Ledger, sender Sender) *Deliverer {
	cfg.RetryMin = cmp.Or(cfg.RetryMin, time.Second)
	cfg.RetryMax = cmp.Or(cfg.RetryMax, time.Minute)
	cfg.RetryFor = cmp.Or(cfg.RetryFor, 72*time.Hour)
	cfg.Grace = cmp.Or(cfg.Grace, 10*time.Second)
	cfg.Concurrency = cmp.Or(cfg.Concurrency, 16)
	cfg.Observer = cmp.Or[Observer](cfg.Observer, silent{})
	limit := rate.NewLimiter(rate.Inf, 1)
	if cfg.Rate > 0 {
		limit = rate.NewLimiter(rate.Limit(cfg.Rate), max(1, int(cfg.Rate/10)))
	}
	d := &Deliverer{
		cfg: cfg, source: source, bodies: bodies, ledger: ledger, sender: sender,
		log: cfg.Logger.With("component", "delivery"), limit: limit,
		slots: make(chan struct{}, cfg.Concurrency), unrecorded: make(chan struct{}, 2*cfg.Concurrency),
		halt: make(chan struct{}), w: newLanes(),
		settled: map[uint64]bool{}, probed: map[string]bool{},
		results: make(chan result, 4*cfg.Concurrency),
		kick:    make(chan struct{}, 1), turn: make(chan struct{}), save: make(chan event.Circuit, 16),
	}
	d.view.Store(&View{Circuit: event.Circuit{State: event.Unknown}})
	_ = ledger.View(func(tx event.Tx) error { // until Run has begun; it reports the error
		d.view.Store(&View{Circuit: newCircuit(tx.Circuit(), 0, 0).Circuit})
		return nil
	})
	return d
}

// View is the newest picture. Safe concurrently.
func (d *Deliverer) View() View {
	v := *d.view.Load()
	v.InFlight = len(d.slots)
	return v
}

// Kick probes at once: the token or the world may have changed. Safe concurrently.
func (d *Deliverer) Kick() {
	select {
	case d.kick <- struct{}{}:
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

// Run delivers until ctx ends; then attempts under way get their grace. It
// returns an error when the ledger or the stream failed.
func (d *Deliverer) Run(ctx context.Context) error {
	if err := d.ledger.View(func(tx event.Tx) error {
		d.floor, d.saved = tx.Floor(), tx.Floor()
		for seq := range tx.Settled() {
			d.settled[seq] = true
		}
		d.circuit = newCircuit(tx.Circuit(), d.cfg.RetryMin, d.cfg.RetryMax)
		return nil
	}); err != nil {
		return err
	}
	d.highest, d.out = d.floor, d.circuit.outage()
	d.passed = make(chan struct{})
	close(d.passed)
	d.allSet.Store(d.circuit.State == event.Up)
	d.publishView()

	attempts, stopAttempts := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopAttempts(nil)
	pulled := make(chan event.Delivery)
	stopped := make(chan struct{})
	pullErr := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { pullErr <- d.pull(pulled, stopped) })
	wg.Go(d.saveCircuit)
	defer wg.Wait()
	defer close(d.save)
	defer d.source.Close()
	defer close(stopped)

	err := d.loop(ctx, attempts, pulled, pullErr)
	close(d.halt)
	// Orderly end: what is under way gets its grace, then it is cut off and
	// costs nothing.
	grace := time.AfterFunc(d.cfg.Grace, func() { stopAttempts(callgoose.ErrInterrupted) })
	defer grace.Stop()
	if err != nil {
		stopAttempts(callgoose.ErrInterrupted)
	}
	for d.flying > 0 {
		if e := d.finish(ctx, <-d.results); e != nil && err == nil {
			err = e
			stopAttempts(callgoose.ErrInterrupted)
		}
	}
	if err == nil {
		err = d.saveFloor(context.WithoutCancel(ctx))
	}
	return err
}

// pull reads ahead by one message: the loop takes it when the window has room.
func (d *Deliverer) pull(out chan<- event.Delivery, stopped <-chan struct{}) error {
	for {
		m, err := d.source.Next()
		if err != nil {
			return err
		}
		select {
		case out <- m:
		case <-stopped:
			return nil
		}
	}
}

func (d *Deliverer) saveCircuit() {
	for c := range d.save {
		if err := d.ledger.Do(context.Background(), func(tx event.Tx) error {
			tx.SetCircuit(c)
			return nil
		}); err != nil {
			d.log.Warn("cannot save the state of callgoose's side", "err", err)
		}
	}
}

func (d *Deliverer) loop(ctx, attempts context.Context, pulled <-chan event.Delivery, pullErr <-chan error) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now := time.Now()
		d.w.wake(now)
		d.refresh(ctx, now)
		if err := d.expire(ctx, now); err != nil {
			return err
		}
		if err := d.start(attempts, now); err != nil {
			return err
		}
		d.moveFloor()
		d.publishView()
		timer.Reset(d.sleep(time.Now()))
		in := pulled
		if !d.wantMore() {
			in = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-pullErr:
			if ctx.Err() != nil {
				return nil
			}
			return err
		case m := <-in:
			if err := d.admit(ctx, m); err != nil {
				return err
			}
			// Take what is there before looking around again.
			for n := 0; n < 256 && d.wantMore(); n++ {
				select {
				case m := <-pulled:
					if err := d.admit(ctx, m); err != nil {
						return err
					}
					continue
				default:
				}
				break
			}
		case r := <-d.results:
			if err := d.finish(ctx, r); err != nil {
				return err
			}
		case d.turn <- struct{}{}:
		case <-d.kick:
			d.circuit.probeAt = time.Time{}
		case <-timer.C:
			if err := d.saveFloor(ctx); err != nil {
				return err
			}
		}
	}
}

// refresh looks, while Callgoose refuses us, whether the token was replaced.
func (d *Deliverer) refresh(ctx context.Context, now time.Time) {
	if d.circuit.State != event.Held || d.cfg.Refresh == nil || now.Sub(d.looked) < time.Second {
		return
	}
	d.looked = now
	if d.cfg.Refresh() {
		d.log.InfoContext(ctx, "the token changed, probing")
		d.circuit.probeAt = time.Time{}
	}
}

func (d *Deliverer) wantMore() bool {
	if d.circuit.State != event.Up && len(d.w.seqs) >= windowDown {
		return false
	}
	return d.w.ready.Len() < windowReady && len(d.w.seqs) < windowItems
}

// sleep is how long nothing will happen by itself.
func (d *Deliverer) sleep(now time.Time) time.Duration {
	next := now.Add(time.Minute)
	soonest := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	if d.w.waiting.Len() > 0 {
		soonest(d.w.waiting.lanes[0].notBefore)
	}
	if d.circuit.State != event.Up && d.w.ready.Len() > 0 && !d.circuit.probing {
		soonest(d.circuit.probeAt)
	}
	if it := d.w.oldest(); it != nil {
		if left := d.cfg.RetryFor - now.Sub(it.since); left > 0 {
			soonest(now.Add(left))
		}
	}
	if d.circuit.State == event.Held {
		soonest(now.Add(time.Second)) // the token file may be replaced
	}
	if d.floor > d.saved { // retention makes room only below the saved floor
		soonest(d.savedAt.Add(saveEvery))
	}
	if d.hurry {
		d.hurry, next = false, now
	}
	return max(next.Sub(now), time.Millisecond)
}

// admit takes one message of the stream into the window.
func (d *Deliverer) admit(ctx context.Context, m event.Delivery) error {
	if err := d.checkGap(ctx, m.Seq); err != nil {
		return err
	}
	d.highest = max(d.highest, m.Seq)
	if m.Seq <= d.floor || d.settled[m.Seq] {
		delete(d.settled, m.Seq)
		d.source.Ack(m.Seq)
		return nil
	}
	if m.Err != nil {
		if errors.Is(m.Err, event.ErrNewer) {
			return m.Err
		}
		return d.lost(ctx, []uint64{m.Seq})
	}
	e := m.Event
	if e.Settled != "" { // known before any attempt; the record says so
		return d.settleQuietly(ctx, m.Seq)
	}
	d.take(m.Seq, e)
	return nil
}

// take puts an event into the window.
func (d *Deliverer) take(seq uint64, e *event.Event) {
	e.Labels, e.Annotations = nil, nil // of one that was made again
	now := time.Now()
	it := &item{seq: seq, ev: e, size: len(e.Body), backlog: d.circuit.outage() || e.QueuedAt.Before(d.recovered), since: now.Add(-now.Sub(e.QueuedAt))}
	if d.w.bytes+it.size > windowBytes {
		it.size, e.Body = 0, nil
	}
	if l, fresh := d.w.add(it); fresh && d.circuit.hopeful(l.key) {
		d.circuit.probeAt = time.Time{}
	}
}

// settleQuietly settles a message that is no attempt's matter.
func (d *Deliverer) settleQuietly(ctx context.Context, seq uint64) error {
	err := d.ledger.Do(ctx, func(tx event.Tx) error { return tx.Settle(seq) })
	if err == nil {
		d.source.Ack(seq)
	}
	return err
}

// start begins as many attempts as may go out now, oldest first.
func (d *Deliverer) start(attempts context.Context, now time.Time) error {
	collapses, most := 0, 2*d.cfg.Concurrency+claimAhead
	if d.limit.Limit() != rate.Inf {
		most = 2 * d.cfg.Concurrency // a claim that waits long is made twice
	}
	for d.flying < most {
		ok, probe := d.circuit.allow(now)
		if !ok {
			return nil
		}
		if !d.mayGo(probe) {
			if d.flying > 0 {
				return nil // hear first what became of those under way
			}
			d.failing.Store(0) // all were heard, and it is still up
			d.allSet.Store(true)
		}
		l := d.next(probe)
		if l == nil {
			return nil
		}
		it := d.w.take(l)
		if d.cfg.Collapse && (it.backlog || it.ev.Firing != (event.Position{})) { // a recovery goes the way of its alert
			collapsed, err := d.collapse(attempts, l, it)
			if err != nil {
				return err
			}
			if collapsed {
				if collapses++; collapses == atATurn {
					d.hurry = true
					return nil
				}
				continue
			}
		}
		if probe {
			d.circuit.probing = true
			d.probed[l.key] = true
		}
		d.flying++
		before, passed := d.passed, make(chan struct{})
		d.passed = passed
		go func() { d.results <- d.attempt(attempts, l, it, probe, before, passed) }()
	}
	return nil
}

// next is the lane whose head goes out next: the oldest. A probe of Callgoose
// being down prefers, among the oldest, one that was not probed yet: an event
// that is refused for itself must not keep all the others waiting.
func (d *Deliverer) next(probe bool) *lane {
	if d.w.ready.Len() == 0 {
		return nil
	}
	oldest := d.w.ready.lanes[0]
	if !probe || d.circuit.State != event.Down || !d.probed[oldest.key] {
		return oldest
	}
	var best *lane
	for _, l := range d.w.ready.lanes {
		if !d.probed[l.key] && (best == nil || l.head().seq < best.head().seq) {
			best = l
		}
	}
	if best == nil {
		clear(d.probed)
		return oldest
	}
	return best
}

// attempt claims the event, sends it once, and records the answer. It runs in
// a goroutine of its own, one at a time for each lane. Attempts are claimed side by
// side and sent in the order in which they were started, the oldest first: each gets
// its place behind the one before, and closes passed for the one after.
func (d *Deliverer) attempt(ctx context.Context, l *lane, it *item, probe bool, before <-chan struct{}, passed chan<- struct{}) result {
	res := result{lane: l, probe: probe}
	pass := sync.OnceFunc(func() { <-before; close(passed) })
	defer pass()
	if !d.mayGo(probe) {
		res.skipped = true
		return res
	}
	e := it.ev
	tries, frozenNow, delayedBy, err := d.claim(ctx, it, e, false)
	if res.known = errors.Is(err, errSettled); res.known {
		return res
	}
	if err != nil {
		res.err = err
		return res
	}
	claimed := time.Now()
	<-before
	ok, release, leave := d.place(ctx, probe)
	pass()
	keep := false // its place: it was sent, and the disk does not take what came of it
	defer func() {
		if !keep {
			leave()
		}
	}()
	defer release()
	if ok && frozenNow && time.Since(claimed) > time.Second { // requests are slow: it is later by now
		_, _, delayedBy, err = d.claim(ctx, it, e, true)
	}
	if !ok && frozenNow { // the next attempt may have to say how late it is
		err = d.unclaim(ctx, it, e)
	}
	if err != nil || !ok {
		res.skipped, res.err = true, err
		return res
	}

	if e.Body == nil {
		full, err := d.body(ctx, it)
		switch {
		case event.Unreadable(err):
			// Nothing is left to send; said as a dead letter, never in the way.
			res.verdict = verdict{result: "dead", outcome: event.Dead, reason: err.Error()}
			res.attempt = event.Attempt{At: time.Now().UTC(), Result: "dead", Error: err.Error()}
			res.number, res.err = d.record(ctx, it, e, res.attempt, res.verdict, false)
			return res
		case err != nil:
			res.err = fmt.Errorf("event %s: %w", e.ID, err)
			return res
		}
		e = full
	}
	body := e.Body
	if delayedBy != 0 {
		if body, err = callgoose.Late(e.Body, delayedBy); err != nil {
			res.err = fmt.Errorf("event %s: %w", e.ID, err)
			return res
		}
	}
	faultpoint.Here("claimed")
	start := time.Now()
	reply, err := d.sender.Send(ctx, body)
	faultpoint.Here("answered")
	took := time.Since(start)
	var failed *callgoose.Error
	if err != nil && !errors.As(err, &failed) {
		res.err = fmt.Errorf("send event %s: %w", e.ID, err)
		return res
	}
	res.verdict = classify(reply, failed)
	switch res.verdict.class {
	case answered:
		d.failing.Store(0)
	case unreachable, misconfig:
		d.allSet.Store(false) // those that wait for a slot need not find out too
	case trouble:
		d.failing.Add(1)
	}
	release() // the next request need not wait for our disk

	a := event.Attempt{At: start.UTC(), Duration: took, Result: res.verdict.result, Probe: probe, Sent: true}
	if failed != nil {
		a.Status, a.Error, a.Sent = failed.Status, failed.Error(), failed.Sent
	} else {
		a.Status, a.ID, a.Effect = reply.Status, reply.ID, reply.Effect()
	}
	if res.verdict.class == trouble && time.Since(it.since) > d.cfg.RetryFor {
		d.giveUp(&res.verdict, a.Error)
	}
	res.attempt, res.number = a, tries+1
	step := ""
	if failed != nil {
		step = failed.Step
	}
	d.cfg.Observer.Attempt(a, step)
	if res.verdict.class != interrupted {
		_, res.err = d.record(ctx, it, e, a, res.verdict, frozenNow)
		keep = res.err != nil
	}
	faultpoint.Here("recorded")
	return res
}

func (d *Deliverer) giveUp(v *verdict, text string) {
	v.outcome = event.Dead
	v.reason = fmt.Sprintf("not delivered within %s (--retry-for)", d.cfg.RetryFor)
	if text != "" {
		v.reason += ": " + text
	}
}

// place waits until the event may be sent: until it is its turn by --rate, and
// there is a place among the requests, which release gives back, and among what is
// not recorded yet, which leave gives back. Not ok: nothing may be sent any more.
func (d *Deliverer) place(ctx context.Context, probe bool) (ok bool, release, leave func()) {
	enter := func(places chan<- struct{}) bool {
		select {
		case places <- struct{}{}:
			return true
		case <-d.halt:
		case <-ctx.Done():
		}
		return false
	}
	release, leave = func() {}, func() {}
	if !d.inTurn(ctx, probe) || !enter(d.unrecorded) {
		return false, release, leave
	}
	leave = func() { <-d.unrecorded }
	if !enter(d.slots) {
		return false, release, leave
	}
	release = sync.OnceFunc(func() { <-d.slots })
	return d.mayGo(probe), release, leave
}

// inTurn keeps to --rate. When Callgoose goes down, or we stop, nobody waits on;
// a probe does not wait at all.
func (d *Deliverer) inTurn(ctx context.Context, probe bool) bool {
	if probe || d.limit.Limit() == rate.Inf || !d.mayGo(false) {
		return d.mayGo(probe)
	}
	due := time.Now().Add(d.limit.Reserve().Delay())
	const look = 100 * time.Millisecond
	for d.mayGo(false) {
		wait := time.Until(due)
		if wait <= 0 {
			return true
		}
		select {
		case <-time.After(min(wait, look)):
		case <-d.halt:
		case <-ctx.Done():
			return false
		}
	}
	return false
}

// mayGo reports whether, by what is known now, the request is worth making.
func (d *Deliverer) mayGo(probe bool) bool {
	select {
	case <-d.halt: // a place may have come free at the same moment
		return false
	default:
	}
	return probe || d.allSet.Load() && d.failing.Load() < openAfter
}

// claim freezes the body, durably, before Callgoose can receive any of it: if
// we die from here on, the next attempt sends the same bytes. Many are claimed
// at once, and each waits for its turn after it. anew is for a claim of this
// attempt that nothing was sent under. tries counts the attempts before this one.
func (d *Deliverer) claim(ctx context.Context, it *item, e *event.Event, anew bool) (tries int, frozenNow bool, delayedBy time.Duration, err error) {
	now := time.Now()
	settled := false
	err = d.ledger.Do(ctx, func(tx event.Tx) error {
		if settled, err = tx.IsSettled(it.seq); err != nil || settled {
			return err
		}
		r, err := d.open(tx, it, e)
		if err != nil {
			return err
		}
		tries = r.Tries
		if r.Frozen && !anew {
			if r.DelayedBy != "" {
				delayedBy, err = time.ParseDuration(r.DelayedBy)
			}
			return err
		}
		frozenNow, r.Frozen, r.DelayedBy, delayedBy = true, true, "", 0
		if by := now.Sub(e.Since).Round(time.Second); d.cfg.LateAfter > 0 && now.Sub(e.Since) > d.cfg.LateAfter {
			delayedBy, r.DelayedBy = by, by.String()
		}
		return tx.PutRecord(r)
	})
	if err == nil && settled {
		err = errSettled
	}
	return tries, frozenNow, delayedBy, err
}

// errSettled: nothing is to be sent. It is the second line behind a stream that
// hands out nothing twice.
var errSettled = errors.New("the event is settled")

// unclaim takes back a claim that nothing was sent under.
func (d *Deliverer) unclaim(ctx context.Context, it *item, e *event.Event) error {
	return d.ledger.Do(context.WithoutCancel(ctx), func(tx event.Tx) error {
		r, err := d.open(tx, it, e)
		if err != nil {
			return err
		}
		r.Frozen, r.DelayedBy = false, ""
		return tx.PutRecord(r)
	})
}

// open reads the event's record, or makes it when its day is gone.
func (d *Deliverer) open(tx event.Tx, it *item, e *event.Event) (*event.Record, error) {
	r, err := tx.Brief(e.ReceivedAt, e.Pos)
	if err == nil && r == nil {
		r = event.NewRecord(e, it.seq)
		r.Brief = e.Labels == nil
	}
	return r, err
}

// record writes what an attempt came to. When it settled the event, the mark
// in the settled set is in the same commit: if we die after it, the message
// comes again and is known. tries counts the attempts with this one.
func (d *Deliverer) record(ctx context.Context, it *item, e *event.Event, a event.Attempt, v verdict, frozenNow bool) (tries int, err error) {
	err = d.ledger.Do(context.WithoutCancel(ctx), func(tx event.Tx) error {
		r, err := d.open(tx, it, e)
		if err != nil {
			return err
		}
		r.AddAttempt(a)
		tries = r.Tries
		if frozenNow && !a.Sent {
			r.Frozen, r.DelayedBy = false, "" // Callgoose cannot have seen it
		}
		if v.outcome != "" {
			return conclude(tx, it.seq, r, v.outcome, v.reason)
		}
		return tx.PutRecord(r)
	})
	if err == nil && v.outcome != "" {
		d.cfg.Observer.Settled(v.outcome, time.Since(it.ev.QueuedAt))
	}
	return tries, err
}

// conclude settles the message at seq together with its record.
func conclude(tx event.Tx, seq uint64, r *event.Record, outcome event.Outcome, reason string) error {
	r.Outcome, r.Reason, r.SettledAt = outcome, reason, time.Now().UTC()
	if err := tx.Settle(seq); err != nil {
		return err
	}
	return tx.PutRecord(r)
}

// logAttempt is one line with everything about the attempt. next is when the
// event goes out again, zero when it does not or when nobody knows.
func (d *Deliverer) logAttempt(ctx context.Context, it *item, r result, now, next time.Time) {
	a, v := r.attempt, r.verdict
	level := slog.LevelInfo
	switch {
	case v.outcome == event.Dead:
		level = slog.LevelError
	case v.outcome == event.Discarded, v.outcome == "" && v.class != interrupted:
		level = slog.LevelWarn
	}
	attrs := append(make([]slog.Attr, 0, 20),
		slog.String("event_id", it.ev.ID), slog.String("event_key", it.ev.Key), slog.String("alertname", it.ev.Alertname),
		slog.String("status", string(it.ev.Status)), slog.String("source", it.ev.Source),
		slog.String("notification_id", it.ev.Pos.NotificationID()), slog.Int("attempt", r.number), slog.String("outcome", a.Result),
		slog.Duration("duration", a.Duration.Round(time.Microsecond)),
		slog.Duration("waited", now.Sub(it.ev.QueuedAt).Round(time.Millisecond)))
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
	if !next.IsZero() {
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

// finish takes in the end of an attempt.
func (d *Deliverer) finish(ctx context.Context, r result) error {
	d.flying--
	now := time.Now()
	it := r.lane.head()
	if r.err != nil {
		if r.number > 0 {
			d.logAttempt(ctx, it, r, now, time.Time{})
		}
		return r.err
	}
	if r.probe && (r.skipped || r.known) {
		d.circuit.probing = false
	}
	if r.known {
		d.source.Ack(it.seq)
		d.w.done(r.lane)
		return d.advance(ctx)
	}
	if r.skipped {
		d.w.enqueue(r.lane, time.Time{})
		return nil
	}
	changed := d.circuit.observe(now, r.lane.key, r.probe, r.verdict, r.attempt.Error)
	if r.probe && !d.circuit.blamed { // nothing was said of this event: the next probe is the oldest again
		delete(d.probed, r.lane.key)
	}
	retry := r.verdict.outcome == "" && r.verdict.class != interrupted
	own := retry && r.verdict.class == trouble && d.circuit.State == event.Up
	var next time.Time
	switch {
	case own: // this event's own backoff; the others go on
		it.tries++
		next = now.Add(max(r.verdict.wait, backoff(it.tries, d.cfg.RetryMin, d.cfg.RetryMax, roll)))
	case retry: // with the next probe, if it is still the oldest then
		next = d.circuit.probeAt
	}
	d.logAttempt(ctx, it, r, now, next)
	if changed {
		d.announce(ctx)
	}
	switch {
	case r.verdict.outcome != "":
		d.source.Ack(it.seq)
		d.w.done(r.lane)
		return d.advance(ctx)
	case own:
		d.w.enqueue(r.lane, next)
	case r.verdict.class == interrupted, r.verdict.class == trouble && d.circuit.State == event.Unknown:
		d.w.enqueue(r.lane, time.Time{})
	default: // an outage costs the event nothing; the circuit says when to go on
		it.backlog = true
		d.w.enqueue(r.lane, time.Time{})
	}
	return nil
}

// announce tells of a change of the circuit, once.
func (d *Deliverer) announce(ctx context.Context) {
	c := d.circuit.Circuit
	d.cfg.Observer.Circuit(c.State)
	clear(d.probed)
	d.failing.Store(0)
	d.allSet.Store(c.State == event.Up)
	switch c.State {
	case event.Up:
		if d.out {
			d.out, d.recovered = false, time.Now()
		}
		d.log.InfoContext(ctx, "callgoose is up", "waiting", len(d.w.seqs))
	case event.Held:
		d.log.ErrorContext(ctx, "callgoose refuses us: everything is held until token and address are right", "err", c.LastError)
	default:
		d.log.WarnContext(ctx, "callgoose is down: events wait, one probe at a time goes out", "err", c.LastError)
	}
	if c.State != event.Up {
		d.out = true
		for _, it := range d.w.seqs {
			it.backlog = true
		}
	}
	d.save <- c
}

// expire gives up events that waited longer than RetryFor: those at the head of
// their lane that were tried, or that nothing could be tried for.
func (d *Deliverer) expire(ctx context.Context, now time.Time) error {
	for n := 0; ; n++ {
		if n == atATurn {
			d.hurry = true
			return nil
		}
		it := d.w.oldest()
		if it == nil || now.Sub(it.since) <= d.cfg.RetryFor || d.circuit.State == event.Up || d.circuit.State == event.Unknown {
			return nil
		}
		l := d.w.byKey[it.ev.Lane]
		if l.busy || l.head() != it {
			return nil
		}
		d.w.take(l)
		v := verdict{}
		d.giveUp(&v, d.circuit.LastError)
		if err := d.settle(ctx, l, v.outcome, v.reason); err != nil {
			return err
		}
		d.log.ErrorContext(ctx, "event given up", "event_id", it.ev.ID, "event_key", it.ev.Key, "alertname", it.ev.Alertname,
			"status", it.ev.Status, "reason", v.reason)
	}
}

// settle settles the head of a taken lane without an attempt.
func (d *Deliverer) settle(ctx context.Context, l *lane, outcome event.Outcome, reason string) error {
	it := l.head()
	err := d.ledger.Do(context.WithoutCancel(ctx), func(tx event.Tx) error {
		r, err := d.open(tx, it, it.ev)
		if err != nil {
			return err
		}
		return conclude(tx, it.seq, r, outcome, reason)
	})
	if err != nil {
		return err
	}
	d.cfg.Observer.Settled(outcome, time.Since(it.ev.QueuedAt))
	d.source.Ack(it.seq)
	d.w.done(l)
	return d.advance(ctx)
}

// collapse settles the head of a taken lane when its episode fired and resolved
// before anything of it could be sent. Both of its events end so, each in turn.
func (d *Deliverer) collapse(ctx context.Context, l *lane, it *item) (bool, error) {
	var over bool
	if err := d.ledger.View(func(tx event.Tx) error {
		own, err := tx.Brief(it.ev.ReceivedAt, it.ev.Pos)
		if err != nil || own == nil || own.Frozen || it.ev.Again != "" {
			return err
		}
		if over = own.Over; own.Firing == (event.Position{}) {
			return nil
		}
		fired, err := tx.Brief(time.Time{}, own.Firing)
		over = fired != nil && fired.Outcome == event.Collapsed && !own.Pos.Made()
		return err
	}); err != nil || !over {
		return false, err
	}
	return true, d.settle(ctx, l, event.Collapsed, "fired and resolved before anything of it could be sent (--on-backlog collapse)")
}

// atATurn is how many events are settled without an attempt, a commit each, before
// the loop comes round again: it has others to hear.
const atATurn = 32

// saveEvery is how long the floor in the ledger may lag behind.
const saveEvery = time.Second

// advance moves the floor over what is settled without a gap, and saves it now
// and then: it only bounds the settled set and what comes again at a start.
func (d *Deliverer) advance(ctx context.Context) error {
	d.moveFloor()
	if d.floor-d.saved < 1000 && time.Since(d.savedAt) < saveEvery {
		return nil
	}
	return d.saveFloor(ctx)
}

// moveFloor is for events, too, that were settled before we started, or quietly:
// without them a store that is full of settled events could not be emptied.
func (d *Deliverer) moveFloor() {
	if it := d.w.oldest(); it != nil {
		d.floor = max(d.floor, it.seq-1)
	} else {
		d.floor = max(d.floor, d.highest)
	}
}

func (d *Deliverer) saveFloor(ctx context.Context) error {
	if d.floor <= d.saved {
		return nil
	}
	d.saved, d.savedAt = d.floor, time.Now()
	faultpoint.Here("floor")
	floor := d.floor
	return d.ledger.Do(context.WithoutCancel(ctx), func(tx event.Tx) error { return tx.SetFloor(floor) })
}

func (d *Deliverer) publishView() {
	v := &View{Window: len(d.w.seqs), Circuit: d.circuit.Circuit}
	if it := d.w.oldest(); it != nil {
		v.Oldest = it.ev.QueuedAt
	}
	if d.circuit.State != event.Up {
		v.NextProbe = d.circuit.probeAt
	} else {
		for _, l := range d.w.waiting.lanes[:min(nextTries, len(d.w.waiting.lanes))] {
			v.Next = append(v.Next, NextTry{l.head().seq, l.notBefore})
		}
	}
	d.view.Store(v)
}
