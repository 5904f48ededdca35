package admin

import (
	"context"
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

// Check asks the service to look at itself.
func (c *Client) Check(ctx context.Context) (found Check, err error) {
	return found, c.call(ctx, http.MethodGet, "/api/v1/check", nil, &found)
}
