package web

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store"
	"pmm-callgoose/worker/callgoose/filters"
)

// Replayer queues stored events again.
type Replayer interface {
	Replay(ctx context.Context, r admin.ReplayRequest) (admin.Plan, error)
	ReplayJob(id int) (admin.Job, error)
	// DropDeadLetters forgets the dead letters that are chosen. Like Replay, it does
	// nothing and returns an ErrNotFound when an ID of the filter is not among them.
	DropDeadLetters(ctx context.Context, r admin.ReplayRequest) (admin.Plan, error)
	// ParkEvent takes a queued event out of the queue and keeps it as a dead letter.
	// ErrNotFound when it is not queued.
	ParkEvent(ctx context.Context, id, by string) error
	// CloseIncident ends an open episode by hand, as a recovery. ErrNotFound when
	// none is open under the key.
	CloseIncident(ctx context.Context, key, by string) error
	// Pause holds delivery, Resume ends that; both are durable when they return nil.
	Pause(ctx context.Context, p store.Pause) error
	Resume(ctx context.Context, by string) error
	// Probe reads the secrets again and tries Callgoose at once. It waits for no answer.
	Probe()
}

// actions are what an operator does in one step: by a call of the API, or by a form on a
// page. The name is the last word of the path.
func (s *site) actions() map[string]func(r *http.Request) error {
	return map[string]func(r *http.Request) error{
		"POST /api/v1/events/{id}/park": func(r *http.Request) error {
			return s.Replayer.ParkEvent(r.Context(), r.PathValue("id"), s.by(r))
		},
		"POST /api/v1/incidents/{key}/close": func(r *http.Request) error {
			return s.Replayer.CloseIncident(r.Context(), r.PathValue("key"), s.by(r))
		},
		"POST /api/v1/pause":  s.pause,
		"POST /api/v1/resume": func(r *http.Request) error { return s.Replayer.Resume(r.Context(), s.by(r)) },
		"POST /api/v1/probe":  func(*http.Request) error { s.Replayer.Probe(); return nil },
	}
}

// pause reads the query of a call, and the fields of a form.
func (s *site) pause(r *http.Request) error {
	q := url.Values{}
	for name, values := range r.Form {
		if values[0] != "" {
			q[name] = values
		}
	}
	p, err := admin.ParsePause(q, time.Now())
	if err != nil {
		return wrong{error: err}
	}
	p.By = s.by(r)
	return s.Replayer.Pause(r.Context(), p)
}

// act adds the actions: a call is answered in JSON, a form leads back to its page.
func (s *site) act(mux *http.ServeMux) {
	for pattern, act := range s.actions() {
		do := func(r *http.Request) error {
			err := act(r)
			if err == nil {
				s.did(r, path.Base(pattern), 1)
			}
			return err
		}
		mux.Handle(pattern, call(func(r *http.Request) (any, error) {
			r.Form = r.URL.Query() // a body means nothing here
			return map[string]string{"status": "done"}, do(r)
		}))
		mux.HandleFunc(strings.Replace(pattern, "/api/v1", "", 1), s.form(s.page(func(r *http.Request) (frame, error) {
			return frame{next: path.Dir(r.URL.EscapedPath())}, do(r)
		})))
	}
}

func (s *site) drop(r *http.Request) (any, error) {
	q := r.URL.Query()
	plan, err := s.run(r, s.dropTask(), q, false)
	if dry, _ := strconv.ParseBool(q.Get("dry_run")); err != nil || dry {
		return plan, err
	}
	return map[string]int{"dropped": plan.Events}, nil
}

func (s *site) reconcile(r *http.Request) (any, error) {
	req := admin.ParseReconcile(r.URL.Query())
	list, err := s.Source.Reconcile(r.Context(), req)
	if err != nil || req.DryRun {
		return list, err
	}
	acts := 0
	for _, p := range list {
		acts += len(p.Open) + len(p.Close)
	}
	s.did(r, "reconcile", acts)
	return list, nil
}

func (s *site) testFallback(r *http.Request) (any, error) {
	s.did(r, "fallback test", 1)
	ways, err := s.Source.TestFallback(r.Context())
	if err != nil {
		return nil, wrong{error: err}
	}
	return ways, nil
}

// forecast answers what stored events would do under the filters in the body.
func (s *site) forecast(w http.ResponseWriter, r *http.Request) {
	since, err := admin.ParseTime(r.URL.Query().Get("since"), time.Now())
	var set []filters.Filter
	if err == nil {
		var text []byte
		if text, err = io.ReadAll(http.MaxBytesReader(w, r.Body, filters.MaxFile)); err == nil {
			set, err = filters.Parse(text)
		}
	}
	if err != nil {
		answer(w, nil, wrong{error: err})
		return
	}
	unhurried(w)
	report, err := s.Source.Forecast(r.Context(), set, since)
	answer(w, report, err)
}
