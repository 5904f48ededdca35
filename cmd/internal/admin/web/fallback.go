package web

import (
	"context"
	"errors"
	"net/http"

	"pmm-callgoose/cmd/internal/admin"
)

// Fallback is a Source that has another way out beside Callgoose.
type Fallback interface {
	// TestFallback sends a test message by every way. The error says that there is none.
	TestFallback(ctx context.Context) ([]admin.Way, error)
}

func (h handler) testFallback(w http.ResponseWriter, r *http.Request) {
	f, ok := h.Source.(Fallback)
	if !ok {
		fail(w, http.StatusNotFound, errors.New("this service has no other way out"))
		return
	}
	h.site.did(r, "fallback test", 1)
	ways, err := f.TestFallback(r.Context())
	if err != nil {
		fail(w, http.StatusConflict, err)
		return
	}
	reply(w, http.StatusOK, ways)
}
