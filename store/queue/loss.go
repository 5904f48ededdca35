package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
)

// A stream that holds less than is known to have been there is lost, or its servers do not
// know better for a while. Whoever led on account of it would deliver again, or never look
// at what comes in. So nobody leads then, until a person accepts the loss.

// lost is an ErrShort with the name of the stream.
type lost struct{ stream, what string }

func short(stream, format string, args ...any) error {
	return &lost{stream, fmt.Sprintf(format, args...)}
}

// Error implements error.
func (l *lost) Error() string {
	return fmt.Sprintf("%v: %s: %s; where an adoption was interrupted run cluster adopt again, and where the stream is lost for good start one instance once with --accept-loss %[2]s",
		ErrShort, l.stream, l.what)
}

// Is makes it an ErrShort.
func (l *lost) Is(target error) bool { return target == ErrShort }

// accept notes that this instance goes on without what a stream lost, as a person said.
func (q *Queue) accept(stream string) {
	q.lost = stream
	q.cfg.Logger.Error("the loss of a stream is accepted: what it held beyond what is still there is gone", "component", "cluster", "stream", stream)
}

// Lost is the stream whose loss was accepted since the queue was opened, "" = none. For
// the goroutine that opened it, and Run of its Log.
func (q *Queue) Lost() string { return q.lost }

// Join makes a ledger, which was opened with cfg, a copy of the log, before anything is
// taken in: it goes on where it is, or, too far behind, is made anew from the newest
// snapshot. It returns the ledger to go on with, also with an error. ErrShort when less is
// stored than is known to have been there, ErrLeft.
func (l *Log) Join(ctx context.Context, ledger *store.Store, cfg store.Config) (*store.Store, error) {
	at, err := ledger.LogSeq()
	if err != nil {
		return ledger, err
	}
	restore, err := l.begin(ctx, at)
	if err == nil && restore {
		ledger, err = l.renew(ctx, ledger, cfg)
	}
	if gone, ok := errors.AsType[*lost](err); ok && gone.stream == l.q.cfg.AcceptLoss {
		ledger, err = l.goOnWithout(ctx, gone.stream, at, ledger, cfg)
	}
	if accept := l.q.cfg.AcceptLoss; err == nil && accept != "" && l.q.lost == "" {
		l.log.Warn("--accept-loss is not needed: nothing is missing in the streams; take it out, or the next loss is accepted unseen", "stream", accept)
	}
	return ledger, err
}

// renew makes the ledger anew from the newest snapshot. One that only a newer version can
// read leaves it as it is: this instance then takes webhooks and does nothing else.
func (l *Log) renew(ctx context.Context, ledger *store.Store, cfg store.Config) (*store.Store, error) {
	if err := ledger.Close(); err != nil {
		return ledger, err
	}
	err := l.restore(ctx, cfg.Dir)
	if errors.Is(err, event.ErrNewer) && !l.leaving {
		l.newer, err = err, nil
	}
	opened, _, oerr := store.Open(cfg)
	if oerr == nil {
		ledger = opened
	}
	return ledger, cmp.Or(err, oerr)
}

// goOnWithout goes on without what a stream lost, as a person accepted: with the newer one
// of the ledger here, which has the log up to at, and the snapshot. Where there is
// neither, the ledger is empty, and rebuilt from the notifications like one that was lost.
func (l *Log) goOnWithout(ctx context.Context, stream string, at uint64, ledger *store.Store, cfg store.Config) (*store.Store, error) {
	if stream == logName {
		newest, _, err := l.newest(ctx)
		if err == nil && newest.Log > at {
			ledger, err = l.renew(ctx, ledger, cfg)
		}
		if err != nil {
			return ledger, err
		}
	}
	if err := l.goOnWith(ctx, ledger); err != nil {
		return ledger, err
	}
	l.q.accept(stream)
	return l.renew(ctx, ledger, cfg)
}

// begin says how a copy that has the log up to at goes on: where it is, or, with restore,
// from the newest snapshot. The first instance of all begins the log, before anything is
// taken in: where NOTIFICATIONS holds something, LEDGER did so too. ErrShort when that is
// not so for a minute, ErrLeft.
func (l *Log) begin(ctx context.Context, at uint64) (restore bool, err error) {
	patient, cancel := context.WithTimeout(ctx, l.q.cfg.ShortFor)
	defer cancel()
	var ends [2]uint64 // of LEDGER, in the first pass and now
	for n := 0; ; n++ {
		restore, ends[1], err = l.pass(ctx, at)
		if n == 0 {
			ends[0] = ends[1]
		}
		if !errors.Is(err, ErrShort) {
			return restore, err
		}
		if sleep(patient, l.q.stop, 5*tryAfter) {
			continue
		}
		if ends[1] > ends[0] { // who leads will store a snapshot
			err = fmt.Errorf("%w: another instance leads meanwhile: %s", ErrUnavailable, err) //nolint:errorlint // nothing is lost
		}
		return false, err
	}
}

// pass is one pass of begin, and where LEDGER ends.
func (l *Log) pass(ctx context.Context, at uint64) (restore bool, last uint64, err error) {
	info, err := l.stream.Info(ctx)
	if err != nil {
		return false, 0, fmt.Errorf("%w: read stream %s: %w", ErrUnavailable, logName, err)
	}
	newest, _, err := l.newest(ctx)
	if err != nil {
		return false, 0, err
	}
	notes, err := l.q.state(ctx)
	if err != nil {
		return false, 0, err
	}
	snapshot, first, last := newest.Log, info.State.FirstSeq, info.State.LastSeq
	restore = at+1 < first || at == 0 && snapshot > 0
	switch {
	case last == 0 && max(at, snapshot, notes.LastSeq) == 0 && !l.leaving:
		switch err := l.release(ctx, 0); {
		case errors.Is(err, errOutOfTurn): // another instance did, or that server did not know better
			return false, 0, short(logName, "it was begun meanwhile")
		case err != nil:
			return false, 0, fmt.Errorf("%w: begin %s: %w", ErrUnavailable, logName, err)
		}
		return false, 1, nil
	case last == 0, last < max(at, snapshot):
		return false, last, short(logName, "it ends at %d; %s ends at %d, the newest snapshot at %d, the ledger here at %d", last, streamName, notes.LastSeq, snapshot, at)
	case restore && snapshot+1 < first:
		return false, last, short(snapshotName, "the newest snapshot ends at %d, %s begins at %d", snapshot, logName, first)
	}
	return restore, last, l.left(ctx, last)
}

// left is ErrLeft when the entry at the end of LEDGER says so.
func (l *Log) left(ctx context.Context, last uint64) error {
	m, err := l.stream.GetMsg(ctx, last)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound): // LEDGER was cut below it
		return nil
	case err != nil:
		return fmt.Errorf("%w: read stream %s: %w", ErrUnavailable, logName, err)
	}
	if kind, _, err := store.DecodeEntry(m.Data); err == nil && kind == store.EntryLeft && !l.leaving {
		return ErrLeft
	}
	return nil
}

// release appends behind an entry that nobody leads; errOutOfTurn when something else is
// there.
func (l *Log) release(ctx context.Context, behind uint64) error {
	ctx, cancel := context.WithTimeout(ctx, storeWithin)
	defer cancel()
	l.appending.Lock()
	defer l.appending.Unlock()
	l.last = behind
	return l.put(ctx, store.EncodeEntry(store.EntryRelease, nil))
}

// farAhead is how much further a log that was lost goes on, behind all that is known of
// it: any other copy then sees that it lacks something, and takes the snapshot.
const farAhead = 1 << 32

// goOnWith makes the log, which lost something, go on with a snapshot of this ledger. If
// we die
//
//	before its last entry   the log ends before the snapshot, which is ErrShort again
//	after it                every instance begins with that snapshot
func (l *Log) goOnWith(ctx context.Context, ledger *store.Store) error {
	info, err := l.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("%w: read stream %s: %w", ErrUnavailable, logName, err)
	}
	at, err := ledger.LogSeq()
	if err != nil {
		return err
	}
	newest, _, err := l.newest(ctx)
	if err != nil {
		return err
	}
	as := max(info.State.LastSeq, at, newest.Log) + farAhead
	if _, err := l.snapshot(ctx, ledger, as, ""); err != nil {
		return fmt.Errorf("store the ledger: %w", err)
	}
	if err := l.stream.Purge(ctx, jetstream.WithPurgeSequence(as)); err != nil {
		return fmt.Errorf("%w: move %s to %d: %w", ErrUnavailable, logName, as, err)
	}
	return l.release(ctx, as-1)
}

// goOnBehind makes a stream that lost its end go on behind after, because a sequence must
// never be used twice. What is left of it stays, so what is lost are messages that hold
// filler from now on; an empty stream is moved.
func (q *Queue) goOnBehind(ctx context.Context, after uint64, filler []byte) error {
	state, err := q.state(ctx)
	if err != nil {
		return err
	}
	w := &writer{q: q, last: state.LastSeq}
	fill := func(upTo uint64) error {
		for w.last < upTo {
			if err := w.put(ctx, filler, ""); err != nil {
				return err
			}
		}
		return w.settle(ctx)
	}
	if q.srv == nil {
		err = fill(state.LastSeq + 1) // refused where the stream only looks short
	}
	switch {
	case err != nil:
	case state.Msgs == 0:
		err = q.stream.Purge(ctx, jetstream.WithPurgeSequence(after+1))
	default:
		err = fill(after)
	}
	if err == nil {
		raise(&q.last, after)
		state, err = q.state(ctx)
	}
	if err == nil && state.LastSeq < after {
		err = fmt.Errorf("it ends at %d", state.LastSeq)
	}
	if err != nil {
		return fmt.Errorf("%w: make %s go on behind %d: %w", ErrUnavailable, streamName, after, err)
	}
	return q.dirs.sync()
}
