package app

import (
	"context"
	"slices"
	"sync"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
)

// anchor holds a time of the wall clock to one that does not jump. Safe concurrently.
type anchor struct {
	mu       sync.Mutex
	wall, at time.Time // guarded by mu
}

// hold is the past time wall on the clock of now, the same however the wall clock is set
// afterwards.
func (a *anchor) hold(wall, now time.Time) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !wall.Equal(a.wall) {
		a.wall, a.at = wall, now.Add(-max(now.Sub(wall), 0))
	}
	return a.at
}

// outage is since when events wait because Callgoose is down or held, pauses in between
// included; zero when they do not. It outlasts restarts, and follows no clock that is set.
func (c *core) outage() (since time.Time) {
	if !c.deliver().Outage() {
		return since
	}
	list, _ := c.ledger.Outages() // whoever writes reports what is wrong
	next := time.Time{}           // the beginning of what followed
	for _, o := range slices.Backward(list) {
		if !o.Until.Equal(next) {
			break
		}
		if next = o.From; o.State != event.Paused {
			since = o.From
		}
	}
	if since.IsZero() {
		return since
	}
	return c.away.hold(since, time.Now())
}

// noteOutage writes down when nobody is called, and why: an outage is over with the
// first answer, or when nothing waits any more.
func (c *core) noteOutage(ctx context.Context, now time.Time) error {
	state, view := "", c.deliver().View()
	switch {
	case view.Circuit.State == event.Paused:
		state = event.Paused
	case view.Circuit.State == event.Up, c.ledger.Summary().Counts[string(event.Queued)] == 0:
	case !c.deliver().Outage():
		return nil // nothing is known since the start
	default:
		state = awayState(view.Circuit.State)
	}
	list, err := c.ledger.Outages()
	if err != nil {
		return err
	}
	var last event.Outage
	if n := len(list); n > 0 && list[n-1].Until.IsZero() {
		last = list[n-1]
	}
	answered := state != "" && last.State != "" && view.Last.At.After(last.From) // between two looks
	if state == last.State && !answered {
		return nil
	}
	return c.ledger.Do(ctx, func(tx *store.Tx) {
		if answered {
			tx.NoteOutage("", view.Last.At)
		}
		tx.NoteOutage(state, now)
	})
}

// Outages implements web.Source.
func (a *App) Outages() ([]event.Outage, error) {
	c := a.core.Load()
	if c == nil {
		return nil, a.whyClosed()
	}
	return c.ledger.Outages()
}
