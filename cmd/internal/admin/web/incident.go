package web

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"

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

func (h handler) incidents(w http.ResponseWriter, r *http.Request) {
	a := parseIncidents(r.URL.Query())
	if a.Err != nil {
		fail(w, http.StatusBadRequest, a.Err)
		return
	}
	list, err := h.Source.Incidents(r.Context(), a.F, a.Limit)
	if err != nil {
		failed(w, err)
		return
	}
	reply(w, http.StatusOK, list)
}

func (h handler) incident(w http.ResponseWriter, r *http.Request) {
	s, err := h.Source.Incident(r.Context(), r.PathValue("key"))
	if err != nil {
		failed(w, err)
		return
	}
	reply(w, http.StatusOK, s)
}

type incidentsPage struct {
	asked
	Rows []admin.Incident
	More bool
}

// Sev is the severity asked for.
func (p incidentsPage) Sev() string { return p.Query.Get("severity") }

func (s *site) incidents(w http.ResponseWriter, r *http.Request) {
	if tidy(w, r) {
		return
	}
	p := incidentsPage{asked: parseIncidents(r.URL.Query())}
	code := http.StatusBadRequest
	if p.Err == nil {
		code = http.StatusOK
		var err error
		if p.Rows, err = s.Source.Incidents(r.Context(), p.F, p.Limit+1); err != nil {
			s.unavailable(w, r, err)
			return
		}
		if p.More = len(p.Rows) > p.Limit; p.More {
			p.Rows = p.Rows[:p.Limit]
		}
	}
	s.show(w, r, code, "incidents", frame{Title: "Open incidents", Here: "incidents", Page: p})
}

type incidentPage struct {
	admin.Story
	Names []string // of the labels, sorted
}

func (s *site) incident(w http.ResponseWriter, r *http.Request) {
	story, err := s.Source.Incident(r.Context(), r.PathValue("key"))
	if err != nil {
		s.unavailable(w, r, err)
		return
	}
	title := text.Short(60, story.Alertname)
	if title == "" {
		title = "Incident"
	}
	s.show(w, r, http.StatusOK, "incident", frame{Title: title, Here: "incidents", Page: incidentPage{story, sortedKeys(story.Labels)}})
}

// closeIncident is the form of the incident's page.
func (s *site) closeIncident(w http.ResponseWriter, r *http.Request) {
	key := r.PathValue("key")
	if err := s.Replayer.CloseIncident(r.Context(), key, s.by(r)); err != nil {
		s.unavailable(w, r, err)
		return
	}
	s.did(r, "close", 1)
	http.Redirect(w, r, "/incidents/"+url.PathEscape(key), http.StatusSeeOther)
}

// park is the form of the event's page.
func (s *site) park(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if err := s.Replayer.ParkEvent(r.Context(), id, s.by(r)); err != nil {
		s.unavailable(w, r, err)
		return
	}
	s.did(r, "park", 1)
	http.Redirect(w, r, "/events/"+url.PathEscape(id), http.StatusSeeOther)
}

// pause is the form of the overview.
func (s *site) pause(w http.ResponseWriter, r *http.Request) {
	q := url.Values{}
	for _, name := range []string{"reason", "until"} {
		if v := r.PostForm.Get(name); v != "" {
			q.Set(name, v)
		}
	}
	p, err := admin.ParsePause(q, time.Now())
	if err != nil {
		s.problem(w, r, http.StatusBadRequest, err)
		return
	}
	p.By = s.by(r)
	s.redo(w, r, "pause", s.Replayer.Pause(r.Context(), p))
}

func (s *site) resume(w http.ResponseWriter, r *http.Request) {
	s.redo(w, r, "resume", s.Replayer.Resume(r.Context(), s.by(r)))
}

// redo shows the overview again after something was done.
func (s *site) redo(w http.ResponseWriter, r *http.Request, what string, err error) {
	if err != nil {
		s.unavailable(w, r, err)
		return
	}
	s.did(r, what, 1)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}
