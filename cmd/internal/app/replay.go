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

	"golang.org/x/time/rate"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker"
)

// jobs are the replays of this run. They live in memory: what was put in line
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
	unknown  []worker.Ref // put in line, not known to be settled
	finished bool         // nothing more will be put in line
}

// keepJobs bounds how many are remembered.
const keepJobs = 100

func (j *jobs) start(ctx context.Context, wg *sync.WaitGroup) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ctx, j.wg = ctx, wg
}

// plan chooses the events and counts them; queued ones only where nobody else
// sends them.
func plan(c *core, r admin.ReplayRequest, queued bool) (p admin.Plan, refs []worker.Ref, err error) {
	type chosen struct {
		ref     worker.Ref
		id, key string
		status  event.Status
		outcome event.Outcome
	}
	var list []chosen
	asked := newAsked(r.Filter)
	err = c.ledger.Each(r.Filter, func(rec *event.Record) bool {
		asked.found(rec)
		switch {
		case rec.Outcome == event.Queued && !queued:
			p.Waiting++
		case rec.Seq == 0 || rec.Status == "" || rec.Outcome == event.Suppressed:
			p.NoEvent++
		default:
			list = append(list, chosen{worker.Ref{ReceivedAt: rec.ReceivedAt, Pos: rec.Pos}, rec.ID, rec.Key, rec.Status, rec.Outcome})
		}
		return true
	})
	if err == nil {
		err = asked.missing()
	}
	if err != nil {
		return p, nil, err
	}
	// The ledger lists by day, and what was imported may be of an earlier one.
	slices.SortFunc(list, func(a, b chosen) int { return a.ref.Pos.Compare(b.ref.Pos) })
	incidents := map[string]bool{}
	err = c.ledger.View(func(tx event.Tx) error {
		for _, e := range list {
			if r.Limit > 0 && p.Events == r.Limit { // of those that go out
				break
			}
			if e.status == event.Firing && !r.IncludeClosed && e.outcome != event.Queued {
				ep, err := tx.Episode(e.key)
				if err != nil {
					return err
				}
				if ep == nil || !ep.Open || ep.Firing != e.ref.Pos {
					p.Closed++
					continue
				}
			}
			p.Count(e.status)
			if p.Outcomes == nil {
				p.Outcomes = map[event.Outcome]int{}
			}
			p.Outcomes[e.outcome]++
			incidents[e.key] = true
			refs = append(refs, e.ref)
		}
		return nil
	})
	p.Incidents = len(incidents)
	return p, refs, err
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
func (a *App) Replay(_ context.Context, r admin.ReplayRequest) (admin.Plan, error) { //nolint:contextcheck // a job outlives the request
	c := a.core.Load()
	if c == nil {
		return admin.Plan{}, a.whyClosed()
	}
	p, refs, err := plan(c, r, false)
	if err != nil || r.DryRun {
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
	if len(a.jobs.all) >= keepJobs {
		a.jobs.all = a.jobs.all[1:]
	}
	a.jobs.all = append(a.jobs.all, j)
	ctx := a.jobs.ctx
	a.jobs.wg.Go(func() { a.enqueue(ctx, j, refs, r.Rate) })
	a.log.Info("replay", "events", p.Events, "firing", p.Firing, "resolved", p.Resolved, "incidents", p.Incidents)
	return p, nil
}

// enqueueAtOnce is how many events one commit puts in line.
const enqueueAtOnce = 200

// enqueue puts the events in line, oldest first.
func (a *App) enqueue(ctx context.Context, j *job, refs []worker.Ref, perSecond float64) {
	limit, chunk := rate.NewLimiter(rate.Inf, 1), enqueueAtOnce
	if perSecond > 0 {
		chunk = int(max(1, min(enqueueAtOnce, perSecond)))
		limit = rate.NewLimiter(rate.Limit(perSecond), chunk)
	}
	err := func() error {
		for len(refs) > 0 {
			some := refs[:min(chunk, len(refs))]
			if err := limit.WaitN(ctx, len(some)); err != nil {
				return err
			}
			c := a.core.Load()
			if c == nil {
				return a.whyClosed()
			}
			n, err := c.splitter.Requeue(ctx, some)
			if err != nil {
				return err
			}
			refs = refs[len(some):]
			j.mu.Lock()
			j.state.InLine += n
			j.state.Gone += len(some) - n
			j.unknown = append(j.unknown, some...)
			j.mu.Unlock()
		}
		return nil
	}()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.finished = true
	if err != nil {
		j.state.Error = fmt.Sprintf("%d events were not put in line: %s", len(refs), err)
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
	err := c.ledger.View(func(tx event.Tx) error {
		left := j.unknown[:0]
		for _, ref := range j.unknown {
			rec, err := tx.Record(ref.ReceivedAt, ref.Pos)
			if err != nil {
				return err
			}
			if rec != nil && rec.Outcome == event.Queued {
				left = append(left, ref)
				continue
			}
			j.state.Settled++
			if rec != nil {
				j.state.Outcomes[rec.Outcome]++
			}
		}
		j.unknown = left
		return nil
	})
	j.state.Done = j.finished && len(j.unknown) == 0
	out := j.state
	out.Outcomes = make(map[event.Outcome]int, len(j.state.Outcomes))
	maps.Copy(out.Outcomes, j.state.Outcomes)
	return out, err
}

// forgetEpisode closes the episode that a dropped dead letter began, when Callgoose
// never had anything of it: while the alert fires PMM says so again, and that goes
// out; and Callgoose is not told of a recovery from what it does not know.
func forgetEpisode(tx event.Tx, r *event.Record) error {
	ep, err := tx.Episode(r.Key)
	if err != nil || ep == nil || !ep.Open || ep.Firing != r.Pos ||
		slices.ContainsFunc(r.Attempts, func(a event.Attempt) bool { return a.Result == string(event.Delivered) }) {
		return err
	}
	ep.Open, ep.Count = false, ep.Count-1
	return tx.PutEpisode(ep)
}

// DropDeadLetters implements web.Replayer.
func (a *App) DropDeadLetters(ctx context.Context, r admin.DropRequest) (p admin.Plan, err error) {
	c := a.core.Load()
	if c == nil {
		return p, a.whyClosed()
	}
	f := r.Filter
	f.Outcomes = []event.Outcome{event.Dead}
	var ids []string
	var mistaken error // in what was asked: the commit is shared with others, who made none
	drop := func(tx event.Tx) error {
		p, ids, mistaken = admin.Plan{}, nil, nil
		incidents := map[string]bool{}
		var list []*event.Record
		asked := newAsked(f)
		if err := tx.Each(f, func(rec *event.Record) bool {
			asked.found(rec)
			p.Count(rec.Status)
			incidents[rec.Key] = true
			list, ids = append(list, rec), append(ids, rec.ID)
			return r.Limit == 0 || len(list) < r.Limit
		}); err != nil {
			return err
		}
		p.Incidents = len(incidents)
		if r.Limit == 0 {
			mistaken = asked.missing()
		}
		if r.DryRun || mistaken != nil {
			list = nil
		}
		for _, rec := range list {
			if err := errors.Join(tx.DropRecord(rec), forgetEpisode(tx, rec)); err != nil {
				return err
			}
		}
		return nil
	}
	if r.DryRun {
		err = c.ledger.View(drop)
	} else if err = c.ledger.Do(ctx, drop); err == nil && mistaken == nil && p.Events > 0 {
		a.log.Warn("dead letters dropped by an operator", "count", p.Events, "event_ids", ids[:min(len(ids), 20)])
	}
	if err = cmp.Or(err, mistaken); err != nil {
		return admin.Plan{}, err
	}
	return p, nil
}
