package app

import (
	"context"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/worker"
)

// Pause implements web.Replayer: delivery is held, also after a restart, until it is
// resumed or the pause ends by itself. Webhooks are accepted meanwhile.
func (a *App) Pause(ctx context.Context, p store.Pause) error {
	p.Since = time.Now().UTC()
	return a.setPause(ctx, &p, store.Act{By: p.By, What: "pause", Reason: p.Reason})
}

// Resume implements web.Replayer.
func (a *App) Resume(ctx context.Context, by string) error {
	return a.setPause(ctx, nil, store.Act{By: by, What: "resume"})
}

// Probe implements web.Replayer.
func (a *App) Probe() { a.Reload() }

func (a *App) setPause(ctx context.Context, p *store.Pause, act store.Act) error {
	c, err := a.leader()
	if err != nil {
		return err
	}
	act.At = time.Now().UTC()
	if err := c.ledger.Do(ctx, func(tx *store.Tx) {
		if p != nil || tx.Pause() != nil {
			tx.SetPause(p)
			tx.AddAct(act)
		}
	}); err != nil {
		return err
	}
	c.deliver().Kick()
	return nil
}

// remember keeps what an operator did; refs are the events that it was done to.
func (c *core) remember(ctx context.Context, act store.Act, refs []worker.Ref) error {
	act.At = time.Now().UTC()
	return c.ledger.Do(ctx, func(tx *store.Tx) {
		keys := act.Keys
		named := map[string]bool{}
		for _, ref := range refs[:min(len(refs), store.MaxActKeys)] {
			if r := tx.Brief(ref.ReceivedAt, ref.Pos); r != nil && !named[r.Key] {
				named[r.Key], keys = true, append(keys, r.Key)
			}
		}
		kept := act
		kept.Keys = keys
		tx.AddAct(kept)
	})
}
