package callgoosetest

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// Expect is an event that should arrive: the next of this key and status, in the order in
// which they are accepted.
type Expect struct {
	IncidentKey string `json:"incident_key"`
	Status      string `json:"status"`
}

// Kind is what a Check finds of an event.
type Kind string

// An event is accepted when it was answered with a 2xx, or would have been had the reply
// not been lost.
const (
	Missing    Kind = "missing"      // never accepted
	Discarded  Kind = "discarded"    // expected, and accepted only with the 202 of no filter or maintenance
	Doubled    Kind = "doubled"      // accepted again after an answer that settled it
	OutOfOrder Kind = "out_of_order" // first accepted after an event of its key that comes later
	Unexpected Kind = "unexpected"   // accepted, not expected
	Changed    Kind = "changed"      // a request's bytes differ from the first attempt's
	Overlapped Kind = "overlapped"   // answered while a later request of its key was under way
	// Retried events were accepted more than once because the reply was lost, or was
	// a 202 without effect. This is what at-least-once means, and no fault.
	Retried Kind = "retried"
)

// Finding is one event, and what is said of it.
type Finding struct {
	Expect
	EventID string `json:"event_id,omitempty"`
	Detail  string `json:"detail"`
}

// Report is the outcome of a Check.
type Report struct {
	Events   int                `json:"events"` // different events accepted
	Findings map[Kind][]Finding `json:"findings"`
}

// Count is how many findings there are of these kinds.
func (r Report) Count(kinds ...Kind) (n int) {
	for _, k := range kinds {
		n += len(r.Findings[k])
	}
	return n
}

var faults = []Kind{Missing, Discarded, Doubled, OutOfOrder, Unexpected, Changed, Overlapped}

// OK says that there is no fault.
func (r Report) OK() bool { return r.Count(faults...) == 0 }

// String is one line when all is well, else one more for each fault, up to 20 of a kind.
func (r Report) String() string {
	if r.OK() {
		return fmt.Sprintf("ok: %d events accepted, each once and in order (%d retried)", r.Events, r.Count(Retried))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d faults, %d events accepted", r.Count(faults...), r.Events)
	for _, kind := range append(faults, Retried) {
		const limit = 20
		list := r.Findings[kind]
		for _, f := range list[:min(limit, len(list))] {
			fmt.Fprintf(&b, "\n  %-12s  %s %s %s: %s", kind, f.IncidentKey, f.Status, f.EventID, f.Detail)
		}
		if more := len(list) - limit; more > 0 {
			fmt.Fprintf(&b, "\n  %-12s  and %d more", kind, more)
		}
	}
	return b.String()
}

// history is all that Check needs to know of one event. Guarded by Fake.mu.
type history struct {
	Expect
	id                 string // of the event
	requests, accepted int
	changed            bool   // a request's bytes differ from the first attempt's
	overlapped         bool   // answered while a later request of its key was under way that its client had not given up
	hash               uint64 // of the first body
	first              int    // place in the order of first acceptance, from 1
	settled            int    // answers a sender must take as delivered
	effects            bool   // accepted other than discarded
	doubled            bool
}

// note enters a request into the history of its event. Without an event_id the
// bytes are the event.
func (f *Fake) note(rec *Request, hash uint64) *history {
	id := rec.EventID
	if id == "" {
		id = fmt.Sprintf(" %x", hash)
	}
	h := f.events[id]
	if h == nil {
		h = &history{Expect: Expect{rec.IncidentKey, rec.Status}, id: rec.EventID, hash: hash}
		f.events[id] = h
	}
	h.requests++
	h.changed = h.changed || h.hash != hash
	return h
}

func (f *Fake) accept(rec *Request, h *history) {
	if h.accepted++; h.accepted == 1 {
		f.stats.Events++
		h.first = f.stats.Events
	}
	madeUp := rec.Effect == "" && rec.HTTPStatus == http.StatusAccepted
	h.effects = h.effects || rec.Effect != "discarded" && !madeUp
	h.doubled = h.doubled || h.settled > 0
}

func (h *history) answered(rec *Request) {
	if rec.Accepted() && (rec.HTTPStatus != http.StatusAccepted || rec.Effect == "duplicate") {
		h.settled++
		h.doubled = h.doubled || h.settled > 1
	}
}

// Check compares what was accepted with want, whose order counts within each
// incident key.
func (f *Fake) Check(want []Expect) Report {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := Report{Findings: map[Kind][]Finding{}}
	all := slices.Collect(maps.Values(f.events))
	// By first acceptance; events that were never accepted come last.
	slices.SortFunc(all, func(a, b *history) int {
		return cmp.Or(cmp.Compare(uint(a.first-1), uint(b.first-1)), strings.Compare(a.id, b.id))
	})
	r.judge(all, r.find(all, want))
	return r
}

func (r *Report) add(kind Kind, h *history, format string, args ...any) {
	r.Findings[kind] = append(r.Findings[kind], Finding{h.Expect, h.id, fmt.Sprintf(format, args...)})
}

// find says which place in want an event has, and reports what has none.
func (r *Report) find(all []*history, want []Expect) map[*history]int {
	came, place := map[Expect][]*history{}, map[*history]int{}
	for _, h := range all {
		came[h.Expect] = append(came[h.Expect], h)
	}
	for i, w := range want {
		if len(came[w]) == 0 {
			r.add(Missing, &history{Expect: w}, "never received")
			continue
		}
		h := came[w][0]
		came[w] = came[w][1:]
		switch {
		case h.accepted == 0:
			r.add(Missing, h, "%d requests, none accepted", h.requests)
			continue
		case !h.effects:
			r.add(Discarded, h, "accepted %d times, always discarded", h.accepted)
		}
		place[h] = i
	}
	return place
}

// judge reports what is wrong with the events that came, given their places in
// what was wanted.
func (r *Report) judge(all []*history, place map[*history]int) {
	latest := map[string]*history{} // by incident key: the accepted one that comes last in want
	for _, h := range all {
		i, expected := place[h]
		if h.changed {
			r.add(Changed, h, "%d requests with different bodies", h.requests)
		}
		if h.overlapped {
			r.add(Overlapped, h, "answered while a later request of its key was under way")
		}
		if h.accepted == 0 {
			continue
		}
		r.Events++
		switch {
		case h.doubled:
			r.add(Doubled, h, "accepted %d times", h.accepted)
		case h.accepted > 1:
			r.add(Retried, h, "accepted %d times", h.accepted)
		}
		last := latest[h.IncidentKey]
		switch {
		case !expected:
			r.add(Unexpected, h, "accepted %d times", h.accepted)
		case last != nil && place[last] > i:
			r.add(OutOfOrder, h, "accepted after %s %s", last.Status, last.id)
		default:
			latest[h.IncidentKey] = h
		}
	}
}
