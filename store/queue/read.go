package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"pmm-callgoose/store/event"
	"pmm-callgoose/store/faultpoint"
)

// Read returns the notifications of the envelope at seq, none when it holds only
// a mark. A damaged one among them has Err set. event.ErrGone when the envelope is
// not stored, event.ErrDamaged when nothing of it can be read, event.ErrNewer,
// ErrUnavailable when it may be read later.
func (q *Queue) Read(ctx context.Context, seq uint64) ([]event.Notification, error) {
	data, err := q.get(ctx, seq)
	if err != nil {
		return nil, fmt.Errorf("read notifications %d: %w", seq, err)
	}
	notes, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("read notifications %d: %w", seq, err)
	}
	return notes, nil
}

// NewestMark is the mark of the newest envelope whose mark can be read, the zero
// mark when there is none. ErrUnavailable, event.ErrNewer.
func (q *Queue) NewestMark(ctx context.Context) (event.Mark, error) {
	for seq := q.last.Load(); seq > 0 && seq >= q.first.Load(); seq-- {
		data, err := q.get(ctx, seq)
		var e envelope
		if err == nil {
			e, err = open(data)
		}
		var m event.Mark
		if err == nil {
			m, err = decodeMark(e.mark)
		}
		if err == nil {
			return m, nil
		}
		if !event.Unreadable(err) {
			return event.Mark{}, fmt.Errorf("read the mark of %d: %w", seq, err)
		}
	}
	return event.Mark{}, nil
}

// First is the oldest sequence still stored, one past the newest when there is
// none.
func (q *Queue) First(ctx context.Context) (uint64, error) {
	if _, err := q.state(ctx); err != nil {
		return 0, err
	}
	return q.first.Load(), nil
}

// Oldest is First, or the sequence of a damaged envelope before it that Open could not
// keep.
func (q *Queue) Oldest(ctx context.Context) (uint64, error) {
	first, err := q.First(ctx)
	if err == nil && q.damaged > 0 {
		first = min(first, q.damaged)
	}
	return first, err
}

// get reads a message. Below the first sequence it is gone for certain, and
// behind the last one nothing was ever stored.
func (q *Queue) get(ctx context.Context, seq uint64) ([]byte, error) {
	if seq < q.first.Load() || q.srv != nil && seq > q.last.Load() {
		return nil, event.ErrGone
	}
	if data := q.recent.get(seq); data != nil && !faultpoint.Without("leader reads") {
		return data, nil
	}
	m, err := q.stream.GetMsg(ctx, seq)
	switch {
	case err == nil:
		return m.Data, nil
	case !errors.Is(err, jetstream.ErrMsgNotFound):
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	case q.srv == nil:
		return q.getAgain(ctx, seq)
	}
	if err := q.disk.readable(ctx, files(q.cfg.Dir).Readable); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil, event.ErrGone
}

// disk remembers for a second whether the disk can be read: the loss of many
// messages is asked for one by one.
type disk struct {
	asking chan struct{} // held by who asks, and guards the rest
	at     time.Time
	err    error
}

// readable returns what read says now, or said within the last second.
func (d *disk) readable(ctx context.Context, read func() error) error {
	select {
	case d.asking <- struct{}{}:
		defer func() { <-d.asking }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if d.at.IsZero() || time.Since(d.at) >= time.Second {
		d.err = read()
		d.at = time.Now() // after it: reading may take longer than a second
	}
	return d.err
}
