package web

import (
	"errors"
	"fmt"
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

// previewPage shows what a replay, or a drop, would do. Nothing happens before
// its form is sent.
type previewPage struct {
	Plan    admin.Plan
	Query   string // what is confirmed: filters, with the times pinned
	Chosen  []chip
	Closed  bool // firing events of closed episodes too
	Rate    string
	One     *event.Record // when one event was chosen
	IDs     int
	Changed bool       // since the preview before
	Keep    url.Values // for the form that changes the options
}

// here is the entry of the menu that the choice was made under.
func (p previewPage) here() string {
	if p.Keep.Get("outcome") == string(event.Dead) {
		return "dead-letters"
	}
	return "events"
}

// SoFar says what became of the chosen events until now.
func (p previewPage) SoFar() string {
	var parts []string
	for _, o := range event.Outcomes {
		if n := p.Plan.Outcomes[o]; n > 0 {
			parts = append(parts, count(n)+" "+string(o))
		}
	}
	return strings.Join(parts, ", ")
}

// Delivered is the outcome that sending again may repeat.
func (previewPage) Delivered() event.Outcome { return event.Delivered }

// chip is one filter in words.
type chip struct{ Name, Value string }

// pin makes relative times absolute and sets an end, so that what is confirmed
// is what was shown.
func pin(q url.Values, now time.Time) error {
	for _, name := range []string{"since", "until"} {
		if v := q.Get(name); v != "" {
			t, err := admin.ParseTime(v, now)
			if err != nil {
				return err
			}
			q.Set(name, t.UTC().Format(time.RFC3339Nano))
		}
	}
	if !q.Has("id") && !q.Has("until") {
		q.Set("until", now.UTC().Format(time.RFC3339Nano))
	}
	return nil
}

func chips(q url.Values) (list []chip) {
	for _, name := range []string{"text", "severity", "status", "outcome", "match", "incident", "since", "until"} {
		for _, v := range q[name] {
			if name == "since" || name == "until" {
				if t, err := time.Parse(time.RFC3339Nano, v); err == nil {
					v = text.Stamp(t)
				}
			}
			list = append(list, chip{name, v})
		}
	}
	return list
}

// preview asks for the plan of a replay.
func (s *site) preview(r *http.Request, q url.Values) (p previewPage, err error) {
	p.Closed, p.Rate, p.IDs = q.Get("include_closed") == "true", q.Get("rate"), len(q["id"])
	p.Keep = url.Values{}
	for name, values := range q {
		if name != "include_closed" && name != "rate" {
			p.Keep[name] = values
		}
	}
	if err := pin(q, time.Now()); err != nil {
		return p, err
	}
	p.Query, p.Chosen = q.Encode(), chips(q)
	req, err := admin.ParseReplay(q)
	if err != nil {
		return p, err
	}
	req.DryRun = true
	if p.Plan, err = s.Replayer.Replay(r.Context(), req); err != nil {
		return p, notNow{err}
	}
	if p.IDs == 1 {
		list, err := s.Source.Events(r.Context(), req.Filter, 1)
		if err != nil {
			return p, notNow{err}
		}
		if len(list) == 1 {
			p.One = list[0]
		}
	}
	return p, nil
}

// notNow is an error of the service, not of what was asked.
type notNow struct{ error }

func (s *site) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if later, ok := errors.AsType[notNow](err); ok {
		s.unavailable(w, r, later.error)
		return
	}
	s.problem(w, r, http.StatusBadRequest, err)
}

func (s *site) replayPreview(w http.ResponseWriter, r *http.Request) {
	if tidy(w, r) {
		return
	}
	q := r.URL.Query()
	if len(q) == 0 {
		s.problem(w, r, http.StatusBadRequest, errors.New("nothing was chosen: tick the events, or filter the list of events first"))
		return
	}
	p, err := s.preview(r, q)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.show(w, r, http.StatusOK, "replay", frame{Title: "Send again", Here: p.here(), Page: p})
}

// replay begins what was previewed, unless it has become something else.
func (s *site) replay(w http.ResponseWriter, r *http.Request) {
	q, err := url.ParseQuery(r.PostForm.Get("query"))
	if err != nil {
		s.problem(w, r, http.StatusBadRequest, errors.New("the form is damaged"))
		return
	}
	p, err := s.preview(r, q)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if r.PostForm.Get("expect") != strconv.Itoa(p.Plan.Events) {
		p.Changed = true
		s.show(w, r, http.StatusConflict, "replay", frame{Title: "Send again", Here: p.here(), Page: p})
		return
	}
	req, err := admin.ParseReplay(q)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	req.By = s.by(r)
	plan, err := s.Replayer.Replay(r.Context(), req)
	if err != nil {
		s.unavailable(w, r, err)
		return
	}
	s.did(r, "replay", plan.Events)
	http.Redirect(w, r, "/replay/"+strconv.Itoa(plan.Job), http.StatusSeeOther)
}

type jobPage struct {
	admin.Job
	Order []event.Outcome
}

func (s *site) job(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil {
		s.problem(w, r, http.StatusNotFound, errors.New("a replay's id is a number"))
		return
	}
	j, err := s.Replayer.ReplayJob(id)
	if err != nil {
		s.problem(w, r, http.StatusNotFound, fmt.Errorf("%w; what was queued goes out anyway: see the events", err))
		return
	}
	s.show(w, r, http.StatusOK, "job", frame{Title: fmt.Sprintf("Replay %d", id), Here: "events", Page: jobPage{j, event.Outcomes}})
}

// dropPlan asks what a drop would forget.
func (s *site) dropPlan(r *http.Request, q url.Values) (p previewPage, req admin.DropRequest, err error) {
	if _, err := admin.ParseDrop(q); err != nil { // before the end is set, which is a filter too
		return p, req, err
	}
	if err := pin(q, time.Now()); err != nil {
		return p, req, err
	}
	if req, err = admin.ParseDrop(q); err != nil {
		return p, req, err
	}
	p.Query, p.Chosen, p.IDs = q.Encode(), chips(q), len(q["id"])
	req.DryRun = true
	p.Plan, err = s.Replayer.DropDeadLetters(r.Context(), req)
	req.DryRun = false
	if err != nil {
		err = notNow{err}
	}
	return p, req, err
}

func (s *site) dropPreview(w http.ResponseWriter, r *http.Request) {
	p, _, err := s.dropPlan(r, r.URL.Query())
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.show(w, r, http.StatusOK, "drop", frame{Title: "Drop dead letters", Here: "dead-letters", Page: p})
}

func (s *site) drop(w http.ResponseWriter, r *http.Request) {
	q, err := url.ParseQuery(r.PostForm.Get("query"))
	if err != nil {
		s.problem(w, r, http.StatusBadRequest, errors.New("the form is damaged"))
		return
	}
	p, req, err := s.dropPlan(r, q)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if r.PostForm.Get("expect") != strconv.Itoa(p.Plan.Events) {
		p.Changed = true
		s.show(w, r, http.StatusConflict, "drop", frame{Title: "Drop dead letters", Here: "dead-letters", Page: p})
		return
	}
	req.By = s.by(r)
	plan, err := s.Replayer.DropDeadLetters(r.Context(), req)
	if err != nil {
		s.unavailable(w, r, err)
		return
	}
	s.did(r, "drop dead letters", plan.Events)
	http.Redirect(w, r, "/dead-letters", http.StatusSeeOther)
}

// Names lists what the form that changes the options has to carry along.
func (p previewPage) Names() []chip {
	var list []chip
	for name, values := range p.Keep {
		for _, v := range values {
			list = append(list, chip{name, v})
		}
	}
	slices.SortFunc(list, func(a, b chip) int { return slices.Compare([]string{a.Name, a.Value}, []string{b.Name, b.Value}) })
	return list
}
