package web

import (
	"cmp"
	"errors"
	"net/http"
	"net/url"
	"slices"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/text"
)

// parseIncidents reads the filters that a list of incidents has.
func parseIncidents(q url.Values) (a asked) {
	for name := range q {
		if !slices.Contains([]string{"severity", "text", "match", "limit"}, name) {
			a.Err = errors.New("incidents are filtered by severity, match, text and limit")
			return a
		}
	}
	a.Query = q
	a.F, a.Limit, a.Err = admin.ParseFilter(q)
	return a
}

func (s *site) listIncidents(w http.ResponseWriter, r *http.Request) {
	p, err := s.openIncidents(r)
	if p.Err != nil {
		err = wrong{error: p.Err}
	}
	beyond(w, p.More)
	answer(w, p.Rows, err)
}

type incidentsPage struct {
	asked
	Rows []admin.Incident
	More bool
}

// openIncidents lists what was asked for; nothing where that cannot be asked.
func (s *site) openIncidents(r *http.Request) (p incidentsPage, err error) {
	if p.asked = parseIncidents(r.URL.Query()); p.Err == nil {
		p.Rows, err = s.Source.Incidents(r.Context(), p.F, p.Limit+1)
	}
	if p.More = len(p.Rows) > p.Limit; p.More {
		p.Rows = p.Rows[:p.Limit]
	}
	return p, err
}

func (s *site) incidents(r *http.Request) (f frame, err error) {
	p, err := s.openIncidents(r)
	if err != nil {
		return f, err
	}
	return frame{Name: "incidents", Code: p.code(), Title: "Open incidents", Here: "incidents", Page: p}, nil
}

func (s *site) incident(r *http.Request) (frame, error) {
	story, err := s.Source.Incident(r.Context(), r.PathValue("key"))
	return frame{Name: "incident", Title: cmp.Or(text.Short(60, story.Alertname), "Incident"), Here: "incidents", Page: story}, err
}
