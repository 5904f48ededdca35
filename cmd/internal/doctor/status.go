package doctor

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
)

// longWait is how long an event may wait with Callgoose up before that deserves a warning.
const longWait = 5 * time.Minute

// status is what the running service says of itself: what needs attention, in the words
// of status, and else that all is well.
func (e *examination) status() {
	s, now := e.Service, time.Now()
	if s == nil {
		e.skip("delivery", "only a running service can say")
		return
	}
	for _, a := range s.Attention {
		severity := Warn
		if a.Level == admin.Bad {
			severity = Fail
		}
		e.add(strings.ReplaceAll(a.Code, "_", " "), severity, fix(a.Fix), "%s", a.Text)
	}
	if len(s.Attention) == 0 {
		if s.Level == admin.Good {
			e.ok("delivery", "%s", s.Headline)
		} else {
			e.warn("delivery", fix("pmm-callgoose send-test"), "%s", s.Headline)
		}
		for _, line := range s.Beside(now) {
			e.ok(line[0], "%s", line[1])
		}
	}
	if s.Callgoose.State == event.Up && s.OldestQueuedAt != nil && now.Sub(*s.OldestQueuedAt) > longWait {
		e.warn("delivery", fix("A large backlog takes its time (--rate, --concurrency). See pmm-callgoose events list --outcome queued."),
			"Callgoose is up, and %s, the oldest for %s", text.Plural(s.Queued, "event waits", "events wait"), text.Span(now.Sub(*s.OldestQueuedAt)))
	}
	if last := s.LastDelivered; last != nil {
		e.ok("last call", "%s: %s is %s, %s", text.Ago(last.At, now), last.Title, last.Status, last.Did())
	}
	for _, lost := range []struct {
		n         int64
		what, way string
	}{
		{s.Discarded - min(s.DiscardedDay, s.Discarded), "%d events discarded before: no filter of Callgoose matched", "Correct the filter (pmm-callgoose send-test says how), then pmm-callgoose replay --outcome discarded"},
		{s.Truncated, "%d alerts were cut off by PMM before they were sent", "Set Max alerts to 0 in PMM's contact point."},
		{s.Damaged, "%d stored notifications could not be read", "See the log for their numbers, and look at the disk; PMM's own alert list says what fired then."},
	} {
		if lost.n > 0 {
			e.warn("outcomes", fix(lost.way), lost.what, lost.n)
		}
	}
}

// consistent has the service compare queue and ledger, and its settings with those that
// it would have now.
func (e *examination) consistent(ctx context.Context) {
	if e.Consistent == nil {
		e.ledger()
		return
	}
	found, err := e.Consistent(ctx)
	if err != nil {
		e.skip("queue and ledger", "%s", text.Short(200, err.Error()))
		return
	}
	for _, p := range found.Problems {
		e.fail("queue and ledger", fix("Stop the service, move ledger.db out of the data directory, start: it is rebuilt from the streams. Keep a copy of the directory."), "%s", text.Short(200, p))
	}
	for _, p := range found.Refused {
		e.fail("configuration", fix("pmm-callgoose config show prints what is in effect and where it came from."), "%s (the service runs, and would not start again)", p)
	}
	for _, s := range found.Changed {
		e.warn("configuration", fix("sudo pmm-callgoose config check, then restart the service: that takes effect at the next start."),
			"%s is %q in the file, and the service runs with %q", s.Name, s.Now, s.Was)
	}
	if len(found.Problems) == 0 {
		e.ok("queue and ledger", "they agree: %d records, %d events queued, %d alerts open", found.Records, found.Queued, found.Open)
	}
}

// ledger reads that of a stopped service.
func (e *examination) ledger() {
	switch err := store.Verify(e.Settings.DataDir); {
	case errors.Is(err, fs.ErrNotExist):
		e.skip("queue and ledger", "nothing is stored here yet")
	case errors.Is(err, event.ErrDamaged):
		e.fail("queue and ledger", fix("Look at the disk, and keep a copy of the directory. Then start the service: it moves the ledger aside and makes it again from the stored notifications; nothing that waits is lost, outcomes are unknown."), "%s", text.Short(200, err.Error()))
	case err != nil:
		e.skip("queue and ledger", "cannot be read from here: %s", plain(err))
	default:
		e.ok("queue and ledger", "the ledger can be read whole; the next start compares it with the stored notifications, and repairs all but those that cannot be read: it counts them as damaged")
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
		case s.SilentSince != nil: // the service has said so
		case s.LastHeardAt == nil:
			e.warn("heard from pmm", fix("Press Test in its contact point."), "%s is expected and never sent anything", s.Name)
		case time.Since(*s.LastHeardAt) > admin.Quiet && s.ExpectEvery == 0:
			e.warn("heard from pmm", fix("Press Test in its contact point. --expect-every reports such a silence by itself; ignore a server that is gone for good."), "%s was last heard of %s, and is not watched for silence", s.Name, text.Ago(*s.LastHeardAt, time.Now()))
		default:
			e.ok("heard from pmm", "%s, %s", s.Name, text.Ago(*s.LastHeardAt, time.Now()))
		}
	}
}
