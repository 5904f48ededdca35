package worker

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/faultpoint"
)

// RetentionConfig says how long settled history is kept.
type RetentionConfig struct {
	Keep    time.Duration // of what is settled, 0 = for ever
	MinFree int64         // bytes that must stay free on the disk: settled history goes for them
	Logger  *slog.Logger
}

// Retention removes what is settled: older than Keep, and, when the store fills,
// the oldest first. What is not settled is never removed. Run is its goroutine.
type Retention struct {
	cfg    RetentionConfig
	queue  Queue
	ledger *store.Store
	log    *slog.Logger
	clocks [2]clocks // of a day ago or more, and since; owned by Run
	pruned time.Time // by age; owned by Run
	rest   time.Time // nothing could be removed until then; owned by Run
}

// NewRetention makes it.
func NewRetention(cfg RetentionConfig, queue Queue, ledger *store.Store) *Retention {
	now := time.Now()
	return &Retention{cfg: cfg, queue: queue, ledger: ledger, log: cfg.Logger.With("component", "retention"), clocks: [2]clocks{newClocks(now), newClocks(now)}, pruned: now}
}

// It checks the room every pruneEvery, which costs nothing while there is some, and
// at once when a webhook was refused; what is too old goes every pruneTime.
const (
	pruneEvery = time.Second
	pruneTime  = 10 * time.Minute
	pruneRest  = 10 * time.Second
)

// Run removes until ctx ends or the store fails.
func (r *Retention) Run(ctx context.Context) error {
	tick := time.NewTicker(faultpoint.Often(pruneEvery))
	defer tick.Stop()
	for {
		short := false
		select {
		case <-ctx.Done():
			return nil
		case <-r.queue.Refused():
			short = true
		case <-tick.C:
		}
		if err := r.prune(ctx, time.Now(), short); err != nil {
			return ignore(ctx, err)
		}
	}
}

// share is how much of what is stored has to go to make room, 0 to 1.
func (r *Retention) share(refused bool) float64 {
	used, limit, free := r.queue.Room()
	share := 0.0
	if used > limit/10*9 || refused { // down to three quarters
		share = max(0, float64(used-limit/4*3)/float64(max(used, 1)))
		if refused {
			share = max(share, 0.1)
		}
	}
	if r.short(free) && used > 0 { // history must not keep alerts out; a tenth more, for what comes next
		share = max(share, min(1, float64(r.cfg.MinFree/10*11-free)/float64(used)))
	}
	return share
}

// short reports whether the disk has less room than must stay free.
func (r *Retention) short(free int64) bool { return free >= 0 && free < r.cfg.MinFree }

// prune makes room, and removes what is too old. The stream is cut first, then
// days of the ledger go: if we die in between, the next pass goes on.
func (r *Retention) prune(ctx context.Context, now time.Time, refused bool) error {
	share := r.share(refused)
	byTime := r.cfg.Keep > 0 && now.Sub(r.pruned) >= pruneTime
	if now.Before(r.rest) {
		share = 0
	}
	if share == 0 && !byTime {
		return nil
	}
	cutoff := time.Time{}
	if byTime {
		// A clock that is ahead for a moment must not remove all that is stored; after a day
		// or two it is believed.
		if now.Sub(r.clocks[1].began) >= 24*time.Hour {
			r.clocks = [2]clocks{r.clocks[1], newClocks(now)}
		}
		r.pruned, cutoff = now, now.Add(-r.cfg.Keep-max(r.clocks[0].ahead(now), 0))
	}
	first, err := r.queue.First(ctx)
	if err != nil {
		return err
	}
	most, err := r.settled()
	if err != nil {
		return err
	}
	upTo, more, err := r.cut(ctx, first, most, share, cutoff)
	if err != nil {
		return err
	}
	if more {
		r.pruned = time.Time{} // in the next pass
	}
	if upTo < first {
		r.rest = now.Add(pruneRest) // a pass reads all that is waiting
	} else {
		if err := r.queue.Purge(ctx, upTo); err != nil {
			return err
		}
		faultpoint.Here("prune-cut")
		if _, _, free := r.queue.Room(); r.short(free) {
			r.log.WarnContext(ctx, "the disk is short of --min-free: removed settled history", "free_bytes", free, "min_free_bytes", r.cfg.MinFree)
		}
		r.log.DebugContext(ctx, "removed settled history", "notifications_up_to", upTo, "count", upTo-first+1)
	}
	if cutoff.IsZero() {
		return nil
	}
	return r.ledger.Do(ctx, func(tx *store.Tx) {
		tx.DropDays(cutoff)
		tx.DropSources(cutoff)
	})
}

// settled is the newest sequence that nothing needs: in front of what is waiting,
// and of what is not decided on.
func (r *Retention) settled() (seq uint64, err error) {
	err = r.ledger.View(func(tx *store.Tx) {
		seq = next(tx.Progress()) - 1
		for w := range tx.Waiting(event.Position{}) {
			seq = min(seq, w.Pos.Seq-1)
		}
	})
	return seq, err
}

// passMessages is how many messages are asked for their age in one pass: each is read.
const passMessages = 2000

// cut finds what can go, of the messages from first to most: the oldest share, and
// what is older than cutoff. It stops at the first that is young: a clock that was
// wrong, or an import, puts old ones behind it. more says that there may be others.
func (r *Retention) cut(ctx context.Context, first, most uint64, share float64, cutoff time.Time) (upTo uint64, more bool, err error) {
	upTo = first - 1
	if most < first {
		return upTo, false, nil
	}
	upTo += uint64(share * float64(most-first+1))
	if share > 0 {
		upTo = max(upTo, first)
	}
	for n := 0; upTo < most && !cutoff.IsZero(); n++ {
		if n == passMessages {
			return upTo, true, nil
		}
		list, err := r.queue.Read(ctx, upTo+1)
		if err != nil && !event.Unreadable(err) {
			return 0, false, fmt.Errorf("retention: %w", err)
		}
		if err == nil && len(list) > 0 && !list[0].ReceivedAt.Before(cutoff) {
			break
		}
		upTo++
	}
	return upTo, false, nil
}
