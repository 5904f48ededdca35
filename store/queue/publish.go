package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
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
	p := &publishing{note: n, done: make(chan published, 1)}
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

// Commits under way. A commit passes through several goroutines of the server
// besides the fsync: with one at a time, a busy machine spends its time handing
// over. A few, one behind the other, keep the disk busy.
const (
	maxUnderWay = 2
	// company is how many must be waiting to start a commit beside another.
	company = 24
)

// underWay is one commit on its way to the disk.
type underWay struct {
	ack   jetstream.PubAckFuture
	batch []*publishing
	data  []byte
	began time.Time
}

// commit is the committer: while a publish is being fsynced the next
// notifications gather, and all of them go out as one message. There is no
// timer: a lone notification commits at once. settle, started here, releases
// the callers in the order of the commits.
func (q *Queue) commit() {
	pending := make(chan underWay, maxUnderWay)
	settled := make(chan []byte, maxUnderWay) // buffers, to be used again
	var settling sync.WaitGroup
	settling.Go(func() { q.settle(pending, settled) })
	defer close(q.ended)
	defer settling.Wait()
	defer close(pending)

	var scratch []byte
	var spare [][]byte
	var held *publishing // did not fit into the commit before
	flying := 0
	landed := func(buf []byte) {
		flying--
		if cap(buf) <= 4*gatherBytes { // one large body must not stay
			spare = append(spare, buf)
		}
	}
	for {
		select { // busy, and turning all the same
		case q.turn <- struct{}{}:
		default:
		}
		batch := make([]*publishing, 0, 16)
		if held != nil {
			batch, held = append(batch, held), nil
		}
		for len(batch) == 0 {
			select {
			case p := <-q.publish:
				batch = append(batch, p)
			case buf := <-settled:
				landed(buf)
			case q.turn <- struct{}{}:
			case <-q.stop:
				return
			}
		}
		size := len(batch[0].note.Body)
		add := func(p *publishing) {
			if size += len(p.note.Body); size > gatherBytes {
				held = p
			} else {
				batch = append(batch, p)
			}
		}
		for held == nil && len(batch) < gatherCount {
			select {
			case p := <-q.publish:
				add(p)
				continue
			default:
			}
			if flying == 0 || flying < maxUnderWay && len(batch) >= company {
				break
			}
			select { // for company, or for the end of what is under way
			case p := <-q.publish:
				add(p)
			case buf := <-settled:
				landed(buf)
			}
		}
		for flying == maxUnderWay {
			landed(<-settled)
		}
		var buf []byte
		if n := len(spare); n > 0 {
			buf, spare = spare[n-1], spare[:n-1]
		}
		buf, scratch = encodeEnvelope(buf, scratch, batch)
		if cap(scratch) > 4*gatherBytes {
			scratch = nil
		}
		u := underWay{batch: batch, data: buf, began: time.Now()}
		var err error
		if u.ack, err = q.js.PublishAsync(noteSubject, buf, jetstream.WithRetryAttempts(0)); err != nil {
			q.refuse(batch, err)
			continue
		}
		faultpoint.Here("notification-sent")
		pending <- u
		flying++
	}
}

// settle waits for the acknowledgement of each commit in turn. If we die before
// it nobody was told that anything is stored; if we die after it, it is on disk.
func (q *Queue) settle(pending <-chan underWay, settled chan<- []byte) {
	timer := time.NewTimer(publishTimeout)
	defer timer.Stop()
	for u := range pending {
		timer.Reset(publishTimeout)
		var err error
		select {
		case ack := <-u.ack.Ok():
			q.accepted(u, ack.Sequence)
		case err = <-u.ack.Err():
		case <-timer.C:
			err = errors.New("no acknowledgement from the store")
		}
		if err != nil {
			q.refuse(u.batch, err)
			u.data = nil // the client may still hold it
		}
		settled <- u.data
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
func (q *Queue) accepted(u underWay, seq uint64) {
	if q.cfg.Synced != nil {
		q.cfg.Synced(time.Since(u.began), len(u.batch))
	}
	alerts := 0
	for _, p := range u.batch {
		alerts += p.note.Alerts
	}
	q.room.wrote(len(u.data), alerts)
	q.lastNote.Store(seq)
	select {
	case q.wake <- struct{}{}:
	default:
	}
	faultpoint.Here("notification-stored")
	for i, p := range u.batch {
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
