package queue

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"pmm-callgoose/store"
)

// Instances tell each other who they are, on a subject that nothing is stored of. A
// message there that wants an answer asks each of them how it is.
const (
	instances     = "pmm-callgoose.instances"
	announceEvery = 2 * time.Second
	liveFor       = 3 * announceEvery
	forgetAfter   = 10 * time.Minute
	// farewellWithin is how long the last announcement may take.
	farewellWithin = time.Second
)

// Member is an instance as it announced itself, and as it took over.
type Member struct {
	Name    string    `json:"name"`
	Run     string    `json:"run"` // a random name of its process
	Version string    `json:"version"`
	Began   time.Time `json:"began"`
	Term    uint64    `json:"term"` // in which it leads, 0 = it does not
	Since   time.Time `json:"since"`
	// Settings holds a short hash of each setting that must be the same on all.
	Settings map[string]string `json:"settings"`
	// Leaves says that it stops, and is not to be waited for.
	Leaves bool      `json:"leaves,omitempty"`
	SeenAt time.Time `json:"-"`
}

// Live reports whether the instance was heard of lately.
func (m Member) Live() bool { return time.Since(m.SeenAt) < liveFor }

// Announce tells the other instances of this one, and listens to them, until ctx ends.
// Who asks how this instance is gets what state returns.
func (l *Log) Announce(ctx context.Context, state func() []byte) error {
	subject := l.q.cfg.subject(instances)
	heard, err := l.q.nc.Subscribe(subject, func(m *nats.Msg) {
		if m.Reply != "" {
			go func() { _ = m.Respond(state()) }() // who asks does not wait for long
			return
		}
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
		l.announce(subject, l.myself())
		l.measure(ctx)
		select {
		case <-ctx.Done():
			me := l.myself()
			if me.Leaves = true; l.q.silent() == nil {
				l.announce(subject, me)
				_ = l.q.nc.FlushTimeout(farewellWithin) // closing throws away what is not sent
			}
			return nil
		case <-tick.C:
		case <-l.changed:
		}
	}
}

func (l *Log) announce(subject string, me Member) {
	if text, err := json.Marshal(me); err == nil {
		_ = l.q.nc.Publish(subject, text) // without a connection nobody hears it
	}
}

// myself is this instance as it is now.
func (l *Log) myself() Member {
	l.mu.Lock()
	defer l.mu.Unlock()
	me := l.me
	me.Term, me.Since = l.Term()
	return me
}

// Name is what this instance is called: as it was configured, or with the beginning of
// its run where another one had that name before.
func (l *Log) Name() string { return l.myself().Name }

func (l *Log) hear(of Member) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.members == nil {
		l.members = map[string]Member{}
	}
	if of.Run != l.me.Run {
		if of.Name == l.me.Name && cmp.Or(of.Began.Compare(l.me.Began), cmp.Compare(of.Run, l.me.Run)) < 0 {
			l.me.Name += "-" + l.me.Run[:4]
			l.log.Warn("another instance has the same name (--instance): this one takes another", "instance", of.Name, "name", l.me.Name)
		}
		l.compare(of)
	}
	l.members[of.Run] = of
	for run, other := range l.members {
		replaced := other.Name == of.Name && run != of.Run && !other.Live()
		if other.Leaves || replaced || time.Since(other.SeenAt) > forgetAfter {
			delete(l.members, run)
		}
	}
}

// tookOver takes in that another instance leads.
func (l *Log) tookOver(e store.LogEntry) {
	_, payload, err := store.DecodeEntry(e.Data)
	var of Member
	if err != nil || json.Unmarshal(payload, &of) != nil || of.Run == l.me.Run {
		return
	}
	l.log.Info("an instance took over", "instance", of.Name, "version", of.Version, "term", e.Seq)
	l.mu.Lock()
	defer l.mu.Unlock()
	of.Term = e.Seq
	l.compare(of)
}

// compare notes which settings the instance that leads has otherwise, and says so when
// they change. The caller holds mu.
func (l *Log) compare(leads Member) {
	if leads.Term == 0 || leads.Term < l.ledBy {
		return
	}
	var differs []string
	for name, hash := range l.me.Settings {
		if theirs, known := leads.Settings[name]; known && theirs != hash { // else it is of another version
			differs = append(differs, name)
		}
	}
	slices.Sort(differs)
	if len(differs) > 0 && !slices.Equal(differs, l.differs) {
		l.log.Warn("settings differ from those of the instance that leads: after a take-over others would hold", "instance", leads.Name, "settings", differs)
	}
	l.ledBy, l.differs = leads.Term, differs
}

// Differs are the settings that the instance that leads has otherwise than this one.
func (l *Log) Differs() []string {
	if l.Holds() {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.differs
}

// AskAll asks each instance how it is. It returns what came when all that were heard of
// lately have answered, or ctx ended.
func (l *Log) AskAll(ctx context.Context) (answers [][]byte, err error) {
	subject, inbox := l.q.cfg.subject(instances), l.q.nc.NewInbox()
	heard, err := l.q.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, fmt.Errorf("%w: subscribe to answers: %w", ErrUnavailable, err)
	}
	defer func() { _ = heard.Unsubscribe() }()
	if err := l.q.nc.PublishRequest(subject, inbox, nil); err != nil {
		return nil, fmt.Errorf("%w: publish to %s: %w", ErrUnavailable, subject, err)
	}
	for len(answers) <= len(l.others()) { // and this one
		m, err := heard.NextMsgWithContext(ctx)
		if err != nil {
			break // who does not answer is not among them
		}
		answers = append(answers, m.Data)
	}
	return answers, nil
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

// others are the instances that were heard of lately, but for this one.
func (l *Log) others() []Member {
	return slices.DeleteFunc(l.Members(), func(m Member) bool { return m.Run == l.me.Run || !m.Live() })
}

// Leader is the instance that leads, as far as it is known: the one that announced the
// newest term, and was heard of lately.
func (l *Log) Leader() (of Member, known bool) {
	for _, m := range l.Members() {
		if m.Term > of.Term && m.Live() {
			of, known = m, true
		}
	}
	return of, known
}
