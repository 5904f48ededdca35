package queue

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
)

// Instances tell each other who they are, on a subject that nothing is stored of.
const (
	instances     = "pmm-callgoose.instances"
	announceEvery = 2 * time.Second
	forgetAfter   = 10 * time.Minute
)

// Member is an instance as it announced itself.
type Member struct {
	Name    string    `json:"name"`
	Run     string    `json:"run"` // a random name of its process
	Version string    `json:"version"`
	Term    uint64    `json:"term"` // in which it leads, 0 = it does not
	Since   time.Time `json:"since"`
	SeenAt  time.Time `json:"-"`
}

// Announce tells the other instances of this one, and listens to them, until ctx ends.
func (l *Log) Announce(ctx context.Context, version string) error {
	subject := l.q.cfg.subject(instances)
	heard, err := l.q.nc.Subscribe(subject, func(m *nats.Msg) {
		var of Member
		if json.Unmarshal(m.Data, &of) == nil {
			of.SeenAt = time.Now()
			l.hear(of)
		}
	})
	if err != nil {
		return fmt.Errorf("%w: subscribe to %s: %w", ErrUnavailable, subject, err)
	}
	defer func() { _ = heard.Unsubscribe() }()
	tick := time.NewTicker(announceEvery)
	defer tick.Stop()
	for {
		me := Member{Name: l.q.cfg.Instance, Run: l.q.own.run, Version: version}
		me.Term, me.Since = l.Term()
		if text, err := json.Marshal(me); err == nil {
			_ = l.q.nc.Publish(subject, text) // without a connection nobody hears it
		}
		l.measure(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (l *Log) hear(of Member) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.members == nil {
		l.members = map[string]Member{}
	}
	_, known := l.members[of.Run]
	for run, other := range l.members {
		if !known && other.Name == of.Name && run != of.Run && time.Since(other.SeenAt) < 3*announceEvery {
			l.log.Warn("two instances may have the same name (--instance)", "instance", of.Name)
		}
	}
	l.members[of.Run] = of
	for run, other := range l.members {
		if time.Since(other.SeenAt) > forgetAfter {
			delete(l.members, run)
		}
	}
}

// Members are the instances heard of within ten minutes, by name; this one too.
func (l *Log) Members() []Member {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]Member, 0, len(l.members))
	for _, m := range l.members {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b Member) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Run, b.Run)) })
	return list
}

// Leader is the instance that leads, as far as it is known: the one that announced the
// newest term, and was heard of lately.
func (l *Log) Leader() (of Member, known bool) {
	for _, m := range l.Members() {
		if m.Term > of.Term && time.Since(m.SeenAt) < 3*announceEvery {
			of, known = m, true
		}
	}
	return of, known
}
