package app

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/ingest"
	"pmm-callgoose/ingest/pmm"
	"pmm-callgoose/store/event"
)

// exportPage is how many records are held in memory at once for an export.
const exportPage = 500

// Export implements web.Carrier: the chosen events, or the notifications that the
// chosen events came in, in the order of arrival. It reads a part at a time, so that
// a slow reader keeps neither memory nor pages of the ledger.
func (a *App) Export(ctx context.Context, kind string, f event.Filter, limit int, line func(admin.Carried) error) error {
	c := a.core.Load()
	if c == nil {
		return a.whyClosed()
	}
	left, last := cmp.Or(limit, math.MaxInt), ""
	for f.OldestFirst = true; left > 0; {
		var list []*event.Record
		if err := c.ledger.Each(f, func(r *event.Record) bool {
			r.Attempts = nil
			list = append(list, r)
			return ctx.Err() == nil && len(list) < min(left, exportPage)
		}); err != nil || len(list) == 0 {
			return err
		}
		for _, r := range list {
			if err := cmp.Or(context.Cause(ctx), c.export(ctx, kind, r, &last, line)); err != nil {
				return err
			}
			f.After = r.Pos
		}
		left -= len(list)
	}
	return nil
}

// export writes the line of a record, or of its notification unless that was last.
func (c *core) export(ctx context.Context, kind string, r *event.Record, last *string, line func(admin.Carried) error) error {
	if kind == admin.KindEvent {
		var body []byte
		if r.IsEvent() {
			var err error
			if body, err = c.builder.Body(ctx, r, r.ClaimedAt); err != nil && !event.Unreadable(err) {
				return err
			}
		}
		return line(admin.Carried{Kind: kind, ID: r.ID, Source: r.Source, ReceivedAt: r.ReceivedAt, Body: body, Record: r})
	}
	if r.Notification == *last {
		return nil
	}
	*last = r.Notification
	n, err := c.notification(ctx, r.Pos)
	if event.Unreadable(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return line(admin.Carried{Kind: kind, ID: r.Notification, Source: n.Source, BeganAt: n.BeganAt, ReceivedAt: n.ReceivedAt, Body: n.Body})
}

// importFrom is the oldest time of receipt that an import may have: nothing ran before.
var importFrom = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// Import implements web.Carrier. What is imported is checked like what comes in.
func (a *App) Import(ctx context.Context, c admin.Carried) (int, error) {
	switch {
	case !ingest.ValidSource(c.Source):
		return 0, fmt.Errorf("notification %s has no usable source", c.ID)
	case c.ReceivedAt.Before(importFrom), c.ReceivedAt.After(time.Now().Add(time.Hour)):
		return 0, fmt.Errorf("notification %s has no usable time of receipt", c.ID)
	case int64(len(c.Body)) > a.cfg.MaxBody:
		return 0, fmt.Errorf("notification %s has %d bytes, more than --max-body", c.ID, len(c.Body))
	}
	alerts, _, err := pmm.Check(c.Body)
	if err != nil {
		return 0, fmt.Errorf("notification %s: %w", c.ID, err)
	}
	core := a.core.Load()
	if core == nil {
		return 0, a.whyClosed()
	}
	if c.BeganAt.IsZero() || c.BeganAt.After(c.ReceivedAt) {
		c.BeganAt = c.ReceivedAt
	}
	_, err = core.queue.Publish(ctx, event.Notification{
		Source: c.Source, Origin: event.Imported, BeganAt: c.BeganAt.UTC(), ReceivedAt: c.ReceivedAt.UTC(), Body: c.Body, Alerts: alerts,
	})
	return alerts, err
}
