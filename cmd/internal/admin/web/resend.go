package web

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
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
	Chosen  []pair
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

func chips(q url.Values) (list []pair) {
	for _, name := range []string{"text", "severity", "status", "outcome", "match", "incident", "since", "until"} {
		for _, v := range q[name] {
			if name == "since" || name == "until" {
				if t, err := time.Parse(time.RFC3339Nano, v); err == nil {
					v = text.Stamp(t)
				}
			}
			list = append(list, pair{name, v})
		}
	}
	return list
}

// task is something to do with chosen events: first its plan is shown, then it is done if
// that is still its plan.
type task struct {
	page, title, action string
	do                  func(context.Context, admin.ReplayRequest) (admin.Plan, error)
	next                func(admin.Plan) string // the page afterwards
}

func (s *site) replayTask() task {
	return task{"replay", "Send again", "replay", func(ctx context.Context, r admin.ReplayRequest) (admin.Plan, error) {
		return s.Replayer.Replay(ctx, r)
	}, func(p admin.Plan) string { return "/replay/" + strconv.Itoa(p.Job) }}
}

func (s *site) dropTask() task {
	return task{"drop", "Drop dead letters", "drop dead letters", func(ctx context.Context, r admin.ReplayRequest) (admin.Plan, error) {
		return s.Replayer.DropDeadLetters(ctx, r)
	}, func(admin.Plan) string { return "/dead-letters" }}
}

// run does a task with what q chooses, or only plans it.
func (s *site) run(r *http.Request, t task, q url.Values, onlyPlan bool) (plan admin.Plan, err error) {
	req, err := admin.ParseReplay(q)
	if err != nil {
		return plan, wrong{error: err}
	}
	req.By, req.DryRun = s.by(r), req.DryRun || onlyPlan
	plan, err = t.do(r.Context(), req)
	if err == nil && !req.DryRun {
		s.did(r, t.action, plan.Events)
	}
	return plan, err
}

// planned makes the page of a plan, and pins the times in q.
func (s *site) planned(r *http.Request, t task, q url.Values) (p previewPage, err error) {
	if len(q) == 0 {
		return p, wrong{error: errors.New("nothing was chosen: tick the events, or filter the list of events first")}
	}
	if _, err := admin.ParseReplay(q); err != nil { // before the end is set, which is a filter too
		return p, wrong{error: err}
	}
	p.IDs, p.Keep, p.Closed, p.Rate = len(q["id"]), maps.Clone(q), q.Get("include_closed") == "true", q.Get("rate")
	p.Keep.Del("include_closed")
	p.Keep.Del("rate")
	if err := pin(q, time.Now()); err != nil {
		return p, wrong{error: err}
	}
	p.Query, p.Chosen = q.Encode(), chips(q)
	if p.Plan, err = s.run(r, t, q, true); err != nil || p.IDs != 1 {
		return p, err
	}
	list, err := s.Source.Events(r.Context(), event.Filter{IDs: q["id"]}, 1)
	if len(list) == 1 {
		p.One = list[0]
	}
	return p, err
}

// preview shows what would be done.
func (s *site) preview(t task) page {
	return func(r *http.Request) (frame, error) {
		p, err := s.planned(r, t, r.URL.Query())
		return frame{Name: t.page, Title: t.title, Here: p.here(t), Page: p}, err
	}
}

// confirm does what was previewed, unless it has become something else.
func (s *site) confirm(t task) page {
	return func(r *http.Request) (f frame, err error) {
		q, err := url.ParseQuery(r.PostForm.Get("query"))
		if err != nil {
			return f, wrong{error: errors.New("the form is damaged")}
		}
		p, err := s.planned(r, t, q)
		if err != nil {
			return f, err
		}
		if r.PostForm.Get("expect") != strconv.Itoa(p.Plan.Events) {
			p.Changed = true
			return frame{Name: t.page, Code: http.StatusConflict, Title: t.title, Here: p.here(t), Page: p}, nil
		}
		plan, err := s.run(r, t, q, false)
		return frame{next: t.next(plan)}, err
	}
}

func (s *site) job(r *http.Request) (f frame, err error) {
	j, err := s.replayJob(r)
	if err != nil {
		return f, fmt.Errorf("%w; what was queued goes out anyway: see the events", err)
	}
	return frame{Name: "job", Title: fmt.Sprintf("Replay %d", j.ID), Here: "events", Page: j}, nil
}

// replayJob is the replay whose number is in the path.
func (s *site) replayJob(r *http.Request) (job admin.Job, err error) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil {
		return job, wrong{error: errors.New("a replay's id is a number")}
	}
	if job, err = s.Replayer.ReplayJob(id); err != nil {
		return job, wrong{err, http.StatusNotFound}
	}
	return job, nil
}
