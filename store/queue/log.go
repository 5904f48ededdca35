package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/faultpoint"
)

// ErrDeposed says that another instance leads, or that nothing could be appended as long as the hold lasted.
var ErrDeposed = errors.New("this instance does not lead any more")

// The streams of several instances, and their subjects.
const (
	logName         = "LEDGER"
	logSubject      = "ledger.log"
	snapshotName    = "SNAPSHOTS"
	snapshotSubject = "ledger.snapshot"
)

// gatherEntries is how many entries a follower applies in one transaction at most.
const gatherEntries = 256

// Log is the stream LEDGER: one message for each transaction of the ledger. It is the
// lock, the fence and the replica at once. Safe concurrently.
type Log struct {
	q         *Queue
	log       *slog.Logger
	stream    jetstream.Stream
	snapshots jetstream.Stream
	subject   string
	rules     rules

	appending sync.Mutex // held while something is appended; guards last and count
	last      uint64     // newest entry
	count     uint64

	mu       sync.Mutex // guards the next ones
	standing standing
	members  map[string]Member // by run
	me       Member            // as it is announced, without its term
	ledBy    uint64            // newest term that was heard of
	differs  []string          // settings that the instance of that term has otherwise
	skew     time.Duration     // of the servers' clock

	term     atomic.Pointer[term]
	seen     atomic.Uint64 // newest entry that was read or appended
	behind   atomic.Pointer[uint64]
	down     chan struct{} // has an element when this instance is to stop leading
	changed  chan struct{} // has an element when others are to hear of this instance at once
	released uint64        // the last entry by which this instance stopped leading; owned by Run
	leaving  bool          // see Leave; set before Run
	newer    error         // why this instance cannot read the newest snapshot, nil = it can; set before Run
	outdated atomic.Bool

	snapping sync.Mutex   // held while a snapshot is made
	kept     atomic.Int64 // bytes of LEDGER after it was cut last
}

// term is the time in which this instance leads.
type term struct {
	Number uint64 // sequence of its take-over
	Since  time.Time
	ctx    context.Context // ended when the hold is over //nolint:containedctx // it is that lifetime
	end    context.CancelCauseFunc
}

// OpenLog opens LEDGER and SNAPSHOTS, and makes them where they are not.
func (q *Queue) OpenLog(ctx context.Context) (l *Log, err error) {
	l = &Log{
		q: q, log: q.cfg.Logger.With("component", "cluster"), subject: q.cfg.subject(logSubject), rules: rulesOf(q.cfg.TakeOverAfter),
		me:   Member{Name: q.cfg.Instance, Run: q.own.run, Version: q.cfg.Version, Began: time.Now().UTC(), Settings: q.cfg.Settings},
		down: make(chan struct{}, 1), changed: make(chan struct{}, 1),
	}
	l.standing.rules = l.rules
	streams := q.cfg.streams()
	if l.stream, err = q.declare(ctx, streams[1]); err != nil {
		return nil, err
	}
	if l.snapshots, err = q.declare(ctx, streams[2]); err != nil {
		return nil, err
	}
	return l, nil
}

// happens takes in an occurrence and returns what to do.
func (l *Log) happens(o occurrence) action {
	l.mu.Lock()
	defer l.mu.Unlock()
	o.jitter = rand.N(l.rules.take / 13) //nolint:gosec // it spreads candidates
	var do action
	l.standing, do = l.standing.next(o, time.Now())
	return do
}

// Holds reports whether this instance leads and may act now.
func (l *Log) Holds() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.standing.holds(time.Now())
}

// Term is the number of the term in which this instance leads, and since when; 0 when
// it does not.
func (l *Log) Term() (number uint64, since time.Time) {
	if t := l.term.Load(); t != nil && t.ctx.Err() == nil {
		return t.Number, t.Since
	}
	return 0, time.Time{}
}

// Behind is how many entries were stored that this instance had not read, as the servers
// said some seconds ago; not known when they did not answer.
func (l *Log) Behind() (entries uint64, known bool) {
	if b := l.behind.Load(); b != nil {
		return *b, true
	}
	return 0, false
}

// Skew is how far the clock of the servers is ahead of the one here, when they answered last.
func (l *Log) Skew() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.skew
}

func (l *Log) measure(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, announceEvery)
	defer cancel()
	began := time.Now()
	info, err := l.stream.Info(ctx)
	if err != nil {
		l.behind.Store(nil)
		return
	}
	l.behind.Store(new(info.State.LastSeq - min(info.State.LastSeq, l.seen.Load())))
	l.compareClocks(skewOf(info.TimeStamp, began, time.Now()))
	_, _ = l.snapshots.Info(ctx) // for Servers
}

// skewOf is how far a clock is ahead of the one here that showed at between two readings
// of this one.
func skewOf(at, began, ended time.Time) time.Duration {
	switch {
	case at.Before(began):
		return at.Sub(began)
	case at.After(ended):
		return at.Sub(ended)
	}
	return 0
}

// mostSkew is by how much two clocks may differ: what PMM says of time is compared with
// the clock of the instance that leads.
const mostSkew = 2 * time.Minute

func (l *Log) compareClocks(skew time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if skew.Abs() > mostSkew && l.skew.Abs() <= mostSkew {
		l.log.Warn("the clock of NATS and the clock of this machine differ", "nats_ahead_by", skew.Round(time.Second))
	}
	l.skew = skew
}

// Hold is ctx as long as this instance leads; then it ends with the cause.
func (l *Log) Hold(ctx context.Context, cause error) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	t := l.term.Load()
	if t == nil || !l.Holds() {
		cancel(cause)
		return ctx, func() {}
	}
	stop := context.AfterFunc(t.ctx, func() { cancel(cause) })
	return ctx, func() { stop(); cancel(nil) }
}

// Run follows the log into the ledger, and calls lead for each term in which this
// instance leads: until its context ends, or it fails. unsure is until when what the
// leader before began to send may still be on its way. Run returns nil when ctx ends.
func (l *Log) Run(ctx context.Context, ledger *store.Store, lead func(ctx context.Context, unsure time.Time) error) error {
	if l.newer != nil {
		return l.standStill(ctx, l.newer)
	}
	for {
		heard, err := l.follow(ctx, ledger)
		if err == nil {
			err = l.lead(ctx, ledger, func(ctx context.Context) error { return lead(ctx, heard) })
		}
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it ends because it was told to
		case err == nil: // it stepped down
		case errors.Is(err, event.ErrNewer):
			return l.standStill(ctx, err)
		case errors.Is(err, ErrDeposed), errors.Is(err, store.ErrFollowing):
			l.log.Warn("this instance does not lead any more", "err", err)
		case errors.Is(err, ErrUnavailable): // webhooks go on meanwhile, as far as they can
			l.log.Warn("the log of the ledger cannot be read; again in a moment", "err", err)
			l.happens(occurrence{kind: occurUnreadable})
			sleep(ctx, l.q.stop, 5*tryAfter)
		default:
			return err
		}
	}
}

// standStill is Run where a newer version writes the log, as err says: nil when ctx ends.
func (l *Log) standStill(ctx context.Context, err error) error {
	l.outdated.Store(true)
	l.log.Error("the log of the ledger is of a newer version: this instance takes webhooks, follows no more and never leads; install that version here", "err", err)
	<-ctx.Done()
	return nil
}

// Outdated reports whether a newer version writes the log: this instance stands still.
func (l *Log) Outdated() bool { return l.outdated.Load() }

// follow applies what others append, until this instance has taken over. It returns when
// it received the last entry of the leader before, zero when that one released.
func (l *Log) follow(ctx context.Context, ledger *store.Store) (heard time.Time, err error) {
	seen, err := ledger.LogSeq()
	if err != nil {
		return heard, err
	}
	l.seen.Store(seen)
	l.happens(occurrence{kind: occurRead})
	entries := make(chan store.LogEntry, gatherEntries)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	reading, err := l.q.consume(ctx, l.q.cfg.stream(logName), max(seen, 1), func(seq uint64, data []byte) {
		select {
		case entries <- store.LogEntry{Seq: seq, Data: data}:
		case <-ctx.Done():
		}
	})
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return heard, short(logName, "it is gone")
	}
	if err != nil {
		return heard, fmt.Errorf("%w: read stream %s: %w", ErrUnavailable, logName, err)
	}
	defer reading.Stop()
	tick := time.NewTicker(l.rules.take / 65)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return heard, context.Cause(ctx)
		case e := <-entries:
			if heard, err = l.apply(ctx, ledger, e, entries); err != nil {
				return heard, err
			}
		case <-tick.C:
			if l.happens(occurrence{}) == doTakeOver && len(entries) == 0 && l.takeOver(ctx) {
				return heard, nil
			}
		}
	}
}

// apply applies an entry and those that are there behind it. It returns when they came,
// zero when the last one is a release.
func (l *Log) apply(ctx context.Context, ledger *store.Store, first store.LogEntry, more <-chan store.LogEntry) (time.Time, error) {
	list := []store.LogEntry{first}
	for len(list) < gatherEntries && len(more) > 0 {
		list = append(list, <-more)
	}
	last := list[len(list)-1]
	if list[0].Seq == l.seen.Load() { // read again for what it says of its leader
		list = list[1:]
	}
	if len(list) > 0 {
		if err := ledger.Apply(ctx, list); err != nil {
			return time.Time{}, err
		}
	}
	l.seen.Store(last.Seq)
	for _, e := range list {
		if store.EntryKind(e.Data) == store.EntryTakeOver {
			l.tookOver(e)
		}
	}
	switch kind := store.EntryKind(last.Data); {
	case kind == store.EntryLeft && !l.leaving:
		return time.Time{}, ErrLeft
	case kind == store.EntryRelease && last.Seq != l.released, kind == store.EntryLeft: // after its own the others go first
		l.happens(occurrence{kind: occurReleased})
		return time.Time{}, nil
	}
	l.happens(occurrence{kind: occurRead})
	return time.Now(), nil
}

// takeOver reports whether this instance leads now. The servers let one through.
func (l *Log) takeOver(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, l.rules.hold)
	defer cancel()
	info, err := l.stream.Info(ctx)
	seen := l.seen.Load()
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		l.log.Error("nobody can lead", "err", short(logName, "it is gone"))
		l.happens(occurrence{kind: occurUnreadable})
		return false
	case err != nil:
		l.happens(occurrence{kind: occurUnreadable})
		return false
	case info.State.LastSeq < seen: // one that came back without its disk may say so for a while
		l.log.Error("the log of the ledger ends before what this instance knows: it does not lead", "stream", logName, "seq", info.State.LastSeq, "expected", seen)
		l.happens(occurrence{kind: occurUnreadable})
		return false
	case info.State.LastSeq > seen:
		return false
	}
	l.appending.Lock()
	defer l.appending.Unlock()
	l.last = seen
	began := time.Now()
	me, err := json.Marshal(l.myself())
	if err != nil || l.put(ctx, store.EncodeEntry(store.EntryTakeOver, me)) != nil {
		return false
	}
	faultpoint.Here("took-over")
	l.happens(occurrence{kind: occurTookOver, began: began})
	t := &term{Number: l.last, Since: time.Now()}
	t.ctx, t.end = context.WithCancelCause(context.WithoutCancel(ctx))
	l.term.Store(t)
	l.q.cfg.Observer.TookOver()
	return true
}

// put stores an entry behind the last one.
func (l *Log) put(ctx context.Context, entry []byte) error {
	l.count++
	id, began := fmt.Sprintf("%s-l%d", l.q.own.run, l.count), time.Now()
	behind := jetstream.WithExpectLastSequence(l.last)
	if faultpoint.Without("log fence") {
		behind = jetstream.WithExpectStream(l.q.cfg.stream(logName))
	}
	seq, err := l.q.put(ctx, l.subject, entry, id, behind)
	if errors.Is(err, errOutOfTurn) {
		seq, err = l.landed(ctx, l.last+1, id)
	}
	if err != nil {
		return err
	}
	if seq != l.last+1 {
		return fmt.Errorf("stored as %d, behind %d", seq, l.last)
	}
	l.last = seq
	l.seen.Store(seq)
	l.q.cfg.Observer.Appended(time.Since(began))
	return nil
}

// landed returns seq if the entry there is the one published with id: its
// acknowledgement was lost.
func (l *Log) landed(ctx context.Context, seq uint64, id string) (uint64, error) {
	for {
		m, err := l.stream.GetMsg(ctx, seq)
		switch {
		case err == nil && m.Header.Get(jetstream.MsgIDHeader) == id:
			return seq, nil
		case err == nil:
			return 0, errOutOfTurn
		case !sleep(ctx, l.q.stop, tryAfter):
			return 0, fmt.Errorf("what was stored at %d cannot be read: %w", seq, err)
		}
	}
}

// Append implements store.Log. It tries as long as the hold lasts; an error ends the term.
func (l *Log) Append(entries ...[]byte) (uint64, error) {
	l.appending.Lock()
	defer l.appending.Unlock()
	for _, e := range entries {
		if err := l.append(e); err != nil {
			return 0, err
		}
	}
	return l.last, nil
}

func (l *Log) append(entry []byte) error {
	l.mu.Lock()
	began, until := time.Now(), l.standing.acked.Add(l.standing.hold)
	holds := l.standing.holds(began)
	l.mu.Unlock()
	if !holds {
		return ErrDeposed
	}
	ctx, cancel := context.WithDeadline(l.term.Load().ctx, until)
	defer cancel()
	if err := l.put(ctx, entry); err != nil {
		err = fmt.Errorf("%w: append to %s: %w", ErrDeposed, logName, err)
		l.lose(err)
		return err
	}
	faultpoint.Here("log-appended")
	l.happens(occurrence{kind: occurAppended, began: began})
	return nil
}

// lose ends the term.
func (l *Log) lose(err error) {
	l.happens(occurrence{kind: occurLost})
	l.term.Load().end(err)
}

// lead runs a term until it ends.
func (l *Log) lead(ctx context.Context, ledger *store.Store, run func(context.Context) error) error {
	t := l.term.Load()
	if err := ledger.Lead(ctx, l); err != nil {
		return err
	}
	l.log.Info("this instance leads", "term", t.Number)
	wake(l.changed)
	defer wake(l.changed)
	select { // of a term before
	case <-l.down:
	default:
	}
	work, stop := context.WithCancelCause(ctx)
	defer context.AfterFunc(t.ctx, func() { stop(context.Cause(t.ctx)) })() //nolint:contextcheck // a term outlives ctx by its last entry
	done, stepsDown := make(chan error, 1), false
	go func() { done <- run(work) }()
	tick := time.NewTicker(l.rules.beat / 20)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if stop(nil); stepsDown && errors.Is(err, context.Canceled) {
				err = nil
			}
			if lost := context.Cause(t.ctx); lost != nil { //nolint:contextcheck // the same
				err = lost
			} else {
				end := store.EntryRelease
				if errors.Is(err, ErrLeft) {
					end = store.EntryLeft
				}
				var rerr error
				l.released, rerr = l.Append(store.EncodeEntry(end, nil)) //nolint:contextcheck // the same
				l.lose(ErrDeposed)
				err = errors.Join(err, rerr)
			}
			return errors.Join(err, ledger.Lead(context.WithoutCancel(ctx), nil))
		case <-l.down:
			stepsDown = true
			stop(nil)
		case <-tick.C:
			switch l.happens(occurrence{}) {
			case doBeat:
				if l.appending.TryLock() { // else something is being appended
					err := l.append(store.EncodeEntry(store.EntryBeat, nil)) //nolint:contextcheck // the same
					l.appending.Unlock()
					if err != nil {
						l.lose(err)
					}
				}
			case doStop:
				l.lose(fmt.Errorf("%w: the hold is over", ErrDeposed))
			}
		}
	}
}

// StepDown ends the term in which this instance leads, once what is being sent is done:
// then another one leads in about a second. It returns the term's number and does not
// wait. ErrDeposed when this instance does not lead, an error when no other one is there.
func (l *Log) StepDown() (term uint64, err error) {
	term, _ = l.Term()
	switch {
	case !l.Holds():
		return 0, ErrDeposed
	case len(l.others()) == 0:
		return 0, errors.New("no other instance is there to lead")
	}
	l.log.Info("this instance was asked to step down", "term", term)
	wake(l.down)
	return term, nil
}

// wake puts an element into a channel that has room for one.
func wake(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
