package app

import (
	"context"
	"slices"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose/filters"
)

// Forecast implements web.Source: what Callgoose would do under these filters
// with the newest admin.MaxLimit stored events since a time, in the order of the
// queue. What was never to be sent is left out.
func (a *App) Forecast(ctx context.Context, set []filters.Filter, since time.Time) (filters.Report, error) {
	c := a.core.Load()
	if c == nil {
		return filters.Report{}, a.whyClosed()
	}
	var list []*event.Record
	chosen := event.Filter{Since: since, Outcomes: []event.Outcome{event.Queued, event.Delivered, event.Discarded, event.Dead, event.Unknown}}
	if err := c.ledger.Each(chosen, func(r *event.Record) bool {
		if r.IsEvent() {
			r.Attempts = nil
			list = append(list, r)
		}
		return ctx.Err() == nil && len(list) < admin.MaxLimit
	}); err != nil {
		return filters.Report{}, err
	}
	slices.SortFunc(list, func(a, b *event.Record) int { return a.At.Compare(b.At) })
	f := filters.NewForecast(set, a.cfg.CallgooseFrom)
	for _, r := range list {
		body, err := c.builder.Body(ctx, r, r.ClaimedAt)
		switch {
		case event.Unreadable(err):
			f.Gone()
		case err != nil:
			return filters.Report{}, err
		default:
			f.Take(filters.Event{ID: r.ID, Key: r.Key, Status: r.Status, At: r.ReceivedAt, Body: body})
		}
	}
	return f.Report(), nil
}
