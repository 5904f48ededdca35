package web

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/store/event"
)

type overviewPage struct {
	Plot   plot
	Latest []*event.Record
	Trying []*event.Record // what waits longest
	Err    error
}

// latest and waiting are how many events the overview shows.
const (
	latest  = 12
	waiting = 5
)

func (s *site) overview(r *http.Request) (frame, error) {
	hours, err := strconv.Atoi(r.URL.Query().Get("hours"))
	if err != nil || !slices.Contains(plotHours, hours) {
		hours = 6
	}
	now := time.Now()
	var p overviewPage
	minutes, err := s.Source.History(now.Add(-time.Duration(hours+24) * time.Hour))
	outages, err2 := s.Source.Outages()
	p.Err = cmp.Or(err, err2)
	p.Plot = newPlot(minutes, outages, hours, now)
	if p.Latest, err = s.Source.Events(r.Context(), event.Filter{}, latest); err != nil {
		p.Err = err
	}
	st, err := s.Source.Status(r.Context())
	if err == nil && st.Queued > 0 && st.OldestQueuedAt != nil {
		// Not before the oldest came in, so that no old day is looked through.
		f := event.Filter{Outcomes: []event.Outcome{event.Queued}, OldestFirst: true, Since: st.OldestQueuedAt.Add(-time.Minute)}
		if p.Trying, err = s.Source.Events(r.Context(), f, waiting); err == nil && len(p.Trying) == 0 {
			f.Since = time.Time{} // it came in long ago, and was queued again
			p.Trying, err = s.Source.Events(r.Context(), f, waiting)
		}
		if err != nil {
			p.Err = err
		}
		shown := func(r *event.Record) bool {
			return slices.ContainsFunc(p.Latest, func(l *event.Record) bool { return l.Pos == r.Pos })
		}
		if !slices.ContainsFunc(p.Trying, func(r *event.Record) bool { return !shown(r) }) {
			p.Trying = nil // the same list twice helps nobody
		}
	}
	return frame{Name: "overview", Title: "Overview", Here: "overview", Page: p}, nil
}

type eventsPage struct {
	asked
	listed
	Matches []string // and one more, empty
	Replay  string   // URL of the preview, "" where nothing is to be offered
	Any     bool     // there is a filter
	Groups  []group  // of dead letters, by reason
}

// group is what was given up for one reason.
type group struct {
	Reason string
	Count  int
	Retry  string // URL of the preview
}

const (
	// groupedMost bounds the dead letters that are grouped, groupsMost the groups shown.
	groupedMost = 10_000
	groupsMost  = 8
)

// groups counts dead letters by reason, the most frequent first.
func (s *site) groups(r *http.Request) (list []group) {
	rows, err := s.Source.Events(r.Context(), event.Filter{Outcomes: []event.Outcome{event.Dead}}, groupedMost)
	if err != nil {
		return nil // the list itself is shown
	}
	counts := map[string]int{}
	for _, rec := range rows {
		counts[cmp.Or(rec.Reason, rec.LastError)]++
	}
	for reason, n := range counts {
		q := url.Values{"outcome": {string(event.Dead)}, "text": {strings.ToValidUTF8(reason[:min(len(reason), 200)], "")}}
		list = append(list, group{Reason: reason, Count: n, Retry: "/replay?" + q.Encode()})
	}
	slices.SortFunc(list, func(a, b group) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Reason, b.Reason)) })
	return list[:min(len(list), groupsMost)]
}

func (s *site) events(r *http.Request) (f frame, err error) {
	p := eventsPage{asked: ask(r.URL.Query())}
	p.Matches = append(slices.Clone(p.Query["match"]), "")
	if p.listed, err = s.list(r, p.asked); err != nil {
		return f, err
	}
	q := maps.Clone(p.Query)
	q.Del("limit")
	// Not all that is stored, and not what goes out anyway.
	if p.Any = len(q) > 0; p.Any && len(p.Rows) > 0 && q.Get("outcome") != string(event.Queued) {
		p.Replay = "/replay?" + q.Encode()
	}
	return frame{Name: "events", Code: p.code(), Title: "Events", Here: "events", Page: p}, nil
}

// Statuses and Outcomes are what the filters offer, and what the URL says.
func (a asked) Statuses() []string { return []string{string(event.Firing), string(event.Resolved)} }

// Outcomes: see Statuses.
func (a asked) Outcomes() []string {
	list := []string{"queued,discarded,dead"}
	for _, o := range event.Outcomes {
		list = append(list, string(o))
	}
	if v := a.Get("outcome"); v != "" && !slices.Contains(list, v) {
		list = append(list, v)
	}
	return list
}

// Get is the value of a filter in the URL.
func (a asked) Get(name string) string { return strings.Join(a.Query[name], ",") }

type eventPage struct {
	*admin.Detail
	Links       []pair
	Annotations map[string]string
	SentAs      *body
	RawAs       *body
	Compared    bool // what SentAs has and RawAs has not is marked
	Others      []*event.Record
	More        bool
}

// others is how many events of the same incident a page shows.
const others = 25

func (s *site) event(r *http.Request) (f frame, err error) {
	d, err := s.Source.Event(r.Context(), r.PathValue("id"))
	if err != nil {
		return f, err
	}
	self := "/events/" + url.PathEscape(d.ID)
	alert := readSent(d.Sent)
	p := eventPage{
		Detail: d, Links: alert.links(), Annotations: alert.Annotations,
		SentAs: newBody(d.Sent, self+"/sent.json"), RawAs: newBody(d.Raw, self+"/notification.json"),
	}
	p.Compared = p.SentAs.compare(p.RawAs)
	if d.Key != "" {
		list, err := s.Source.Events(r.Context(), event.Filter{Incident: d.Key}, others+1)
		if err != nil {
			return f, err
		}
		for _, o := range list {
			if o.ID != d.ID && len(p.Others) < others {
				p.Others = append(p.Others, o)
			}
		}
		p.More = len(list) > others
	}
	return frame{Name: "event", Title: cmp.Or(text.Short(60, d.Alertname), "Event"), Here: "events", Page: p}, nil
}

// eventFile hands out a body whole, to be saved.
func (s *site) eventFile(w http.ResponseWriter, r *http.Request) {
	d, err := s.Source.Event(r.Context(), r.PathValue("id"))
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	raw := map[string]json.RawMessage{"sent.json": d.Sent, "notification.json": d.Raw}[r.PathValue("file")]
	if len(raw) == 0 {
		s.refuse(w, r, wrong{errors.New("there is no such body"), http.StatusNotFound})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", r.PathValue("id")+"-"+r.PathValue("file")))
	_, _ = w.Write(raw)
}

func (s *site) deadLetters(r *http.Request) (f frame, err error) {
	p := eventsPage{asked: ask(r.URL.Query())}
	p.F.Outcomes = []event.Outcome{event.Dead}
	if p.listed, err = s.list(r, p.asked); err != nil {
		return f, err
	}
	if p.Err == nil && len(p.Rows) > 1 {
		p.Groups = s.groups(r)
	}
	return frame{Name: "deadletters", Code: p.code(), Title: "Dead letters", Here: "dead-letters", Page: p}, nil
}
