package callgoosetest

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Expect is an event that should arrive. Without an EventID it stands for the next
// event of this key and status, in order of acceptance, that is not named by its ID.
type Expect struct {
	IncidentKey string `json:"incident_key"`
	EventID     string `json:"event_id,omitempty"`
	Status      string `json:"status"`
}

func (e Expect) String() string {
	return strings.TrimSpace(strings.Join([]string{e.IncidentKey, e.Status, e.EventID}, " "))
}

// Finding is one event that is not as expected, and what is wrong with it.
type Finding struct {
	Expect
	Detail string `json:"detail"`
}

// Report is the outcome of a Check. An event is accepted when it was answered with
// a 2xx, or would have been had the reply not been lost.
type Report struct {
	Events     int       `json:"events"`       // different events accepted
	Missing    []Finding `json:"missing"`      // never accepted
	Discarded  []Finding `json:"discarded"`    // expected, and accepted only with the 202 of no filter or maintenance
	Doubled    []Finding `json:"doubled"`      // accepted again after an answer that settled it
	OutOfOrder []Finding `json:"out_of_order"` // first accepted after an event of its key that comes later
	Unexpected []Finding `json:"unexpected"`   // accepted, not expected
	Changed    []Finding `json:"changed"`      // a request's bytes differ from the first attempt's
	Overlapped []Finding `json:"overlapped"`   // answered while a later request of its key was under way
	// Retried events were accepted more than once because the reply was lost, or was
	// a 202 without effect. This is what at-least-once means, and no fault.
	Retried []Finding `json:"retried"`
}

// OK says that there is no fault.
func (r Report) OK() bool { return r.faults() == 0 }

func (r Report) faults() int {
	return len(r.Missing) + len(r.Discarded) + len(r.Doubled) + len(r.OutOfOrder) + len(r.Unexpected) + len(r.Changed) + len(r.Overlapped)
}

// String is one line when all is well, else one more for each fault, up to 20 of a kind.
func (r Report) String() string {
	if r.OK() {
		return fmt.Sprintf("ok: %d events accepted, each once and in order (%d retried)", r.Events, len(r.Retried))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d faults, %d events accepted", r.faults(), r.Events)
	for _, list := range []struct {
		name     string
		findings []Finding
	}{
		{"missing", r.Missing},
		{"discarded", r.Discarded},
		{"doubled", r.Doubled},
		{"out of order", r.OutOfOrder},
		{"unexpected", r.Unexpected},
		{"changed", r.Changed},
		{"overlapped", r.Overlapped},
		{"(retried)", r.Retried},
	} {
		const limit = 20
		for _, f := range list.findings[:min(limit, len(list.findings))] {
			fmt.Fprintf(&b, "\n  %-12s  %s: %s", list.name, f.Expect, f.Detail)
		}
		if more := len(list.findings) - limit; more > 0 {
			fmt.Fprintf(&b, "\n  %-12s  and %d more", list.name, more)
		}
	}
	return b.String()
}

// history is all that Check needs to know of one event. Guarded by Fake.mu.
type history struct {
	Expect
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
		h = &history{Expect: Expect{rec.IncidentKey, rec.EventID, rec.Status}, hash: hash}
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
	var r Report
	all := make([]*history, 0, len(f.events))
	for _, h := range f.events {
		if all = append(all, h); h.accepted > 0 {
			r.Events++
		}
	}
	// By first acceptance; events that were never accepted come last.
	slices.SortFunc(all, func(a, b *history) int {
		return cmp.Or(cmp.Compare(uint(a.first-1), uint(b.first-1)), strings.Compare(a.EventID, b.EventID))
	})
	r.judge(all, f.find(&r, all, want))
	return r
}

func add(list *[]Finding, e Expect, format string, args ...any) {
	*list = append(*list, Finding{e, fmt.Sprintf(format, args...)})
}

// find says which place in want an event has, and reports what has none.
func (f *Fake) find(r *Report, all []*history, want []Expect) map[*history]int {
	named := map[string]bool{}
	for _, w := range want {
		named[w.EventID] = w.EventID != ""
	}
	unnamed := map[Expect][]*history{} // without their IDs
	for _, h := range all {
		if !named[h.EventID] {
			e := Expect{IncidentKey: h.IncidentKey, Status: h.Status}
			unnamed[e] = append(unnamed[e], h)
		}
	}
	place := map[*history]int{}
	for i, w := range want {
		h := f.events[w.EventID]
		if queue := unnamed[w]; w.EventID == "" && len(queue) > 0 {
			h, unnamed[w] = queue[0], queue[1:]
		}
		_, taken := place[h]
		switch {
		case h == nil || taken || h.IncidentKey != w.IncidentKey || h.Status != w.Status:
			add(&r.Missing, w, "never received")
			continue
		case h.accepted == 0:
			add(&r.Missing, w, "%d requests, none accepted", h.requests)
		case !h.effects:
			add(&r.Discarded, h.Expect, "accepted %d times, always discarded", h.accepted)
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
			add(&r.Changed, h.Expect, "%d requests with different bodies", h.requests)
		}
		if h.overlapped {
			add(&r.Overlapped, h.Expect, "answered while a later request of its key was under way")
		}
		if h.accepted == 0 {
			continue
		}
		switch {
		case h.doubled:
			add(&r.Doubled, h.Expect, "accepted %d times", h.accepted)
		case h.accepted > 1:
			add(&r.Retried, h.Expect, "accepted %d times", h.accepted)
		}
		last := latest[h.IncidentKey]
		switch {
		case !expected:
			add(&r.Unexpected, h.Expect, "accepted %d times", h.accepted)
		case last != nil && place[last] > i:
			add(&r.OutOfOrder, h.Expect, "accepted after %s", strings.TrimSpace(last.Status+" "+last.EventID))
		default:
			latest[h.IncidentKey] = h
		}
	}
}
