package app

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/event/faultpoint"
	"pmm-callgoose/store/queue"
	"pmm-callgoose/worker"
	"pmm-callgoose/worker/callgoose"
)

// core is everything that lives between two openings of the store.
type core struct {
	ledger   *store.Store
	queue    *queue.Queue
	splitter *worker.Splitter
	deliver  *worker.Deliverer
	source   *queue.Deliveries
	fresh    bool
	running  atomic.Bool // recovery is over
	// deliverer makes one that gets its events elsewhere.
	deliverer func(worker.Source, worker.Bodies) *worker.Deliverer
}

// openCore locks the directory, opens ledger and queue, and makes the workers.
// Webhooks can be accepted as soon as it returns; run does the rest.
func openCore(ctx context.Context, cfg *config.Config, opts Options) (_ *core, err error) {
	c, log := &core{}, opts.Logger
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	storeConfig := store.Config{Dir: cfg.DataDir, NoSync: opts.NoSync, Logger: log}
	var synced func(time.Duration, int)
	var observer worker.Observer
	if m := opts.metrics; m != nil {
		storeConfig.Committed, synced, observer = m.LedgerCommit, m.IntakeCommit, m
	}
	if c.ledger, c.fresh, err = store.Open(storeConfig); err != nil {
		return nil, err
	}
	faultpoint.Here("start-ledger")
	known := c.ledger.Summary()
	c.queue, err = queue.Open(ctx, queue.Config{
		Dir: cfg.DataDir, URL: cfg.NATS(), CredsFile: cfg.NATSCreds.File(),
		MaxStore: cfg.MaxStore, MinFree: cfg.MinFree,
		AfterNotification: known.Progress.At.Seq, AfterEvent: max(known.Progress.Applied, known.Floor),
		Logger: log, NoSync: opts.NoSync, Synced: synced,
	})
	if err != nil {
		return nil, err
	}
	faultpoint.Here("start-queue")
	sender, err := callgoose.New(callgoose.Config{
		URL: cfg.CallgooseURL, From: cfg.CallgooseFrom, Token: cfg.CallgooseToken.Reveal,
		Query: cfg.CallgooseAuth == "query", CAFile: cfg.CallgooseCA, Timeout: cfg.Timeout,
		Concurrency: cfg.Concurrency, Transport: opts.Transport,
	})
	if err != nil {
		return nil, err
	}
	c.splitter = worker.NewSplitter(worker.SplitConfig{
		From: cfg.CallgooseFrom, ByAlertname: cfg.IncidentBy == "alertname",
		ResendAfter: cfg.ResendAfter, Collapse: cfg.OnBacklog == "collapse", LateAfter: cfg.LateAfter, Retention: cfg.Retention, MinFree: cfg.MinFree, Logger: log,
		Observer: observer,
	}, c.queue, c.ledger)
	rules := worker.DeliverConfig{
		RetryMin: cfg.RetryMin, RetryMax: cfg.RetryMax, RetryFor: cfg.RetryFor,
		Concurrency: cfg.Concurrency, Rate: cfg.Rate, LateAfter: cfg.LateAfter,
		Collapse: cfg.OnBacklog == "collapse", Logger: log, Observer: observer,
		Restore: c.splitter.Restore,
		Refresh: func() bool {
			changed, err := cfg.CallgooseToken.Reload()
			return err == nil && changed
		},
	}
	c.deliverer = func(source worker.Source, bodies worker.Bodies) *worker.Deliverer {
		return worker.NewDeliverer(rules, source, bodies, c.ledger, sender)
	}
	c.deliver = c.deliverer(lateSource{c}, c.queue)
	return c, nil
}

// lateSource is the stream of deliveries, which is opened only after recovery.
type lateSource struct{ c *core }

func (s lateSource) Next() (event.Delivery, error) { return s.c.source.Next() }
func (s lateSource) Ack(seq uint64)                { s.c.source.Ack(seq) }
func (s lateSource) Close()                        { s.c.source.Close() }

// run recovers, then splits and delivers until ctx ends (nil) or the store
// fails. It returns when every goroutine of the core has ended.
func (c *core) run(ctx context.Context) error {
	if err := c.splitter.Recover(ctx, c.fresh); err != nil {
		return err
	}
	var err error
	if c.source, err = c.queue.Deliver(ctx, c.ledger.Summary().Floor); err != nil {
		return err
	}
	faultpoint.Here("start-done")
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	c.running.Store(true)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.splitter.Run(ctx); err != nil {
			stop(fmt.Errorf("split: %w", err))
		}
	})
	wg.Go(func() {
		if err := c.deliver.Run(ctx); err != nil {
			stop(fmt.Errorf("deliver: %w", err))
		}
	})
	wg.Go(func() {
		select {
		case err := <-c.queue.Failed():
			stop(err)
		case err := <-c.ledger.Failed():
			stop(err)
		case <-ctx.Done():
		}
	})
	wg.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, errStopping) {
		return cause
	}
	return nil
}

// errStopping is the cause of an orderly stop.
var errStopping = errors.New("stopping")

// close ends what openCore began. What was acknowledged is on disk already.
func (c *core) close() {
	if c.queue != nil {
		_ = c.queue.Close()
	}
	faultpoint.Here("stop-queue")
	if c.ledger != nil {
		_ = c.ledger.Close()
	}
}

// reopenAfter is the pause before a core that failed is opened again.
const reopenAfter = 2 * time.Second
