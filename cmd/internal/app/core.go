package app

import (
	"context"
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
	ledger  *store.Store
	queue   *queue.Queue
	log     *queue.Log // nil = embedded: there is no other instance
	counted bool       // the loss that was accepted is counted; owned by lead
	builder *worker.Builder
	notes   *worker.Notes
	byName  bool        // --incident-by alertname
	app     *App        // whose core it is; nil offline
	running atomic.Bool // splitting and delivering
	seen    outlook
	away    anchor

	cfg      *config.Config
	logger   *slog.Logger
	observer worker.Observer
	sender   worker.Sender
	work     atomic.Pointer[work]
}

// work is what decides and delivers, as long as this instance leads. While another one
// leads it does not run.
type work struct {
	splitter  *worker.Splitter
	deliver   *worker.Deliverer
	retention *worker.Retention
	brake     *worker.Brake
	marker    *worker.Marker // nil before the first term
}

func (c *core) deliver() *worker.Deliverer { return c.work.Load().deliver }

func (c *core) splitter() *worker.Splitter { return c.work.Load().splitter }

// openCore opens ledger and queue, and makes the workers. The caller holds the
// directory's lock. Webhooks can be accepted as soon as it returns; run does the rest.
func openCore(ctx context.Context, cfg *config.Config, opts Options) (_ *core, err error) {
	c := &core{byName: cfg.IncidentBy == "alertname", cfg: cfg, logger: opts.Logger}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	storeConfig := store.Config{Dir: cfg.DataDir, NoSync: opts.NoSync, Shared: cfg.NATS() != "", Logger: c.logger}
	queueConfig := overNATS(cfg, c.logger, queue.Config{
		Dir: cfg.DataDir, MaxStore: cfg.MaxStore, MinFree: cfg.MinFree, Version: opts.Version, Logger: c.logger, NoSync: opts.NoSync,
		ShortFor: opts.ShortFor,
	})
	if m := opts.metrics; m != nil {
		storeConfig.Committed, queueConfig.Observer, c.observer = m.LedgerCommit, m, m
	}
	if c.ledger, _, err = store.Open(storeConfig); err != nil {
		return nil, err
	}
	faultpoint.Here("start-ledger")
	queueConfig.After, queueConfig.AcceptLoss = c.ledger.Summary().Progress.Seq, cfg.AcceptLoss
	if c.queue, err = queue.Open(ctx, queueConfig); err != nil {
		return nil, err
	}
	faultpoint.Here("start-queue")
	if storeConfig.Shared {
		if err := c.openLog(ctx, storeConfig); err != nil {
			return nil, err
		}
	}
	client := callgoose.Config{
		URL: cfg.CallgooseURL, From: cfg.CallgooseFrom, Token: cfg.CallgooseToken.Reveal,
		Query: cfg.CallgooseAuth == "query", CAFile: cfg.CallgooseCA, Timeout: cfg.Timeout,
		Concurrency: cfg.Concurrency, Transport: opts.Transport,
	}
	if c.log != nil {
		client.MayWrite = c.log.Holds
	}
	sender, err := callgoose.New(client)
	if err != nil {
		return nil, err
	}
	c.sender = opts.drift.watch(sender)
	if c.log != nil {
		c.sender = held{c.sender, c.log}
	}
	c.notes = worker.NewNotes(c.read)
	c.builder = worker.NewBuilder(c.notes, c.ledger)
	var marker *worker.Marker
	if c.log == nil {
		if marker, err = worker.Begin(ctx, c.queue, c.ledger, c.logger); err != nil {
			return nil, err
		}
	}
	c.begin(marker, time.Time{})
	return c, nil
}

// begin makes the workers of a term and introduces them to each other. Those of a follower
// are never run: they answer for a service that knows nothing of Callgoose.
func (c *core) begin(marker *worker.Marker, unsure time.Time) *work {
	cfg, w := c.cfg, &work{marker: marker}
	w.deliver = worker.NewDeliverer(worker.DeliverConfig{
		RetryMin: cfg.RetryMin, RetryMax: cfg.RetryMax, RetryFor: cfg.RetryFor, Unsure: unsure,
		Concurrency: cfg.Concurrency, Rate: cfg.Rate, ByAlertname: c.byName, Logger: c.logger, Observer: c.observer,
		Refresh: func() bool {
			changed, err := cfg.CallgooseToken.Reload()
			return err == nil && changed
		},
	}, c.ledger, c.builder, c.sender)
	hold := worker.Hold{Match: cfg.HollowMatch, Recovery: cfg.HoldRecovery}
	if cfg.HollowRecovery == "hold" {
		hold.Hollow = cfg.HoldHollow
	}
	namedEvery := time.Duration(0)
	if len(cfg.PMMURL) > 0 { // whether a webhook named an alert decides there
		namedEvery = 1
	}
	w.splitter = worker.NewSplitter(worker.SplitConfig{
		Form: worker.Form{
			From: cfg.CallgooseFrom, ByAlertname: c.byName, LateAfter: cfg.LateAfter, Plain: cfg.HollowRecovery == "send",
			ShortLength: cfg.ShortLength, UrgencyHigh: cfg.UrgencyHigh,
		},
		Hold: hold, NamedEvery: namedEvery, Storm: worker.StormRule(cfg.Storm),
		ResendAfter: cfg.ResendAfter, Collapse: cfg.OnBacklog == "collapse",
		Claim: w.deliver.MayClaim, Outage: w.deliver.Outage, Decided: w.deliver.Wake, Logger: c.logger, Observer: c.observer,
	}, c.queue, c.notes, c.ledger)
	w.brake = worker.NewBrake(worker.StormRule(cfg.Storm), c.queue, c.ledger, c.logger)
	w.retention = worker.NewRetention(worker.RetentionConfig{Keep: cfg.Retention, MinFree: cfg.MinFree, Logger: c.logger}, c.queue, c.ledger)
	c.work.Store(w)
	return w
}

// run splits and delivers until ctx ends (nil) or the store fails; with other instances,
// whenever this one leads. It returns when every goroutine of the core has ended.
func (c *core) run(ctx context.Context) error {
	faultpoint.Here("start-done")
	if c.log != nil {
		return together(ctx, c.follow())
	}
	jobs := c.jobs(c.work.Load())
	jobs["store"] = c.failed
	return together(ctx, jobs)
}

// failed waits until the store can no longer be trusted.
func (c *core) failed(ctx context.Context) error {
	select {
	case err := <-c.queue.Failed():
		return err
	case err := <-c.ledger.Failed():
		return err
	case <-ctx.Done():
		return nil
	}
}

// jobs are what a term consists of. They are running from now on.
func (c *core) jobs(w *work) map[string]func(context.Context) error {
	c.running.Store(true)
	return map[string]func(context.Context) error{
		"split": w.splitter.Run, "deliver": w.deliver.Run, "storm": c.patient(w.brake.Run),
		"retention": c.patient(w.retention.Run), "mark": c.patient(w.marker.Run),
		"fallback": func(ctx context.Context) error { return c.app.fallback.run(ctx, c) },
	}
}

// together runs jobs until ctx ends (nil) or one of them fails, and all have ended.
func together(parent context.Context, jobs map[string]func(context.Context) error) error {
	ctx, stop := context.WithCancelCause(parent)
	defer stop(nil)
	var wg sync.WaitGroup
	for name, run := range jobs {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				stop(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	wg.Wait()
	if parent.Err() != nil {
		return nil
	}
	return context.Cause(ctx)
}

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
