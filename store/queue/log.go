package queue

import (
	"context"
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

// Copy is the ledger that follows the log: *store.Store.
type Copy interface {
	LogSeq() (uint64, error)
	Apply(ctx context.Context, entries []store.LogEntry) error
	Lead(ctx context.Context, log store.Log) error
}

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

	mu       sync.Mutex // guards the next two
	standing standing
	members  map[string]Member // by run
	term     atomic.Pointer[term]
	seen     atomic.Uint64 // newest entry that was read or appended
	behind   atomic.Pointer[uint64]
	kept     int64 // bytes of LEDGER after it was cut last; owned by KeepSnapshots
}

// term is the time in which this instance leads.
type term struct {
	Number uint64 // sequence of its take-over
	Since  time.Time
	ctx    context.Context // ended when the hold is over //nolint:containedctx // it is that lifetime
	end    context.CancelCauseFunc
}

// OpenLog opens LEDGER and SNAPSHOTS, and makes them where they are not.
func (q *Queue) OpenLog(ctx context.Context) (*Log, error) {
	l := &Log{
		q: q, log: q.cfg.Logger.With("component", "cluster"), subject: q.cfg.subject(logSubject), rules: rulesOf(q.cfg.TakeOverAfter),
	}
	l.standing.rules = l.rules
	for _, s := range []struct {
		into          *jetstream.Stream
		name, subject string
		about         string
	}{
		{&l.stream, logName, logSubject, "pmm-callgoose: transactions of the ledger"},
		{&l.snapshots, snapshotName, snapshotSubject + ".*", "pmm-callgoose: the ledger, whole"},
	} {
		cfg := streamConfig()
		cfg.Name, cfg.Subjects, cfg.Description = q.cfg.stream(s.name), []string{q.cfg.subject(s.subject)}, s.about
		var err error
		if *s.into, err = q.declare(ctx, cfg); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// happens takes in an occurrence and returns what to do.
func (l *Log) happens(o occurrence) action {
	l.mu.Lock()
	defer l.mu.Unlock()
	if o.jitter = 0; o.kind == occurRead || o.kind == occurLost {
		o.jitter = rand.N(l.rules.take / 13) //nolint:gosec // it spreads candidates
	}
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

func (l *Log) measure(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, announceEvery)
	defer cancel()
	info, err := l.stream.Info(ctx)
	if err != nil {
		l.behind.Store(nil)
		return
	}
	l.behind.Store(new(info.State.LastSeq - min(info.State.LastSeq, l.seen.Load())))
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
func (l *Log) Run(ctx context.Context, ledger Copy, lead func(ctx context.Context, unsure time.Time) error) error {
	for {
		heard, err := l.follow(ctx, ledger)
		if err == nil {
			err = l.lead(ctx, ledger, func(ctx context.Context) error { return lead(ctx, heard) })
		}
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it ends because it was told to
		case errors.Is(err, event.ErrNewer):
			l.log.Error("the log of the ledger is of a newer version: this instance takes webhooks, follows no more and never leads", "err", err)
			<-ctx.Done()
			return nil
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

// follow applies what others append, until this instance has taken over. It returns when
// it received the last entry of the leader before, zero when that one released.
func (l *Log) follow(ctx context.Context, ledger Copy) (heard time.Time, err error) {
	seen, err := ledger.LogSeq()
	if err != nil {
		return heard, err
	}
	l.seen.Store(seen)
	info, err := l.stream.Info(ctx)
	switch {
	case err != nil:
		return heard, fmt.Errorf("%w: read stream %s: %w", ErrUnavailable, logName, err)
	case info.State.LastSeq == 0: // nobody ever led
		l.happens(occurrence{kind: occurReleased})
	default:
		l.happens(occurrence{kind: occurRead})
	}
	entries := make(chan store.LogEntry, gatherEntries)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	reading, err := l.q.consume(ctx, l.q.cfg.stream(logName), max(seen, 1), func(seq uint64, data []byte) {
		select {
		case entries <- store.LogEntry{Seq: seq, Data: data}:
		case <-ctx.Done():
		}
	})
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
func (l *Log) apply(ctx context.Context, ledger Copy, first store.LogEntry, more <-chan store.LogEntry) (time.Time, error) {
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
	if kind, _, err := store.DecodeEntry(last.Data); err == nil && kind == store.EntryRelease {
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
	if err := l.put(ctx, store.EncodeEntry(store.EntryTakeOver, nil)); err != nil {
		return false
	}
	faultpoint.Here("took-over")
	l.happens(occurrence{kind: occurTookOver, began: began})
	t := &term{Number: l.last, Since: time.Now()}
	t.ctx, t.end = context.WithCancelCause(context.WithoutCancel(ctx))
	l.term.Store(t)
	return true
}

// put stores an entry behind the last one.
func (l *Log) put(ctx context.Context, entry []byte) error {
	l.count++
	id := fmt.Sprintf("%s-l%d", l.q.own.run, l.count)
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
func (l *Log) lead(ctx context.Context, ledger Copy, run func(context.Context) error) error {
	t := l.term.Load()
	if err := ledger.Lead(ctx, l); err != nil {
		return err
	}
	l.log.Info("this instance leads", "term", t.Number)
	work, stop := context.WithCancelCause(ctx)
	defer context.AfterFunc(t.ctx, func() { stop(context.Cause(t.ctx)) })() //nolint:contextcheck // a term outlives ctx by its last entry
	done := make(chan error, 1)
	go func() { done <- run(work) }()
	tick := time.NewTicker(l.rules.beat / 20)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			stop(nil)
			if lost := context.Cause(t.ctx); lost != nil { //nolint:contextcheck // the same
				err = lost
			} else {
				_, rerr := l.Append(store.EncodeEntry(store.EntryRelease, nil)) //nolint:contextcheck // the same
				l.lose(ErrDeposed)
				err = errors.Join(err, rerr)
			}
			return errors.Join(err, ledger.Lead(context.WithoutCancel(ctx), nil))
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

// Short reports whether the log does not hold what comes behind seq any more: then a
// snapshot is needed.
func (l *Log) Short(ctx context.Context, seq uint64) (bool, error) {
	info, err := l.stream.Info(ctx)
	if err != nil {
		return false, fmt.Errorf("%w: read stream %s: %w", ErrUnavailable, logName, err)
	}
	return info.State.FirstSeq > seq+1, nil
}
