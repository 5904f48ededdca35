package app

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"pmm-callgoose/store/event"
)

// oracle is sections 5 and 6 of the contract written down a second time, as
// plainly as they read, with nothing of the code that it judges: which alerts
// become events, what stands in line behind what, and what an answer makes of
// an event. It owns no clock and no goroutine; sandbox.mu guards it.
type oracle struct {
	rules  rules
	keys   map[string]*identity
	fates  []*fate // of every alert accepted, in order
	at     map[event.Position]*fate
	line   []*message                // what the events stream must hold, in order
	there  int                       // of line, how many it holds
	queues map[string][]*message     // ordering key -> what waits, oldest first
	order  map[string]string         // incident key -> its ordering key
	ids    map[string]*fate          // event id -> the event
	undo   map[event.Position]func() // what only the ledger knows of an alert
	unsure []*message                // answered, and not yet seen in the ledger
	faults []string
	step   int
	counts map[string]int // of suppressed alerts, by reason
}

// rules are the settings that the contract's rules depend on.
type rules struct {
	byName, collapse           bool
	resend, retryFor, tellLate time.Duration
	concurrency                int
}

// identity is one incident key.
type identity struct {
	open  *episode
	fired bool        // an alert fired under it, ever
	told  bool        // a recovery of it, with nothing open, was taken note of
	ended []time.Time // the starts of the episode that ended last
}

type episode struct {
	key, source, name string
	labels            map[string]string
	starts            []time.Time // the first one counts; the others are what PMM's twin saw
	firing, resolved  *fate
	shared            bool // others of the same incident fired before or beside it, without a recovery between
}

// fate is what must become of one alert.
type fate struct {
	pos      event.Position
	key      string
	status   event.Status
	received time.Time
	changed  time.Time // when it changed state, as far as we tell lateness from it
	made     bool      // the recovery of a Test button alert
	episode  *episode

	outcome event.Outcome
	reason  string
	settled time.Time
	gone    bool // the ledger that knew it was lost

	first   *message // that put it in line
	id      string
	body    []byte // as Callgoose first got it
	reached int    // requests that Callgoose may have received
}

// message is an event standing in line: a second one puts it there again.
type message struct {
	*fate
	again    bool
	closed   bool // settled before any attempt
	seq      uint64
	queued   time.Time
	life     int // of the process it was put in line in
	step     int
	outage   bool // the process knew then that Callgoose was away
	failures int  // of all attempts until then
	want     event.Outcome
}

// accepted is one alert as it came in, as far as the rules ask.
type accepted struct {
	pos             event.Position
	source          string
	key, name       string
	firing          bool
	labels          map[string]string
	starts, ends    time.Time
	received        time.Time
	unusable, heart bool
	test, trimmed   bool
}

func newOracle(r rules) *oracle {
	return &oracle{
		rules: r, keys: map[string]*identity{}, at: map[event.Position]*fate{}, queues: map[string][]*message{},
		order: map[string]string{}, ids: map[string]*fate{}, undo: map[event.Position]func(){}, counts: map[string]int{},
	}
}

func (o *oracle) fault(format string, args ...any) {
	if len(o.faults) < 10 {
		o.faults = append(o.faults, fmt.Sprintf(format, args...))
	}
}

func (o *oracle) identity(key string) *identity {
	if o.keys[key] == nil {
		o.keys[key] = &identity{}
	}
	return o.keys[key]
}

// What the code does not do yet, found by this test. True is what the contract
// says; each one that is made true keeps it so.
const (
	// With --incident-by alertname a recovery of what never fired is withheld, like
	// any other, while an alert of that name fires: it would close their incident.
	strangersWait = true
	// What PMM's twin gave as the start of an episode is known as its start also
	// where the twin's word was let through as a repeat.
	twinsAreKnown = true
	// An episode without a start does not have the ids of a recovery without a
	// start that came before it.
	countedApart = true
	// Of several repeats that are decided on together only the first is let
	// through: then its event is in line.
	repeatsOnce = true
	// A trimmed recovery is held against alerts of the same notification, too.
	adoptsAtOnce = true
	// A kill between the publish of events and the commit of the ledger loses no
	// record of an alert that was suppressed along with them.
	suppressedStay = false
)

// decide is section 5.
func (o *oracle) decide(a accepted) {
	f := &fate{pos: a.pos, key: a.key, status: event.Resolved, received: a.received, made: a.pos.Item%2 == 1}
	if a.firing {
		f.status = event.Firing
	}
	f.changed = a.ends
	if a.firing {
		f.changed = a.starts
	}
	if f.changed.IsZero() || f.changed.After(a.received) || a.received.Sub(f.changed) > o.rules.tellLate {
		f.changed = a.received
	}
	o.fates = append(o.fates, f)
	o.at[f.pos] = f
	switch {
	case a.unusable:
		f.key, f.status, f.outcome = a.source+"-unusable", "", event.Dead
		o.inLine(f, a, false, true)
	case a.heart:
		o.suppress(f, event.ReasonHeartbeat)
	case a.firing:
		o.firing(f, a)
	default:
		o.resolved(f, a)
	}
	if a.test {
		o.recover(a)
	}
}

// recover ends an alert of the Test button: PMM never does.
func (o *oracle) recover(a accepted) {
	a.pos.Item, a.firing, a.test, a.ends = a.pos.Item+1, false, false, a.received
	o.decide(a)
}

func (o *oracle) suppress(f *fate, reason string) {
	f.outcome, f.reason, f.settled = event.Suppressed, reason, f.received
	o.counts[reason]++
}

func (o *oracle) firing(f *fate, a accepted) {
	id := o.identity(a.key)
	known := func(list []time.Time) bool { return !a.starts.IsZero() && slices.ContainsFunc(list, a.starts.Equal) }
	if known(id.ended) {
		o.suppress(f, event.ReasonLate)
		return
	}
	if ep := id.open; ep != nil && o.same(ep, a.starts) {
		remember := func() {
			if !a.starts.IsZero() && len(ep.starts) > 0 && !known(ep.starts) {
				ep.starts = append(ep.starts, a.starts)
				o.undo[f.pos] = func() { ep.starts = slices.DeleteFunc(ep.starts, a.starts.Equal) }
			}
		}
		switch last := ep.firing; {
		case last.outcome == event.Discarded, last.outcome == event.Dead,
			last.outcome == event.Delivered && o.rules.resend > 0 && !a.received.Before(last.settled.Add(o.rules.resend)):
			// The same event again. This alert has no fate of its own.
			o.fates = o.fates[:len(o.fates)-1]
			delete(o.at, f.pos)
			if twinsAreKnown {
				remember()
			}
			o.inLine(last, a, true, false)
		default:
			remember()
			o.suppress(f, event.ReasonRepeat)
		}
		return
	}
	fresh := &episode{key: a.key, source: a.source, name: a.name, labels: a.labels, firing: f}
	if id.open != nil { // a resolve was never sent to us
		id.ended, fresh.shared = id.open.starts, true
	}
	if o.rules.byName {
		for key, other := range o.keys {
			if ep := other.open; ep != nil && key != a.key && ep.source == a.source && ep.name == a.name {
				ep.shared, fresh.shared = true, true
			}
		}
	}
	id.open = fresh
	if !a.starts.IsZero() {
		id.open.starts = []time.Time{a.starts}
	}
	id.fired, f.episode = true, id.open
	o.inLine(f, a, false, false)
}

// same reports whether a start means the open episode.
func (o *oracle) same(ep *episode, starts time.Time) bool {
	return starts.IsZero() || len(ep.starts) == 0 || starts.Sub(ep.starts[0]).Abs() <= 2*time.Minute
}

func (o *oracle) resolved(f *fate, a accepted) {
	id := o.identity(a.key)
	ep := id.open
	if !id.fired {
		if ep = o.adopt(a); ep == nil {
			if id.told {
				o.suppress(f, event.ReasonResolved)
				return
			}
			id.told = true
			if !a.starts.IsZero() {
				id.ended = []time.Time{a.starts}
			}
			o.inLine(f, a, false, strangersWait && o.rules.byName && o.othersFire(f, a.source, a.name))
			return
		}
		if !id.told {
			o.undo[f.pos] = func() { id.told = false }
		}
		id.told = true
		f.key, a.key, a.name = ep.key, ep.key, ep.name
	}
	if ep == nil {
		o.suppress(f, event.ReasonResolved)
		return
	}
	owner := o.identity(ep.key)
	owner.open, owner.ended = nil, ep.starts
	ep.resolved, f.episode = f, ep
	o.inLine(f, a, false, o.rules.byName && o.othersFire(f, a.source, a.name))
}

// othersFire closes no incident early: it is that of all alerts of the name.
func (o *oracle) othersFire(f *fate, source, name string) bool {
	for _, id := range o.keys {
		if ep := id.open; ep != nil && ep.source == source && ep.name == name {
			o.suppress(f, event.ReasonStillFiring)
			return true
		}
	}
	return false
}

// adopt is the one open alert that a trimmed recovery can mean.
func (o *oracle) adopt(a accepted) (found *episode) {
	for _, id := range o.keys {
		ep := id.open
		if ep == nil || ep.source != a.source || len(a.labels) == 0 {
			continue
		}
		fits := true
		for k, v := range a.labels {
			got, has := ep.labels[k]
			fits = fits && has && got == v
		}
		if fits && found != nil {
			return nil
		}
		if fits {
			found = ep
		}
	}
	return found
}

// inLine puts an event at the end of the stream. It stands in line once it is there.
func (o *oracle) inLine(f *fate, a accepted, again, closed bool) {
	if !closed && (!again || repeatsOnce) {
		f.outcome, f.reason = event.Queued, ""
	}
	if !again {
		o.order[f.key] = f.key
		if o.rules.byName {
			o.order[f.key] = a.source + " " + a.name
		}
	}
	m := &message{fate: f, again: again, closed: closed}
	if o.line = append(o.line, m); !again {
		f.first = m
	}
}

// published takes note of a message of the events stream.
func (o *oracle) published(seq uint64, e *event.Event, life int, outage bool, failures int) {
	if o.there == len(o.line) {
		o.fault("event %d, %s %s of %+v, becomes an event; it must not", seq, e.Key, e.Status, e.Pos)
		return
	}
	m := o.line[o.there]
	o.there++
	if m.pos != e.Pos || m.key != e.Key || m.status != e.Status || m.again != (e.Again != "") || m.closed != (e.Settled != "") {
		o.fault("event %d is %s %s of %+v, again %q, settled %q; want %s %s of %+v, again %v, settled %v",
			seq, e.Key, e.Status, e.Pos, e.Again, e.Settled, m.key, m.status, m.pos, m.again, m.closed)
		return
	}
	if other := o.ids[e.ID]; other != nil && other != m.fate && (countedApart || !e.StartsAt.IsZero()) {
		o.fault("%s %s of %+v has the id of %s %s of %+v", m.key, m.status, m.pos, other.key, other.status, other.pos)
	}
	o.ids[e.ID], m.id = m.fate, e.ID
	m.seq, m.queued, m.life, m.outage, m.failures, m.step = seq, e.QueuedAt, life, outage, failures, o.step
	if !m.closed {
		m.outcome = event.Queued
		o.queues[o.order[m.key]] = append(o.queues[o.order[m.key]], m)
	}
}

// requested is section 6's order: what is sent is the head of its line. reached
// says that Callgoose may have received it.
func (o *oracle) requested(key string, status event.Status, id, late string, body []byte, now time.Time, reached bool, life, failures int) *message {
	line := o.order[key]
	for {
		if len(o.queues[line]) == 0 {
			o.fault("%s %s %s is sent, and nothing of %s is in line", key, status, id, line)
			return nil
		}
		m := o.queues[line][0]
		if m.id == id {
			if m.key != key || m.status != status {
				o.fault("%s is sent as %s %s, it is %s %s", id, key, status, m.key, m.status)
			}
			if o.mustCollapse(m, life) {
				o.fault("%s %s %s is sent; its episode was over before anything could be", key, status, id)
			}
			o.bytes(m, late, body, now, reached, life)
			return m
		}
		switch {
		case o.tooOld(m, now) && o.collapsible(m, failures):
			o.settle(m, "", time.Time{}) // what and when, the ledger says
		case o.tooOld(m, now):
			o.settle(m, event.Dead, time.Time{})
		case o.collapsible(m, failures):
			o.settle(m, event.Collapsed, time.Time{})
		default:
			o.fault("%s %s %s is sent before event %d, %s %s %s, which is not settled", key, status, id, m.seq, m.key, m.status, m.id)
			return nil
		}
	}
}

// slack is how far the decision to tell of lateness may lie before the request.
const slack = 2 * time.Second

// bytes checks that an event looks the same at every attempt, and says so when
// it is late.
func (o *oracle) bytes(m *message, late string, body []byte, now time.Time, reached bool, life int) {
	if m.body != nil && !bytes.Equal(m.body, body) {
		o.fault("%s %s %s has other bytes than before:\n%s\n%s", m.key, m.status, m.id, m.body, body)
	}
	if m.body == nil && !m.again {
		age := now.Sub(m.changed)
		// A process that was killed may have decided before it died.
		if late == "" && age > o.rules.tellLate+slack && m.life == life || late != "" && age <= o.rules.tellLate {
			o.fault("%s %s %s is sent %s after its alert changed, and says delayed_by %q", m.key, m.status, m.id, age, late)
		}
	}
	if reached {
		m.body = bytes.Clone(body)
		m.reached++
	}
}

func (o *oracle) tooOld(m *message, now time.Time) bool { return now.Sub(m.queued) > o.rules.retryFor }

// collapsible: it fired and resolved, and nothing of it could be sent.
func (o *oracle) collapsible(m *message, failures int) bool {
	if !o.rules.collapse || m.again || m.made || m.episode == nil || !m.outage && failures == m.failures {
		return false
	}
	firing, resolved := m.episode.firing, m.episode.resolved
	if resolved == nil || resolved.made || m.episode.shared || firing.reached > 0 || resolved.reached > 0 {
		return false
	}
	if m.status == event.Firing {
		return resolved.outcome == event.Queued
	}
	return firing.outcome == event.Collapsed || firing.outcome == "" // not looked up yet
}

// mustCollapse: the whole of it came in, one after the other, while the process
// knew that Callgoose was away.
func (o *oracle) mustCollapse(m *message, life int) bool {
	if m.status != event.Firing || !o.collapsible(m, m.failures) || !m.outage || m.life != life {
		return false
	}
	last := m.episode.resolved.first
	return last != nil && last.seq > 0 && last.outage && last.life == life && last.step < o.step
}

// settle ends the head of a line. want is verified against the ledger.
func (o *oracle) settle(m *message, outcome event.Outcome, now time.Time) {
	line := o.order[m.key]
	o.queues[line] = o.queues[line][1:]
	m.want, m.outcome, m.settled = outcome, outcome, now
	o.unsure = append(o.unsure, m)
}

// answered is section 6's table. It reports whether it settles the event.
func (o *oracle) answered(m *message, code int, duplicate bool, now time.Time) bool {
	switch {
	case code == 200, code == 201, code/100 == 2 && duplicate:
		o.settle(m, event.Delivered, now)
	case code == 202:
		o.settle(m, event.Discarded, now)
	case code == 400, code == 413, code == 415, code == 422:
		o.settle(m, event.Dead, now)
	case (code == 0 || code == 408 || code == 425 || code == 429 || code >= 500) && o.tooOld(m, now):
		o.settle(m, event.Dead, now)
	default:
		return false
	}
	return true
}

// interrupted: the process died between the publish of events and the commit of
// the ledger, which knows everything up to known. The next one goes on behind
// the last event, and what was suppressed before it is forgotten.
func (o *oracle) interrupted(known, last event.Position) {
	lost := func(pos event.Position) bool {
		return !suppressedStay && pos.Compare(known) > 0 && pos.Compare(last) <= 0
	}
	for _, f := range slices.Backward(o.fates) {
		if f.pos.Compare(known) <= 0 {
			break
		}
		if lost(f.pos) && f.first == nil {
			f.gone = true
			o.counts[f.reason]--
		}
	}
	for pos, undo := range o.undo {
		if lost(pos) {
			undo()
		}
	}
	clear(o.undo)
}

// unanswered puts back what the ledger does not know: the process died first.
func (o *oracle) unanswered(m *message) {
	m.outcome = event.Queued
	line := o.order[m.key]
	o.queues[line] = append([]*message{m}, o.queues[line]...)
}

// mayReplay are the events that a replay takes by default, oldest first.
func (o *oracle) mayReplay(closedToo bool) (list []*fate) {
	for _, f := range o.fates {
		switch {
		case f.gone, f.status == "", f.outcome == event.Suppressed, f.outcome == event.Queued:
			continue
		case f.status == event.Firing && !closedToo && o.identity(f.key).open != f.episode:
			continue
		}
		list = append(list, f)
	}
	return list
}

// forget is the loss of the ledger: open episodes and what waits are known from
// the streams; suppressed alerts, outcomes, and the starts of PMM's twin are gone.
// What was decided after the last event is decided again.
func (o *oracle) forget(position uint64, last event.Position, all []accepted) {
	o.unsure = nil
	clear(o.undo)
	clear(o.queues)
	clear(o.counts)
	o.keys = map[string]*identity{}
	for _, a := range all {
		if a.pos.Compare(last) <= 0 {
			o.recall(a, last)
		}
	}
	for _, m := range o.line[:o.there] {
		switch {
		case m.closed:
			continue
		case m.seq <= position:
			m.outcome, m.settled = event.Delivered, m.queued
		default:
			m.outcome = event.Queued
			o.queues[o.order[m.key]] = append(o.queues[o.order[m.key]], m)
		}
		m.body = nil // what it said of lateness was known to the ledger
		m.reached = 0
	}
	o.line = o.line[:o.there]
	for i, f := range o.fates { // decided again from here
		if f.pos.Compare(last) > 0 {
			for _, f := range o.fates[i:] {
				delete(o.at, f.pos)
			}
			o.fates = o.fates[:i]
			break
		}
	}
	for _, a := range all {
		switch c := a.pos.Compare(last); {
		case c > 0:
			o.decide(a)
		case c == 0 && a.test:
			o.recover(a)
		}
	}
}

// recall makes the state of a key from an event that stands in the stream.
func (o *oracle) recall(a accepted, last event.Position) {
	positions := []event.Position{a.pos}
	if a.test {
		made := a.pos
		made.Item++
		positions = append(positions, made)
	}
	for _, pos := range positions {
		f := o.at[pos]
		if f == nil || pos.Compare(last) > 0 {
			continue
		}
		if f.outcome == event.Suppressed && f.reason != event.ReasonStillFiring {
			f.gone = true
			continue
		}
		if f.status == "" {
			continue
		}
		id := o.identity(f.key)
		switch {
		case f.status == event.Firing:
			if id.open != nil {
				id.ended = id.open.starts[:min(1, len(id.open.starts))]
			}
			f.episode.starts = f.episode.starts[:min(1, len(f.episode.starts))]
			id.open, id.fired = f.episode, true
		case f.episode != nil:
			id.open, id.ended = nil, f.episode.starts[:min(1, len(f.episode.starts))]
		default:
			id.told = true
			if id.ended = nil; !a.starts.IsZero() {
				id.ended = []time.Time{a.starts}
			}
		}
	}
}
