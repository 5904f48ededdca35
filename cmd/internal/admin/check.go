package admin

import (
	"context"
	"errors"
	"net/http"
)

// Check says whether what waits, what is remembered and what is stored agree.
type Check struct {
	// Problems is empty when all is well.
	Problems []string `json:"problems"`
	Records  int      `json:"records"`
	Queued   int      `json:"queued"`
	Open     int      `json:"open_alerts"`
}

// Checker is a Source that can also look at itself. It reads every record, so it
// takes a second for some 100,000 of them.
type Checker interface {
	Check(ctx context.Context) (Check, error)
}

func (h handler) check(w http.ResponseWriter, r *http.Request) {
	checker, ok := h.Source.(Checker)
	if !ok {
		fail(w, http.StatusNotFound, errors.New("this service cannot look at itself"))
		return
	}
	found, err := checker.Check(r.Context())
	if err != nil {
		fail(w, http.StatusServiceUnavailable, err)
		return
	}
	reply(w, http.StatusOK, found)
}

// Check asks the service to look at itself.
func (c *Client) Check(ctx context.Context) (found Check, err error) {
	return found, c.call(ctx, http.MethodGet, "/api/v1/check", nil, &found)
}
