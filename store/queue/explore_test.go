package queue

import (
	"testing"
	"time"
)

// What the exhaustive test knows of an instance. Times are ticks since something happened,
// so that what is equal compares equal.
type one struct {
	leads   bool
	wait    time.Duration // as in standing
	since   int8          // it heard of another one; as a leader: it began its newest acknowledged append
	ends    bool          // its work has ended, and it releases
	behind  bool          // the log holds what it has not read
	pending byte          // the kind of what it appends, 0 = nothing
	began   int8          // since then
	stored  bool          // it is, and the acknowledgement may come
	ghost   byte          // the kind of what it gave up, and which may be stored behind what it had read
}

// situation is everything that matters for what can happen next.
type situation struct {
	all      [3]one
	released bool // the newest entry is a release
}

const (
	kindOther byte = iota + 1 // a commit or a beat
	kindTakeOver
	kindRelease
)

// fold leaves out what changes nothing that can happen.
func (m one) fold(long int8) one {
	switch {
	case !m.leads && m.behind && m.pending == 0: // first it reads
		m.since, m.wait = 0, 0
	case !m.leads && m.wait == 0:
		m.since = 0
	case !m.leads && m.pending > 0:
		m.since = long
	case m.ends:
		m.since, m.began = 0, 0
	}
	if m.ghost == kindTakeOver {
		m.ghost = kindOther
	}
	return m
}

// explorer finds all situations that can be reached.
type explorer struct {
	rules  rules
	clocks []time.Duration // how far the clock of each instance goes within a tick
	seen   map[situation]bool
	open   []situation
	long   int8 // more ticks than any rule lasts
}

func (x *explorer) reach(s situation) {
	for i := range s.all {
		s.all[i] = s.all[i].fold(x.long)
	}
	if !x.seen[s] {
		x.seen[s] = true
		x.open = append(x.open, s)
	}
}

// at is any time: only what passed since counts.
var at = time.Unix(1_000_000, 0)

func (x *explorer) ago(i int, ticks int8) time.Time {
	return at.Add(-time.Duration(ticks) * x.clocks[i])
}

// next is what instance i makes of an occurrence.
func (x *explorer) next(s situation, i int, o occurrence) (situation, action) {
	m := &s.all[i]
	after, do := standing{rules: x.rules, leads: m.leads, heard: x.ago(i, m.since), acked: x.ago(i, m.since), wait: m.wait}.next(o, at)
	since := after.heard
	if m.leads, m.wait = after.leads, after.wait; m.leads {
		since, m.wait = after.acked, 0
	}
	m.since = int8(at.Sub(since) / x.clocks[i])
	return s, do
}

// store puts an entry of instance i into the log.
func (s situation) store(i int, kind byte) situation {
	for j := range s.all {
		s.all[j].ghost, s.all[j].behind = 0, s.all[j].behind || j != i
	}
	s.released = kind == kindRelease
	return s
}

// giveUp ends an append of which nothing was heard.
func (s situation) giveUp(i int) situation {
	m := &s.all[i]
	switch {
	case m.stored:
		m.behind = true
	case !m.behind:
		m.ghost = m.pending
	}
	m.pending, m.began, m.stored, m.ends = 0, 0, false, false
	return s
}

func (x *explorer) lose(s situation, i int) {
	s, _ = x.next(s.giveUp(i), i, occurrence{kind: occurLost})
	x.reach(s)
}

// steps are all that can happen to instance i, or what it may do, at one moment. That it
// does nothing, because it is frozen or nobody reaches it, is always possible.
func (x *explorer) steps(s situation, i int) {
	m := s.all[i]
	begin := func(kind byte) {
		n := s
		n.all[i].pending, n.all[i].began, n.all[i].ends = kind, 0, kind == kindRelease
		x.reach(n)
	}
	if m.ghost > 0 {
		n := s.store(i, m.ghost)
		n.all[i].behind = true
		x.reach(n)
	}
	if m.pending > 0 && !m.stored && !m.behind {
		n := s.store(i, m.pending)
		n.all[i].stored = true
		x.reach(n)
	}
	switch {
	case m.pending > 0 && m.stored: // it hears of it
		n := s
		n.all[i].pending, n.all[i].began, n.all[i].stored, n.all[i].ends = 0, 0, false, false
		o := occurrence{kind: []byte{kindOther: occurAppended, kindTakeOver: occurTookOver, kindRelease: occurLost}[m.pending], began: x.ago(i, m.began)}
		n, _ = x.next(n, i, o)
		x.reach(n)
		fallthrough
	case m.pending > 0 && m.leads:
		x.lose(s, i)
	case m.pending > 0:
		x.reach(s.giveUp(i))
	case m.leads:
		if n, do := x.next(s, i, occurrence{}); do == doStop {
			x.lose(n, i)
			return
		}
		if m.behind { // whatever it appends is refused
			x.lose(s, i)
			return
		}
		begin(kindOther)
		begin(kindRelease)
	case m.behind:
		n := s
		n.all[i].behind = false
		n, _ = x.next(n, i, occurrence{kind: map[bool]byte{true: occurReleased, false: occurRead}[s.released]})
		x.reach(n)
	default:
		n, _ := x.next(s, i, occurrence{kind: occurUnreadable})
		x.reach(n)
		if _, do := x.next(s, i, occurrence{}); do == doTakeOver {
			begin(kindTakeOver)
		}
	}
}

// holders counts the instances that may send.
func (x *explorer) holders(s situation) (n int) {
	for i := range x.clocks {
		m := s.all[i]
		if (standing{rules: x.rules, leads: m.leads, acked: x.ago(i, m.since)}).holds(at) && !m.ends {
			n++
		}
	}
	return n
}

// run returns a situation in which two may send, nil when none can be reached.
func (x *explorer) run() *situation {
	x.seen = map[situation]bool{}
	x.reach(situation{})
	for len(x.open) > 0 {
		s := x.open[len(x.open)-1]
		x.open = x.open[:len(x.open)-1]
		if x.holders(s) > 1 {
			return &s
		}
		for i := range x.clocks {
			x.steps(s, i)
		}
		for i := range s.all {
			m := &s.all[i]
			m.since = min(m.since+1, x.long)
			if m.pending > 0 {
				m.began = min(m.began+1, x.long)
			}
		}
		x.reach(s)
	}
	return nil
}

// explore lets as many instances as there are clocks do whatever they can. The clocks are
// given in percent.
func explore(r rules, tick time.Duration, clocks ...int) *explorer {
	x := &explorer{rules: r}
	for _, percent := range clocks {
		c := tick * time.Duration(percent) / 100
		x.clocks = append(x.clocks, c)
		x.long = max(x.long, int8((r.take+c-1)/c))
	}
	return x
}

// Whatever three instances do, however long they freeze and whatever they hear of what they
// appended, also when it is stored after they gave it up: two never may send, although their
// clocks run at rates that differ by a tenth. Every situation that can be reached is looked
// at: of two instances in half seconds, of three in steps of two.
func TestTwoNeverMaySend(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		rules  rules
		tick   time.Duration
		clocks []int
		found  bool
	}{
		{"two instances", rulesOf(0), time.Second / 2, []int{95, 105}, false},
		{"three instances", rulesOf(0), 2 * time.Second, []int{95, 105, 105}, false},
		{"a hold that is too long", rules{beat: 2 * time.Second, hold: 12 * time.Second, take: 13 * time.Second}, time.Second / 2, []int{95, 105}, true},
	} {
		x := explore(c.rules, c.tick, c.clocks...)
		if s := x.run(); (s != nil) != c.found {
			t.Errorf("%s: two may send: %+v", c.name, s)
		}
		t.Logf("%s: %d situations", c.name, len(x.seen))
	}
}
