package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker"
)

// Offline sends events of a data directory with no service running on it, for
// example one copied from a dead host. It works on a copy of its own, so
// nothing in the directory changes: neither dedupe state nor outcomes.
type Offline struct {
	core *core
	copy string
	refs []worker.Ref
	Plan admin.Plan
}

// isDataDir is nil for a directory that a service has filled.
func isDataDir(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "jetstream")); err != nil {
		return fmt.Errorf("%s is not a data directory of pmm-callgoose: %w", dir, err)
	}
	return nil
}

// OpenOffline copies the directory, brings its ledger up to date (what is not
// split yet is), and chooses events. Unlike a replay through the
// service it takes queued events too: there is nobody else to send them.
func OpenOffline(ctx context.Context, cfg *config.Config, r admin.ReplayRequest, transport http.RoundTripper, log *slog.Logger) (_ *Offline, err error) {
	if err := cmp.Or(isDataDir(cfg.DataDir), store.Moved(cfg.DataDir)); err != nil {
		return nil, err
	}
	o := &Offline{}
	if o.copy, err = os.MkdirTemp("", "pmm-callgoose-copy-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			o.Close()
		}
	}()
	// A socket in the directory cannot be copied, and is of no use.
	for _, name := range []string{"jetstream", store.FileName} {
		if err := copyTree(filepath.Join(cfg.DataDir, name), filepath.Join(o.copy, name)); err != nil {
			return nil, fmt.Errorf("copy the data directory: %w", err)
		}
	}
	own := *cfg
	own.DataDir, own.MaxStore, own.MinFree, own.Retention = o.copy, 1<<50, 0, 0
	if o.core, err = openCore(ctx, &own, Options{Transport: transport, Logger: log}); err != nil {
		return nil, err
	}
	if err := o.core.splitter().CatchUp(ctx); err != nil {
		return nil, err
	}
	o.Plan, o.refs, err = plan(ctx, o.core, r, true)
	return o, err
}

// Close removes the copy.
func (o *Offline) Close() {
	if o.core != nil {
		o.core.close()
	}
	_ = os.RemoveAll(o.copy)
}

// Send sends what was chosen, oldest first and in order, until every event is
// settled or ctx ends.
func (o *Offline) Send(ctx context.Context) (admin.Job, error) {
	job := admin.Job{Total: len(o.refs), Outcomes: map[event.Outcome]int{}}
	if len(o.refs) == 0 {
		return job, nil
	}
	if err := o.queueUp(ctx); err != nil {
		return job, err
	}
	run, stop := context.WithCancel(ctx)
	defer stop()
	go func() { // until nothing is waiting
		for run.Err() == nil && o.core.ledger.Summary().Counts[string(event.Queued)] > 0 {
			time.Sleep(20 * time.Millisecond)
		}
		stop()
	}()
	if err := o.core.deliver().Run(run); err != nil {
		return job, err
	}
	err := o.core.ledger.View(func(tx *store.Tx) {
		for _, ref := range o.refs {
			if rec := tx.Brief(ref.ReceivedAt, ref.Pos); rec != nil && rec.Outcome != event.Queued {
				job.Settled++
				job.Outcomes[rec.Outcome]++
			}
		}
	})
	job.InLine, job.Done = job.Total, job.Settled == job.Total
	if !job.Done && err == nil {
		err = fmt.Errorf("interrupted: %d of %d events were not settled", job.Total-job.Settled, job.Total)
	}
	return job, err
}

// queueUp makes the queue of the copy hold what was chosen, and nothing else.
func (o *Offline) queueUp(ctx context.Context) error {
	return o.core.ledger.Do(ctx, func(tx *store.Tx) {
		for _, w := range slices.Collect(tx.Waiting(event.Position{})) {
			if r := tx.Record(w.ReceivedAt, w.Pos); r != nil {
				worker.Park(tx, r, "not chosen")
			}
			tx.DropWaiting(w.At)
		}
		for _, ref := range o.refs {
			r := tx.Record(ref.ReceivedAt, ref.Pos)
			if r == nil {
				continue
			}
			r.At, r.Outcome, r.Reason, r.SettledAt = ref.Pos, event.Queued, "", time.Time{}
			tx.PutRecord(r)
			tx.PutWaiting(&store.Waiting{
				At: ref.Pos, Pos: ref.Pos, ReceivedAt: ref.ReceivedAt, Status: r.Status,
				Key: r.Key, Source: r.Source, Alertname: r.Alertname, QueuedAt: time.Now().UTC(), ClaimedAt: r.ClaimedAt, Size: r.Facts.Size,
			})
		}
	})
}

// copyTree copies a file or a directory. What is not there is left out.
func copyTree(from, to string) error {
	info, err := os.Stat(from)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		return os.CopyFS(to, os.DirFS(from))
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return cmp.Or(err, out.Close())
}
