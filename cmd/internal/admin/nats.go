package admin

import (
	"context"
)

// NATS are the external servers that keep what was accepted.
type NATS struct {
	Connected bool     `json:"connected"`
	Server    string   `json:"server"` // that this is connected to
	Version   string   `json:"version"`
	Replicas  int      `json:"replicas"` // asked for
	Sync      string   `json:"sync"`     // always, interval, unknown
	Streams   []Stream `json:"streams"`
}

// Stream is a stream as the servers keep it. Current counts the replicas that hold
// all of it.
type Stream struct {
	Name     string `json:"name"`
	Leader   string `json:"leader"`
	Replicas int    `json:"replicas"`
	Current  int    `json:"current"`
	Bytes    uint64 `json:"bytes"`
}

// Instances asks each instance on the same NATS how it is.
func (c *Client) Instances(ctx context.Context) (list []Instance, err error) {
	return list, c.get(ctx, "/api/v1/cluster", nil, &list)
}

// StepDown has the instance that leads stop leading, and returns the number of its term.
func (c *Client) StepDown(ctx context.Context) (term uint64, err error) {
	var answer struct{ Term uint64 }
	err = c.post(ctx, "/api/v1/cluster/step-down", nil, &answer)
	return answer.Term, err
}

// Snapshot has the instance that leads store the ledger as a whole, and returns the entry
// of its log up to which that goes.
func (c *Client) Snapshot(ctx context.Context) (entry uint64, err error) {
	var answer struct{ Entry uint64 }
	err = c.post(ctx, "/api/v1/cluster/snapshot", nil, &answer)
	return answer.Entry, err
}
