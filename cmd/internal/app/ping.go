package app

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/alarm"
	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/store/event"
)

const (
	pingTimeout = 10 * time.Second
	// logEvery bounds the lines about a heartbeat that fails.
	logEvery = time.Minute
)

// pinger calls a heartbeat service while all is well: --ping-url-file. It has a
// goroutine of its own, so no delivery waits for it.
type pinger struct {
	app    *App
	hook   *alarm.Hook // its errors hold no secret
	log    *slog.Logger
	logged time.Time // when a failure was logged last

	mu    sync.Mutex
	state admin.Ping // guarded by mu
}

// newPinger makes the heartbeat, nil when there is none.
func (a *App) newPinger() *pinger {
	if !a.cfg.PingURL.IsSet() {
		return nil
	}
	return &pinger{app: a, hook: alarm.NewHook(a.cfg.PingURL.Reveal, a.opts.Outside, pingTimeout), log: a.opts.Logger.With("component", "ping")}
}

// run calls until ctx ends.
func (p *pinger) run(ctx context.Context) {
	tick := time.NewTicker(cmp.Or(p.app.cfg.PingEvery, time.Minute))
	defer tick.Stop()
	for {
		p.once(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (p *pinger) once(ctx context.Context) {
	result, withheld := "withheld", p.app.unwell() //nolint:contextcheck // bounded by itself
	var err error
	if withheld == "" {
		if result, err = "sent", p.hook.Call(ctx, http.MethodGet, nil); err != nil {
			result = "failed"
		}
	}
	if ctx.Err() != nil {
		return
	}
	p.app.opts.metrics.Pinged(result)
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case withheld != "" && p.state.Withheld == "":
		p.log.WarnContext(ctx, "the heartbeat is withheld", "why", withheld)
	case withheld == "" && p.state.Withheld != "":
		p.log.InfoContext(ctx, "the heartbeat goes on")
	}
	p.state.Withheld = withheld
	switch {
	case err != nil:
		p.state.LastError = err.Error()
		if now.Sub(p.logged) >= logEvery {
			p.logged = now
			p.log.WarnContext(ctx, "the heartbeat was not taken", "err", err)
		}
	case withheld == "":
		p.state.LastAt, p.state.LastError = timeOrNil(now), ""
	}
}

// status is what operators see of it, nil when there is none.
func (p *pinger) status() *admin.Ping {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.state
	return &s
}

// unwell says why whoever watches the heartbeat should look here, "" when there
// is nothing.
func (a *App) unwell() string {
	if err := a.Ready(); err != nil {
		return "a webhook would not be accepted: " + err.Error()
	}
	c, err := a.leader()
	if err != nil {
		return err.Error()
	}
	if since := c.outage(); !since.IsZero() {
		if lasted := time.Since(since); lasted > cmp.Or(a.cfg.AlarmAfter, 5*time.Minute) {
			return fmt.Sprintf("Callgoose has been %s for %s", awayState(c.deliver().View().Circuit.State), text.Span(lasted))
		}
	}
	list, err := sources(c, a.cfg.ExpectEvery)
	if err != nil {
		return "the ledger cannot be read: " + err.Error()
	}
	for _, s := range list {
		if s.ExpectEvery > 0 && s.SilentSince != nil {
			return "PMM " + s.Name + " is silent"
		}
	}
	return ""
}

// awayState is the word for a Callgoose that takes nothing, also while paused.
func awayState(state string) string {
	if state == event.Held {
		return "held"
	}
	return "down"
}
