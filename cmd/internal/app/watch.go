package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// openPatience is how long one opening of the store may take. JetStream says
// nothing while it reads its files, so nothing better than time can be watched.
const openPatience = 10 * time.Minute

// open opens the core. Meanwhile it asks systemd for time: a large store takes
// longer than a start may.
func (a *App) open(ctx context.Context) (*core, error) {
	a.opening.Store(time.Now().UnixNano())
	a.opts.Notify.Status("opening the store")
	done := make(chan struct{})
	defer close(done)
	if a.opts.Notify != nil {
		go func() {
			const ahead = time.Minute
			for spent := time.Duration(0); spent < openPatience; spent += ahead / 4 {
				a.opts.Notify.Extend(ahead)
				select {
				case <-done:
					return
				case <-time.After(ahead / 4):
				}
			}
		}()
	}
	c, err := openCore(ctx, a.cfg, a.opts)
	if err != nil {
		return nil, err
	}
	c.app = a
	largest := c.queue.LargestBody()
	if largest < a.cfg.MaxBody {
		a.log.Warn("the max_payload of the NATS servers is too small for --max-body: larger webhooks are refused with 413; raise max_payload", "max_body", a.cfg.MaxBody, "largest", largest)
	}
	a.handler.LimitBody(largest)
	for source := range a.known(c) {
		a.handler.Know(source)
	}
	a.handler.Received(c.received(ctx))
	return c, nil
}

// received is when the newest notification was received that is stored, zero when there is
// none that can be read.
func (c *core) received(ctx context.Context) (at time.Time) {
	last := c.queue.Last()
	for seq := last; seq > 0 && seq+2 > last && at.IsZero(); seq-- { // the last may be a mark alone
		list, _ := c.queue.Read(ctx, seq) // who splits it reports what is wrong
		for _, n := range list {
			at = n.ReceivedAt
		}
	}
	return at
}

// known are the PMM servers that keep their places: heard of within --retention, or
// expected. nil while the ledger is not open.
func (a *App) known(c *core) map[string]bool {
	if c == nil {
		return nil
	}
	known := map[string]bool{}
	for source := range c.ledger.Summary().Heard {
		known[source] = true
	}
	for source := range a.cfg.ExpectEvery.Sources {
		known[source] = true
	}
	return known
}

// watch feeds systemd's watchdog for as long as there is progress, and keeps
// the line of status true.
func (a *App) watch(ctx context.Context) {
	every := cmp.Or(a.opts.Notify.Watchdog(), time.Minute) / 4
	var said string
	for {
		// Two turns without progress, and half of the time is still left.
		within, cancel := context.WithTimeoutCause(ctx, every, errors.New("it does not come round"))
		err := a.progress(within)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			a.log.Error("no progress; systemd ends the service if that goes on", "err", err)
			a.opts.Notify.Status("NO PROGRESS: " + err.Error())
			said = ""
		default:
			a.opts.Notify.Alive()
			if line := a.statusLine(ctx); line != said {
				a.opts.Notify.Status(line)
				said = line
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
	}
}

// progress returns nil when each loop of the core came round before ctx ended.
// Opening the store again counts as progress even if it fails: a restart would only
// repeat it.
func (a *App) progress(ctx context.Context) error {
	c := a.core.Load()
	if c == nil {
		if since := time.Since(time.Unix(0, a.opening.Load())); since > openPatience {
			return fmt.Errorf("the store has been opening for %s", since.Round(time.Second))
		}
		return nil
	}
	type loop struct {
		name  string
		alive func(context.Context) error
	}
	running, loops := c.running.Load(), []loop{{"intake", c.queue.Alive}}
	if running {
		loops = append(loops, loop{"splitter", c.splitter().Alive}, loop{"delivery", c.deliver().Alive})
	}
	var errs []error
	for _, l := range loops {
		if err := l.alive(ctx); err != nil && a.core.Load() == c && c.running.Load() == running {
			errs = append(errs, fmt.Errorf("%s: %w", l.name, err))
		}
	}
	return errors.Join(errs...)
}

// statusLine is what systemctl status shows.
func (a *App) statusLine(ctx context.Context) string {
	s, err := a.Status(ctx)
	if err != nil {
		return err.Error()
	}
	return s.Headline
}
