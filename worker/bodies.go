package worker

import (
	"context"
	"time"

	"pmm-callgoose/store/event"
)

// Bodies larger than largeBody are held for largeAtOnce attempts, however many are
// under way: some dozens of the largest that intake takes would not fit into memory.
const (
	largeBody   = 1 << 20
	largeAtOnce = 2
)

// bodies makes what is sent, one body at a time. Safe concurrently.
type bodies struct {
	made     Bodies
	building chan struct{} // held by who makes a body
	large    chan struct{} // has an element for each large body that is held
}

func newBodies(made Bodies) *bodies {
	return &bodies{made: made, building: make(chan struct{}, 1), large: make(chan struct{}, largeAtOnce)}
}

// take makes the body of an event. A large one is made again once there is room for
// it, so that who waits holds nothing. done must be called in any case, when the body
// is no longer held.
func (b *bodies) take(ctx context.Context, r *event.Record, claimed time.Time) (body []byte, done func(), err error) {
	if body, err = b.make(ctx, r, claimed); err != nil || len(body) <= largeBody {
		return body, func() {}, err
	}
	select {
	case b.large <- struct{}{}:
	case <-ctx.Done():
		return nil, func() {}, context.Cause(ctx)
	}
	body, err = b.make(ctx, r, claimed)
	return body, func() { <-b.large }, err
}

func (b *bodies) make(ctx context.Context, r *event.Record, claimed time.Time) ([]byte, error) {
	select {
	case b.building <- struct{}{}:
		defer func() { <-b.building }()
		return b.made.Body(ctx, r, claimed)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
