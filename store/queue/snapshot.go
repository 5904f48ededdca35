package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/faultpoint"
)

// A snapshot is the ledger as of an entry of LEDGER, in pieces, which SNAPSHOTS holds one
// behind the other; its last message says where it begins. If we die before that one,
// there is no snapshot, and the next one replaces it. LEDGER is cut below the newest.

// When a snapshot is made, and how many entries of LEDGER stay below it, for followers
// that are a little behind.
const (
	snapshotBytes = 64 << 20
	snapshotAge   = 24 * time.Hour
	snapshotEvery = time.Minute
	keepEntries   = 1000
)

// complete is the last message of a snapshot.
type complete struct {
	Log   uint64    `json:"log"`   // the entry up to which it goes
	First uint64    `json:"first"` // sequence of its first piece
	At    time.Time `json:"at"`
	// Adopted names the embedded stream that Adopt brought the ledger with, "" = none.
	Adopted string `json:"adopted,omitempty"`
}

func (l *Log) snapshotSubject(part string) string {
	return l.q.cfg.subject(snapshotSubject) + "." + part
}

// newest is the newest snapshot and the sequence of its last message, 0 for none.
func (l *Log) newest(ctx context.Context) (c complete, end uint64, err error) {
	m, err := l.snapshots.GetLastMsgForSubject(ctx, l.snapshotSubject("complete"))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return c, 0, nil
	}
	if err != nil {
		return c, 0, fmt.Errorf("%w: read stream %s: %w", ErrUnavailable, snapshotName, err)
	}
	if err := json.Unmarshal(m.Data, &c); err != nil {
		return c, 0, fmt.Errorf("newest snapshot: %w", err)
	}
	return c, m.Sequence, nil
}

// KeepSnapshots makes a snapshot whenever LEDGER has grown, or is a day ahead of the
// newest one, until ctx ends. For the leader.
func (l *Log) KeepSnapshots(ctx context.Context, ledger *store.Store) error {
	tick := time.NewTicker(faultpoint.Often(snapshotEvery))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		info, err := l.stream.Info(ctx)
		if err != nil {
			continue
		}
		grown := int64(info.State.Bytes) > l.kept.Load()+faultpoint.Few(snapshotBytes)
		if c, _, err := l.newest(ctx); err != nil || !grown && time.Since(c.At) < snapshotAge {
			continue
		}
		if _, err := l.Snapshot(ctx, ledger); err != nil && ctx.Err() == nil {
			l.log.Error("no snapshot of the ledger could be stored; again in a minute", "err", err)
		}
	}
}

// Snapshot stores one, cuts LEDGER below it, and returns the entry up to which it goes.
func (l *Log) Snapshot(ctx context.Context, ledger *store.Store) (uint64, error) {
	return l.snapshot(ctx, ledger, 0, "")
}

// snapshot stores one that goes up to as, if that is not 0.
func (l *Log) snapshot(ctx context.Context, ledger *store.Store, as uint64, adopted string) (uint64, error) {
	l.snapping.Lock()
	defer l.snapping.Unlock()
	if err := l.q.silent(); err != nil {
		return 0, err
	}
	info, err := l.snapshots.Info(ctx)
	if err != nil {
		return 0, fmt.Errorf("read stream %s: %w", snapshotName, err)
	}
	last, run := info.State.LastSeq, time.Now().UTC()
	put := func(part string, data []byte) error {
		id := fmt.Sprintf("%s-s%d-%d", l.q.own.run, run.UnixNano(), last)
		within, cancel := context.WithTimeout(ctx, storeWithin)
		defer cancel()
		seq, err := l.q.put(within, l.snapshotSubject(part), data, id, jetstream.WithExpectLastSequence(last))
		if err == nil {
			last = seq
		}
		return err
	}
	first := last + 1
	at, err := ledger.Snapshot(as, func(piece []byte) error {
		err := put("piece", piece)
		faultpoint.Here("snapshot-piece")
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("store a snapshot of the ledger: %w", err)
	}
	done, err := json.Marshal(complete{Log: at, First: first, At: run, Adopted: adopted})
	if err == nil {
		err = put("complete", done)
	}
	faultpoint.Here("snapshot-stored")
	if err == nil && at > keepEntries {
		err = l.stream.Purge(ctx, jetstream.WithPurgeSequence(at-keepEntries))
	}
	if err == nil && first > 1 {
		err = l.snapshots.Purge(ctx, jetstream.WithPurgeSequence(first))
	}
	if err != nil {
		return 0, fmt.Errorf("store a snapshot of the ledger: %w", err)
	}
	if info, err := l.stream.Info(ctx); err == nil {
		l.kept.Store(int64(info.State.Bytes)) //nolint:gosec // bytes of a disk
	}
	l.log.Info("a snapshot of the ledger is stored", "seq", at, "pieces", last-first)
	return at, nil
}

// restore makes the ledger of a directory, in which none is open, from the newest snapshot.
func (l *Log) restore(ctx context.Context, dir string) error {
	c, end, err := l.newest(ctx)
	if err != nil {
		return err
	}
	if end == 0 {
		return short(snapshotName, "there is no snapshot")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pieces := make(chan store.LogEntry)
	reading, err := l.q.consume(ctx, l.q.cfg.stream(snapshotName), c.First, func(seq uint64, data []byte) {
		select {
		case pieces <- store.LogEntry{Seq: seq, Data: data}:
		case <-ctx.Done():
		}
	})
	if err != nil {
		return fmt.Errorf("%w: read stream %s: %w", ErrUnavailable, snapshotName, err)
	}
	defer reading.Stop()
	expected := c.First
	err = store.Restore(dir, c.Log, func() ([]byte, error) {
		if expected == end {
			return nil, io.EOF
		}
		select {
		case p := <-pieces:
			if p.Seq != expected {
				return nil, fmt.Errorf("%w: piece %d of the snapshot where %d is expected", ErrUnavailable, p.Seq, expected)
			}
			expected++
			return p.Data, nil
		case <-time.After(storeWithin):
			return nil, fmt.Errorf("%w: piece %d of the snapshot does not come", ErrUnavailable, expected)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	})
	if errors.Is(err, event.ErrDamaged) {
		err = short(snapshotName, "the newest snapshot is damaged: %v", err)
	}
	if err == nil {
		l.log.InfoContext(ctx, "the ledger was made from the newest snapshot", "seq", c.Log)
	}
	return err
}
