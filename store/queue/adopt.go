package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/faultpoint"
)

// An embedded store can be brought to external servers, and back. Messages keep their
// sequences, which the ledger names.

// adoptedHeader says which embedded stream a message was brought from.
const adoptedHeader = "Pmm-Callgoose-Adopted"

// How much a writer has under way at most.
const (
	writeCount = 256
	writeBytes = 4 << 20
)

// writer stores messages one behind the other, many at a time. Each one is refused unless
// it follows the one before, so nothing comes in between or twice.
type writer struct {
	q     *Queue
	last  uint64 // newest message, also of those under way
	acks  []jetstream.PubAckFuture
	bytes int
}

func (w *writer) put(ctx context.Context, data []byte, adopted string) error {
	m := nats.NewMsg(w.q.cfg.subject(subject))
	m.Data = data
	if adopted != "" {
		m.Header.Set(adoptedHeader, adopted)
	}
	opts := []jetstream.PublishOpt{jetstream.WithRetryAttempts(0)}
	if w.q.srv == nil { // nobody else writes to an embedded one, whose messages have no headers
		opts = append(opts, jetstream.WithExpectLastSequence(w.last))
	}
	ack, err := w.q.js.PublishMsgAsync(m, opts...)
	if errors.Is(err, nats.ErrMaxPayload) {
		return fmt.Errorf("%w: message %d has %s, and their max_payload is %s: raise that and run this again", ErrUnfit, w.last+1, mib(int64(len(data))), mib(w.q.nc.MaxPayload()))
	}
	if err != nil {
		return fmt.Errorf("%w: store message %d: %w", ErrUnavailable, w.last+1, err)
	}
	w.last++
	w.acks, w.bytes = append(w.acks, ack), w.bytes+len(data)
	if len(w.acks) < writeCount && w.bytes < writeBytes {
		return nil
	}
	return w.settle(ctx)
}

// settle waits until all is stored.
func (w *writer) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, declareWithin)
	defer cancel()
	first := w.last - uint64(len(w.acks)) + 1
	for i, ack := range w.acks {
		var err error
		select {
		case stored := <-ack.Ok():
			if stored.Sequence != first+uint64(i) {
				err = fmt.Errorf("stored as %d: %w", stored.Sequence, errOutOfTurn)
			}
		case err = <-ack.Err():
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if refused, ok := errors.AsType[*jetstream.APIError](err); ok && full(refused) {
			return fmt.Errorf("%w: the NATS servers have no room: %w", ErrFull, err)
		}
		if err != nil {
			return fmt.Errorf("%w: store message %d: %w", ErrUnavailable, first+uint64(i), err)
		}
	}
	w.acks, w.bytes = w.acks[:0], 0
	return nil
}

// Copy brings the messages of another queue into this one, which holds none, or those that
// an interrupted Copy brought, under their sequences. What is not stored there any more is
// a message without content here. adopted, if not "", is noted with each message, and
// demanded of those that are here. If we die, the next Copy goes on behind the last message
// that is here.
func (q *Queue) Copy(ctx context.Context, from *Queue, adopted string, progress func(done, of int)) error {
	source, err := from.state(ctx)
	if err != nil {
		return err
	}
	here, err := q.state(ctx)
	if err != nil {
		return err
	}
	first, last := max(source.FirstSeq, 1), source.LastSeq
	switch {
	case here.Msgs > 0:
		err = q.brought(ctx, here.LastSeq, adopted)
	case here.LastSeq >= first:
		err = fmt.Errorf("%w: %s was purged at %d: delete the stream", ErrUnfit, streamName, here.LastSeq)
	case here.LastSeq < first-1:
		err = q.stream.Purge(ctx, jetstream.WithPurgeSequence(first))
	}
	if err != nil {
		return fmt.Errorf("copy %s: %w", streamName, err)
	}
	w := &writer{q: q, last: max(here.LastSeq, first-1)}
	for w.last < last {
		data, err := from.get(ctx, w.last+1)
		if err != nil && !event.Unreadable(err) {
			return fmt.Errorf("read message %d: %w", w.last+1, err)
		}
		if err := w.put(ctx, data, adopted); err != nil {
			return err
		}
		faultpoint.Here("message-copied")
		progress(int(w.last+1-first), int(last+1-first)) //nolint:gosec // far below 2^63
	}
	if err := w.settle(ctx); err != nil {
		return err
	}
	if here, err = q.state(ctx); err == nil && here.LastSeq != last {
		err = fmt.Errorf("%w: %s ends at %d, not %d: something else writes to it", ErrUnavailable, streamName, here.LastSeq, last)
	}
	return err
}

// brought makes sure that the newest message was brought by a Copy of the same stream.
func (q *Queue) brought(ctx context.Context, last uint64, adopted string) error {
	m, err := q.stream.GetMsg(ctx, last)
	switch {
	case err != nil:
		return fmt.Errorf("%w: read message %d: %w", ErrUnavailable, last, err)
	case adopted != "" && m.Header.Get(adoptedHeader) == adopted:
		return nil
	}
	return q.taken()
}

// taken is the error for streams that hold something else.
func (q *Queue) taken() error {
	names := []string{q.cfg.stream(streamName), q.cfg.stream(logName), q.cfg.stream(snapshotName)}
	return fmt.Errorf("%w: the streams there are in use; choose another --nats-name, or, if nothing in them is needed, delete them: nats stream rm -f %s",
		ErrUnfit, strings.Join(names, "; nats stream rm -f "))
}

// Adopt brings an embedded queue and its ledger to the servers of l. While it runs nobody
// leads: NOTIFICATIONS holds something and LEDGER does not. mark is called when all is
// there; from then on it must not be served from where it was. Adopt undoes it with false
// when another instance began to lead meanwhile. If the power goes
//
//	while messages are copied       Adopt goes on behind the last one
//	while the snapshot is stored    it is stored again, and replaces what is there
//	before or after mark            only LEDGER's first entry is missing: Adopt goes on
//	after LEDGER's first entry      it is done: Adopt marks once more, and says so
func (l *Log) Adopt(ctx context.Context, from *Queue, ledger *store.Store, progress func(done, of int), mark func(bool) error) error {
	id := strconv.FormatInt(from.stream.CachedInfo().Created.UnixNano(), 36)
	info, err := l.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("%w: read stream %s: %w", ErrUnavailable, logName, err)
	}
	newest, end, err := l.newest(ctx)
	switch {
	case err != nil:
		return err
	case end > 0 && newest.Adopted != id, end == 0 && info.State.LastSeq > 0:
		return l.q.taken()
	case info.State.LastSeq > 0:
		return mark(true)
	}
	if err := l.q.Copy(ctx, from, id, progress); err != nil {
		return err
	}
	if _, err := l.snapshot(ctx, ledger, 1, id); err != nil {
		return fmt.Errorf("store the ledger: %w", err)
	}
	if err := mark(true); err != nil {
		return err
	}
	faultpoint.Here("directory-marked")
	err = l.release(ctx, 0)
	if errors.Is(err, errOutOfTurn) {
		return errors.Join(fmt.Errorf("%w: an instance began to lead meanwhile: stop it", l.q.taken()), mark(false))
	}
	if err != nil {
		return fmt.Errorf("%w: begin %s: %w", ErrUnavailable, logName, err)
	}
	return nil
}

// othersWithin is how long the other instances have to announce themselves.
const othersWithin = announceEvery + time.Second

// Leave brings all that the servers hold into the directory of cfg, which nothing is in
// but what an interrupted Leave left. It leads while it does, and ends with an entry that
// says so: afterwards nobody leads. It refuses while another instance runs. The ledger is
// opened with cfg, the queue without fsync: the caller makes both durable.
func (l *Log) Leave(ctx context.Context, cfg store.Config, progress func(done, of int)) (err error) {
	l.leaving = true
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() { _ = l.Announce(ctx, func() []byte { return nil }) })
	if !sleep(ctx, l.q.stop, othersWithin) {
		return context.Cause(ctx)
	}
	if err := l.alone(); err != nil {
		return err
	}
	wg.Go(func() {
		for sleep(ctx, l.q.stop, time.Second) {
			if err := l.alone(); err != nil {
				cancel(err)
			}
		}
	})
	ledger, _, err := store.Open(cfg)
	if err != nil {
		return err
	}
	defer func() { _ = ledger.Close() }()
	if ledger, err = l.Join(ctx, ledger, cfg); err != nil {
		return err
	}
	err = l.Run(ctx, ledger, func(ctx context.Context, _ time.Time) error {
		return cmp.Or(l.bring(ctx, cfg.Dir, progress), ErrLeft)
	})
	faultpoint.Here("log-left")
	switch {
	case errors.Is(err, ErrLeft):
		return nil
	case err == nil:
		return context.Cause(ctx)
	}
	return err
}

// alone is an error while another instance runs.
func (l *Log) alone() error {
	others := l.others()
	if len(others) == 0 {
		return nil
	}
	what := "follows"
	if others[0].Term > 0 {
		what = "leads"
	}
	return fmt.Errorf("instance %s %s: stop pmm-callgoose there and on all others, then run this again", others[0].Name, what)
}

// bring copies the notifications into an embedded queue.
func (l *Log) bring(ctx context.Context, dir string, progress func(done, of int)) (err error) {
	if err := os.RemoveAll(filepath.Join(dir, "jetstream")); err != nil { // of a term that was lost
		return err
	}
	to, err := Open(ctx, Config{Dir: dir, Logger: l.q.cfg.Logger, NoSync: true})
	if err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, to.Close(), Sync(dir)) }()
	return to.Copy(ctx, l.q, "", progress)
}
