package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Ping is the heartbeat for a watchdog: --ping-url-file.
type Ping struct {
	LastAt *time.Time `json:"last_at"` // when the service there last took one
	// Withheld says why there is none now, "" when there is.
	Withheld  string `json:"withheld"`
	LastError string `json:"last_error"` // of the last call, "" when it was taken
}

// Fallback is the other way out, while Callgoose is away: --fallback-*.
type Fallback struct {
	Ways      []string   `json:"ways"`    // webhook, command
	Told      int64      `json:"told"`    // open episodes that were told
	LastAt    *time.Time `json:"last_at"` // when a message last went out
	LastError string     `json:"last_error"`
}

// Filters is how Callgoose's answers compare with --callgoose-filters.
type Filters struct {
	Drift  int64      `json:"drift"` // answers since the start that those filters cannot give
	LastAt *time.Time `json:"last_at"`
	Last   string     `json:"last"`
}

// SLO is how many of the firing events of the last days Callgoose took soon after
// their receipt; those that still wait are none of them.
type SLO struct {
	WithinSeconds float64  `json:"within_seconds"`
	Days          int      `json:"days"`
	Events        int64    `json:"events"`
	InTime        int64    `json:"in_time"`
	Share         *float64 `json:"share"` // null when there were none
}

// Way is one way out, and whether a test message got through.
type Way struct {
	Name  string `json:"way"`
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
}

// TestFallback sends a test message by every way of --fallback-*.
func (c *Client) TestFallback(ctx context.Context) (ways []Way, err error) {
	resp, err := c.do(ctx, http.MethodPost, "/api/v1/fallback/test", nil, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&ways); err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", c.where, err)
	}
	return ways, nil
}
