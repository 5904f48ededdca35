package web

import (
	"context"
	"errors"
	"net/http"

	"pmm-callgoose/cmd/internal/admin"
)

// Reconciler is a Source that can compare what PMM says is firing with what is open.
type Reconciler interface {
	// Reconcile makes one pass over each PMM, or over those of the keys. It takes as
	// long as PMM does, at most 40 s. An ErrNotFound when a key has no open alert.
	Reconcile(ctx context.Context, r admin.ReconcileRequest) ([]admin.ReconcilePass, error)
}

func (h handler) reconcile(w http.ResponseWriter, r *http.Request) {
	reconciler, ok := h.Source.(Reconciler)
	if !ok {
		fail(w, http.StatusNotFound, errors.New("this service asks no PMM"))
		return
	}
	req := admin.ParseReconcile(r.URL.Query())
	list, err := reconciler.Reconcile(r.Context(), req)
	if err != nil {
		failed(w, err)
		return
	}
	if !req.DryRun {
		acts := 0
		for _, p := range list {
			acts += len(p.Open) + len(p.Close)
		}
		h.site.did(r, "reconcile", acts)
	}
	reply(w, http.StatusOK, list)
}
