package alarm

import (
	"slices"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store/event"
)

const (
	again     = time.Hour       // a lasting alarm is repeated
	soonAgain = 5 * time.Minute // likewise, when it reached nobody
	settled   = time.Minute     // how long what was raised must be gone to be over
	coalesce  = time.Minute     // between two notices of events that nobody gets
)

// Away is the alarm of a Callgoose that is down or held: when one becomes the other, it
// is still the same outage.
const Away = "callgoose_away"

// The other alarms have the code of what they tell of. ofLeader are those that only the
// instance raises which leads.
var (
	ofLeader = []string{
		Away, admin.IsPaused, admin.IsDead, admin.IsDiscarded,
		"reconcile_mass", "reconcile_missing", "pmm_contact_point_failing", "pmm_not_routed", // worker.ReconcileAlarm
	}
	ofEach = []string{admin.NATSUnreachable, admin.NoLeader, admin.NotAccepting}
)

// watch turns what is seen into notices. It has no clock, sends nothing and is
// owned by Run.
type watch struct {
	after time.Duration
	seen  map[string]*occasion // by alarm
}

// occasion is what is known of one alarm.
type occasion struct {
	found admin.Attention // as last seen
	since time.Time       // it is so; zero = it is not
	gone  time.Time       // it is no longer so, and nobody was told; zero = it is
	told  time.Time       // somebody was; zero = the alarm is not raised
	count int             // of notices
	// counted: it tells of events that nobody gets, as soon as there are more of them than
	// at the start, or than people were told of.
	counted bool
	known   int64
}

func newWatch(after time.Duration) *watch {
	return &watch{after: after, seen: map[string]*occasion{}}
}

// observe compares what is true now with what was, and returns what people must be told.
func (w *watch) observe(now time.Time, s admin.Status) (out []Notice) {
	found := map[string]admin.Attention{}
	for _, a := range slices.Backward(s.Attention) { // of several the first
		name := a.Code
		if name == admin.IsDown || name == admin.IsHeld {
			name = Away
		}
		found[name] = a
	}
	for _, name := range slices.Concat(ofLeader, ofEach) {
		if _, away := found[admin.NATSUnreachable]; unknown(name, s, away) {
			continue
		}
		total, counted := lost(name, s)
		o := w.seen[name]
		if o == nil {
			o = &occasion{counted: counted, known: total}
			w.seen[name] = o
		}
		o.known = min(o.known, total)
		switch a, there := found[name]; {
		case there && w.due(o, now, name, a, total):
			o.told, o.known, o.count = now, total, o.count+1
			out = append(out, newNotice(now, now, name, o, s, false))
		case !there && w.ended(o, now):
			out = append(out, newNotice(now, o.gone, name, o, s, true))
			*o = occasion{counted: o.counted, known: o.known}
		}
	}
	return out
}

// unknown reports whether nothing can be said of an alarm: while the store is being
// opened, where another instance leads, while NATS does not answer, or while nothing is
// sent to Callgoose.
func unknown(name string, s admin.Status, natsAway bool) bool {
	switch {
	case slices.Contains(ofLeader, name) && (closed(s) || s.Cluster != nil && s.Cluster.Role == "follower"):
		return true
	case name == Away:
		return s.Callgoose.State == event.Unknown || s.Callgoose.State == event.Paused
	}
	return natsAway && (name == admin.NoLeader || name == admin.NotAccepting)
}

// closed reports whether the store is being opened: the zeros in such a status are no news.
func closed(s admin.Status) bool { return !s.Store.Accepting && s.Store.MaxBytes == 0 }

// lost is how many events nobody gets, of the alarms that tell of such.
func lost(name string, s admin.Status) (n int64, counted bool) {
	switch name {
	case admin.IsDead:
		return s.Dead, true
	case admin.IsDiscarded:
		return s.DiscardedFiring, true
	}
	return 0, false
}

// due reports whether people must be told of something that is so now.
func (w *watch) due(o *occasion, now time.Time, name string, a admin.Attention, total int64) bool {
	o.found, o.gone = a, time.Time{}
	if o.since.IsZero() {
		o.since = now
	}
	wait := w.after
	if name == admin.NotAccepting {
		wait = min(wait, settled)
	}
	switch {
	case total > o.known && now.Sub(o.told) >= coalesce: // at once
		return true
	case o.told.IsZero():
		return !o.counted && now.Sub(o.since) >= wait
	}
	return now.Sub(o.told) >= again
}

// ended reports whether people must be told that something is over. What they were not
// told of is forgotten.
func (w *watch) ended(o *occasion, now time.Time) bool {
	if o.told.IsZero() {
		o.since = time.Time{}
		return false
	}
	if o.gone.IsZero() {
		o.gone = now
	}
	return now.Sub(o.gone) >= min(w.after, settled)
}

// unheard notes that the last notice of an alarm reached nobody.
func (w *watch) unheard(now time.Time, name string) {
	if o := w.seen[name]; o != nil && !o.told.IsZero() {
		o.told = now.Add(soonAgain - again)
	}
}
