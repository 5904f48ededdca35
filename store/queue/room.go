package queue

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"pmm-callgoose/store/faultpoint"
)

// room knows how full the store is, without asking the server for each body:
// measured now and then, and counted on in between.
type room struct {
	used     atomic.Int64  // bytes in the stream
	free     atomic.Int64  // bytes free on the file system; embedded only
	accepted atomic.Int64  // alerts accepted since the start
	changed  atomic.Bool   // something was stored since the stream was measured; embedded only
	refused  chan struct{} // has an element when a body found no room
}

func (r *room) wrote(bytes, alerts int) {
	r.used.Add(int64(bytes))
	r.free.Add(-int64(bytes))
	r.accepted.Add(int64(alerts))
	r.changed.Store(true)
}

// lacks says why a body of this size cannot be taken. What the ledger keeps of it
// needs about as much room again on the disk.
func (q *Queue) lacks(body int) error {
	need := int64(body)
	if used, limit := q.room.used.Load(), q.cfg.MaxStore; used+need > limit {
		return fmt.Errorf("%w: %s of %s are used (--max-store)", ErrFull, mib(used), mib(limit))
	}
	if free, limit := q.room.free.Load(), q.cfg.MinFree; q.srv != nil && limit > 0 && free-2*need < limit {
		return fmt.Errorf("%w: the disk has only %s free, %s must stay free (--min-free)", ErrFull, mib(max(free, 0)), mib(limit))
	}
	return nil
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// Room says how many bytes are stored, how many may be, and how many are free
// on the disk; -1 when that is the disk of an external server.
func (q *Queue) Room() (used, limit, free int64) {
	free = q.room.free.Load()
	if q.srv == nil {
		free = -1
	}
	return q.room.used.Load(), q.cfg.MaxStore, free
}

// Full says why intake would be refused now, nil when it would not: ErrFull, or
// ErrUnavailable while no external server answers.
func (q *Queue) Full() error {
	if err := q.silent(); err != nil {
		return err
	}
	return q.lacks(0)
}

// Refused yields when a body was refused because the store is full: retention
// should make room at once, also when the store is not as full as it usually
// waits for.
func (q *Queue) Refused() <-chan struct{} { return q.room.refused }

// Accepted counts the alerts accepted since the queue was opened.
func (q *Queue) Accepted() int64 { return q.room.accepted.Load() }

// measure asks the server how much is stored, and the system how much is free.
func (q *Queue) measure(ctx context.Context) error {
	state, err := q.state(ctx)
	if err != nil {
		return err
	}
	q.room.used.Store(int64(state.Bytes))
	return q.measureDisk()
}

func (q *Queue) measureDisk() error {
	if q.srv == nil {
		return nil
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(q.cfg.Dir, &fs); err != nil {
		return fmt.Errorf("free space of %s: %w", q.cfg.Dir, err)
	}
	q.room.free.Store(int64(fs.Bavail) * int64(fs.Bsize)) //nolint:unconvert // Bsize differs between systems
	return nil
}

// Purge removes the oldest messages, up to and including upTo. The caller answers
// for it that nobody needs them.
func (q *Queue) Purge(ctx context.Context, upTo uint64) error {
	if upTo = min(upTo, q.last.Load()); upTo < q.first.Load() {
		return nil
	}
	if err := q.stream.Purge(ctx, jetstream.WithPurgeSequence(upTo+1)); err != nil {
		return fmt.Errorf("%w: purge up to %d: %w", ErrUnavailable, upTo, err)
	}
	raise(&q.first, upTo+1)
	faultpoint.Here("prune-stream-cut")
	return q.measure(ctx)
}

// watchRoom measures the store while it is embedded.
func (q *Queue) watchRoom() {
	for sleep(context.Background(), q.stop, 5*time.Second) {
		ctx, cancel := context.WithTimeout(context.Background(), publishTimeout)
		measure := q.measure
		if !q.room.changed.Swap(false) {
			measure = func(context.Context) error { return q.measureDisk() }
		}
		if err := measure(ctx); err != nil {
			q.cfg.Logger.Warn("cannot measure the store", "component", "queue", "err", err)
		}
		cancel()
	}
}
