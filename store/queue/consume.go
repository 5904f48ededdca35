package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"pmm-callgoose/store/event"
)

// Deliveries hands out the events behind the consumer's position, in order.
// Next has one caller; Ack and Close are safe concurrently.
//
// It fetches in batches instead of keeping a subscription open: the channel of
// a batch has room for all of it, so that a slow reader cannot make the client
// drop a message, which would come again only after ackWait, out of order.
type Deliveries struct {
	q        *Queue
	consumer jetstream.Consumer
	batch    jetstream.MessageBatch // owned by the caller of Next; nil = fetch one
	release  context.CancelFunc     // of batch
	open     context.Context        //nolint:containedctx // ends with Close
	close    context.CancelFunc

	mu   sync.Mutex        // guards acks
	acks map[uint64]string // sequence -> where its acknowledgement goes
}

// How one batch is fetched. The server gives up a second before we do, so
// nothing is on its way when we stop listening; and for less than ten seconds
// it sends no heartbeats, which a process that was frozen for a while would miss.
const (
	fetchCount = 256
	fetchWait  = 10 * time.Second
)

// Position is the consumer's place: every event up to and including it is
// settled. It is what survives when the ledger's file is lost. Asking for it
// makes the consumer, and sets it back to the place, so that Deliver begins
// right behind what was said here: messages that were handed out but not
// acknowledged before a stop or a crash come again, first. Acks above the
// position are forgotten by this; the ledger knows those events as settled.
//
// The place is taken from the reset and not from the consumer's state. If we
// die while the server writes a new consumer's two files, it knows of none at
// the next start, and yet goes on from the old place once it is made again.
func (q *Queue) Position(ctx context.Context) (uint64, error) {
	cfg := jetstream.ConsumerConfig{
		Durable: deliverer, AckPolicy: jetstream.AckExplicitPolicy, DeliverPolicy: jetstream.DeliverAllPolicy,
		AckWait: ackWait, MaxDeliver: -1, MaxAckPending: maxAckPending,
	}
	if _, err := q.evs.Consumer(ctx, deliverer); errors.Is(err, jetstream.ErrConsumerNotFound) {
		// Made with another description, and changed below: only a change writes
		// both files again where one of them is there.
		first := cfg
		first.Description = "new"
		if _, err := q.evs.CreateConsumer(ctx, first); err != nil {
			return 0, fmt.Errorf("%w: declare consumer: %w", ErrUnavailable, err)
		}
	}
	var err error
	if q.consumer, err = q.evs.CreateOrUpdateConsumer(ctx, cfg); err != nil {
		return 0, fmt.Errorf("%w: declare consumer: %w", ErrUnavailable, err)
	}
	r, err := q.js.ResetConsumer(ctx, events, deliverer)
	if err != nil {
		return 0, fmt.Errorf("%w: reset consumer: %w", ErrUnavailable, err)
	}
	return r.ResetSeq - 1, nil
}

// Deliver hands out what is behind the position, in order. Position comes first.
//
// There is never a negative or late acknowledgement: a durable consumer with a
// window keeps order only as long as nothing is redelivered. Retries happen in
// the worker. If AckWait does pass, the worker knows the message by its sequence.
func (q *Queue) Deliver(ctx context.Context) *Deliveries {
	d := &Deliveries{q: q, consumer: q.consumer, acks: map[uint64]string{}}
	d.open, d.close = context.WithCancel(context.WithoutCancel(ctx))
	return d
}

// Next waits for the next event. It fails once Close was called.
func (d *Deliveries) Next() (event.Delivery, error) {
	for {
		if d.batch == nil {
			ctx, release := context.WithTimeout(d.open, fetchWait)
			batch, err := d.consumer.Fetch(fetchCount, jetstream.FetchContext(ctx),
				jetstream.FetchMaxBytes(maxMessage+1<<20))
			if err != nil {
				release()
				return event.Delivery{}, fmt.Errorf("%w: fetch events: %w", ErrUnavailable, err)
			}
			d.batch, d.release = batch, release
		}
		select {
		case <-d.open.Done():
			return event.Delivery{}, ErrUnavailable
		case m, more := <-d.batch.Messages():
			if more {
				return d.take(m)
			}
			err := d.batch.Error()
			d.release()
			d.batch = nil
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				return event.Delivery{}, fmt.Errorf("%w: fetch events: %w", ErrUnavailable, err)
			}
		}
	}
}

func (d *Deliveries) take(m jetstream.Msg) (event.Delivery, error) {
	meta, err := m.Metadata()
	if err != nil {
		return event.Delivery{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	out := event.Delivery{Seq: meta.Sequence.Stream}
	d.mu.Lock()
	d.acks[out.Seq] = m.Reply()
	d.mu.Unlock()
	out.Event, out.Err = event.Decode(m.Data())
	return out, nil
}

// Ack says that the event at seq is settled, durably. A lost acknowledgement
// only brings the event again, and the ledger knows it.
func (d *Deliveries) Ack(seq uint64) {
	d.mu.Lock()
	reply, known := d.acks[seq]
	delete(d.acks, seq)
	d.mu.Unlock()
	if known {
		_ = d.q.nc.Publish(reply, []byte("+ACK"))
	}
}

// Close stops handing out events. Messages not acknowledged come again.
func (d *Deliveries) Close() { d.close() }
