package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker"
)

// jobs are the replays of this run. They live in memory: what was queued
// is durable and goes out whatever happens to its job.
type jobs struct {
	mu  sync.Mutex // guards all fields
	ctx context.Context
	wg  *sync.WaitGroup
	all []*job
}

// job is one replay.
type job struct {
	mu       sync.Mutex // guards the fields below
	state    admin.Job
	unknown  []worker.Ref // queued, not known to be settled
	finished bool         // nothing more will be queued
}

// The bounds of what is remembered of them: 40 bytes for each event.
const (
	keepJobs   = 100
	keepEvents = 1_000_000
)

// add remembers a job, and forgets the oldest that are too much. The caller holds mu.
func (j *jobs) add(one *job) {
	j.all = append(j.all, one)
	events := 0
	for i, old := range slices.Backward(j.all) {
		if events += old.state.Total; i < len(j.all)-1 && (events > keepEvents || len(j.all)-i > keepJobs) {
			j.all = slices.Delete(j.all, 0, i+1)
			return
		}
	}
}

func (j *jobs) start(ctx context.Context, wg *sync.WaitGroup) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ctx, j.wg = ctx, wg
}

// plan chooses the events and counts them; queued ones only where nobody else
// sends them.
func plan(ctx context.Context, c *core, r admin.ReplayRequest, queued bool) (p admin.Plan, refs []worker.Ref, err error) {
	first, err := c.queue.First(ctx)
	if err != nil {
		return p, nil, err
	}
	asked := newAsked(r.Filter)
	var chosen worker.Choice
	err = c.ledger.View(func(tx *store.Tx) {
		chosen = worker.Choose(tx, r.Filter, worker.Rules{
			IncludeClosed: r.IncludeClosed, Queued: queued, Limit: r.Limit, First: first, Count: r.DryRun,
		}, asked.found)
	})
	if err == nil {
		err = asked.missing()
	}
	if err != nil {
		return p, nil, err
	}
	return admin.Plan{Events: chosen.Firing + chosen.Resolved, Choice: chosen}, chosen.Refs, nil
}

// asked are the IDs of a filter that were not found yet. A wrong ID must not
// pass for work that is done.
type asked map[string]bool

func newAsked(f event.Filter) asked {
	a := asked{}
	for _, id := range f.IDs {
		a[id] = true
	}
	return a
}

func (a asked) found(r *event.Record) { delete(a, r.ID) }

func (a asked) missing() error {
	if len(a) == 0 {
		return nil
	}
	return fmt.Errorf("%w, or another filter leaves it out; nothing was done: %s",
		admin.ErrNotFound, strings.Join(slices.Sorted(maps.Keys(a)), ", "))
}

// Replay implements web.Replayer.
func (a *App) Replay(ctx context.Context, r admin.ReplayRequest) (admin.Plan, error) { //nolint:contextcheck // a job outlives the request
	c := a.core.Load()
	if c == nil {
		return admin.Plan{}, a.whyClosed()
	}
	p, refs, err := plan(ctx, c, r, false)
	if err != nil || r.DryRun {
		return p, err
	}
	if c, err = a.leader(); err != nil {
		return p, err
	}
	a.jobs.mu.Lock()
	defer a.jobs.mu.Unlock()
	if a.jobs.ctx == nil || a.jobs.ctx.Err() != nil {
		return p, worker.ErrStopping
	}
	j := &job{state: admin.Job{Total: len(refs), Outcomes: map[event.Outcome]int{}}}
	if n := len(a.jobs.all); n > 0 {
		j.state.ID = a.jobs.all[n-1].state.ID
	}
	j.state.ID++
	p.Job = j.state.ID
	a.jobs.add(j)
	if err := c.remember(ctx, store.Act{By: r.By, What: "replay", Count: p.Events}, refs); err != nil {
		return p, err
	}
	run := a.jobs.ctx
	a.jobs.wg.Go(func() { a.enqueue(run, j, refs, r) })
	a.log.Info("replay", "events", p.Events, "firing", p.Firing, "resolved", p.Resolved, "incidents", p.Incidents)
	return p, nil
}

// enqueueAtOnce is how many events one commit queues.
const enqueueAtOnce = 200

// enqueue queues the events, oldest first.
func (a *App) enqueue(ctx context.Context, j *job, refs []worker.Ref, r admin.ReplayRequest) {
	limit, chunk := rate.NewLimiter(rate.Inf, 1), enqueueAtOnce
	if perSecond := r.Rate; perSecond > 0 {
		chunk = int(max(1, min(enqueueAtOnce, perSecond)))
		limit = rate.NewLimiter(rate.Limit(perSecond), chunk)
	}
	err := func() error {
		for len(refs) > 0 {
			some := refs[:min(chunk, len(refs))]
			if err := limit.WaitN(ctx, len(some)); err != nil {
				return err
			}
			c, err := a.leader()
			if err != nil {
				return err
			}
			queued, err := c.splitter().Requeue(ctx, some, r.IncludeClosed)
			if err != nil {
				return err
			}
			refs = refs[len(some):]
			j.mu.Lock()
			j.state.InLine += len(queued)
			j.state.Gone += len(some) - len(queued)
			j.unknown = append(j.unknown, queued...)
			j.mu.Unlock()
		}
		return nil
	}()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.finished = true
	if err != nil {
		j.state.Error = fmt.Sprintf("%d events were not queued: %s", len(refs), err)
	}
}

// ReplayJob implements web.Replayer.
func (a *App) ReplayJob(id int) (admin.Job, error) {
	a.jobs.mu.Lock()
	var j *job
	for _, one := range a.jobs.all {
		if one.state.ID == id {
			j = one
		}
	}
	a.jobs.mu.Unlock()
	c := a.core.Load()
	if j == nil || c == nil {
		return admin.Job{}, errors.New("no such replay in this run of the service")
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	var left []worker.Ref
	outcomes := maps.Clone(j.state.Outcomes)
	err := c.ledger.View(func(tx *store.Tx) {
		for _, ref := range j.unknown {
			switch rec := tx.Record(ref.ReceivedAt, ref.Pos); {
			case rec == nil:
			case rec.Outcome == event.Queued:
				left = append(left, ref)
			default:
				outcomes[rec.Outcome]++
			}
		}
	})
	if err != nil { // nothing that was read counts
		return admin.Job{}, err
	}
	j.state.Settled += len(j.unknown) - len(left)
	j.unknown, j.state.Outcomes = left, outcomes
	j.state.Done = j.finished && len(j.unknown) == 0
	return j.state, nil // its map is replaced, never written to
}

// DropDeadLetters implements web.Replayer.
func (a *App) DropDeadLetters(ctx context.Context, r admin.ReplayRequest) (p admin.Plan, err error) {
	c := a.core.Load()
	if c == nil {
		return p, a.whyClosed()
	}
	if !r.DryRun {
		if c, err = a.leader(); err != nil {
			return p, err
		}
	}
	f := r.Filter
	f.Outcomes = []event.Outcome{event.Dead}
	var ids []string
	var mistaken error // in what was asked: the commit is shared with others, who made none
	drop := func(tx *store.Tx) {
		p, ids, mistaken = admin.Plan{}, nil, nil
		incidents := map[string]bool{}
		var list []worker.Ref
		asked := newAsked(f)
		for rec := range tx.Records(f) {
			asked.found(rec)
			p.Count(rec.Status)
			incidents[rec.Key] = true
			list = append(list, worker.Ref{ReceivedAt: rec.ReceivedAt, Pos: rec.Pos})
			if len(ids) < 20 {
				ids = append(ids, rec.ID)
			}
			if len(list) == r.Limit { // 0 = no limit
				break
			}
		}
		p.Incidents = len(incidents)
		if r.Limit == 0 {
			mistaken = asked.missing()
		}
		if r.DryRun || mistaken != nil || len(list) == 0 {
			return
		}
		for _, ref := range list {
			if rec := tx.Record(ref.ReceivedAt, ref.Pos); rec != nil {
				worker.Forget(tx, rec)
			}
		}
		tx.AddAct(store.Act{At: time.Now().UTC(), By: r.By, What: "drop", Count: len(list), Keys: slices.Sorted(maps.Keys(incidents))})
	}
	if r.DryRun {
		err = c.ledger.View(drop)
	} else if err = c.ledger.Do(ctx, drop); err == nil && mistaken == nil && p.Events > 0 {
		a.log.Warn("dead letters dropped by an operator", "count", p.Events, "event_ids", ids)
	}
	if err = cmp.Or(err, mistaken); err != nil {
		return admin.Plan{}, err
	}
	return p, nil
}

// ParkEvent implements web.Replayer.
func (a *App) ParkEvent(ctx context.Context, id, by string) error {
	c, err := a.leader()
	if err != nil {
		return err
	}
	found, err := c.ledger.Find(id)
	if errors.Is(err, store.ErrNotFound) {
		return admin.ErrNotFound
	}
	parked := false
	if err == nil {
		err = c.ledger.Do(ctx, func(tx *store.Tx) {
			r := tx.Record(found.ReceivedAt, found.Pos)
			if parked = r != nil && worker.Park(tx, r, "parked by an operator"); parked {
				tx.AddAct(store.Act{At: time.Now().UTC(), By: by, What: "park", Count: 1, Keys: []string{r.Key}})
			}
		})
	}
	if err == nil && !parked {
		err = fmt.Errorf("%w: event %s is not queued", admin.ErrNotFound, id)
	}
	if err == nil {
		a.log.Warn("an event was parked by an operator", "event_id", id, "event_key", found.Key)
		c.deliver().Wake()
	}
	return err
}

// CloseIncident implements web.Replayer: the recovery goes the way of any other.
func (a *App) CloseIncident(ctx context.Context, key, by string) error {
	c, err := a.leader()
	if err != nil {
		return err
	}
	var n event.Notification
	err = c.ledger.View(func(tx *store.Tx) { n = worker.CloseBody(tx, key, time.Now().UTC()) })
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w: no alert is open under %s", admin.ErrNotFound, key)
	}
	if err == nil {
		_, err = c.queue.Publish(ctx, n)
	}
	if err == nil {
		err = c.remember(ctx, store.Act{By: by, What: "close", Keys: []string{key}}, nil)
	}
	if err == nil {
		a.log.Warn("an incident is closed by an operator", "event_key", key)
	}
	return err
}
