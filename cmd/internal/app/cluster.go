package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/admin/web"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/queue"
	"pmm-callgoose/worker"
	"pmm-callgoose/worker/callgoose"
)

// Several instances on one NATS: each takes webhooks and has a copy of the ledger; the one
// that leads splits, decides and delivers. See package queue.

// held sends only while this instance leads. What is under way when that ends is
// interrupted.
type held struct {
	worker.Sender
	log *queue.Log
}

// Send implements worker.Sender.
func (h held) Send(ctx context.Context, body []byte) (callgoose.Reply, error) {
	ctx, done := h.log.Hold(ctx, callgoose.ErrInterrupted)
	defer done()
	return h.Sender.Send(ctx, body)
}

// openLog opens the log that the ledger is a copy of.
func (c *core) openLog(ctx context.Context, cfg store.Config) (err error) {
	if c.log, err = c.queue.OpenLog(ctx); err != nil {
		return err
	}
	if c.ledger, err = c.log.Join(ctx, c.ledger, cfg); err != nil {
		return err
	}
	return c.queue.Reaches(ctx, c.ledger.Summary().Progress.Seq)
}

// follow is what an instance does as one of several.
func (c *core) follow() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"store":    c.failed,
		"mark":     func(ctx context.Context) error { return worker.FollowMarks(ctx, c.queue, c.ledger) },
		"announce": c.patient(func(ctx context.Context) error { return c.log.Announce(ctx, c.app.state) }),
		"cluster":  func(ctx context.Context) error { return c.log.Run(ctx, c.ledger, c.lead) },
	}
}

// lead is a term: until ctx ends, or something fails.
func (c *core) lead(ctx context.Context, heard time.Time) error {
	// What comes in below what is split already would never be looked at.
	if err := c.queue.Reaches(ctx, c.ledger.Summary().Progress.Seq); err != nil {
		return err
	}
	marker, err := worker.Begin(ctx, c.queue, c.ledger, c.logger)
	if err != nil {
		return err
	}
	if c.queue.Lost() != "" && !c.counted {
		if err := c.ledger.Do(ctx, func(tx *store.Tx) { tx.Count("accepted_losses", 1) }); err != nil {
			return err
		}
		c.counted = true
	}
	unsure := time.Time{}
	if !heard.IsZero() {
		unsure = heard.Add(c.cfg.Timeout + time.Second)
	}
	defer func() {
		c.running.Store(false)
		c.begin(nil, time.Time{})
	}()
	jobs := c.jobs(c.begin(marker, unsure))
	jobs["snapshots"] = func(ctx context.Context) error { return c.log.KeepSnapshots(ctx, c.ledger) }
	jobs["answer"] = c.patient(func(ctx context.Context) error {
		return c.log.Answer(ctx, func(ctx context.Context, question []byte) ([]byte, error) {
			return web.Answer(ctx, c.app.operators, question)
		})
	})
	return together(ctx, jobs)
}

// An election inside NATS takes up to 9 s, and need not cost a change of leader.
const (
	electionWithin = 12 * time.Second
	electionRetry  = 200 * time.Millisecond
)

// read reads notifications. With servers that cannot answer it waits for an election.
func (c *core) read(ctx context.Context, seq uint64) (list []event.Notification, err error) {
	for began := time.Now(); ; {
		list, err = c.queue.Read(ctx, seq)
		if c.log == nil || !errors.Is(err, queue.ErrUnavailable) || time.Since(began) > electionWithin || !pause(ctx, electionRetry) {
			return list, err
		}
	}
}

// patient runs a job again that failed because the servers could not answer.
func (c *core) patient(run func(context.Context) error) func(context.Context) error {
	if c.log == nil {
		return run
	}
	return func(ctx context.Context) error {
		for {
			if err := run(ctx); !errors.Is(err, queue.ErrUnavailable) || !pause(ctx, electionRetry) {
				return err
			}
		}
	}
}

// pause waits; false when ctx ended it.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// leads reports whether this instance decides and delivers.
func (c *core) leads() bool { return c.log == nil || c.log.Holds() }

// leader is the core, when the store is open and this instance leads.
func (a *App) leader() (*core, error) {
	c := a.core.Load()
	switch {
	case c == nil:
		return nil, a.whyClosed()
	case c.leads():
		return c, nil
	}
	if m, known := c.log.Leader(); known {
		return nil, fmt.Errorf("this instance follows: ask instance %s, which leads", m.Name)
	}
	return nil, errors.New("this instance follows, and no instance leads at the moment: try again in some seconds")
}

// statesWithin is how long all instances are waited for that are asked how they are.
const statesWithin = 2 * time.Second

// Elsewhere implements web.Cluster.
func (a *App) Elsewhere() (instance string, elsewhere bool) {
	c := a.core.Load()
	if c == nil || c.leads() {
		return "", false
	}
	return c.log.Name(), true
}

// AskLeader implements web.Cluster.
func (a *App) AskLeader(ctx context.Context, question []byte) ([]byte, error) {
	c := a.core.Load()
	if c == nil || c.log == nil {
		return nil, a.whyClosed()
	}
	return c.log.Ask(ctx, question)
}

// thaw notices that this process was frozen. For a moment nothing is accepted then: what
// its sockets hold is old, and the sender has brought it to another instance meanwhile.
func (a *App) thaw(ctx context.Context) {
	const every, refuse = 200 * time.Millisecond, 2 * time.Second
	tick := time.NewTicker(every)
	defer tick.Stop()
	var until time.Time
	for last := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		if now.Sub(last) > every+frozenAfter {
			a.log.Warn("this process was frozen; webhooks are refused for a moment", "frozen_for", now.Sub(last).Round(time.Millisecond))
			until = now.Add(refuse)
		}
		if last = now; now.After(until) {
			a.ticked.Store(&now)
		}
	}
}

// frozenAfter is how late thaw must be for a process that was frozen.
const frozenAfter = 3 * time.Second

// wasFrozen reports whether webhooks are refused because of that, also before thaw
// itself runs again.
func (a *App) wasFrozen() bool {
	ticked := a.ticked.Load()
	return ticked != nil && time.Since(*ticked) > frozenAfter
}

// withoutNATS is what operators see while NATS does not answer and the store is not open;
// nil when that is not why.
func (a *App) withoutNATS() *admin.Cluster {
	if p := a.problem.Load(); a.cfg.NATS() == "" || p == nil || !errors.Is(*p, queue.ErrUnavailable) {
		return nil
	}
	return &admin.Cluster{
		Name: a.cfg.NATSName, Instance: a.cfg.InstanceName(), Role: "follower", Instances: []admin.Instance{},
		NATS: &queue.Servers{Replicas: a.cfg.NATSReplicas, Sync: "unknown", Streams: []queue.Stream{}},
	}
}

// cluster is what operators see of the instances.
func (c *core) cluster() *admin.Cluster {
	if c.log == nil {
		return &admin.Cluster{Instance: c.cfg.InstanceName(), Role: "alone", Instances: []admin.Instance{}}
	}
	servers := c.log.Servers()
	out := &admin.Cluster{
		Name: c.cfg.NATSName, Instance: c.log.Name(), Role: "follower", Outdated: c.log.Outdated(), Instances: instances(c.log.Members()),
		SettingsDiffer: c.log.Differs(), ClockSkew: c.log.Skew().Seconds(), NATS: &servers,
	}
	out.SameName = out.Instance != c.cfg.InstanceName()
	if c.leads() {
		out.Role = "leader"
	}
	if m, known := c.log.Leader(); known {
		out.Leader, out.LeaderSince, out.Term = m.Name, timeOrNil(m.Since), m.Term
	}
	if behind, known := c.log.Behind(); known {
		out.Behind = &behind
	}
	return out
}

func instances(members []queue.Member) []admin.Instance {
	list := make([]admin.Instance, 0, len(members))
	for _, m := range members {
		role := "follower"
		if m.Term > 0 {
			role = "leader"
		}
		list = append(list, admin.Instance{Name: m.Name, Version: m.Version, Role: role, SeenAt: m.SeenAt.UTC()})
	}
	return list
}

var errAlone = errors.New("this service runs alone: it has no other instances (--nats-url)")

// Instances implements web.Cluster.
func (a *App) Instances(ctx context.Context) ([]admin.Instance, error) {
	c := a.core.Load()
	switch {
	case c == nil:
		return nil, a.whyClosed()
	case c.log == nil:
		return nil, errAlone
	}
	ctx, cancel := context.WithTimeout(ctx, statesWithin)
	defer cancel()
	answers, err := c.log.AskAll(ctx)
	if err != nil {
		return nil, err
	}
	list := instances(c.log.Members())
	for _, answer := range answers {
		var s admin.Status
		if json.Unmarshal(answer, &s) != nil || s.Cluster == nil {
			continue
		}
		if i := slices.IndexFunc(list, func(of admin.Instance) bool { return of.Name == s.Cluster.Instance && of.Status == nil }); i >= 0 {
			list[i].Role, list[i].Status = s.Cluster.Role, &s
		}
	}
	return list, nil
}

// state is what this instance answers when another one asks how it is.
func (a *App) state() []byte {
	s, err := a.Status(context.Background())
	if err != nil {
		return nil
	}
	for i, p := range s.Sources { // NATS takes messages of 1 MiB
		if p.Reconcile != nil {
			short := *p.Reconcile
			short.Differences = nil
			s.Sources[i].Reconcile = &short
		}
	}
	text, _ := json.Marshal(s)
	return text
}

// leading is leader where there are several instances.
func (a *App) leading() (*core, error) {
	c, err := a.leader()
	if err == nil && c.log == nil {
		err = errAlone
	}
	return c, err
}

// StepDown implements web.Cluster.
func (a *App) StepDown() (term uint64, err error) {
	c, err := a.leading()
	if err != nil {
		return 0, err
	}
	return c.log.StepDown()
}

// Snapshot implements web.Cluster.
func (a *App) Snapshot(ctx context.Context) (entry uint64, err error) {
	c, err := a.leading()
	if err != nil {
		return 0, err
	}
	return c.log.Snapshot(ctx, c.ledger)
}
