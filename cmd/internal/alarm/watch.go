package alarm

import (
	"slices"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store/event"
)

const (
	again     = time.Hour        // a lasting alarm is repeated
	soonAgain = 5 * time.Minute  // likewise, when it reached nobody
	settled   = time.Minute      // how long a change must last to be believed
	coalesce  = time.Minute      // between two notices of dead letters
	start     = 30 * time.Second // a start may deliver what waits before it complains
	recovered = 10 * time.Second // accepting for so long ends store_full
)

// watch turns what is seen into notices. It has no clock, sends nothing and is
// owned by Run.
type watch struct {
	after  time.Duration
	first  time.Time            // the first observation
	raised map[string]*occasion // by alarm

	trouble time.Time // since when Callgoose is down or held, zero = it is not
	state   string    // which of the two
	changed time.Time // since when it is that one
	waiting time.Time // since when events wait, zero = none does
	idle    time.Time // since when none does

	dead, discarded tally

	refusing  time.Time // since when webhooks are refused, zero = they are not
	accepting time.Time // since when they are accepted again
	problem   string    // why they were refused

	found map[string]time.Time // since when what lasts looks at is so, by alarm
}

// occasion is an alarm that was raised and is not over.
type occasion struct {
	since, told time.Time
	count       int
}

func newWatch(after time.Duration) *watch {
	return &watch{after: after, raised: map[string]*occasion{}, found: map[string]time.Time{}}
}

// observe compares what is true now with what was, and returns what people must be told.
func (w *watch) observe(now time.Time, s admin.Status) (out []Notice) {
	if w.first.IsZero() {
		w.first = now
	}
	if !closed(s) && !follows(s) {
		out = slices.Concat(w.callgoose(now, s), w.paused(now, s),
			w.lost(now, s, DeadLetters, &w.dead, s.Dead, s.Dead),
			w.lost(now, s, Discarded, &w.discarded, s.DiscardedFiring, s.Discarded),
			w.reconcile(now, s))
	}
	out = append(out, w.cluster(now, s)...)
	if w.found[admin.NATSUnreachable].IsZero() { // else that is why, and has an alarm of its own
		out = append(out, w.store(now, s)...)
	}
	return out
}

// closed reports whether the store is being opened: the zeros in such a status
// are no news of Callgoose, of the queue or of dead letters.
func closed(s admin.Status) bool {
	return !s.Store.Accepting && s.Store.MaxBytes == 0 && s.Queued == 0 && s.Dead == 0 &&
		s.Callgoose.State != event.Down && s.Callgoose.State != event.Held
}

// follows reports whether another instance leads, which tells what it knows from the ledger.
func follows(s admin.Status) bool { return s.Cluster != nil && s.Cluster.Role == "follower" }

// unheard notes that the last notice of an alarm reached nobody.
func (w *watch) unheard(now time.Time, name string) {
	if o := w.raised[name]; o != nil {
		o.told = now.Add(soonAgain - again)
	}
}

func (w *watch) callgoose(now time.Time, s admin.Status) []Notice {
	if s.Queued > 0 {
		w.waiting, w.idle = earlier(w.waiting, now, s.OldestQueuedAt), time.Time{}
	} else {
		w.waiting, w.idle = time.Time{}, earlier(w.idle, now, nil)
	}
	active := ""
	for _, name := range []string{Unreachable, Held} {
		if w.raised[name] != nil {
			active = name
		}
	}
	switch c := s.Callgoose; c.State {
	case event.Up:
		w.trouble, w.state = time.Time{}, ""
		return w.end(now, now, active, s, "")
	case event.Paused: // nothing is tried, and the pause has an alarm of its own
		return nil
	case event.Down, event.Held:
		w.trouble = earlier(w.trouble, now, c.Since)
		if w.state != c.State {
			w.state, w.changed = c.State, now
		}
	} // unknown is no news

	name := Unreachable
	if w.state == event.Held {
		name = Held
	}
	switch {
	case w.trouble.IsZero():
		return nil
	case s.Queued == 0: // a queue that is empty for a moment ends nothing
		if now.Sub(w.idle) < settled {
			return nil
		}
		return w.end(now, now, active, s, nothingWaits)
	case active == name:
		return w.repeat(now, name, s, "")
	case active != "":
		if now.Sub(w.changed) < min(w.after, settled) {
			return w.repeat(now, active, s, "")
		}
		return append(w.end(now, now, active, s, name), w.raise(now, w.trouble, name, s, "")...)
	}
	// Both must have lasted: an event that comes in long after Callgoose was last
	// tried must be tried first.
	if now.Sub(w.trouble) < w.after || now.Sub(w.waiting) < w.after || now.Sub(w.first) < min(w.after, start) {
		return nil
	}
	return w.raise(now, w.trouble, name, s, "")
}

// tally is what was told of events that will not reach anybody.
type tally struct {
	counted bool      // once
	known   int64     // told of, or there from the start
	before  int64     // kept when the alarm was raised
	told    time.Time // last notice of new ones
}

// lost tells of events that were given up or discarded: total counts them, kept is
// how many of them wait for a person to deal with them.
func (w *watch) lost(now time.Time, s admin.Status, name string, t *tally, total, kept int64) []Notice {
	if !t.counted {
		t.counted, t.known = true, total
	}
	t.known = min(t.known, total)
	fresh, lasts := total-t.known, w.raised[name] != nil
	switch {
	case fresh > 0 && (t.told.IsZero() || now.Sub(t.told) >= coalesce):
		if !lasts {
			t.before = max(kept-fresh, 0)
			w.raised[name] = &occasion{since: now}
		}
		t.known, t.told = total, now
		return w.notice(now, name, s, "", fresh)
	case fresh == 0 && lasts && kept <= t.before:
		return w.end(now, now, name, s, "")
	}
	return w.repeat(now, name, s, "")
}

// paused tells of delivery that has been held by hand for long.
func (w *watch) paused(now time.Time, s admin.Status) []Notice {
	why := ""
	if s.Pause != nil {
		why = s.Pause.Reason
	}
	return w.lasts(now, Paused, s, s.Callgoose.State == event.Paused, s.Callgoose.Since, why)
}

// lasts raises an alarm when what it tells of has been so for after, and ends it when
// it no longer is. since may know of an earlier beginning.
func (w *watch) lasts(now time.Time, name string, s admin.Status, is bool, since *time.Time, why string) []Notice {
	if !is {
		delete(w.found, name)
		return w.end(now, now, name, s, "")
	}
	w.found[name] = earlier(w.found[name], now, since)
	if w.raised[name] == nil && now.Sub(w.found[name]) >= w.after {
		return w.raise(now, w.found[name], name, s, why)
	}
	return w.repeat(now, name, s, why)
}

func (w *watch) store(now time.Time, s admin.Status) []Notice {
	lasts := w.raised[StoreFull] != nil
	switch {
	case !s.Store.Accepting:
		w.refusing, w.accepting, w.problem = earlier(w.refusing, now, nil), time.Time{}, s.Store.Problem
		if !lasts && now.Sub(w.refusing) >= min(w.after, settled) {
			return w.raise(now, w.refusing, StoreFull, s, w.problem)
		}
	case !w.refusing.IsZero():
		w.accepting = earlier(w.accepting, now, nil)
		if now.Sub(w.accepting) >= min(w.after, recovered) {
			w.refusing = time.Time{}
			return w.end(now, w.accepting, StoreFull, s, "")
		}
	}
	return w.repeat(now, StoreFull, s, w.problem)
}

func (w *watch) raise(now, since time.Time, name string, s admin.Status, why string) []Notice {
	w.raised[name] = &occasion{since: since}
	return w.notice(now, name, s, why, 0)
}

// repeat tells again of an alarm that lasts, when it is time to.
func (w *watch) repeat(now time.Time, name string, s admin.Status, why string) []Notice {
	if o := w.raised[name]; o == nil || now.Sub(o.told) < again {
		return nil
	}
	return w.notice(now, name, s, why, 0)
}

func (w *watch) notice(now time.Time, name string, s admin.Status, why string, fresh int64) []Notice {
	o := w.raised[name]
	o.told = now
	o.count++
	return []Notice{newNotice(now, now, name, o, s, why, fresh, false)}
}

// end ends an alarm that was raised; others need no end.
func (w *watch) end(now, ended time.Time, name string, s admin.Status, why string) []Notice {
	o := w.raised[name]
	if o == nil {
		return nil
	}
	delete(w.raised, name)
	return []Notice{newNotice(now, ended, name, o, s, why, 0, true)}
}

// earlier is the earliest of what was known (zero = nothing), now, and what is told.
func earlier(known, now time.Time, told *time.Time) time.Time {
	if known.IsZero() || now.Before(known) {
		known = now
	}
	if told != nil && !told.IsZero() && told.Before(known) {
		known = *told
	}
	return known
}
