package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store"
	"pmm-callgoose/store/faultpoint"
	"pmm-callgoose/store/queue"
)

// Progress is told how many notifications were copied, of how many.
type Progress func(done, of int)

// Adopt brings the data directory of a stopped service to the NATS servers that cfg
// names, and marks it, so that it is not served any more. Interrupted, it goes on when it
// is called again.
func Adopt(ctx context.Context, cfg *config.Config, opts Options, progress Progress) (err error) {
	if err := isDataDir(cfg.DataDir); err != nil {
		return err
	}
	lock, err := store.LockDir(cfg.DataDir)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	ledger, _, err := store.Open(store.Config{Dir: cfg.DataDir, NoSync: opts.NoSync, Logger: opts.Logger})
	if err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, ledger.Close()) }()
	from, err := queue.Open(ctx, queue.Config{Dir: cfg.DataDir, After: ledger.Summary().Progress.Seq, Logger: opts.Logger, NoSync: opts.NoSync})
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	servers, log, err := openServers(ctx, cfg, opts)
	if err != nil {
		return err
	}
	defer func() { _ = servers.Close() }()
	return log.Adopt(ctx, from, ledger, progress, func(adopted bool) error {
		return store.Mark(cfg.DataDir, store.Adopted, adopted)
	})
}

func openServers(ctx context.Context, cfg *config.Config, opts Options) (*queue.Queue, *queue.Log, error) {
	q, err := queue.Open(ctx, overNATS(cfg, opts.Logger, queue.Config{Dir: cfg.DataDir, Logger: opts.Logger}))
	if err != nil {
		return nil, nil, err
	}
	log, err := q.OpenLog(ctx)
	if err != nil {
		_ = q.Close()
	}
	return q, log, err
}

// othersWithin is how long the other instances have to announce themselves: each does so
// every two seconds.
const othersWithin = 3 * time.Second

// Leave brings what the NATS servers of cfg hold into a data directory, which is empty or
// what an interrupted Leave left there. No instance may run meanwhile; afterwards none
// leads there any more. If the power goes
//
//	before the log says that it was left   the instances may go on; LEAVING keeps serve from the directory
//	after that                             likewise; the next Leave brings everything once more
//	after LEAVING is removed               the directory is complete, and nobody else leads
func Leave(ctx context.Context, cfg *config.Config, opts Options, progress Progress) error {
	dir := cfg.DataDir
	lock, err := store.LockDir(dir)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if err := store.ClearLeaving(dir); err != nil {
		return err
	}
	if err := store.Mark(dir, store.Leaving, true); err != nil {
		return err
	}
	if err := leave(ctx, cfg, opts, progress); err != nil {
		return err
	}
	if err := cmp.Or(store.Detach(dir), queue.Sync(dir)); err != nil {
		return err
	}
	faultpoint.Here("directory-complete")
	return store.Mark(dir, store.Leaving, false)
}

// leave fills the directory and ends with the log saying so.
func leave(ctx context.Context, cfg *config.Config, opts Options, progress Progress) (err error) {
	servers, log, err := openServers(ctx, cfg, opts)
	if err != nil {
		return err
	}
	defer func() { _ = servers.Close() }()
	log.Leave()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { _ = log.Announce(ctx, func() []byte { return nil }) }()
	if !pause(ctx, othersWithin) {
		return context.Cause(ctx)
	}
	if err := alone(log); err != nil {
		return err
	}
	go func() {
		for pause(ctx, time.Second) {
			if err := alone(log); err != nil {
				cancel(err)
			}
		}
	}()
	c := &core{cfg: cfg, logger: opts.Logger, queue: servers, log: log}
	storeConfig := store.Config{Dir: cfg.DataDir, NoSync: true, Shared: true, Logger: opts.Logger} // Detach syncs it
	if c.ledger, _, err = store.Open(storeConfig); err != nil {
		return err
	}
	defer func() { _ = c.ledger.Close() }()
	restore, err := log.Begin(ctx, 0)
	if err == nil && restore {
		err = c.restore(ctx, storeConfig)
	}
	if err := cmp.Or(err, c.newer); err != nil {
		return err
	}
	err = log.Run(ctx, c.ledger, func(ctx context.Context, _ time.Time) error {
		if err := bring(ctx, cfg.DataDir, servers, opts, progress); err != nil {
			return err
		}
		return queue.ErrLeft
	})
	faultpoint.Here("log-left")
	switch {
	case errors.Is(err, queue.ErrLeft):
		return nil
	case err == nil:
		return context.Cause(ctx)
	}
	return err
}

// alone is an error while another instance runs.
func alone(log *queue.Log) error {
	others := log.Others()
	if len(others) == 0 {
		return nil
	}
	what := "follows"
	if others[0].Term > 0 {
		what = "leads"
	}
	return fmt.Errorf("instance %s %s: stop pmm-callgoose there and on all others, then run this again", others[0].Name, what)
}

// bring copies the notifications into an embedded queue.
func bring(ctx context.Context, dir string, servers *queue.Queue, opts Options, progress Progress) (err error) {
	if err := os.RemoveAll(filepath.Join(dir, "jetstream")); err != nil { // of a term that was lost
		return err
	}
	to, err := queue.Open(ctx, queue.Config{Dir: dir, Logger: opts.Logger, NoSync: true})
	if err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, to.Close(), queue.Sync(dir)) }()
	return to.Copy(ctx, servers, "", progress)
}
