package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"pmm-callgoose/store/event"
	"pmm-callgoose/store/faultpoint"
)

// Several instances write to an external stream. Each publishes on a subject of its own
// run, behind the newest message there: as soon as anything newer of ours is stored, the
// servers refuse what was given up and still hangs somewhere. So an envelope that is given
// up is followed by an empty one, a barrier, until that is stored.
//
// What is decided on is what an ordered consumer handed out: a message that the servers
// say they cannot find may only be unknown to the one that was asked.

// stream is the name of a stream on external servers, and subject of a subject there.
func (c Config) stream(name string) string {
	if c.Name == "" {
		return name
	}
	return c.Name + "_" + name
}

func (c Config) subject(name string) string {
	if c.Name == "" {
		return name
	}
	return c.Name + "." + name
}

// own is what an instance publishes. Owned by the committer.
type own struct {
	subject string
	run     string // a random name of this process
	count   uint64
	last    uint64           // newest sequence on the subject
	retry   <-chan time.Time // yields when the barrier is to be tried, nil = none is needed
}

// errOutOfTurn: the stream, or the subject, does not end where it was expected to.
var errOutOfTurn = errors.New("something else was stored meanwhile")

// put publishes until it is acknowledged, errOutOfTurn or refused otherwise, or ctx ends.
// It publishes again with the same id, which the servers store once.
func (q *Queue) put(ctx context.Context, subject string, data []byte, id string, behind jetstream.PublishOpt) (uint64, error) {
	m := nats.NewMsg(subject)
	m.Data = data
	for {
		try, done := context.WithTimeout(ctx, tryWithin)
		ack, err := q.js.PublishMsg(try, m, jetstream.WithMsgID(id), behind, jetstream.WithRetryAttempts(0))
		done()
		if err == nil {
			return ack.Sequence, nil
		}
		refused, ok := errors.AsType[*jetstream.APIError](err)
		switch {
		case ok && (refused.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || refused.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant):
			return 0, errOutOfTurn
		case ok && full(refused):
			return 0, fmt.Errorf("%w: the NATS servers have no room: %w", ErrFull, err)
		case ok && refused.Code != 503 && refused.Code != 409: // 409: that id is under way
			return 0, err
		}
		if !sleep(ctx, q.stop, tryAfter) {
			return 0, err
		}
	}
}

// storeExternal publishes an envelope whose first notification came at that time.
func (q *Queue) storeExternal(message []byte, came time.Time) (uint64, error) {
	ctx, cancel := context.WithDeadline(context.Background(), came.Add(storeWithin))
	defer cancel()
	if err := q.barrier(ctx); err != nil {
		return 0, err
	}
	return q.putOwn(ctx, message)
}

// barrier makes sure that nothing of ours that was given up is stored from now on.
func (q *Queue) barrier(ctx context.Context) error {
	if q.own.retry == nil {
		return nil
	}
	_, err := q.putOwn(ctx, new(encoder).encode(*q.mark.Load(), nil))
	return err
}

// putOwn publishes behind our newest message. After an error a barrier is needed.
func (q *Queue) putOwn(ctx context.Context, data []byte) (seq uint64, err error) {
	defer func() {
		if q.own.retry = nil; err != nil && !errors.Is(err, ErrShort) {
			q.own.retry = time.After(tryAfter)
		}
	}()
	q.own.count++
	id, known := fmt.Sprintf("%s-%d", q.own.run, q.own.count), max(q.last.Load(), q.marked.Load())
	for {
		behind := jetstream.WithExpectLastSequencePerSubject(q.own.last)
		if faultpoint.Without("subject fence") {
			behind = jetstream.WithExpectStream(q.cfg.stream(streamName))
		}
		seq, err = q.put(ctx, q.own.subject, data, id, behind)
		if err == nil && seq <= known { // it would never be read
			err = fmt.Errorf("%w: stored as %d, but the newest is %d: the stream was made anew", ErrShort, seq, known)
			q.fail(err)
			return 0, err
		}
		if err == nil {
			q.own.last = seq
		}
		if !errors.Is(err, errOutOfTurn) {
			return seq, err
		}
		// The acknowledgement of this one was lost, or one that was given up is stored.
		m, err := q.stream.GetLastMsgForSubject(ctx, q.own.subject)
		switch {
		case err == nil && m.Sequence > q.own.last:
			if q.own.last = m.Sequence; m.Header.Get(jetstream.MsgIDHeader) == id {
				return m.Sequence, nil
			}
			continue
		case errors.Is(err, jetstream.ErrMsgNotFound):
			if state, err := q.state(ctx); err == nil && state.FirstSeq > q.own.last { // removed by retention
				q.own.last = 0
				continue
			}
		}
		if !sleep(ctx, q.stop, tryAfter) {
			return 0, errOutOfTurn
		}
	}
}

// recent holds the newest messages for the splitter, which would ask the server for each
// otherwise: what the consumer handed out, or was stored here.
type recent struct {
	mu     sync.Mutex
	from   uint64 // first sequence that the consumer was to hand out
	newest uint64
	gaps   [][2]uint64 // sequences that are not stored
	held   map[uint64][]byte
	order  []uint64
	bytes  int
}

// recentBytes bounds what is held.
const recentBytes = 512 << 10

func (r *recent) add(seq uint64, data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if seq <= r.newest {
		return
	}
	if seq > r.newest+1 {
		r.gaps = append(r.gaps, [2]uint64{r.newest + 1, seq - 1})
	}
	r.newest = seq
	r.held[seq], r.order, r.bytes = data, append(r.order, seq), r.bytes+len(data)
	for r.bytes > recentBytes && len(r.order) > 1 {
		oldest := r.order[0]
		r.order, r.bytes = r.order[1:], r.bytes-len(r.held[oldest])
		delete(r.held, oldest)
	}
}

func (r *recent) get(seq uint64) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held[seq]
}

// exists reports whether the consumer handed seq out: whoever does not find it errs.
func (r *recent) exists(seq uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return seq >= r.from && seq <= r.newest &&
		!slices.ContainsFunc(r.gaps, func(g [2]uint64) bool { return g[0] <= seq && seq <= g[1] })
}

// readOn hands out what any instance stores behind the newest sequence known, until the
// queue is closed.
func (q *Queue) readOn(ctx context.Context) error {
	from := q.last.Load() + 1
	q.recent.from, q.recent.newest = from, from-1
	reading, err := q.consume(ctx, q.cfg.stream(streamName), from, func(seq uint64, data []byte) {
		q.recent.add(seq, data)
		raise(&q.last, seq)
		wake(q.wake)
	})
	if err != nil {
		return fmt.Errorf("%w: read stream %s: %w", ErrUnavailable, q.cfg.stream(streamName), err)
	}
	q.wg.Go(func() { <-q.stop; reading.Stop() })
	return nil
}

// consume calls fn with each message of a stream from a sequence on, in order.
func (q *Queue) consume(ctx context.Context, stream string, from uint64, fn func(seq uint64, data []byte)) (jetstream.ConsumeContext, error) {
	consumer, err := q.js.OrderedConsumer(ctx, stream, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from,
	})
	if err != nil {
		return nil, err
	}
	return consumer.Consume(func(m jetstream.Msg) {
		if meta, err := m.Metadata(); err == nil {
			fn(meta.Sequence.Stream, m.Data())
		}
	}, jetstream.PullMaxMessagesWithBytesLimit(1024, 16<<20), jetstream.PullExpiry(5*time.Second), jetstream.PullHeartbeat(time.Second))
}

// missing decides what a message is that the servers say they cannot find: event.ErrGone
// only if that is proven.
func (q *Queue) missing(seq, first uint64, missed int) error {
	if seq < first || missed >= goneAfter && !q.recent.exists(seq) {
		return event.ErrGone
	}
	return nil
}
