package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
// drop a message, which would not come again before the next start.
type Deliveries struct {
	q        *Queue
	consumer jetstream.Consumer
	batch    jetstream.MessageBatch // owned by the caller of Next; nil = fetch one
	release  context.CancelFunc     // of batch
	fetched  int                    // from batch; owned likewise
	highest  uint64                 // handed out, or looked at; owned likewise
	buf      []byte                 // to unpack in; owned likewise
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
// settled, or gone. It is what survives when the ledger's file is lost, and only
// then it counts: JetStream moves it over messages that were lost.
//
// The place is taken from a reset and not from the consumer's state. If we die
// while the server writes a new consumer's two files, it knows of none at the
// next start, and yet goes on from the old place once it is made again.
func (q *Queue) Position(ctx context.Context) (uint64, error) {
	if _, err := q.declare(ctx); err != nil {
		return 0, err
	}
	r, err := q.js.ResetConsumer(ctx, events, deliverer)
	if err != nil {
		return 0, fmt.Errorf("%w: reset consumer: %w", ErrUnavailable, err)
	}
	return r.ResetSeq - 1, nil
}

// consumerStoreBroken is JetStream's code for state that it cannot read.
const consumerStoreBroken = 10012

func (q *Queue) declare(ctx context.Context) (jetstream.Consumer, error) {
	cfg := jetstream.ConsumerConfig{
		Durable: deliverer, AckPolicy: jetstream.AckExplicitPolicy, DeliverPolicy: jetstream.DeliverAllPolicy,
		AckWait: ackWait, MaxDeliver: -1, MaxAckPending: maxAckPending,
	}
	declare := func() (jetstream.Consumer, error) {
		if _, err := q.evs.Consumer(ctx, deliverer); errors.Is(err, jetstream.ErrConsumerNotFound) {
			// Made with another description, and changed below: only a change writes
			// both files again where one of them is there.
			first := cfg
			first.Description = "new"
			if _, err := q.evs.CreateConsumer(ctx, first); err != nil {
				return nil, err
			}
		}
		return q.evs.CreateOrUpdateConsumer(ctx, cfg)
	}
	c, err := declare()
	if refused := (*jetstream.APIError)(nil); q.srv != nil && errors.As(err, &refused) && refused.ErrorCode == consumerStoreBroken {
		// It cannot read its own state. The ledger knows what is settled.
		own := filepath.Join(streamDir(events), "obs", deliverer)
		kept, kerr := keepCopy(q.cfg.Dir, filepath.Join(own, "o.dat"))
		q.cfg.Logger.ErrorContext(ctx, "the consumer's position on disk is damaged; beginning behind what the ledger knows as settled",
			"component", "queue", "stream", events, "copy", kept, "err", errors.Join(err, kerr))
		if err := os.RemoveAll(filepath.Join(q.cfg.Dir, own)); err != nil {
			return nil, fmt.Errorf("remove the damaged consumer: %w", err)
		}
		c, err = declare()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: declare consumer: %w", ErrUnavailable, err)
	}
	return c, nil
}

// Deliver begins behind floor, in order: messages that were handed out but not
// settled before a stop or a crash come again, first. Acknowledgements above it
// are forgotten by this; the ledger knows those events as settled.
//
// There is never a negative or late acknowledgement: a durable consumer with a
// window keeps order only as long as nothing is redelivered. Retries happen in
// the worker, and AckWait is longer than any machine runs.
func (q *Queue) Deliver(ctx context.Context, floor uint64) (*Deliveries, error) {
	c, err := q.declare(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := q.js.ResetConsumerToSequence(ctx, events, deliverer, floor+1); err != nil {
		return nil, fmt.Errorf("%w: reset consumer: %w", ErrUnavailable, err)
	}
	d := &Deliveries{q: q, consumer: c, acks: map[uint64]string{}, buf: make([]byte, 64<<10)}
	d.open, d.close = context.WithCancel(context.WithoutCancel(ctx))
	return d, nil
}

// Next waits for the next event, without labels and annotations. It fails once
// Close was called.
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
			d.batch, d.release, d.fetched = batch, release, 0
		}
		select {
		case <-d.open.Done():
			return event.Delivery{}, ErrUnavailable
		case m, more := <-d.batch.Messages():
			if more {
				d.fetched++
				return d.take(m)
			}
			err := d.batch.Error()
			d.release()
			d.batch = nil
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				return event.Delivery{}, fmt.Errorf("%w: fetch events: %w", ErrUnavailable, err)
			}
			if last := d.q.LastEvent(); d.fetched == 0 && last > d.highest {
				// Nothing is left, and the end was not handed out: the stream skips a
				// damaged message without a word, and nothing behind it tells.
				if _, err := d.q.Event(d.open, last); event.Unreadable(err) {
					d.highest = last
					return event.Delivery{Seq: last, Err: err}, nil
				}
				d.highest = max(d.highest, last) // settled before, or on its way
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
	d.highest = max(d.highest, out.Seq)
	d.mu.Lock()
	d.acks[out.Seq] = m.Reply()
	d.mu.Unlock()
	out.Event, out.Err = unpackInto(d.buf, m.Data(), event.DecodeBrief)
	if out.Err == nil {
		out.Event.Body = bytes.Clone(out.Event.Body) // and not the whole message
	}
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
