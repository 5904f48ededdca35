package worker

import (
	"slices"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
)

const (
	// sameStart is how far apart the two PMMs of a pair may see the start of one
	// episode: each evaluates for itself. A recovery that ended longer than this
	// before an episode began is of an earlier one.
	sameStart = 2 * time.Minute
	// clockSlack is how far the clock may have stepped back before times of receipt
	// stop telling what overlapped: then the order in the stream decides.
	clockSlack = time.Minute
	// closeSlack is the same for a recovery that PMM's lists say: the clock of another
	// instance may be that far ahead, and nothing is closed that a webhook named since.
	closeSlack = time.Hour
	// keepPast and keepSeen bound what is kept of an episode.
	keepPast = 8
	keepSeen = 3
)

// decision is what becomes of one alert.
type decision int

const (
	begin    decision = iota // a new episode: an event
	reopen                   // an episode that was closed goes on: an event
	end                      // the open episode closes: an event
	orphan                   // a recovery of something never seen: an event
	again                    // said before, and let through: the same event once more
	suppress                 // no event, for a reason
)

// arrival is what the decision is made on: one alert, and what is known under
// its incident key.
type arrival struct {
	firing           bool
	startsAt, endsAt time.Time // zero when PMM gave none
	began, received  time.Time // of its request
	origin           event.Origin
	episode          *store.Episode
	// last is the record of the episode's firing event while it is open, else of its
	// last recovery event; nil when it is not known.
	last        *event.Record
	resendAfter time.Duration // 0 = off
}

// decide is the table of episodes in the package comment. It is pure. The reason
// is empty unless the decision is suppress.
func decide(a arrival) (decision, string) {
	ep := a.episode
	switch {
	case ep == nil && a.firing:
		return begin, ""
	case ep == nil:
		return orphan, ""
	case a.origin == event.Imported && (ep.FiringAt.After(a.received) || ep.RecoveredAt.After(a.received)),
		a.origin == event.Reconciled && (a.underWay(ep.NamedAt) || a.underWay(ep.RecoveredAt)):
		return suppress, event.ReasonLate
	case a.firing && ep.Open:
		return a.repeated(ep)
	case a.firing:
		return a.afterwards(ep)
	case ep.Open && a.stale(ep):
		return suppress, event.ReasonStale
	case ep.Open:
		return end, ""
	case a.missed():
		return again, ""
	}
	return suppress, event.ReasonResolved
}

// repeated decides on a firing while the episode is open.
func (a *arrival) repeated(ep *store.Episode) (decision, string) {
	switch {
	case !sameEpisode(ep, a.startsAt):
		if ended(ep, a.startsAt) {
			return suppress, event.ReasonLate
		}
		return begin, ""
	case a.missed(), ep.ByName && a.received.Sub(ep.NamedAt) >= stillNamed: // another's recovery may have closed the incident
		return again, ""
	case a.last != nil && a.last.Outcome == event.Delivered && a.resendAfter > 0 && !a.received.Before(a.last.SettledAt.Add(a.resendAfter)):
		return again, ""
	}
	return suppress, event.ReasonRepeat
}

// afterwards decides on a firing after the episode was closed. Grafana and
// Alertmanager resolve by themselves an alert that was not renewed in time, and
// renew it with the same start: the episode goes on. Late is only what was on its
// way while the recovery came in.
func (a *arrival) afterwards(ep *store.Episode) (decision, string) {
	switch {
	case !ended(ep, a.startsAt):
		return begin, ""
	case a.last != nil && a.last.Facts.Reconciled: // PMM's word against what the service concluded
		return reopen, ""
	case a.underWay(ep.NamedAt):
		return suppress, event.ReasonLate
	}
	return reopen, ""
}

// underWay reports whether the request of a had begun when something else was received. A
// time that is far ahead is from before the clock was set back; where that was while PMM's
// lists were read, began is from before, too.
func (a *arrival) underWay(at time.Time) bool {
	slack := clockSlack
	if a.origin == event.Reconciled && !a.firing {
		slack = closeSlack
	}
	return a.began.Before(at) && (a.origin == event.Imported || a.received.After(at.Add(-slack)) ||
		a.origin == event.Reconciled && a.began.After(a.received))
}

// missed reports whether Callgoose does not have what is said again, or nobody
// knows whether it has.
func (a *arrival) missed() bool {
	if a.last == nil {
		return a.episode.Open || a.episode.Dropped()
	}
	switch a.last.Outcome {
	case event.Discarded, event.Dead, event.Unknown:
		return true
	}
	return false
}

// sameEpisode reports whether a start time means the open episode. A missing
// one does: there is nothing to tell them apart.
func sameEpisode(ep *store.Episode, startsAt time.Time) bool {
	if startsAt.IsZero() || ep.StartsAt.IsZero() || slices.ContainsFunc(ep.Seen, startsAt.Equal) {
		return true
	}
	return startsAt.Sub(ep.StartsAt).Abs() <= sameStart
}

// ended reports whether a start time is that of an episode that ended.
func ended(ep *store.Episode, startsAt time.Time) bool { return len(startsOf(ep, startsAt)) > 0 }

// startsOf are the starts of the episode that ended which has this one, none when there is none.
func startsOf(ep *store.Episode, startsAt time.Time) []time.Time {
	for _, s := range ep.Past {
		if slices.ContainsFunc(s.Starts, startsAt.Equal) {
			return s.Starts
		}
	}
	return nil
}

// endOf is which of the episodes that ended has this end, -1 when none has.
func endOf(ep *store.Episode, endsAt time.Time) int {
	if endsAt.IsZero() {
		return -1
	}
	return slices.IndexFunc(ep.Past, func(s store.Span) bool { return endsAt.Equal(s.Ended) })
}

// stale reports whether a recovery is of an episode before the open one: by when
// it ended, by an end that is known, or by a start that is known. Grafana sends a
// recovery again with its end as its start, which says nothing. What the service
// itself closes it means: the episode with that start, or whatever is open.
func (a *arrival) stale(ep *store.Episode) bool {
	own := a.startsAt.Equal(ep.StartsAt) || slices.ContainsFunc(ep.Seen, a.startsAt.Equal)
	switch a.origin {
	case event.FromService:
		return false
	case event.Reconciled:
		return !own
	}
	if !a.endsAt.IsZero() && !ep.StartsAt.IsZero() && ep.StartsAt.Sub(a.endsAt) > sameStart {
		return true
	}
	if endOf(ep, a.endsAt) >= 0 {
		return true
	}
	// The other PMM of a pair may have said that the open one began.
	own = own || a.endsAt.After(ep.StartsAt) && sameEpisode(ep, a.startsAt)
	return !own && ended(ep, a.startsAt)
}

// change is the event that changes an episode.
type change struct {
	key, source, alertname, shown, suffix string
	what                                  decision // begin, reopen, end or orphan
	pos                                   event.Position
	startsAt, endsAt, received            time.Time
	byName                                bool // --incident-by alertname
}

// apply is the state of the key after c. The episode given is not changed.
func apply(ep *store.Episode, c *change) *store.Episode {
	next := store.Episode{}
	if ep != nil {
		next = *ep
	}
	if next.Key, next.Source = c.key, c.source; c.what != end { // a recovery may lack what it was known by
		next.Alertname, next.Shown, next.Suffix = c.alertname, c.shown, c.suffix
	}
	if !next.Open && c.what != end { // else its incident goes on
		next.ByName = c.byName
	}
	switch c.what {
	case begin, reopen:
		if next.Shared = next.Open; next.Open { // PMM never sent its recovery
			next.Past = past(&next, time.Time{}, time.Time{})
		}
		next.Count++
		next.Open, next.Adopted, next.To = true, false, ""
		next.StartsAt, next.Seen = c.startsAt, nil
		next.ID = event.EpisodeID(c.startsAt, next.Count)
		if c.what == reopen { // the peers of a pair may end it, too
			next.Seen = slices.DeleteFunc(slices.Clone(startsOf(&next, c.startsAt)), c.startsAt.Equal)
			next.ID += event.EpisodeID(time.Time{}, next.Count)
		}
		next.Firing, next.FiringAt, next.NamedAt = c.pos, c.received, c.received
	case orphan:
		next.Count++ // an episode of its own: without a start it is known by its number
		next.Adopted = true
		if next.StartsAt = c.startsAt; c.startsAt.IsZero() {
			next.StartsAt = c.endsAt
		}
		next.ID = event.EpisodeID(next.StartsAt, next.Count)
		next.StartsAt = c.startsAt
		fallthrough
	case end:
		next.Open = false
		next.Past = past(&next, c.startsAt, c.endsAt)
		next.Recovery, next.RecoveredAt, next.NamedAt = c.pos, c.received, c.received
	}
	return &next
}

// past are the episodes that ended, with the one that ends now. Its recovery may give a
// start that no firing gave: that one ended as well. Its end as its start says nothing.
func past(ep *store.Episode, startsAt, endedAt time.Time) []store.Span {
	now := store.Span{Ended: endedAt}
	if !ep.StartsAt.IsZero() {
		now.Starts = append(append(now.Starts, ep.StartsAt), ep.Seen...)
	}
	if !startsAt.IsZero() && !startsAt.Equal(endedAt) && !slices.ContainsFunc(now.Starts, startsAt.Equal) {
		now.Starts = append(now.Starts, startsAt)
	}
	list := append([]store.Span{now}, ep.Past...)
	return list[:min(len(list), keepPast)]
}
