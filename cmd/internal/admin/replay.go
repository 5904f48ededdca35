package admin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/url"
	"strconv"

	"pmm-callgoose/store/event"
)

// ReplayRequest chooses stored events to be sent again.
type ReplayRequest struct {
	Filter event.Filter
	Limit  int // the oldest so many, 0 = all
	// IncludeClosed takes firing events too whose episode has closed since.
	IncludeClosed bool
	// Rate is how many events a second are put in line, 0 = at once.
	Rate float64
	// DryRun only counts.
	DryRun bool
}

// Plan is what a replay would do, or does.
type Plan struct {
	Events    int `json:"events"`
	Firing    int `json:"firing"`
	Resolved  int `json:"resolved"`
	Incidents int `json:"incidents"`
	// Outcomes is what became of them so far.
	Outcomes map[event.Outcome]int `json:"outcomes,omitempty"`
	// Left out, and why.
	Closed     int `json:"left_out_closed"`     // firing events whose episode has closed since
	Superseded int `json:"left_out_superseded"` // recoveries of what is open again
	Gone       int `json:"left_out_gone"`       // no longer stored
	Waiting    int `json:"left_out_queued"`     // in line already
	NoEvent    int `json:"left_out_no_event"`   // suppressed or unusable alerts: nothing to send
	Job        int `json:"job,omitempty"`       // 0 for a dry run
}

// DropRequest chooses dead letters to be forgotten.
type DropRequest struct {
	Filter event.Filter
	Limit  int  // the oldest so many, 0 = all
	DryRun bool // only counts
}

// Count adds what is known of one more event.
func (p *Plan) Count(s event.Status) {
	p.Events++
	switch s {
	case event.Firing:
		p.Firing++
	case event.Resolved:
		p.Resolved++
	default:
		p.NoEvent++
	}
}

// Job is how far a replay has come.
type Job struct {
	ID       int                   `json:"id"`
	Total    int                   `json:"total"`
	InLine   int                   `json:"in_line"`  // put in line so far
	Gone     int                   `json:"gone"`     // no longer stored
	Settled  int                   `json:"settled"`  // of those in line
	Outcomes map[event.Outcome]int `json:"outcomes"` // of the settled
	Done     bool                  `json:"done"`
	Error    string                `json:"error,omitempty"`
}

// Replayer puts stored events in line again.
type Replayer interface {
	Replay(ctx context.Context, r ReplayRequest) (Plan, error)
	ReplayJob(id int) (Job, error)
	// DropDeadLetters forgets the dead letters that are chosen. Like Replay, it does
	// nothing and returns an ErrNotFound when an ID of the filter is not among them.
	DropDeadLetters(ctx context.Context, r DropRequest) (Plan, error)
	// ParkEvent takes a queued event out of line and keeps it as a dead letter.
	ParkEvent(ctx context.Context, id string) error
	// CloseIncident ends an open episode by hand, as a recovery.
	CloseIncident(ctx context.Context, key string) error
}

func (h handler) replay(w http.ResponseWriter, r *http.Request) {
	req, err := ParseReplay(r.URL.Query())
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	plan, err := h.Replayer.Replay(r.Context(), req)
	if err != nil {
		failed(w, err)
		return
	}
	reply(w, http.StatusOK, plan)
}

func (h handler) replayJob(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil {
		fail(w, http.StatusBadRequest, errors.New("a replay's id is a number"))
		return
	}
	job, err := h.Replayer.ReplayJob(id)
	if err != nil {
		fail(w, http.StatusNotFound, err)
		return
	}
	reply(w, http.StatusOK, job)
}

func (h handler) drop(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	var err error
	var req DropRequest
	if v := q.Get("dry_run"); v != "" {
		req.DryRun, err = strconv.ParseBool(v)
	}
	q.Del("dry_run")
	if err == nil {
		req.Filter, req.Limit, err = parseChoice(q)
	}
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	plan, err := h.Replayer.DropDeadLetters(r.Context(), req)
	switch {
	case err != nil:
		failed(w, err)
	case req.DryRun:
		reply(w, http.StatusOK, plan)
	default:
		reply(w, http.StatusOK, map[string]int{"dropped": plan.Events})
	}
}

// failed answers with what went wrong: asking for what is not there is the
// asker's mistake.
func failed(w http.ResponseWriter, err error) {
	code := http.StatusServiceUnavailable
	if errors.Is(err, ErrNotFound) {
		code = http.StatusNotFound
	}
	fail(w, code, err)
}

// parseChoice is ParseFilter for what is acted on: the oldest first, and all of
// them (limit 0) unless a limit is given.
func parseChoice(q url.Values) (f event.Filter, limit int, err error) {
	if f, limit, err = ParseFilter(q); !q.Has("limit") {
		limit = 0
	}
	f.OldestFirst = true
	return f, limit, err
}

// ParseReplay reads the filters of ParseFilter, and include_closed, rate,
// dry_run, all. Without any filter it demands "all".
func ParseReplay(q url.Values) (r ReplayRequest, err error) {
	rest := url.Values{}
	chosen := q.Has("all")
	for name, values := range q {
		v := values[0]
		switch name {
		case "all":
		case "include_closed":
			r.IncludeClosed, err = strconv.ParseBool(v)
		case "dry_run":
			r.DryRun, err = strconv.ParseBool(v)
		case "rate":
			if r.Rate, err = strconv.ParseFloat(v, 64); err == nil && (!(r.Rate >= 0) || math.IsInf(r.Rate, 0)) {
				err = errors.New("not a number of events a second")
			}
		default:
			rest[name] = values
			chosen = chosen || name != "limit"
		}
		if err != nil {
			return r, fmt.Errorf("%s %q: %w", name, v, err)
		}
	}
	if r.Filter, r.Limit, err = parseChoice(rest); err != nil {
		return r, err
	}
	if !chosen {
		return r, errors.New("choose events by ID or by a filter, or say --all")
	}
	return r, nil
}

// Replay asks for a replay, or for its plan.
func (c *Client) Replay(ctx context.Context, q url.Values) (p Plan, err error) {
	return p, c.call(ctx, http.MethodPost, "/api/v1/replay", q, &p)
}

// ReplayJob asks how far a replay has come.
func (c *Client) ReplayJob(ctx context.Context, id int) (j Job, err error) {
	return j, c.call(ctx, http.MethodGet, "/api/v1/replay/"+strconv.Itoa(id), nil, &j)
}

// DropDeadLetters forgets the dead letters chosen by the filters of ParseFilter,
// and returns how many.
func (c *Client) DropDeadLetters(ctx context.Context, q url.Values) (int, error) {
	var answer struct{ Dropped int }
	err := c.call(ctx, http.MethodPost, "/api/v1/dead-letters/drop", q, &answer)
	return answer.Dropped, err
}

// PlanDrop says what DropDeadLetters would forget.
func (c *Client) PlanDrop(ctx context.Context, q url.Values) (p Plan, err error) {
	q = maps.Clone(q)
	q.Set("dry_run", "true")
	return p, c.call(ctx, http.MethodPost, "/api/v1/dead-letters/drop", q, &p)
}
