package worker

import (
	"testing"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
)

var t0 = time.Date(2026, 11, 23, 3, 0, 0, 0, time.UTC)

func openSince(starts time.Time, seen ...time.Time) *store.Episode {
	return &store.Episode{Key: "pmm-a", Open: true, StartsAt: starts, Seen: seen, Count: 1, FiringAt: starts}
}

// namedAt is open since starts, and a webhook named it at that time.
func namedAt(named, starts time.Time) *store.Episode {
	ep := openSince(starts)
	ep.NamedAt = named
	return ep
}

// reopenedSince is open since starts, and an episode with that start ended before.
func reopenedSince(starts, ended time.Time) *store.Episode {
	ep := openSince(starts)
	ep.Past = []store.Span{{Starts: []time.Time{starts}, Ended: ended}}
	return ep
}

// closedAt was closed by a recovery received at received.
func closedAt(received time.Time, starts ...time.Time) *store.Episode {
	return &store.Episode{
		Key: "pmm-a", Past: []store.Span{{Starts: starts, Ended: received}}, Count: 1,
		FiringAt: received.Add(-time.Hour), RecoveredAt: received, NamedAt: received, Recovery: event.Position{Seq: 2},
	}
}

func settledAs(o event.Outcome, at time.Time) *event.Record {
	return &event.Record{Outcome: o, SettledAt: at}
}

func minutes(n int) time.Time { return t0.Add(time.Duration(n) * time.Minute) }

func TestAFiringAlertHasAnIncident(t *testing.T) {
	good, bad := settledAs(event.Delivered, t0), settledAs(event.Discarded, t0)
	for name, c := range map[string]struct {
		arrival arrival
		want    decision
		reason  string
	}{
		"never seen":                            {arrival{startsAt: t0}, begin, ""},
		"known only by a recovery of another":   {arrival{startsAt: t0, episode: &store.Episode{Adopted: true}}, begin, ""},
		"closed, a new start":                   {arrival{startsAt: minutes(60), episode: closedAt(minutes(30), t0)}, begin, ""},
		"closed, a start one minute later":      {arrival{startsAt: minutes(1), episode: closedAt(minutes(30), t0)}, begin, ""},
		"closed, no start at all":               {arrival{episode: closedAt(minutes(30), t0)}, begin, ""},
		"closed, the same start, renewed":       {arrival{startsAt: t0, began: minutes(31), received: minutes(31), episode: closedAt(minutes(30), t0)}, reopen, ""},
		"closed, the other PMM's start":         {arrival{startsAt: minutes(1), began: minutes(31), received: minutes(31), episode: closedAt(minutes(30), t0, minutes(1))}, reopen, ""},
		"closed, begun before the recovery":     {arrival{startsAt: t0, began: minutes(29), received: minutes(31), episode: closedAt(minutes(30), t0)}, suppress, event.ReasonLate},
		"closed, the clock stepped back":        {arrival{startsAt: t0, began: minutes(-30), received: minutes(-30), episode: closedAt(minutes(30), t0)}, reopen, ""},
		"PMM's list, read before the recovery":  {arrival{startsAt: t0, began: minutes(29), received: minutes(31), origin: event.Reconciled, episode: closedAt(minutes(30), t0)}, suppress, event.ReasonLate},
		"PMM's list, the clock stepped back":    {arrival{startsAt: minutes(60), began: minutes(-30), received: minutes(-30), origin: event.Reconciled, episode: closedAt(minutes(30), t0)}, begin, ""},
		"imported, from before the recovery":    {arrival{startsAt: t0, began: t0, received: t0, origin: event.Imported, episode: closedAt(minutes(30), t0)}, suppress, event.ReasonLate},
		"imported, from before what fires now":  {arrival{startsAt: t0, began: t0, received: t0, origin: event.Imported, episode: openSince(minutes(60))}, suppress, event.ReasonLate},
		"imported, newer than all":              {arrival{startsAt: minutes(90), received: minutes(90), origin: event.Imported, episode: closedAt(minutes(30), t0)}, begin, ""},
		"open, the same start":                  {arrival{startsAt: t0, episode: openSince(t0), last: good}, suppress, event.ReasonRepeat},
		"open, still queued":                    {arrival{startsAt: t0, episode: openSince(t0), last: settledAs(event.Queued, t0)}, suppress, event.ReasonRepeat},
		"open, no start":                        {arrival{episode: openSince(t0), last: good}, suppress, event.ReasonRepeat},
		"open, two minutes off":                 {arrival{startsAt: minutes(2), episode: openSince(t0), last: good}, suppress, event.ReasonRepeat},
		"open, more than two minutes off":       {arrival{startsAt: minutes(2).Add(1), episode: openSince(t0), last: good}, begin, ""},
		"open, the start of one that ended":     {arrival{startsAt: minutes(-60), episode: &store.Episode{Open: true, StartsAt: t0, Past: closedAt(minutes(-30), minutes(-60)).Past}, last: good}, suppress, event.ReasonLate},
		"open again, the same start":            {arrival{startsAt: t0, episode: reopenedSince(t0, minutes(30)), last: good}, suppress, event.ReasonRepeat},
		"open, discarded":                       {arrival{startsAt: t0, episode: openSince(t0), last: bad}, again, ""},
		"open, a dead letter":                   {arrival{startsAt: t0, episode: openSince(t0), last: settledAs(event.Dead, t0)}, again, ""},
		"open, outcome unknown":                 {arrival{startsAt: t0, episode: openSince(t0), last: settledAs(event.Unknown, t0)}, again, ""},
		"open, its record is gone":              {arrival{startsAt: t0, episode: openSince(t0)}, again, ""},
		"open, a minute before --resend-after":  {arrival{startsAt: t0, episode: openSince(t0), last: good, received: minutes(59), resendAfter: time.Hour}, suppress, event.ReasonRepeat},
		"open, at --resend-after":               {arrival{startsAt: t0, episode: openSince(t0), last: good, received: minutes(60), resendAfter: time.Hour}, again, ""},
		"open, queued, long after resend-after": {arrival{startsAt: t0, episode: openSince(t0), last: settledAs(event.Queued, t0), received: minutes(600), resendAfter: time.Hour}, suppress, event.ReasonRepeat},
	} {
		t.Run(name, func(t *testing.T) {
			c.arrival.firing = true
			if got, reason := decide(c.arrival); got != c.want || reason != c.reason {
				t.Errorf("decided %d %q, want %d %q", got, reason, c.want, c.reason)
			}
		})
	}
}

func TestARecoveryClosesWhatItMeans(t *testing.T) {
	twoDays := minutes(2880)
	for name, c := range map[string]struct {
		arrival arrival
		want    decision
		reason  string
	}{
		"never seen":      {arrival{}, orphan, ""},
		"open, its start": {arrival{startsAt: t0, endsAt: minutes(30), episode: openSince(t0)}, end, ""},
		"open, no times":  {arrival{episode: openSince(t0)}, end, ""},
		"open, said again with its end as its start":        {arrival{startsAt: minutes(30), endsAt: minutes(30), episode: openSince(t0)}, end, ""},
		"open, ended two minutes before it began":           {arrival{startsAt: minutes(-30), endsAt: minutes(-2), episode: openSince(t0)}, end, ""},
		"open, ended more than two minutes before it began": {arrival{startsAt: minutes(-30), endsAt: minutes(-2).Add(-1), episode: openSince(t0)}, suppress, event.ReasonStale},
		"open, no end, an unknown start":                    {arrival{startsAt: minutes(-30), episode: openSince(t0)}, end, ""},
		"open, no start known, an old end":                  {arrival{endsAt: minutes(-30), episode: openSince(time.Time{})}, end, ""},
		"open again, the end that is known":                 {arrival{startsAt: t0, endsAt: minutes(30), episode: reopenedSince(t0, minutes(30))}, suppress, event.ReasonStale},
		"open again, its own end":                           {arrival{startsAt: t0, endsAt: minutes(50), episode: reopenedSince(t0, minutes(30))}, end, ""},
		"open, the start of one that ended":                 {arrival{startsAt: t0, episode: &store.Episode{Open: true, StartsAt: twoDays, Past: closedAt(minutes(30), t0).Past}}, suppress, event.ReasonStale},
		"open, the other PMM began it, and the start is that of one that ended": {
			arrival{startsAt: t0, endsAt: minutes(30), episode: &store.Episode{Open: true, StartsAt: minutes(1), Past: closedAt(minutes(-1), t0).Past}}, end, "",
		},
		"open, likewise, ended before it began": {
			arrival{startsAt: t0, endsAt: minutes(1).Add(-1), episode: &store.Episode{Open: true, StartsAt: minutes(1), Past: closedAt(minutes(-1), t0).Past}}, suppress, event.ReasonStale,
		},
		"open, the other PMM's start":               {arrival{startsAt: minutes(1), endsAt: minutes(30), episode: openSince(t0, minutes(1))}, end, ""},
		"PMM's lists, a webhook came long after":    {arrival{startsAt: t0, began: minutes(10), received: minutes(10), origin: event.Reconciled, episode: namedAt(minutes(20), t0)}, suppress, event.ReasonLate},
		"imported, from before what fires now":      {arrival{startsAt: t0, received: t0, origin: event.Imported, episode: openSince(minutes(60))}, suppress, event.ReasonLate},
		"closed":                                    {arrival{startsAt: t0, episode: closedAt(minutes(30), t0), last: settledAs(event.Delivered, t0)}, suppress, event.ReasonResolved},
		"closed, the recovery is queued":            {arrival{startsAt: t0, episode: closedAt(minutes(30), t0), last: settledAs(event.Queued, t0)}, suppress, event.ReasonResolved},
		"closed, the recovery was discarded":        {arrival{startsAt: t0, episode: closedAt(minutes(30), t0), last: settledAs(event.Discarded, t0)}, again, ""},
		"closed, the recovery is a dead letter":     {arrival{startsAt: t0, episode: closedAt(minutes(30), t0), last: settledAs(event.Dead, t0)}, again, ""},
		"closed, the recovery's outcome is unknown": {arrival{startsAt: t0, episode: closedAt(minutes(30), t0), last: settledAs(event.Unknown, t0)}, again, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got, reason := decide(c.arrival); got != c.want || reason != c.reason {
				t.Errorf("decided %d %q, want %d %q", got, reason, c.want, c.reason)
			}
		})
	}
}

// An episode that goes on is the same alert and another event: Callgoose may have
// closed the incident.
func TestAnEpisodeThatGoesOnHasAnIDOfItsOwn(t *testing.T) {
	fire := func(ep *store.Episode, what decision) *store.Episode {
		return apply(ep, &change{key: "pmm-a", source: "pmm", alertname: "A", what: what, startsAt: t0, received: t0})
	}
	first := fire(nil, begin)
	closed := apply(first, &change{key: "pmm-a", source: "pmm", what: end, endsAt: minutes(30), received: minutes(31)})
	second := fire(closed, reopen)
	if closed.Open || closed.Alertname != "A" || !second.Open || first.ID == second.ID || !ended(second, t0) {
		t.Errorf("first %+v\nclosed %+v\nsecond %+v", first, closed, second)
	}
	third := fire(apply(second, &change{key: "pmm-a", source: "pmm", what: end, endsAt: minutes(60)}), reopen)
	if third.ID == second.ID || third.Count != 3 {
		t.Errorf("third %+v", third)
	}
	if first.Open != true || len(first.Past) != 0 {
		t.Errorf("the first was changed: %+v", first)
	}
}
