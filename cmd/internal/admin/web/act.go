package web

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"pmm-callgoose/cmd/internal/admin"
)

// Replayer queues stored events again.
type Replayer interface {
	Replay(ctx context.Context, r admin.ReplayRequest) (admin.Plan, error)
	ReplayJob(id int) (admin.Job, error)
	// DropDeadLetters forgets the dead letters that are chosen. Like Replay, it does
	// nothing and returns an ErrNotFound when an ID of the filter is not among them.
	DropDeadLetters(ctx context.Context, r admin.DropRequest) (admin.Plan, error)
	// ParkEvent takes a queued event out of line and keeps it as a dead letter.
	// ErrNotFound when it is not queued.
	ParkEvent(ctx context.Context, id, by string) error
	// CloseIncident ends an open episode by hand, as a recovery. ErrNotFound when
	// none is open under the key.
	CloseIncident(ctx context.Context, key, by string) error
	// Pause holds delivery, Resume ends that; both are durable when they return nil.
	Pause(ctx context.Context, p admin.Pause) error
	Resume(ctx context.Context, by string) error
}

func (h handler) replay(w http.ResponseWriter, r *http.Request) {
	req, err := admin.ParseReplay(r.URL.Query())
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	req.By = h.site.by(r)
	plan, err := h.Replayer.Replay(r.Context(), req)
	if err != nil {
		failed(w, err)
		return
	}
	if !req.DryRun {
		h.site.did(r, "replay", plan.Events)
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
	req, err := admin.ParseDrop(r.URL.Query())
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	req.By = h.site.by(r)
	plan, err := h.Replayer.DropDeadLetters(r.Context(), req)
	switch {
	case err != nil:
		failed(w, err)
	case req.DryRun:
		reply(w, http.StatusOK, plan)
	default:
		h.site.did(r, "drop dead letters", plan.Events)
		reply(w, http.StatusOK, map[string]int{"dropped": plan.Events})
	}
}

func (h handler) park(w http.ResponseWriter, r *http.Request) {
	h.acted(w, r, "park", h.Replayer.ParkEvent(r.Context(), r.PathValue("id"), h.site.by(r)))
}

func (h handler) closeIncident(w http.ResponseWriter, r *http.Request) {
	h.acted(w, r, "close", h.Replayer.CloseIncident(r.Context(), r.PathValue("key"), h.site.by(r)))
}

func (h handler) pause(w http.ResponseWriter, r *http.Request) {
	p, err := admin.ParsePause(r.URL.Query(), time.Now())
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	p.By = h.site.by(r)
	h.acted(w, r, "pause", h.Replayer.Pause(r.Context(), p))
}

func (h handler) resume(w http.ResponseWriter, r *http.Request) {
	h.acted(w, r, "resume", h.Replayer.Resume(r.Context(), h.site.by(r)))
}

// acted answers for something that was done, or not.
func (h handler) acted(w http.ResponseWriter, r *http.Request, what string, err error) {
	if err != nil {
		failed(w, err)
		return
	}
	h.site.did(r, what, 1)
	reply(w, http.StatusOK, map[string]string{"status": "done"})
}

// failed answers with what went wrong: asking for what is not there is the
// asker's mistake.
func failed(w http.ResponseWriter, err error) {
	code := http.StatusServiceUnavailable
	if errors.Is(err, admin.ErrNotFound) {
		code = http.StatusNotFound
	}
	fail(w, code, err)
}
