package doctor

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"pmm-callgoose/cmd/internal/text"
)

// longWait is how long an event may wait with Callgoose up before that deserves a warning.
const longWait = 5 * time.Minute

// waiting looks at what the service says of Callgoose, and of what became of events.
func (e *examination) waiting() {
	s := e.Service
	if s == nil {
		e.skip("delivery", "only a running service can say")
		return
	}
	since, side := "", s.Callgoose
	if side.Since != nil {
		since = " for " + text.Span(time.Since(*side.Since))
	}
	switch side.State {
	case "down":
		e.fail("delivery", fix("See the first callgoose step above that fails. Events are safe, and go out by themselves."), "Callgoose is down%s with %d events waiting: %s", since, s.Queued, side.LastError)
	case "held":
		e.fail("delivery", fix("Token or address is wrong for every event: see the callgoose steps above. Another URL takes a restart."), "held%s with %d events waiting: %s", since, s.Queued, side.LastError)
	case "paused":
		e.warn("delivery", fix("pmm-callgoose resume"), "%s", s.Headline)
	case "unknown":
		e.warn("delivery", fix("pmm-callgoose send-test"), "nothing was sent to Callgoose yet")
	default:
		if s.OldestQueuedAt != nil && time.Since(*s.OldestQueuedAt) > longWait {
			e.warn("delivery", fix("A large backlog takes its time (--rate, --concurrency). See pmm-callgoose events list --outcome queued."), "Callgoose is up%s, %d events wait, the oldest for %s", since, s.Queued, text.Span(time.Since(*s.OldestQueuedAt)))
			break
		}
		e.ok("delivery", "Callgoose is up%s, %d events wait", since, s.Queued)
	}
	for _, storm := range s.Storms {
		e.warn("storm", fix("They go out when it is calm; pmm-callgoose events close "+cmp.Or(storm.Key, "KEY")+" ends it."),
			"%d alerts of %s began at once, %d events wait for the end", storm.Alerts, storm.Source, storm.Waiting)
	}
	e.lastCall()
	e.turnedAway()
	const refilter = "Correct the filter (pmm-callgoose send-test says how), then pmm-callgoose replay --outcome discarded"
	clean, recent := true, min(s.DiscardedDay, s.Discarded)
	for _, lost := range []struct {
		severity  Severity
		n         int64
		what, way string
	}{
		{Fail, s.Dead, "%d dead letters: given up", "pmm-callgoose dead-letters list says why; then dead-letters retry --all, or drop (what is unusable can only be dropped)."},
		{Fail, recent, "%d events discarded within a day: no filter of Callgoose matched", refilter},
		{Warn, s.Discarded - recent, "%d events discarded before: no filter of Callgoose matched", refilter},
		{Warn, s.Truncated, "%d alerts were cut off by PMM before they were sent", "Set Max alerts to 0 in PMM's contact point."},
		{Warn, s.Damaged, "%d stored notifications could not be read", "See the log for their numbers, and look at the disk; PMM's own alert list says what fired then."},
	} {
		if lost.n > 0 {
			clean = false
			e.add("outcomes", lost.severity, fix(lost.way), lost.what, lost.n)
		}
	}
	if clean {
		e.ok("outcomes", "no dead letters, nothing discarded, nothing cut off")
	}
}

// lastCall says when somebody was called last.
func (e *examination) lastCall() {
	last := e.Service.LastDelivered
	switch {
	case last == nil:
	case last.Effect == "unknown":
		e.warn("last call", fix("Look at the answer: pmm-callgoose events list --outcome delivered --limit 1, then events show."), "%s: %s, but %s", text.Ago(last.At, time.Now()), last.Title, last.Did())
	default:
		e.ok("last call", "%s: %s is %s, %s", text.Ago(last.At, time.Now()), last.Title, last.Status, last.Did())
	}
}

// turnedAway looks at the webhooks that were not accepted.
func (e *examination) turnedAway() {
	r := e.Service.Refused
	if r.LastAt == nil {
		return
	}
	way := "Correct the URL and the credentials in PMM's contact point (pmm-callgoose setup pmm does it), then press Test there."
	said := fmt.Sprintf("%d refused in the last hour, the last %s from %s with %d: %s", r.LastHour, text.Ago(*r.LastAt, time.Now()), r.LastRemote, r.LastCode, text.Short(200, r.LastReason))
	switch {
	case e.Service.RefusedLast():
		e.fail("webhooks", fix(way), "%s; none was accepted since", said)
	case r.LastHour > 0:
		e.warn("webhooks", fix(way), "%s", said)
	}
}

// longQuiet is how long a PMM that is not watched may be silent before that deserves a
// warning: its repeat interval is usually four hours.
const longQuiet = 48 * time.Hour

// consistent compares queue and ledger.
func (e *examination) consistent(ctx context.Context) {
	if e.Consistent == nil {
		e.skip("queue and ledger", "there is no store yet")
		return
	}
	problems, looked, err := e.Consistent(ctx)
	if err != nil {
		e.skip("queue and ledger", "%s", text.Short(200, err.Error()))
		return
	}
	for _, p := range problems {
		e.fail("queue and ledger", fix("Stop the service, move ledger.db out of the data directory, start: it is rebuilt from the streams. Keep a copy of the directory."), "%s", text.Short(200, p))
	}
	if len(problems) == 0 {
		e.ok("queue and ledger", "they agree: %s", looked)
	}
}

// heard says who sent something, and when.
func (e *examination) heard() {
	if e.Service == nil {
		return
	}
	if len(e.Service.Sources) == 0 {
		e.warn("heard from pmm", fix("Press Test in PMM's contact point. No notification at all: its URL, or a missing notification policy."), "no notification ever came in")
		return
	}
	for _, s := range e.Service.Sources {
		switch {
		case s.SilentSince != nil:
			e.fail("heard from pmm", fix("Look at that PMM, at its heartbeat rule, and at the way from it to here."), "%s is silent since %s", s.Name, text.Stamp(*s.SilentSince))
		case s.LastHeardAt == nil:
			e.warn("heard from pmm", fix("Press Test in its contact point."), "%s is expected and never sent anything", s.Name)
		case time.Since(*s.LastHeardAt) > longQuiet && s.ExpectEvery == 0:
			e.warn("heard from pmm", fix("Press Test in its contact point. --expect-every reports such a silence by itself; ignore a server that is gone for good."), "%s was last heard of %s, and is not watched for silence", s.Name, text.Ago(*s.LastHeardAt, time.Now()))
		default:
			e.ok("heard from pmm", "%s, %s", s.Name, text.Ago(*s.LastHeardAt, time.Now()))
		}
	}
}
