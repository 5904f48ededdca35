package queue

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"pmm-callgoose/store"
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

// LostStream is the stream that an ErrShort is about, "" for another error.
func LostStream(err error) string {
	if l, ok := errors.AsType[*lost](err); ok {
		return l.stream
	}
	return ""
}

// Begin says how a copy that has the log up to at goes on: where it is, or, with restore,
// from the newest snapshot. The first instance of all begins the log, before anything is
// taken in: where NOTIFICATIONS holds something, LEDGER did so too. ErrShort when that is
// not so for a minute, ErrLeft.
func (l *Log) Begin(ctx context.Context, at uint64) (restore bool, err error) {
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

// pass is one pass of Begin, and where LEDGER ends.
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
	snapshot, first, last := uint64(0), info.State.FirstSeq, info.State.LastSeq
	if newest != nil {
		snapshot = newest.Log
	}
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

// Snapshotted is the entry up to which the newest snapshot goes, 0 when there is none.
func (l *Log) Snapshotted(ctx context.Context) (uint64, error) {
	newest, _, err := l.newest(ctx)
	if newest == nil {
		return 0, err
	}
	return newest.Log, nil
}

// GoOnWith makes the log, which lost something, go on with a snapshot of this ledger. If
// we die
//
//	before its last entry   the log ends before the snapshot, which is ErrShort again
//	after it                every instance begins with that snapshot
func (l *Log) GoOnWith(ctx context.Context, ledger *store.Store) error {
	info, err := l.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("%w: read stream %s: %w", ErrUnavailable, logName, err)
	}
	at, err := ledger.LogSeq()
	if err != nil {
		return err
	}
	snapshot, err := l.Snapshotted(ctx)
	if err != nil {
		return err
	}
	as := max(info.State.LastSeq, at, snapshot) + farAhead
	if _, err := l.snapshot(ctx, ledger, as, ""); err != nil {
		return fmt.Errorf("store the ledger: %w", err)
	}
	if err := l.stream.Purge(ctx, jetstream.WithPurgeSequence(as)); err != nil {
		return fmt.Errorf("%w: move %s to %d: %w", ErrUnavailable, logName, as, err)
	}
	return l.release(ctx, as-1)
}

// goOnWithout makes a stream that lost its end go on behind after. What is left of it
// stays, so what is lost are messages without content from now on; an empty stream is
// moved. The first message is refused where the stream only looks short.
func (q *Queue) goOnWithout(ctx context.Context, after uint64) error {
	state, err := q.state(ctx)
	if err != nil {
		return err
	}
	w := &writer{q: q, last: state.LastSeq}
	err = w.put(ctx, nil, "")
	if err == nil {
		err = w.settle(ctx)
	}
	if err == nil && state.Msgs == 0 {
		err = q.stream.Purge(ctx, jetstream.WithPurgeSequence(after+1))
	}
	for state.Msgs > 0 && err == nil && w.last < after {
		err = w.put(ctx, nil, "")
	}
	if err == nil {
		err = w.settle(ctx)
	}
	if err != nil {
		return fmt.Errorf("%w: make %s go on behind %d: %w", ErrUnavailable, streamName, after, err)
	}
	raise(&q.last, after)
	if q.cfg.Lost != nil {
		q.cfg.Lost(streamName)
	}
	_, err = q.state(ctx)
	return err
}
