package app

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/worker"
	"pmm-callgoose/worker/callgoose"
	"pmm-callgoose/worker/callgoose/filters"
)

// drift notices that Callgoose answers as the filters of --callgoose-filters
// cannot: somebody changed them there. It changes no answer. Safe concurrently.
type drift struct {
	set   []filters.Filter
	log   *slog.Logger
	count func()

	mu     sync.Mutex
	state  admin.Filters // guarded by mu
	logged time.Time     // guarded by mu
}

// Filters reads the file of --callgoose-filters, nil when none is named. An error
// is always config.Problems.
func Filters(cfg *config.Config) (set []filters.Filter, err error) {
	if cfg.CallgooseFilters == "" {
		return nil, nil
	}
	text, err := os.ReadFile(cfg.CallgooseFilters)
	if err == nil {
		set, err = filters.Parse(text)
	}
	if err != nil {
		return nil, config.Problems{{Where: "callgoose-filters", Text: fmt.Sprintf("%s: %s", cfg.CallgooseFilters, err)}}
	}
	return set, nil
}

// newDrift is nil when no filters are named.
func (a *App) newDrift() (*drift, error) {
	set, err := Filters(a.cfg)
	if err != nil || set == nil {
		return nil, err
	}
	return &drift{set: set, log: a.opts.Logger.With("component", "filters"), count: a.opts.metrics.Drifted}, nil
}

// watched is a sender whose answers are looked at.
type watched struct {
	worker.Sender
	*drift
}

// watch looks at the answers that next gets; a nil drift looks at none.
func (d *drift) watch(next worker.Sender) worker.Sender {
	if d == nil {
		return next
	}
	return watched{next, d}
}

// Send implements worker.Sender.
func (w watched) Send(ctx context.Context, body []byte) (callgoose.Reply, error) {
	reply, err := w.Sender.Send(ctx, body)
	if err == nil {
		w.judge(ctx, body, reply)
	}
	return reply, err
}

func (d *drift) judge(ctx context.Context, body []byte, reply callgoose.Reply) {
	why := filters.Disagree(d.set, body, reply.Status, reply.Effect)
	if why == "" {
		return
	}
	d.count()
	doc := filters.Decode(body)
	id, now := filters.Path(`"event_id"`).Value(doc), time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.Drift++
	d.state.LastAt, d.state.Last = timeOrNil(now), fmt.Sprintf("event %s: %s", id, why)
	if now.Sub(d.logged) >= logEvery {
		d.logged = now
		d.log.WarnContext(ctx, "the filters of Callgoose are not those of --callgoose-filters", "event_id", id, "why", why, "so_far", d.state.Drift)
	}
}

// status is what operators see of it, nil when there is none.
func (d *drift) status() *admin.Filters {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.state
	return &s
}
