package app

import (
	"context"
	"fmt"
	"slices"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/ingest"
	"pmm-callgoose/ingest/pmm"
	"pmm-callgoose/store/event"
)

// Export implements web.Carrier: the chosen events, or the notifications
// that the chosen events came in, oldest first.
func (a *App) Export(ctx context.Context, kind string, f event.Filter, limit int, line func(admin.Carried) error) error {
	c := a.core.Load()
	if c == nil {
		return a.whyClosed()
	}
	var list []*event.Record
	if err := c.ledger.Each(f, func(r *event.Record) bool {
		r.Attempts = nil
		list = append(list, r)
		return ctx.Err() == nil && (limit == 0 || len(list) < limit)
	}); err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b *event.Record) int { return a.Pos.Compare(b.Pos) })
	last := ""
	for _, r := range list {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if kind == admin.KindEvent {
			var body []byte
			if r.Seq != 0 {
				var err error
				if body, _, err = c.sent(ctx, r); err != nil && !event.Unreadable(err) {
					return err
				}
			}
			if err := line(admin.Carried{Kind: kind, ID: r.ID, Source: r.Source, ReceivedAt: r.ReceivedAt, Body: body, Record: r}); err != nil {
				return err
			}
			continue
		}
		if r.Notification == last {
			continue
		}
		last = r.Notification
		notes, err := c.queue.Notifications(ctx, r.Pos.Seq)
		if event.Unreadable(err) || err == nil && int(r.Pos.Note) >= len(notes) {
			continue
		}
		if err != nil {
			return err
		}
		n := notes[r.Pos.Note]
		if err := line(admin.Carried{Kind: kind, ID: last, Source: n.Source, ReceivedAt: n.ReceivedAt, Body: n.Body}); err != nil {
			return err
		}
	}
	return nil
}

// Import implements web.Carrier.
func (a *App) Import(ctx context.Context, c admin.Carried) (int, error) {
	if !ingest.ValidSource(c.Source) || c.ReceivedAt.IsZero() || c.ReceivedAt.After(time.Now().Add(time.Hour)) {
		return 0, fmt.Errorf("notification %s has no usable source or time of receipt", c.ID)
	}
	alerts, _, err := pmm.Check(c.Body)
	if err != nil {
		return 0, fmt.Errorf("notification %s: %w", c.ID, err)
	}
	_, err = a.Publish(ctx, ingest.Notification{Source: c.Source, ReceivedAt: c.ReceivedAt, Body: c.Body, Alerts: alerts})
	return alerts, err
}
