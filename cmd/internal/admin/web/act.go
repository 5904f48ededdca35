package web

import (
	"context"
	"errors"
	"net/http"
	"strconv"

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
	ParkEvent(ctx context.Context, id string) error
	// CloseIncident ends an open episode by hand, as a recovery. ErrNotFound when
	// none is open under the key.
	CloseIncident(ctx context.Context, key string) error
}

func (h handler) replay(w http.ResponseWriter, r *http.Request) {
	req, err := admin.ParseReplay(r.URL.Query())
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
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

// failed answers with what went wrong: asking for what is not there is the
// asker's mistake.
func failed(w http.ResponseWriter, err error) {
	code := http.StatusServiceUnavailable
	if errors.Is(err, admin.ErrNotFound) {
		code = http.StatusNotFound
	}
	fail(w, code, err)
}
