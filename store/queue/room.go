package queue

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"pmm-callgoose/store/event/faultpoint"
)

// room knows how full the store is, without asking the server for each body:
// measured now and then, and counted on in between.
type room struct {
	used     atomic.Int64 // bytes in both streams
	max      atomic.Int64
	free     atomic.Int64 // bytes free on the file system
	minFree  atomic.Int64
	accepted atomic.Int64 // alerts accepted since the start
	changed  atomic.Bool  // something was stored since the streams were measured
}

func (r *room) wrote(bytes, alerts int) {
	r.used.Add(int64(bytes))
	r.free.Add(-int64(bytes))
	r.accepted.Add(int64(alerts))
	r.changed.Store(true)
}

// refuse says why a body of this size cannot be taken. The events made from it
// need about as much room again, and they must always find it.
func (r *room) refuse(body int) error {
	need := 3 * int64(body)
	if used, limit := r.used.Load(), r.max.Load(); used+need > limit {
		return fmt.Errorf("%w: %s of %s are used (--max-store)", ErrFull, mib(used), mib(limit))
	}
	if free, limit := r.free.Load(), r.minFree.Load(); limit > 0 && free-need < limit {
		return fmt.Errorf("%w: the disk has only %s free, %s must stay free (--min-free)", ErrFull, mib(max(free, 0)), mib(limit))
	}
	return nil
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// Room says how many bytes are stored, how many may be, and how many are free
// on the disk; -1 when that is the disk of an external server.
func (q *Queue) Room() (used, limit, free int64) {
	free = q.room.free.Load()
	if q.cfg.URL != "" {
		free = -1
	}
	return q.room.used.Load(), q.room.max.Load(), free
}

// Full says why intake would be refused now, nil when it would not.
func (q *Queue) Full() error { return q.room.refuse(0) }

// Accepted counts the alerts accepted since the queue was opened.
func (q *Queue) Accepted() int64 { return q.room.accepted.Load() }

// measure asks the server how much is stored, and the system how much is free.
func (q *Queue) measure(ctx context.Context) error {
	var used int64
	for _, name := range []string{notifications, events} {
		s, err := q.js.Stream(ctx, name)
		if err != nil {
			return fmt.Errorf("%w: read stream %s: %w", ErrUnavailable, name, err)
		}
		used += int64(s.CachedInfo().State.Bytes)
	}
	q.room.used.Store(used)
	q.room.max.Store(q.cfg.MaxStore)
	return q.measureDisk()
}

func (q *Queue) measureDisk() error {
	if q.cfg.URL != "" {
		return nil
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(q.cfg.Dir, &fs); err != nil {
		return fmt.Errorf("free space of %s: %w", q.cfg.Dir, err)
	}
	q.room.free.Store(int64(fs.Bavail) * int64(fs.Bsize)) //nolint:unconvert // Bsize differs between systems
	q.room.minFree.Store(q.cfg.MinFree)
	return nil
}

// Purge removes the oldest messages of both streams, up to and including the
// sequences given. The caller answers for them: everything up to there is
// settled, and nobody needs it.
func (q *Queue) Purge(ctx context.Context, notification, event uint64) error {
	for _, p := range []struct {
		s    jetstream.Stream
		upTo uint64
	}{{q.notes, notification}, {q.evs, event}} {
		if p.upTo == 0 {
			continue
		}
		if err := p.s.Purge(ctx, jetstream.WithPurgeSequence(p.upTo+1)); err != nil {
			return fmt.Errorf("%w: purge up to %d: %w", ErrUnavailable, p.upTo, err)
		}
		faultpoint.Here("prune-stream-cut")
	}
	return q.measure(ctx)
}

func (q *Queue) watchRoom() {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-q.stop:
			return
		case <-tick.C:
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
}
