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
func (p previewPage) here(t task) string {
	if t.page == "drop" || p.Keep.Get("outcome") == string(event.Dead) {
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

// task is something to do with chosen events: first its plan is shown, then it is done if
// that is still its plan.
type task struct {
	page, title string
	plan        func(r *http.Request, q url.Values, p *previewPage) error // with the times pinned
	do          func(r *http.Request, q url.Values) (to string, err error)
}

func (s *site) replayTask() task {
	return task{"replay", "Send again", s.replayPlan, func(r *http.Request, q url.Values) (string, error) {
		req, err := admin.ParseReplay(q)
		if err != nil {
			return "", wrong{error: err}
		}
		req.By = s.by(r)
		plan, err := s.Replayer.Replay(r.Context(), req)
		if err == nil {
			s.did(r, "replay", plan.Events)
		}
		return "/replay/" + strconv.Itoa(plan.Job), err
	}}
}

func (s *site) replayPlan(r *http.Request, q url.Values, p *previewPage) error {
	p.Closed, p.Rate = q.Get("include_closed") == "true", q.Get("rate")
	req, err := admin.ParseReplay(q)
	if err != nil {
		return wrong{error: err}
	}
	req.DryRun = true
	if p.Plan, err = s.Replayer.Replay(r.Context(), req); err != nil || p.IDs != 1 {
		return err
	}
	list, err := s.Source.Events(r.Context(), req.Filter, 1)
	if len(list) == 1 {
		p.One = list[0]
	}
	return err
}

func (s *site) dropTask() task {
	run := func(r *http.Request, q url.Values, dry bool) (plan admin.Plan, err error) {
		req, err := admin.ParseDrop(q)
		if err != nil {
			return plan, wrong{error: err}
		}
		req.DryRun, req.By = dry, s.by(r)
		return s.Replayer.DropDeadLetters(r.Context(), req)
	}
	return task{"drop", "Drop dead letters", func(r *http.Request, q url.Values, p *previewPage) (err error) {
		p.Plan, err = run(r, q, true)
		return err
	}, func(r *http.Request, q url.Values) (string, error) {
		plan, err := run(r, q, false)
		if err == nil {
			s.did(r, "drop dead letters", plan.Events)
		}
		return "/dead-letters", err
	}}
}

// planned makes the page of a plan, and pins the times in q.
func (s *site) planned(r *http.Request, t task, q url.Values) (p previewPage, err error) {
	if len(q) == 0 {
		return p, wrong{error: errors.New("nothing was chosen: tick the events, or filter the list of events first")}
	}
	if _, err := admin.ParseReplay(q); err != nil { // before the end is set, which is a filter too
		return p, wrong{error: err}
	}
	p.IDs, p.Keep = len(q["id"]), url.Values{}
	for name, values := range q {
		if name != "include_closed" && name != "rate" {
			p.Keep[name] = values
		}
	}
	if err := pin(q, time.Now()); err != nil {
		return p, wrong{error: err}
	}
	p.Query, p.Chosen = q.Encode(), chips(q)
	return p, t.plan(r, q, &p)
}

// preview shows what would be done.
func (s *site) preview(t task) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if tidy(w, r) {
			return
		}
		p, err := s.planned(r, t, r.URL.Query())
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		s.show(w, r, http.StatusOK, t.page, frame{Title: t.title, Here: p.here(t), Page: p})
	}
}

// confirm does what was previewed, unless it has become something else.
func (s *site) confirm(t task) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q, err := url.ParseQuery(r.PostForm.Get("query"))
		if err != nil {
			s.problem(w, r, http.StatusBadRequest, errors.New("the form is damaged"))
			return
		}
		p, err := s.planned(r, t, q)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		if r.PostForm.Get("expect") != strconv.Itoa(p.Plan.Events) {
			p.Changed = true
			s.show(w, r, http.StatusConflict, t.page, frame{Title: t.title, Here: p.here(t), Page: p})
			return
		}
		to, err := t.do(r, q)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		http.Redirect(w, r, to, http.StatusSeeOther)
	}
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
