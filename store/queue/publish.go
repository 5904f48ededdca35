package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"pmm-callgoose/store/event"
	"pmm-callgoose/store/event/faultpoint"
)

// How much one commit gathers at the most.
const (
	gatherCount = 256
	gatherBytes = 1 << 20
)

// An fsync costs processor time too, as much as a dozen webhooks: under load
// it pays to share it among more than those that came during the one before.
const (
	// company is how many callers a commit waits for at the most.
	company = 32
	// crowded is how many callers must be about for it to wait at all.
	crowded = 8
	// patience is how long it waits at the most.
	patience = time.Millisecond
)

// publishing is a notification waiting for its commit.
type publishing struct {
	note event.Notification
	done chan published // has room for one: the committer never waits
}

type published struct {
	id  string
	err error
}

// PublishNotification stores n and returns its id once it is fsynced. Any
// error means that it may not be stored: answer 503. The body is not kept.
// Safe concurrently: callers that wait at the same time share one fsync.
func (q *Queue) PublishNotification(ctx context.Context, n event.Notification) (string, error) {
	if err := q.room.refuse(len(n.Body)); err != nil {
		return "", err
	}
	p, _ := q.publishings.Get().(*publishing)
	if p == nil {
		p = &publishing{done: make(chan published, 1)}
	}
	p.note = n
	select {
	case q.publish <- p:
	case <-q.stop:
		return "", ErrUnavailable
	case <-ctx.Done():
		return "", fmt.Errorf("%w: %w", ErrUnavailable, context.Cause(ctx))
	}
	// The body belongs to the caller, and the committer may be copying it: so
	// there is no way out of here but its answer, or its end. A commit is bounded
	// by publishTimeout.
	select {
	case r := <-p.done:
		p.note = event.Notification{}
		q.publishings.Put(p)
		return r.id, r.err
	case <-q.ended:
	}
	select {
	case r := <-p.done:
		return r.id, r.err
	default: // it came too late to be looked at
		return "", ErrUnavailable
	}
}

// PublishAlone stores n in a message, and so with an fsync, of its own. It is there
// to be compared with PublishNotification.
func (q *Queue) PublishAlone(ctx context.Context, n event.Notification) (string, error) {
	if err := q.room.refuse(len(n.Body)); err != nil {
		return "", err
	}
	began := time.Now()
	data, _ := encodeEnvelope(nil, nil, []*publishing{{note: n}})
	ack, err := q.js.Publish(ctx, noteSubject, data, jetstream.WithRetryAttempts(0))
	if err != nil {
		return "", fmt.Errorf("%w: publish a notification: %w", ErrUnavailable, err)
	}
	if q.cfg.Synced != nil {
		q.cfg.Synced(time.Since(began), 1)
	}
	q.room.wrote(len(data), n.Alerts)
	return event.NotificationID(ack.Sequence, 0), nil
}

// commit is the committer: while a publish is being fsynced the next
// notifications gather, and all of them go out as one message. If we die before
// its acknowledgement nobody was told that anything is stored; if we die after
// it, it is on disk.
func (q *Queue) commit() {
	defer close(q.ended)
	g := gathering{from: q.publish, goal: 1, timer: time.NewTimer(patience)}
	defer g.timer.Stop()
	for q.first(&g) {
		g.fill()
		g.envelope, g.scratch = encodeEnvelope(g.envelope, g.scratch, g.batch)
		began := time.Now()
		seq, err := q.store(g.envelope, g.timer)
		g.plan()
		if err != nil {
			g.envelope = nil // the client may still hold it
			q.refuse(g.batch, err)
		} else {
			q.accepted(&g, seq, began)
		}
		g.clear()
	}
}

// first waits for the first notification of a commit. It returns false when the
// queue is closed.
func (q *Queue) first(g *gathering) bool {
	select { // busy, and turning all the same
	case q.turn <- struct{}{}:
	default:
	}
	for len(g.batch) == 0 {
		select {
		case p := <-q.publish:
			g.add(p)
		case q.turn <- struct{}{}:
		case <-q.stop:
			return false
		}
	}
	return true
}

// store publishes an envelope and returns its sequence once it is fsynced.
func (q *Queue) store(envelope []byte, timer *time.Timer) (uint64, error) {
	ack, err := q.js.PublishAsync(noteSubject, envelope, jetstream.WithRetryAttempts(0))
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
	case <-timer.C:
		return 0, errors.New("no acknowledgement from the store")
	}
}

// gathering is what goes into one commit. Owned by the committer.
type gathering struct {
	from              <-chan *publishing
	batch             []*publishing
	size              int         // of the bodies in batch
	held              *publishing // did not fit
	goal              int         // callers to wait for
	timer             *time.Timer
	envelope, scratch []byte // used again
}

func (g *gathering) add(p *publishing) {
	if len(g.batch) > 0 && g.size+len(p.note.Body) > gatherBytes {
		g.held = p
		return
	}
	g.size += len(p.note.Body)
	g.batch = append(g.batch, p)
}

// fill takes all that wait, and then waits for more company, but not for long.
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
			g.timer.Reset(patience)
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
	if crowd := len(g.batch) + len(g.from); crowd >= crowded {
		g.goal = min(company, crowd*3/4)
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
	if cap(g.envelope) > 4*gatherBytes { // one large body must not stay
		g.envelope = nil
	}
	if cap(g.scratch) > 4*gatherBytes {
		g.scratch = nil
	}
}

// refuse answers callers whose notifications may or may not be stored: after a
// timeout the outcome is unknown, and a full disk is answered with silence.
// Reopening finds out.
func (q *Queue) refuse(batch []*publishing, err error) {
	err = fmt.Errorf("%w: publish notifications: %w", ErrUnavailable, err)
	q.fail(err)
	for _, p := range batch {
		p.done <- published{err: err}
	}
}

// accepted answers the callers of a commit that is on disk.
func (q *Queue) accepted(g *gathering, seq uint64, began time.Time) {
	if q.cfg.Synced != nil {
		q.cfg.Synced(time.Since(began), len(g.batch))
	}
	alerts := 0
	for _, p := range g.batch {
		alerts += p.note.Alerts
	}
	q.room.wrote(len(g.envelope), alerts)
	q.lastNote.Store(seq)
	select {
	case q.wake <- struct{}{}:
	default:
	}
	faultpoint.Here("notification-stored")
	for i, p := range g.batch {
		p.done <- published{id: event.NotificationID(seq, uint32(i))}
	}
}

// An atomic batch costs about six fsyncs whatever its size, a plain publish
// one: below this size plain is cheaper.
const (
	plainUpTo  = 6
	batchCount = 1000 // the server's limit
	batchBytes = 8 << 20
)

// PublishEvents appends evs to EVENTS in order and returns the sequence of the
// first; the others follow without a gap. What is stored is always a prefix:
// every message is fenced with the sequence that it must follow. After an
// error the caller must not go on before it has reopened the queue and read
// back what is there. One caller at a time.
func (q *Queue) PublishEvents(ctx context.Context, evs []*event.Event) (uint64, error) {
	start := q.lastEvent.Load() + 1
	for len(evs) > 0 {
		msgs := make([]*nats.Msg, 0, min(len(evs), batchCount))
		size := 0
		for len(evs) > 0 && len(msgs) < batchCount && size < batchBytes {
			data := pack(evs[0])
			m := nats.NewMsg(fmt.Sprintf("events.%d.%s", event.Partition(evs[0].Key), evs[0].Key))
			m.Data = data
			size += len(data)
			msgs, evs = append(msgs, m), evs[1:]
		}
		publish := q.publishPlain
		if len(msgs) > plainUpTo {
			publish = q.publishBatch
		}
		if err := publish(ctx, msgs); err != nil {
			err = fmt.Errorf("%w: publish events after %d: %w", ErrUnavailable, q.lastEvent.Load(), err)
			q.fail(err)
			return 0, err
		}
		q.lastEvent.Add(uint64(len(msgs)))
		q.room.wrote(size, 0)
	}
	return start, nil
}

func (q *Queue) publishPlain(ctx context.Context, msgs []*nats.Msg) error {
	acks := make([]jetstream.PubAckFuture, len(msgs))
	for i, m := range msgs {
		var err error
		acks[i], err = q.js.PublishMsgAsync(m, jetstream.WithExpectLastSequence(q.lastEvent.Load()+uint64(i)),
			jetstream.WithStallWait(publishTimeout))
		if err != nil {
			return err
		}
	}
	timeout := time.NewTimer(publishTimeout)
	defer timeout.Stop()
	for _, a := range acks {
		select {
		case <-a.Ok():
			faultpoint.Here("event-published")
		case err := <-a.Err():
			return err
		case <-timeout.C:
			return errors.New("no acknowledgement from the store")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// publishBatch is an atomic batch (NATS ADR-50): all of it is stored, or nothing.
func (q *Queue) publishBatch(ctx context.Context, msgs []*nats.Msg) error {
	id := nuid.Next()
	ctx, cancel := context.WithTimeoutCause(ctx, 2*publishTimeout, errors.New("no acknowledgement from the store"))
	defer cancel()
	for i, m := range msgs {
		m.Header.Set("Nats-Batch-Id", id)
		m.Header.Set("Nats-Batch-Sequence", strconv.Itoa(i+1))
		if i == 0 {
			m.Header.Set(jetstream.ExpectedLastSeqHeader, strconv.FormatUint(q.lastEvent.Load(), 10))
		}
		if i < len(msgs)-1 {
			if err := q.nc.PublishMsg(m); err != nil {
				return err
			}
			faultpoint.Here("event-published")
		}
	}
	last := msgs[len(msgs)-1]
	last.Header.Set("Nats-Batch-Commit", "1")
	r, err := q.nc.RequestMsgWithContext(ctx, last)
	if err != nil {
		return err
	}
	var ack struct {
		Error *struct {
			Code        int    `json:"err_code"`
			Description string `json:"description"`
		} `json:"error"`
		Seq   uint64 `json:"seq"`
		Count int    `json:"count"`
	}
	switch err := json.Unmarshal(r.Data, &ack); {
	case err != nil:
		return fmt.Errorf("batch acknowledgement: %w", err)
	case ack.Error != nil:
		return fmt.Errorf("batch refused: %s (%d)", ack.Error.Description, ack.Error.Code)
	case ack.Count != len(msgs) || ack.Seq != q.lastEvent.Load()+uint64(len(msgs)):
		return fmt.Errorf("batch of %d after %d was acknowledged as %d up to %d", len(msgs), q.lastEvent.Load(), ack.Count, ack.Seq)
	}
	return nil
}
