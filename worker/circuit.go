package worker

import (
	"fmt"
	"time"

	"pmm-callgoose/store/event"
)

// Circuit is what is known of Callgoose's side.
type Circuit struct {
	State     string // up, down, held, paused, unknown
	Since     time.Time
	LastError string
}

// circuit is what we believe of Callgoose, and whether an event may go out. It is
// guarded by its gate and has no clock of its own. Every life begins as unknown:
// what was true before a stop decides nothing.
//
//	unknown ──answer──▶ up ◀──answer── down, held
//	   up, unknown ──cannot connect, or several consecutive failures──▶ down
//	   any ──wrong token or address──▶ held
//
// While it is not up, one probe at a time goes out instead of every event.
// The wait between probes grows with the outage, a tenth of its length: what
// took an hour is noticed within six minutes, what took seconds within two.
//
// A failure may be the event's own. Where another lane gets through after it, it
// was: the event is then a suspect, whose failures are weighed less.
type circuit struct {
	least, most time.Duration
	dice        func(time.Duration) time.Duration

	Circuit
	accepted uint64          // events that Callgoose took, in this life
	fails    int             // consecutive failures, without an answer between them
	failed   map[string]bool // lanes they happened in, suspects left out; at most doubtfulLanes
	rejected map[string]bool // consecutive keys that were rejected, none accepted between them; at most rejectedAll
	asked    bool            // Callgoose said how long to wait
	reached  bool            // the last failure may be that event's own: there was a connection
	probing  bool            // a probe is under way
	probeAt  time.Time       // when the next one may go
	failedAt time.Time       // when an attempt failed last
	turn     uint64          // counts failures that may be an event's own
	since    uint64          // the first turn since an event was accepted
}

const (
	// openAfter is how many consecutive failures mean more than bad luck.
	openAfter = 3
	// rejectedAll is how many consecutive keys that are rejected mean that it is not the
	// events: the last of them and what follows is held.
	rejectedAll = 5
	// doubtfulLanes is of how many lanes the failures may be the events' own.
	doubtfulLanes = 5
	// refusedOften is how many refusals end an event, others being accepted between them.
	refusedOften = 10
)

func newCircuit(now time.Time, least, most time.Duration) *circuit {
	return &circuit{
		least: least, most: most, dice: roll, failed: map[string]bool{}, rejected: map[string]bool{}, since: 1,
		Circuit: Circuit{State: event.Unknown, Since: now.UTC()},
	}
}

// permit is what may be sent.
type permit int

const (
	nothing permit = iota
	everything
	aProbe
	freshProbe // a probe of a lane in which nothing failed since an event was accepted
)

// allow says what may be sent at now, and when to ask again.
func (c *circuit) allow(now time.Time) (permit, time.Time) {
	switch {
	case c.State == event.Up:
		return everything, time.Time{}
	case c.probing:
		return nothing, time.Time{}
	case !now.Before(c.probeAt):
		return aProbe, time.Time{}
	case c.doubtful():
		return freshProbe, c.probeAt
	}
	return nothing, c.probeAt
}

// doubtful reports whether another lane is worth a probe at once: all failures so far
// were of few lanes, suspects left out, so it may be those events and not Callgoose.
func (c *circuit) doubtful() bool {
	return c.fails > 0 && c.reached && !c.asked && len(c.failed) < doubtfulLanes
}

// ruling is what a verdict comes to, beside all that was seen before.
type ruling struct {
	verdict
	own bool // the failure is the event's own: it has its own backoff, the others go on
}

// observe takes in the end of an attempt for it, the head of l, an event of key.
func (c *circuit) observe(now time.Time, l *lane, it *item, key string, probe bool, v verdict, status int, text string) ruling {
	if probe {
		c.probing = false
	}
	if v.class == rejected {
		if len(c.rejected) < rejectedAll {
			c.rejected[key] = true
		}
		if len(c.rejected) == rejectedAll {
			v = verdict{result: "held", class: misconfig}
		}
	}
	switch v.class {
	case interrupted:
		return ruling{verdict: v}
	case accepted:
		c.accepted++
		c.since = c.turn + 1
		clear(c.rejected)
		fallthrough
	case rejected:
		c.fails = 0
		clear(c.failed)
		c.become(now, event.Up, "")
		return ruling{verdict: v}
	}
	others := it.refusals > 0 && c.accepted > it.refusedAt
	it.suspect = it.suspect || others
	alone := others && c.State == event.Up
	c.fail(now, l, v, it.suspect)
	if v.class != unreachable { // else nothing was said of an event that did not arrive: it is probed again
		if it.refusals == 0 || alone {
			it.refusals++
		}
		it.refusedAt = c.accepted
		c.turn++
		l.turn = c.turn
	}
	if alone && v.refused && it.refusals >= refusedOften {
		v.result, v.outcome, v.reason = "dead", event.Dead, fmt.Sprintf("refused for itself: %d: %s", status, text)
		c.fails--
		return ruling{verdict: v}
	}
	c.judge(now, probe, v, it.suspect, text)
	return ruling{verdict: v, own: v.class != unreachable && (it.suspect || c.State == event.Up)}
}

// fail counts a failure.
func (c *circuit) fail(now time.Time, l *lane, v verdict, suspect bool) {
	c.fails++
	c.failedAt = now
	c.reached = v.class != unreachable
	c.asked = v.wait > 0 && !suspect
	if !suspect && len(c.failed) < doubtfulLanes {
		c.failed[l.key] = true
	}
}

// judge opens the circuit when a failure says so, and sets the time of the next probe.
func (c *circuit) judge(now time.Time, probe bool, v verdict, suspect bool, text string) {
	state := event.Down
	if v.class == misconfig {
		state = event.Held
	}
	changed := false
	switch {
	case c.State != event.Up, v.class == unreachable, c.fails >= openAfter, !suspect && (v.class == misconfig || v.wait > 0):
		changed = c.become(now, state, text)
	default:
		c.LastError = text
	}
	if probe || changed || c.asked {
		c.probeAt = now.Add(c.pause(now, v.wait))
	}
}

func (c *circuit) become(now time.Time, state, text string) (changed bool) {
	c.LastError = text
	if c.State == state {
		return false
	}
	c.State, c.Since = state, now.UTC()
	return true
}

// pause is the wait before the next probe.
func (c *circuit) pause(now time.Time, retryAfter time.Duration) time.Duration {
	if c.asked {
		return retryAfter
	}
	tenth := min(max(now.Sub(c.Since)/10, 2*c.least), c.most)
	return spread(max(tenth/4*3, c.least), tenth, c.dice)
}
