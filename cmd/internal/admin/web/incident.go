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

func (s *site) listIncidents(r *http.Request) (any, error) {
	a := parseIncidents(r.URL.Query())
	if a.Err != nil {
		return nil, wrong{error: a.Err}
	}
	return s.Source.Incidents(r.Context(), a.F, a.Limit)
}

type incidentsPage struct {
	asked
	Rows []admin.Incident
	More bool
}

func (s *site) incidents(w http.ResponseWriter, r *http.Request) {
	p := incidentsPage{asked: parseIncidents(r.URL.Query())}
	code := http.StatusBadRequest
	if p.Err == nil {
		code = http.StatusOK
		var err error
		if p.Rows, err = s.Source.Incidents(r.Context(), p.F, p.Limit+1); err != nil {
			s.refuse(w, r, err)
			return
		}
		if p.More = len(p.Rows) > p.Limit; p.More {
			p.Rows = p.Rows[:p.Limit]
		}
	}
	s.show(w, r, code, "incidents", frame{Title: "Open incidents", Here: "incidents", Page: p})
}

func (s *site) incident(w http.ResponseWriter, r *http.Request) {
	story, err := s.Source.Incident(r.Context(), r.PathValue("key"))
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.show(w, r, http.StatusOK, "incident", frame{Title: cmp.Or(text.Short(60, story.Alertname), "Incident"), Here: "incidents", Page: story})
}
