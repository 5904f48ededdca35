package app

import (
	"cmp"
	"context"

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

// openServers opens what is on the NATS servers of cfg. The caller closes the queue.
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
	servers, log, err := openServers(ctx, cfg, opts)
	if err != nil {
		return err
	}
	err = log.Leave(ctx, store.Config{Dir: dir, NoSync: true, Shared: true, Logger: opts.Logger}, progress)
	_ = servers.Close()
	if err != nil {
		return err
	}
	if err := cmp.Or(store.Detach(dir), queue.Sync(dir)); err != nil {
		return err
	}
	faultpoint.Here("directory-complete")
	return store.Mark(dir, store.Leaving, false)
}
