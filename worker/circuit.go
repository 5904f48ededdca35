package worker

import (
	"time"

	"pmm-callgoose/store/event"
)

// circuit is what we believe of Callgoose, and whether an event may go out. It
// is owned by Deliverer.Run and has no clock of its own.
//
//	unknown ──answer──▶ up ◀──answer to a probe── down, held
//	   up, unknown ──cannot connect, or several failures on end──▶ down
//	   any ──wrong token or address──▶ held
//
// While it is not up, one probe at a time goes out instead of every event.
// The wait between probes grows with the outage, a tenth of its length: what
// took an hour is noticed within six minutes, what took seconds within two.
type circuit struct {
	least, most time.Duration
	dice        func(time.Duration) time.Duration

	event.Circuit
	fails   int             // failures on end, without an answer between them
	failed  map[string]bool // lanes they happened in
	told    bool            // Callgoose said itself how long to wait
	blamed  bool            // the last failure may be that event's own: Callgoose was reached
	probing bool            // a probe is under way
	probeAt time.Time       // when the next one may go
}

// openAfter is how many failures on end mean more than bad luck.
const openAfter = 3

func newCircuit(saved event.Circuit, least, most time.Duration) *circuit {
	if saved.State == "" {
		saved.State = event.Unknown
	}
	return &circuit{least: least, most: most, dice: roll, Circuit: saved, failed: map[string]bool{}}
}

// outage reports whether we know that Callgoose does not take events: unknown is none.
func (c *circuit) outage() bool { return c.State == event.Down || c.State == event.Held }

// allow reports whether an attempt may start now, and whether it is a probe.
func (c *circuit) allow(now time.Time) (ok, probe bool) {
	if c.State == event.Up {
		return true, false
	}
	return !c.probing && !now.Before(c.probeAt), true
}

// observe takes in the end of an attempt. It reports whether the state changed.
func (c *circuit) observe(now time.Time, lane string, probe bool, v verdict, text string) (changed bool) {
	if probe {
		c.probing = false
	}
	switch v.class {
	case interrupted:
		return false
	case answered:
		c.fails = 0
		clear(c.failed)
		return c.become(now, event.Up, "")
	}
	c.fails++
	c.told, c.blamed = v.wait > 0, v.class != unreachable
	if len(c.failed) < 2 {
		c.failed[lane] = true
	}
	switch {
	case v.class == misconfig:
		changed = c.become(now, event.Held, text)
	case c.State != event.Up, v.class == unreachable, v.wait > 0, c.fails >= openAfter:
		changed = c.become(now, event.Down, text)
	default:
		c.LastError = text
	}
	if probe || changed || v.wait > 0 {
		c.probeAt = now.Add(c.pause(now, v.wait))
	}
	return changed
}

func (c *circuit) become(now time.Time, state, text string) bool {
	if c.LastError = text; state == event.Up {
		c.LastError = ""
	}
	if c.State == state {
		return false
	}
	c.State, c.Since = state, now.UTC()
	return true
}

// pause is the wait before the next probe.
func (c *circuit) pause(now time.Time, retryAfter time.Duration) time.Duration {
	if retryAfter > 0 {
		return retryAfter
	}
	tenth := min(max(now.Sub(c.Since)/10, 2*c.least), c.most)
	return spread(max(tenth/4*3, c.least), tenth, c.dice)
}

// hopeful reports whether an event of this lane is worth a probe at once: all
// failures so far were of one other lane, so it may be that event and not Callgoose.
func (c *circuit) hopeful(lane string) bool {
	return c.State == event.Down && !c.told && c.blamed && len(c.failed) == 1 && !c.failed[lane]
}
