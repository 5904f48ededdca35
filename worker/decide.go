package worker

import (
	"slices"
	"time"

	"pmm-callgoose/store/event"
)

// sameStart is how far apart the two PMMs of a pair may see the start of one
// episode: each evaluates for itself.
const sameStart = 2 * time.Minute

// decision is what becomes of one alert.
type decision int

const (
	begin    decision = iota // a new episode: an event
	end                      // the open episode closes: an event
	orphan                   // a recovery of something never seen: an event
	again                    // a repeat that is let through: the same event once more
	suppress                 // no event, for a reason
)

// arrival is what the decision is made on: one alert, and what is known under
// its incident key.
type arrival struct {
	firing   bool
	startsAt time.Time // zero when PMM gave none
	episode  *event.Episode
	// last is the record of the episode's firing event, nil when it is not known.
	last        *event.Record
	now         time.Time
	resendAfter time.Duration // 0 = off
}

// decide is section 5 of the contract. It is pure. The reason is empty unless
// the decision is suppress.
func decide(a arrival) (decision, string) {
	ep := a.episode
	if !a.firing {
		switch {
		case ep == nil:
			return orphan, ""
		case ep.Open: // never matched on startsAt: Grafana sends it again with startsAt == endsAt
			return end, ""
		default:
			return suppress, event.ReasonResolved
		}
	}
	if ep == nil {
		return begin, ""
	}
	if !a.startsAt.IsZero() && slices.ContainsFunc(ep.Past, a.startsAt.Equal) {
		return suppress, event.ReasonLate
	}
	if !ep.Open || !sameEpisode(ep, a.startsAt) {
		return begin, ""
	}
	switch {
	case a.last == nil:
		return suppress, event.ReasonRepeat
	case a.last.Outcome == event.Discarded, a.last.Outcome == event.Dead:
		return again, ""
	case a.last.Outcome == event.Delivered && a.resendAfter > 0 && !a.now.Before(a.last.SettledAt.Add(a.resendAfter)):
		return again, ""
	}
	return suppress, event.ReasonRepeat
}

// sameEpisode reports whether a start time means the open episode. A missing
// one does: there is nothing to tell them apart.
func sameEpisode(ep *event.Episode, startsAt time.Time) bool {
	if startsAt.IsZero() || ep.StartsAt.IsZero() || slices.ContainsFunc(ep.Seen, startsAt.Equal) {
		return true
	}
	return startsAt.Sub(ep.StartsAt).Abs() <= sameStart
}

// maxStarts bounds the start times kept with an episode.
const maxStarts = 4

// apply is the state of the key after e. The running splitter and the rebuild
// at start use the same function, so that both end in the same state.
func apply(ep *event.Episode, e *event.Event) *event.Episode {
	next := &event.Episode{Key: e.Key, Source: e.Source, Alertname: e.Alertname, Fingerprint: e.Fingerprint, ID: e.Episode}
	if ep != nil {
		next.Count = ep.Count
	}
	if e.Status == event.Firing {
		next.Count++
		next.Open, next.StartsAt = true, e.StartsAt
		next.Firing, next.FiringAt = e.Pos, e.ReceivedAt
		if ep != nil && ep.Open { // a resolve was never sent to us
			next.Past, next.Shared = starts(ep), true
		} else if ep != nil {
			next.Past = ep.Past
		}
		return next
	}
	if ep == nil || !ep.Open {
		next.Count++ // an episode of its own: without a start it is known by its number
		next.Adopted = ep == nil || ep.Adopted
		next.Past = starts(&event.Episode{StartsAt: e.StartsAt})
		return next
	}
	next.StartsAt, next.Firing, next.FiringAt, next.Shared = ep.StartsAt, ep.Firing, ep.FiringAt, ep.Shared
	next.Past = starts(ep)
	return next
}

// putEpisode writes ep as e leaves it. Where one incident is kept for all alerts of
// a name, a firing beside others shares it with them.
func (s *Splitter) putEpisode(tx event.Tx, ep *event.Episode, e *event.Event) error {
	next := apply(ep, e)
	if s.cfg.ByAlertname && s.cfg.Collapse && e.Status == event.Firing {
		var beside *event.Episode
		for other := range tx.OpenEpisodes(e.Source, e.Alertname) {
			if other.Key != e.Key {
				beside = other // one that is not shared yet is the only one
				break
			}
		}
		if beside != nil {
			next.Shared = true
			if !beside.Shared {
				beside.Shared = true
				if err := tx.PutEpisode(beside); err != nil {
					return err
				}
			}
		}
	}
	return tx.PutEpisode(next)
}

// over marks the firing event of the episode that e ends while nothing of it was
// sent: --on-backlog collapse asks for it. The recovery that we make for the Test
// button does not count, somebody waits to see the pair arrive.
func over(tx event.Tx, e *event.Event) error {
	if e.Firing == (event.Position{}) || e.Settled != "" || e.Shared || e.Pos.Made() {
		return nil
	}
	r, err := tx.Brief(e.ReceivedAt, e.Firing)
	if err == nil && r == nil { // of another day
		r, err = tx.Brief(time.Time{}, e.Firing)
	}
	if err != nil || r == nil || r.Outcome != event.Queued || r.Over {
		return err
	}
	r.Over = true
	return tx.PutRecord(r)
}

// starts are the start times by which a late firing of ep is known.
func starts(ep *event.Episode) []time.Time {
	var out []time.Time
	if !ep.StartsAt.IsZero() {
		out = append(out, ep.StartsAt)
	}
	out = append(out, ep.Seen...)
	return out[:min(len(out), maxStarts)]
}
