package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store"
	"pmm-callgoose/store/faultpoint"
	"pmm-callgoose/store/queue"
	"pmm-callgoose/worker"
	"pmm-callgoose/worker/callgoose"
)

// core is everything that lives between two openings of the store.
type core struct {
	ledger    *store.Store
	queue     *queue.Queue
	builder   *worker.Builder
	splitter  *worker.Splitter
	deliver   *worker.Deliverer
	retention *worker.Retention
	brake     *worker.Brake
	marker    *worker.Marker
	byName    bool // --incident-by alertname
	// beside runs with the others, nil = nothing does.
	beside  func(context.Context) error
	running atomic.Bool // splitting and delivering
	seen    outlook
}

// openCore opens ledger and queue, and makes the workers. The caller holds the
// directory's lock. Webhooks can be accepted as soon as it returns; run does the rest.
func openCore(ctx context.Context, cfg *config.Config, opts Options) (_ *core, err error) {
	c, log := &core{byName: cfg.IncidentBy == "alertname"}, opts.Logger
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
	if c.ledger, _, err = store.Open(storeConfig); err != nil {
		return nil, err
	}
	faultpoint.Here("start-ledger")
	c.queue, err = queue.Open(ctx, overNATS(cfg, log, queue.Config{
		Dir: cfg.DataDir, MaxStore: cfg.MaxStore, MinFree: cfg.MinFree,
		After: c.ledger.Summary().Progress.Seq, Logger: log, NoSync: opts.NoSync, Synced: synced,
	}))
	if err != nil {
		return nil, err
	}
	faultpoint.Here("start-queue")
	if c.marker, err = worker.Begin(ctx, c.queue, c.ledger, log); err != nil {
		return nil, err
	}
	sender, err := callgoose.New(callgoose.Config{
		URL: cfg.CallgooseURL, From: cfg.CallgooseFrom, Token: cfg.CallgooseToken.Reveal,
		Query: cfg.CallgooseAuth == "query", CAFile: cfg.CallgooseCA, Timeout: cfg.Timeout,
		Concurrency: cfg.Concurrency, Transport: opts.Transport,
	})
	if err != nil {
		return nil, err
	}
	c.wire(cfg, log, observer, opts.drift.watch(sender))
	return c, nil
}

// wire makes the workers and introduces them to each other.
func (c *core) wire(cfg *config.Config, log *slog.Logger, observer worker.Observer, sender worker.Sender) {
	notes := worker.NewNotes(c.queue.Read)
	c.builder = worker.NewBuilder(notes, c.ledger)
	c.deliver = worker.NewDeliverer(worker.DeliverConfig{
		RetryMin: cfg.RetryMin, RetryMax: cfg.RetryMax, RetryFor: cfg.RetryFor,
		Concurrency: cfg.Concurrency, Rate: cfg.Rate, ByAlertname: c.byName, Logger: log, Observer: observer,
		Refresh: func() bool {
			changed, err := cfg.CallgooseToken.Reload()
			return err == nil && changed
		},
	}, c.ledger, c.builder, sender)
	hold := worker.Hold{Match: cfg.HollowMatch, Recovery: cfg.HoldRecovery}
	if cfg.HollowRecovery == "hold" {
		hold.Hollow = cfg.HoldHollow
	}
	namedEvery := time.Duration(0)
	if len(cfg.PMMURL) > 0 { // whether a webhook named an alert decides there
		namedEvery = 1
	}
	c.splitter = worker.NewSplitter(worker.SplitConfig{
		Form: worker.Form{
			From: cfg.CallgooseFrom, ByAlertname: c.byName, LateAfter: cfg.LateAfter, Plain: cfg.HollowRecovery == "send",
			ShortLength: cfg.ShortLength, UrgencyHigh: cfg.UrgencyHigh,
		},
		Hold: hold, NamedEvery: namedEvery, Storm: worker.StormRule(cfg.Storm),
		ResendAfter: cfg.ResendAfter, Collapse: cfg.OnBacklog == "collapse",
		Claim: c.deliver.MayClaim, Outage: c.deliver.Outage, Decided: c.deliver.Wake, Logger: log, Observer: observer,
	}, c.queue, notes, c.ledger)
	c.brake = worker.NewBrake(worker.StormRule(cfg.Storm), c.queue, c.ledger, log)
	c.retention = worker.NewRetention(worker.RetentionConfig{Keep: cfg.Retention, MinFree: cfg.MinFree, Logger: log}, c.queue, c.ledger)
}

// run splits and delivers until ctx ends (nil) or the store fails. It returns when
// every goroutine of the core has ended.
func (c *core) run(ctx context.Context) error {
	faultpoint.Here("start-done")
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	for name, run := range map[string]func(context.Context) error{
		"split": c.splitter.Run, "deliver": c.deliver.Run, "retention": c.retention.Run, "storm": c.brake.Run, "mark": c.marker.Run, "fallback": c.beside,
	} {
		if run == nil {
			continue
		}
		wg.Go(func() {
			if err := run(ctx); err != nil {
				stop(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	c.running.Store(true)
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
