package app

import (
	"context"
	"fmt"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
)

// checkBodies bounds how many waiting events are read back from the stream.
const checkBodies = 10_000

// Check implements web.Source.
func (a *App) Check(ctx context.Context) (admin.Check, error) {
	c := a.core.Load()
	if c == nil {
		return admin.Check{}, a.whyClosed()
	}
	out, err := c.check(ctx)
	if a.opts.AtNextStart != nil {
		out.Changed, out.Refused = a.opts.AtNextStart()
	}
	return out, err
}

// check compares the ledger with itself and with the stream. All of the ledger
// is read in one transaction, so that a busy service does not look inconsistent.
func (c *core) check(ctx context.Context) (out admin.Check, err error) {
	out.Problems = []string{}
	problem := func(format string, args ...any) { out.Problems = append(out.Problems, fmt.Sprintf(format, args...)) }
	var waiting []*event.Record
	if err = c.ledger.View(func(tx *store.Tx) {
		byOutcome := map[event.Outcome]int64{}
		for r := range tx.Records(event.Filter{OldestFirst: true}) {
			if ctx.Err() != nil {
				tx.Fail(context.Cause(ctx))
				return
			}
			out.Records++
			byOutcome[r.Outcome]++
			if r.Outcome == event.Queued && len(waiting) < checkBodies {
				waiting = append(waiting, r)
			}
		}
		out.Queued = int(byOutcome[event.Queued])
		for _, o := range event.Outcomes {
			// Counters outlive the records that retention takes; what is queued never goes.
			counted, found := tx.Counted(string(o)), byOutcome[o]
			if counted < found || o == event.Queued && counted != found {
				problem("%d events are counted as %s, the ledger holds %d", counted, o, found)
			}
		}
		for ep := range tx.OpenEpisodes("", "") {
			out.Open++
			if !ep.Open {
				problem("incident %s is listed as open and is closed", ep.Key)
			}
		}
		queued := 0
		for w := range tx.Waiting(event.Position{}) {
			queued++
			if r := tx.Brief(w.ReceivedAt, w.Pos); r == nil || r.Outcome != event.Queued || r.At != w.At {
				problem("at %s.%d an event is queued that the ledger does not know as such", w.At.NotificationID(), w.At.Item)
			}
		}
		if queued != out.Queued {
			problem("%d events are queued, and %d records say that they are queued", queued, out.Queued)
		}
	}); err != nil {
		return out, err
	}
	return out, c.checkBodies(ctx, waiting, problem)
}

// checkBodies finds events whose bodies cannot be built.
func (c *core) checkBodies(ctx context.Context, waiting []*event.Record, problem func(format string, args ...any)) error {
	for _, r := range waiting {
		_, err := c.notification(ctx, r.Pos)
		if err == nil {
			continue
		}
		if !event.Unreadable(err) {
			return err
		}
		if now, ferr := c.ledger.Find(r.ID); ferr == nil && now.Outcome != event.Queued {
			continue // settled, and gone, meanwhile
		}
		problem("event %s is queued, but its notification cannot be read: %v", r.ID, err)
	}
	return nil
}
