package filters

import (
	"slices"
	"time"

	"pmm-callgoose/store/event"
)

// Event is one event as it is posted.
type Event struct {
	ID     string
	Key    string // incident key
	Status event.Status
	At     time.Time
	Body   []byte
}

// Answer is what Callgoose would answer.
type Answer struct {
	Code   int    // 201, 200, 202
	Effect string // created, resolved, none, discarded
}

// What would be wrong with an incident.
const (
	NeverClosed = "never_closed"     // no alert of it fires any more
	ClosedEarly = "closed_too_early" // another alert of it still fired
)

// Incident is one that would be opened.
type Incident struct {
	Filter   int       `json:"filter"` // from 1
	Mapped   string    `json:"mapped"` // "" = no request could close it
	Title    string    `json:"title"`
	Urgency  string    `json:"urgency,omitempty"`
	Keys     []string  `json:"incident_keys"` // whose events opened it, or found it open
	OpenedBy string    `json:"opened_by"`     // event id
	OpenedAt time.Time `json:"opened_at"`
	ClosedBy string    `json:"closed_by,omitempty"`
	ClosedAt time.Time `json:"closed_at,omitzero"`
	Problem  string    `json:"problem,omitempty"`
}

// Discard is an event that no filter would take.
type Discard struct {
	ID     string       `json:"event_id"`
	Key    string       `json:"incident_key"`
	Status event.Status `json:"status"`
	At     time.Time    `json:"at"`
}

// Use is how often the parts of one filter would be used.
type Use struct {
	Filter   int `json:"filter"` // from 1
	Triggers int `json:"triggers"`
	Resolves int `json:"resolves"`
}

// Report is what filters would do with events, all numbers in events or incidents.
type Report struct {
	Events      int `json:"events"`
	Gone        int `json:"gone"` // events whose bodies are no longer stored, not counted above
	Created     int `json:"created"`
	Resolved    int `json:"resolved"`
	None        int `json:"none"` // nothing to open or to close
	Discarded   int `json:"discarded"`
	Open        int `json:"open"` // at the end, those never closed included
	NeverClosed int `json:"never_closed"`
	ClosedEarly int `json:"closed_too_early"`

	Filters []Use `json:"filters"`
	// Incidents and Discards are the first maxListed of each: of those with a
	// problem, of those open, of the others, and of the discards.
	Incidents []Incident `json:"incidents"`
	Discards  []Discard  `json:"discards"`
}

// maxListed bounds the lists of a report.
const maxListed = 1000

// Forecast tells what Callgoose would do with events under filters. It assumes
// that a trigger of an open incident does nothing, and that a resolve closes all
// incidents of its value. Make it with NewForecast; for one goroutine.
type Forecast struct {
	filters []Filter
	from    string
	open    map[string][]*Incident
	firing  map[string]bool // incident keys
	early   []Incident
	closed  []Incident
	report  Report
}

// NewForecast begins with nothing open. from is what requests say of where they are from.
func NewForecast(filters []Filter, from string) *Forecast {
	f := &Forecast{filters: filters, from: from, open: map[string][]*Incident{}, firing: map[string]bool{}}
	for i := range filters {
		f.report.Filters = append(f.report.Filters, Use{Filter: i + 1})
	}
	return f
}

// Gone counts an event whose body is no longer stored.
func (f *Forecast) Gone() { f.report.Gone++ }

// Take says what would become of the next event.
func (f *Forecast) Take(e Event) Answer {
	f.report.Events++
	if delete(f.firing, e.Key); e.Status == event.Firing {
		f.firing[e.Key] = true
	}
	doc := Decode(e.Body)
	a := Answer{202, "discarded"}
	trigger, resolve := First(f.filters, doc)
	if resolve >= 0 {
		f.report.Filters[resolve].Resolves++
		a = Answer{200, "none"}
		mapped := f.filters[resolve].Resolve.MapWith.Value(doc)
		if mapped != "" && len(f.open[mapped]) > 0 {
			a.Effect = "resolved"
			f.close(mapped, e)
		}
	}
	if trigger >= 0 {
		f.report.Filters[trigger].Triggers++
		if f.trigger(trigger, doc, e) {
			a = Answer{201, "created"}
		} else if a.Effect == "discarded" {
			a = Answer{200, "none"}
		}
	}
	f.count(a.Effect, e)
	return a
}

func (f *Forecast) count(effect string, e Event) {
	switch effect {
	case "created":
		f.report.Created++
	case "resolved":
		f.report.Resolved++
	case "none":
		f.report.None++
	default:
		if f.report.Discarded++; len(f.report.Discards) < maxListed {
			f.report.Discards = append(f.report.Discards, Discard{e.ID, e.Key, e.Status, e.At})
		}
	}
}

// trigger reports whether it opens an incident.
func (f *Forecast) trigger(filter int, doc any, e Event) bool {
	t := f.filters[filter].Trigger
	mapped := t.MapWith.Value(doc)
	if there := f.open[mapped]; mapped != "" && len(there) > 0 {
		if !slices.Contains(there[0].Keys, e.Key) {
			there[0].Keys = append(there[0].Keys, e.Key)
		}
		return false
	}
	f.open[mapped] = append(f.open[mapped], &Incident{
		Filter: filter + 1, Mapped: mapped, Title: t.Title(doc, f.from), Urgency: t.Urgency, Keys: []string{e.Key}, OpenedBy: e.ID, OpenedAt: e.At,
	})
	return true
}

func (f *Forecast) close(mapped string, e Event) {
	for _, i := range f.open[mapped] {
		i.ClosedBy, i.ClosedAt = e.ID, e.At
		if slices.ContainsFunc(i.Keys, func(key string) bool { return f.firing[key] }) {
			i.Problem = ClosedEarly
			if f.report.ClosedEarly++; len(f.early) < maxListed {
				f.early = append(f.early, *i)
			}
		} else if len(f.closed) < maxListed {
			f.closed = append(f.closed, *i)
		}
	}
	delete(f.open, mapped)
}

// Report is what all events would have done.
func (f *Forecast) Report() Report {
	r := f.report
	var never, open []Incident
	for _, list := range f.open {
		for _, i := range list {
			still := *i
			r.Open++
			if i.Mapped != "" && slices.ContainsFunc(i.Keys, func(key string) bool { return f.firing[key] }) {
				open = append(open, still)
				continue
			}
			still.Problem = NeverClosed
			r.NeverClosed++
			never = append(never, still)
		}
	}
	r.Incidents, r.Discards = []Incident{}, append([]Discard{}, f.report.Discards...)
	for _, list := range [][]Incident{f.early, never, open, f.closed} {
		slices.SortStableFunc(list, func(a, b Incident) int { return a.OpenedAt.Compare(b.OpenedAt) })
		r.Incidents = append(r.Incidents, list[:min(len(list), maxListed)]...)
	}
	return r
}
