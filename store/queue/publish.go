package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"pmm-callgoose/store/event"
	"pmm-callgoose/store/faultpoint"
)

// How much one commit gathers at most.
const (
	gatherCount = 256
	gatherBytes = 1 << 20
)

// An fsync costs processor time too, as much as a dozen webhooks: under load
// it pays to share it among more than those that came during the one before.
const (
	maxGroup = 32               // callers that a commit waits for at most
	minGroup = 8                // callers that must be there for it to wait at all
	maxWait  = time.Millisecond // how long it waits at most
)

// publishing is a notification waiting for its commit.
type publishing struct {
	note  event.Notification
	empty bool // there is none: only the mark is to be stored
	came  time.Time
	done  chan published // has room for one: the committer never waits
}

type published struct {
	pos event.Position
	err error
}

// Publish stores n and returns its position once it is on disk, or, external,
// once the servers acknowledged it. ErrFull, ErrTooLarge: it is not stored. Any
// other error means that it may not be stored. The body is not kept. Callers that
// wait at the same time share one fsync.
func (q *Queue) Publish(ctx context.Context, n event.Notification) (event.Position, error) {
	if size := len(n.Body) + len(n.Source); size > q.largest {
		return event.Position{}, fmt.Errorf("%w: %s, at most %s fit", ErrTooLarge, mib(int64(size)), mib(int64(q.largest)))
	}
	if n.Origin == event.FromPMM || n.Origin == event.Imported { // what the service itself says is small, and may end what fills the store
		if err := q.lacks(len(n.Body)); err != nil {
			wake(q.room.refused)
			return event.Position{}, err
		}
	}
	return q.wait(ctx, &publishing{note: n})
}

// LargestBody is how many bytes the body of a notification can have.
func (q *Queue) LargestBody() int64 { return int64(q.largest - maxSource) }

// PublishMark stores the mark, with nothing else if nothing else waits, and returns
// the sequence of its message.
func (q *Queue) PublishMark(ctx context.Context) (uint64, error) {
	pos, err := q.wait(ctx, &publishing{empty: true})
	return pos.Seq, err
}

// wait hands p to the committer and returns its answer.
func (q *Queue) wait(ctx context.Context, p *publishing) (event.Position, error) {
	p.came, p.done = time.Now(), make(chan published, 1)
	select {
	case q.publish <- p:
	case <-q.stop:
		return event.Position{}, ErrUnavailable
	case <-ctx.Done():
		return event.Position{}, fmt.Errorf("%w: %w", ErrUnavailable, context.Cause(ctx))
	}
	// The body belongs to the caller, and the committer may be copying it: so
	// there is no way out of here but its answer, or its end. A commit takes a
	// bounded time.
	select {
	case r := <-p.done:
		return r.pos, r.err
	case <-q.ended:
	}
	select {
	case r := <-p.done:
		return r.pos, r.err
	default: // it came too late to be looked at
		return event.Position{}, ErrUnavailable
	}
}

// commit is the committer: while a publish is being fsynced the next
// notifications gather, and all of them go out as one message. If we die before
// its acknowledgement nobody was told that anything is stored; if we die after
// it, it is on disk.
func (q *Queue) commit() {
	defer close(q.ended)
	g := gathering{from: q.publish, limit: q.gather, goal: 1, timer: time.NewTimer(maxWait)}
	defer g.timer.Stop()
	for q.begin(&g) {
		g.fill()
		began := time.Now()
		message := g.encode(*q.mark.Load(), g.batch)
		seq, err := q.store(message, &g)
		g.plan()
		if err != nil {
			g.parts = nil // the client may still hold it
			if errors.Is(err, ErrFull) {
				wake(q.room.refused)
			} else {
				err = fmt.Errorf("%w: publish notifications: %w", ErrUnavailable, err)
			}
			q.answer(g.batch, 0, err)
		} else {
			q.stored(&g, message, seq, began)
		}
		g.clear()
	}
}

// begin waits for the first notification of a commit. It returns false when the
// queue is closed.
func (q *Queue) begin(g *gathering) bool {
	select { // one that is always busy is alive, too
	case q.turn <- struct{}{}:
	default:
	}
	for len(g.batch) == 0 {
		select {
		case p := <-q.publish:
			g.add(p)
		case q.turn <- struct{}{}:
		case <-q.own.retry:
			ctx, cancel := context.WithTimeout(context.Background(), tryWithin)
			_ = q.barrier(ctx) // it sets when to try again
			cancel()
		case <-q.stop:
			return false
		}
	}
	return true
}

// store publishes an envelope and returns its sequence once it is durable.
func (q *Queue) store(message []byte, g *gathering) (uint64, error) {
	if q.srv == nil {
		return q.storeExternal(message, g.batch[0].came)
	}
	seq, err := q.storeEmbedded(message, g.timer)
	if err != nil {
		return 0, err
	}
	if last := q.last.Load(); seq <= last { // it would never be read
		return 0, fmt.Errorf("stored as %d, but the newest is %d: the stream was made anew", seq, last)
	}
	return seq, q.dirs.sync()
}

func (q *Queue) storeEmbedded(message []byte, timer *time.Timer) (uint64, error) {
	ack, err := q.js.PublishAsync(subject, message, jetstream.WithRetryAttempts(0))
	if err != nil {
		return 0, err
	}
	faultpoint.Here("notification-sent")
	timer.Reset(publishTimeout)
	select {
	case ack := <-ack.Ok():
		return ack.Sequence, nil
	case err := <-ack.Err():
		return 0, err
	case <-timer.C: // a full disk is answered with silence
		return 0, errors.New("no acknowledgement from the store")
	}
}

// stored answers the callers of a commit that is durable.
func (q *Queue) stored(g *gathering, message []byte, seq uint64, began time.Time) {
	q.cfg.Observer.IntakeCommit(time.Since(began), len(g.lengths))
	alerts := 0
	for _, p := range g.batch {
		alerts += p.note.Alerts
	}
	q.room.wrote(len(message), alerts)
	if q.srv != nil {
		var held []byte
		if len(message) <= recentBytes { // a larger one is read when it is split
			held = bytes.Clone(message)
		}
		q.recent.add(seq, held)
		q.last.Store(seq)
		wake(q.wake)
	}
	faultpoint.Here("notification-stored")
	q.answer(g.batch, seq, nil)
}

// answer tells the callers of a commit what became of it. After an error their
// notifications may or may not be stored: opening again finds out. ErrFull is sure.
func (q *Queue) answer(batch []*publishing, seq uint64, err error) {
	if err != nil && !errors.Is(err, ErrFull) && q.srv != nil { // others publish: nothing is opened again
		q.fail(err)
	}
	note := uint32(0)
	for _, p := range batch {
		r := published{err: err}
		if err == nil && !p.empty {
			r.pos = event.Position{Seq: seq, Note: note}
			note++
		}
		p.done <- r
	}
}

// gathering is what goes into one commit. Owned by the committer.
type gathering struct {
	encoder
	from  <-chan *publishing
	limit int // bytes
	batch []*publishing
	size  int         // of the notifications in batch
	held  *publishing // did not fit
	goal  int         // callers to wait for
	timer *time.Timer
}

func (g *gathering) add(p *publishing) {
	size := len(p.note.Body) + len(p.note.Source)
	if len(g.batch) > 0 && g.size+size > g.limit {
		g.held = p
		return
	}
	g.size += size
	g.batch = append(g.batch, p)
}

// fill takes all that wait, and then waits for more, but not for long.
func (g *gathering) fill() {
	late := false
	for g.held == nil && len(g.batch) < gatherCount {
		select {
		case p := <-g.from:
			g.add(p)
			continue
		default:
		}
		if len(g.batch) >= g.goal {
			return
		}
		if !late {
			late = true
			g.timer.Reset(maxWait)
		}
		select {
		case p := <-g.from:
			g.add(p)
		case <-g.timer.C:
			return
		}
	}
}

// plan sets the goal of the next commit. The callers in this one and those that
// came meanwhile are all that we know of. Most of them will be back soon: three
// quarters are worth waiting for. Waiting for all would be waiting for the
// slowest, and for those that do not come back.
func (g *gathering) plan() {
	g.goal = 1
	if callers := len(g.batch) + len(g.from); callers >= minGroup {
		g.goal = min(maxGroup, callers*3/4)
	}
}

// clear makes g ready for the next commit.
func (g *gathering) clear() {
	clear(g.batch)
	g.batch, g.size = g.batch[:0], 0
	if held := g.held; held != nil {
		g.held = nil
		g.add(held)
	}
	g.letGo(&g.parts)
}
