package worker

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"pmm-callgoose/store/event"
)

// fakePMM is PMM as seen from outside: rules that fire and recover, and the
// Alertmanagers that tell of it in groups, each with what they really do wrong. It
// knows nothing of the forwarder but whether a request was answered 202.
type fakePMM struct {
	rng    *rand.Rand
	faults pmmFaults
	rules  []*rule
	groups []*group
	under  []*request202 // requests under way, in the order in which they end
}

// pmmFaults are the ways in which PMM is wrong, each on or off for a run.
type pmmFaults struct {
	Blips    bool // a recovery without one, and the same start again one group interval later
	Stale    bool // old recoveries once more, whatever fires now
	Repeated bool // the last recovery once more, its end as its start
	Pair     bool // two Alertmanagers, the second one behind
	Forgets  bool // a restart: what was to be told is forgotten, what fires is told anew
	Aliens   bool // recoveries of nothing that ever fired, with fewer labels and a fingerprint
	Trimmed  bool // recoveries without fingerprint and start, with fewer labels
	Slow     bool // bodies that take long: requests that overlap
	Disks    bool // alerts of one name on one host
	Busy     bool // everything changes every few minutes
}

const (
	groupInterval  = time.Minute
	repeatInterval = 30 * time.Minute
)

// rule is one alert of PMM.
type rule struct {
	source, name, instance, disk, finger string

	spans   []span // the last one may go on
	blip    int    // 1: the next flush of the first Alertmanager says that it recovered
	trimmed bool
	told    []member // recoveries that were answered 202
}

type span struct{ from, to time.Time }

func (r *rule) on() bool { return len(r.spans) > 0 && r.spans[len(r.spans)-1].to.IsZero() }

func (r *rule) key() string { return event.Key(r.source, r.finger) }

func (r *rule) labels() map[string]string {
	l := map[string]string{"alertname": r.name, "instance": r.instance, "severity": "critical"}
	if r.disk != "" {
		l["disk"] = r.disk
	}
	return l
}

// group is one notification group of a PMM, told of by its Alertmanagers, which share
// what was told.
type group struct {
	rules []*rule
	peers []*peer
	log   map[*rule]event.Status
	sent  time.Time
}

// peer is an Alertmanager. It sees everything lag later and some seconds apart.
type peer struct {
	lag, skew time.Duration
	busy      time.Time // until then a request is under way
	next      time.Time
	done      map[*rule]time.Time // ends that it told of: it knows nothing more of those alerts
}

// told is one alert of a request.
type told struct {
	rule *rule // nil: it never fired
	member
	// now says that it is what all Alertmanagers think; else it is old, or of one alone.
	now bool
	old bool // sent before, word for word but for its start
}

// finger is that of the alert that is meant.
func (m told) finger() string {
	if m.rule == nil {
		return m.Fingerprint
	}
	return m.rule.finger
}

// request202 is a request on its way.
type request202 struct {
	group        *group // nil: it changes nothing that PMM knows
	peer         *peer
	source       string
	members      []told
	began, whole time.Time
}

func newFakePMM(rng *rand.Rand, f pmmFaults) *fakePMM {
	p := &fakePMM{rng: rng, faults: f}
	for _, source := range []string{"pmm", "dr"} {
		for _, name := range []string{"Down", "Full"} {
			g := &group{log: map[*rule]event.Status{}}
			for i := range 3 {
				r := &rule{source: source, name: source + " " + name, instance: fmt.Sprint("host", i), trimmed: f.Trimmed && i == 0}
				if f.Disks && name == "Full" && i > 0 {
					r.instance, r.disk = "host", fmt.Sprint("/d", i)
				}
				r.finger = fmt.Sprintf("%x", []byte(name[:1]+r.instance+r.disk))
				p.rules, g.rules = append(p.rules, r), append(g.rules, r)
			}
			g.peers = []*peer{{done: map[*rule]time.Time{}}}
			if f.Pair && source == "pmm" {
				g.peers = append(g.peers, &peer{done: map[*rule]time.Time{}, lag: time.Duration(rng.IntN(100)) * time.Second, skew: 7 * time.Second})
			}
			p.groups = append(p.groups, g)
		}
	}
	return p
}

// turn lets time pass: rules change, Alertmanagers send. It returns the requests that
// are whole now. calm lets nothing change any more.
func (p *fakePMM) turn(now time.Time, calm bool) (whole []*request202) {
	change := 35
	if p.faults.Busy {
		change = 6
	}
	for _, r := range p.rules {
		switch {
		case calm || p.rng.IntN(change) > 0:
		case r.on():
			if p.faults.Blips && r.blip == 0 && p.rng.IntN(2) == 0 {
				r.blip = 1
				continue
			}
			r.spans[len(r.spans)-1].to = now
			r.blip = 0
		default:
			r.spans = append(r.spans, span{from: now})
		}
	}
	for _, g := range p.groups {
		for i, q := range g.peers {
			if now.Before(q.next) || now.Before(q.busy) {
				continue
			}
			if q.next = now.Add(groupInterval); p.faults.Forgets && !calm && p.rng.IntN(80) == 0 {
				p.forget(g)
			}
			p.flush(g, q, i == 0, now, calm)
		}
	}
	if !calm {
		p.nonsense(now)
	}
	for len(p.under) > 0 && !now.Before(p.under[0].whole) {
		whole, p.under = append(whole, p.under[0]), p.under[1:]
	}
	return whole
}

// forget is a restart: it tells everything that fires anew, and no recovery of before.
func (*fakePMM) forget(g *group) { clear(g.log) }

// flush sends what a peer of a group has to tell.
func (p *fakePMM) flush(g *group, q *peer, first bool, now time.Time, calm bool) {
	req := &request202{group: g, peer: q, source: g.rules[0].source, began: now, whole: now}
	changed := now.Sub(g.sent) >= repeatInterval
	for _, r := range g.rules {
		if g.log[r] != event.Firing {
			r.blip = 0 // nobody knows yet that it fires
		}
		m, fires := q.view(r, now, first)
		switch {
		case fires.Status == event.Firing:
			changed = changed || g.log[r] != event.Firing
		case m && g.log[r] == event.Firing && !q.done[r].Equal(fires.EndsAt):
			changed = true
		default:
			continue
		}
		req.members = append(req.members, told{rule: r, member: fires, now: len(g.peers) == 1 || agree(g, r, now, fires.Status)})
	}
	if len(req.members) == 0 || !changed {
		return
	}
	if p.faults.Slow && !calm && p.rng.IntN(4) == 0 {
		req.whole = now.Add(time.Duration(1+p.rng.IntN(110)) * time.Second)
		if q.busy = req.whole; p.rng.IntN(3) == 0 { // it gives up, and the body arrives anyway
			q.busy, req.group = now.Add(20*time.Second), nil
		}
	}
	p.send(req)
}

func (p *fakePMM) send(req *request202) {
	i, _ := slices.BinarySearchFunc(p.under, req.whole, func(o *request202, at time.Time) int {
		if o.whole.After(at) {
			return 1
		}
		return -1
	})
	p.under = slices.Insert(p.under, i, req)
}

// view is what the peer says of a rule, and whether it says anything.
func (q *peer) view(r *rule, now time.Time, first bool) (bool, member) {
	i := len(r.spans) - 1
	for i >= 0 && r.spans[i].from.Add(q.lag).After(now) {
		i--
	}
	if i < 0 {
		return false, member{}
	}
	s := r.spans[i]
	m := member{Status: event.Firing, Labels: r.labels(), StartsAt: s.from.Add(q.skew), Fingerprint: r.finger}
	switch {
	case !s.to.IsZero() && !s.to.Add(q.lag).After(now):
		m.Status, m.EndsAt = event.Resolved, s.to.Add(q.skew)
	case first && r.blip == 1:
		m.Status, m.EndsAt = event.Resolved, now
	}
	if m.Status == event.Resolved && r.trimmed {
		m = trim(m)
	}
	return true, m
}

// trim makes a recovery like the one in Callgoose's guide.
func trim(m member) member {
	m.StartsAt, m.Fingerprint = time.Time{}, ""
	m.Labels = maps.Clone(m.Labels)
	delete(m.Labels, "severity")
	return m
}

// agree reports whether all peers of a group see this status of a rule.
func agree(g *group, r *rule, now time.Time, status event.Status) bool {
	for i, q := range g.peers {
		if some, m := q.view(r, now, i == 0); some && m.Status != status || !some && status == event.Firing {
			return false
		}
	}
	return true
}

// nonsense sends what is of no use.
func (p *fakePMM) nonsense(now time.Time) {
	r := p.rules[p.rng.IntN(len(p.rules))]
	req := &request202{source: r.source, began: now, whole: now}
	switch {
	case p.rng.IntN(8) > 0:
		return
	case p.faults.Aliens && p.rng.IntN(3) == 0:
		m := member{Status: event.Resolved, Labels: map[string]string{"alertname": r.name}, Fingerprint: "a11e4", StartsAt: now.Add(-time.Hour), EndsAt: now}
		req.members = []told{{member: m}}
	case len(r.told) == 0 || r.trimmed:
		return
	case p.faults.Repeated && !r.on() && p.rng.IntN(2) == 0 && !r.told[len(r.told)-1].EndsAt.Before(r.spans[len(r.spans)-1].to):
		m := r.told[len(r.told)-1]
		m.StartsAt = m.EndsAt
		req.members = []told{{rule: r, member: m, now: true, old: true}}
	case p.faults.Stale:
		m := r.told[p.rng.IntN(len(r.told))]
		if p.rng.IntN(2) == 0 {
			m.StartsAt = m.EndsAt
		}
		req.members = []told{{rule: r, member: m, old: true}}
	default:
		return
	}
	p.send(req)
}

// answered is the 202 to a request, or another answer: then all of it is tried again.
func (p *fakePMM) answered(req *request202, ok bool) {
	for _, m := range req.members {
		if r := m.rule; r != nil && ok && m.Status == event.Resolved && !m.old {
			r.told = append(r.told, m.member)
		}
	}
	if req.group == nil || !ok {
		return
	}
	req.group.sent = req.began
	for _, m := range req.members {
		if req.group.log[m.rule] = m.Status; m.Status == event.Resolved {
			req.peer.done[m.rule] = m.EndsAt
		}
		if m.rule.blip == 1 && m.Status == event.Resolved {
			m.rule.blip = 0 // the rule fires on, and the next flush says so
		}
	}
}
