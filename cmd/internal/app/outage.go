package app

import (
	"context"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
)

// outage is since when events wait because Callgoose is down or held; zero when
// they do not. It outlasts restarts.
func (c *core) outage() time.Time {
	if !c.deliver.Outage() {
		return time.Time{}
	}
	return c.ledger.Summary().Outage
}

// keepOutage writes down when an outage began, and that it is over: with the first
// answer, or when nothing waits for it any more.
func (c *core) keepOutage(ctx context.Context, now time.Time) error {
	s, view, since := c.ledger.Summary(), c.deliver.View(), time.Time{}
	switch {
	case s.Counts[string(event.Queued)] == 0, view.Circuit.State == event.Up:
	case !c.deliver.Outage():
		return nil // nothing is known since the start
	case s.Outage.IsZero(), view.Last.At.After(s.Outage): // a new one, if there was an answer between two looks
		since = now.UTC()
	default:
		return nil
	}
	if since.Equal(s.Outage) {
		return nil
	}
	return c.ledger.Do(ctx, func(tx *store.Tx) error { tx.SetOutage(since); return nil })
}

// noteOutage keeps when nobody is called, and why, for the picture of the last days.
func (c *core) noteOutage(ctx context.Context, now time.Time) error {
	state, view := "", c.deliver.View()
	switch {
	case view.Circuit.State == event.Paused:
		state = event.Paused
	case view.Circuit.State == event.Up, c.ledger.Summary().Counts[string(event.Queued)] == 0:
	case !c.deliver.Outage():
		return nil // nothing is known since the start
	default:
		state = awayState(view.Circuit.State)
	}
	list, err := c.ledger.Outages()
	if err != nil {
		return err
	}
	lasts := ""
	if n := len(list); n > 0 && list[n-1].Until.IsZero() {
		lasts = list[n-1].State
	}
	if state == lasts {
		return nil
	}
	return c.ledger.Do(ctx, func(tx *store.Tx) error { return tx.NoteOutage(state, now) })
}

// Outages implements web.Pages.
func (a *App) Outages() ([]event.Outage, error) {
	c := a.core.Load()
	if c == nil {
		return nil, a.whyClosed()
	}
	return c.ledger.Outages()
}
