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
	"sync"
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

// OpenOffline copies the directory, brings its ledger up to date (waiting
// notifications are split), and chooses events. Unlike a replay through the
// service it takes queued events too: there is nobody else to send them.
func OpenOffline(ctx context.Context, cfg *config.Config, r admin.ReplayRequest, transport http.RoundTripper, log *slog.Logger) (_ *Offline, err error) {
	if _, err := os.Stat(filepath.Join(cfg.DataDir, "jetstream")); err != nil {
		return nil, fmt.Errorf("%s is not a data directory of pmm-callgoose: %w", cfg.DataDir, err)
	}
	o := &Offline{}
	if o.core, o.copy, err = openCopy(ctx, cfg, Options{Transport: transport, Logger: log}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			o.Close()
		}
	}()
	if err := o.core.splitter.CatchUp(ctx); err != nil {
		return nil, err
	}
	o.Plan, o.refs, err = plan(o.core, r, true)
	return o, err
}

// openCopy copies the data directory and opens the copy, its ledger brought up
// to what the streams hold. The caller closes the core and removes the copy.
func openCopy(ctx context.Context, cfg *config.Config, opts Options) (c *core, dir string, err error) {
	if dir, err = os.MkdirTemp("", "pmm-callgoose-copy-"); err != nil {
		return nil, "", err
	}
	defer func() {
		if err != nil {
			if c != nil {
				c.close()
			}
			_ = os.RemoveAll(dir)
		}
	}()
	// A socket in the directory cannot be copied, and is of no use.
	for _, name := range []string{"jetstream", store.FileName} {
		if err := copyTree(filepath.Join(cfg.DataDir, name), filepath.Join(dir, name)); err != nil {
			return nil, "", fmt.Errorf("copy the data directory: %w", err)
		}
	}
	own := *cfg
	own.DataDir, own.MaxStore, own.MinFree, own.Retention = dir, 1<<50, 0, 0
	if c, err = openCore(ctx, &own, opts); err != nil {
		return nil, "", err
	}
	return c, dir, c.splitter.Recover(ctx, c.fresh)
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
	run, stop := context.WithCancel(ctx)
	defer stop()
	src := &chosen{
		core: o.core, refs: o.refs, first: o.core.queue.LastEvent() + 1, // the floor is never behind it
		settled: make(map[worker.Ref]bool, len(o.refs)), all: stop, closed: make(chan struct{}),
	}
	job := admin.Job{Total: len(o.refs), Outcomes: map[event.Outcome]int{}}
	if len(o.refs) == 0 {
		return job, nil
	}
	if err := o.core.ledger.Do(ctx, func(tx event.Tx) error { return tx.SetFloor(src.first - 1) }); err != nil {
		return job, err
	}
	if err := o.core.deliverer(src, src).Run(run); err != nil && run.Err() == nil {
		return job, err
	}
	err := o.core.ledger.View(func(tx event.Tx) error {
		for _, ref := range o.refs {
			rec, err := tx.Record(ref.ReceivedAt, ref.Pos)
			if err != nil {
				return err
			}
			if rec != nil && src.settled[ref] {
				job.Settled++
				job.Outcomes[rec.Outcome]++
			}
		}
		return nil
	})
	job.InLine, job.Done = job.Total, job.Settled == job.Total
	if !job.Done && err == nil {
		err = fmt.Errorf("interrupted: %d of %d events were not settled", job.Total-job.Settled, job.Total)
	}
	return job, err
}

// chosen hands out chosen events in their order, under sequences of their own
// behind everything that the stream ever used.
type chosen struct {
	core  *core
	refs  []worker.Ref
	first uint64 // sequence of the first
	next  int    // owned by the caller of Next

	mu      sync.Mutex // guards settled
	settled map[worker.Ref]bool
	all     func() // called when every event is settled

	closed chan struct{}
	end    sync.Once
}

func (c *chosen) read(ctx context.Context, i int) (*event.Event, error) {
	ref := c.refs[i]
	var rec *event.Record
	if err := c.core.ledger.View(func(tx event.Tx) (err error) {
		rec, err = tx.Record(ref.ReceivedAt, ref.Pos)
		return err
	}); err != nil {
		return nil, err
	}
	if rec == nil {
		return nil, event.ErrGone
	}
	e, err := c.core.queue.Event(ctx, rec.Seq)
	if err == nil {
		e.Settled, e.QueuedAt = "", time.Now().UTC() // --retry-for counts from now
	}
	return e, err
}

// Next implements worker.Source.
func (c *chosen) Next() (event.Delivery, error) {
	if c.next == len(c.refs) {
		<-c.closed
		return event.Delivery{}, errors.New("all were handed out")
	}
	i := c.next
	c.next++
	e, err := c.read(context.Background(), i)
	return event.Delivery{Seq: c.first + uint64(i), Event: e, Err: err}, nil
}

// Event implements worker.Bodies.
func (c *chosen) Event(ctx context.Context, seq uint64) (*event.Event, error) {
	if seq < c.first || seq >= c.first+uint64(len(c.refs)) {
		return nil, event.ErrGone
	}
	return c.read(ctx, int(seq-c.first))
}

// Ack implements worker.Source.
func (c *chosen) Ack(seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settled[c.refs[seq-c.first]] = true
	if len(c.settled) == len(c.refs) {
		c.all()
	}
}

// Close implements worker.Source.
func (c *chosen) Close() { c.end.Do(func() { close(c.closed) }) }

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
