package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/faultpoint"
	"pmm-callgoose/worker/callgoose"
)

// result is what an attempt comes to.
type result struct {
	lane    *lane
	probe   bool
	w       store.Waiting
	id      string    // of the event
	claim   time.Time // up to when lateness is counted in its body
	unmade  bool      // nothing was sent under the claim before this attempt
	overdue string    // why it is given up when its age allows it, "" = it is young
	ruling  ruling
	attempt event.Attempt
	number  int  // of this attempt among all of the event, 0 when none was made
	gone    bool // it is not queued any more
	// began is when the alert of a firing event began that was taken now for the first time,
	// zero for all others and where PMM did not say it.
	began time.Time
	err   error
}

// attempt sends the claimed head of a lane, which has entered the gate, once, and records
// the answer. It runs in a goroutine of its own, one at a time for each lane.
func (d *Deliverer) attempt(ctx context.Context, place *pass, alone bool) (res result) {
	it := place.item
	res.lane, res.probe = place.lane, place.probe
	w, r, queued, err := d.book.open(it.at)
	if res.w = w; err != nil || !queued {
		place.unused()
		res.gone, res.err = !queued, err
		return res
	}
	res.id, res.number = r.ID, r.Tries+1
	res.claim, res.unmade = w.ClaimedAt, it.ours && !it.sent
	if !r.ClaimedAt.IsZero() {
		res.claim = r.ClaimedAt
	}
	body, err := d.body(ctx, r, res.claim)
	if err != nil {
		place.unused()
		d.noBody(ctx, &res, err)
		return res
	}
	reply, failed, err := d.send(ctx, &res, body)
	if err != nil {
		res.err = fmt.Errorf("send event %s: %w", r.ID, err)
		return res
	}
	a := &res.attempt
	it.sent = it.sent || a.Sent
	res.ruling = place.answered(w.Key, classify(reply, failed), a.Status, a.Error)
	a.Result = res.ruling.result
	step := ""
	if failed != nil {
		step = failed.Step
	}
	d.cfg.Observer.Attempt(*a, step)
	if res.ruling.class == interrupted {
		return res
	}
	if res.ruling.own && time.Since(d.since(w.QueuedAt, time.Now())) > d.cfg.RetryFor {
		res.overdue = d.overdue(a.Error)
	}
	d.record(ctx, &res, alone && !d.gate.short())
	if res.err == nil { // else Callgoose may have what our disk does not know
		place.recorded()
	}
	faultpoint.Here("recorded")
	return res
}

// body makes the body of r, one at a time: some take many times their size.
func (d *Deliverer) body(ctx context.Context, r *event.Record, claim time.Time) ([]byte, error) {
	select {
	case d.making <- struct{}{}:
		defer func() { <-d.making }()
		return d.bodies.Body(ctx, r, claim)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// send makes the request, and fills in the attempt of res. The last error is none of
// Callgoose's.
func (d *Deliverer) send(ctx context.Context, res *result, body []byte) (callgoose.Reply, *callgoose.Error, error) {
	if res.probe {
		d.sender.Renew()
	}
	faultpoint.Here("claimed")
	start := time.Now()
	reply, err := d.sender.Send(ctx, body)
	faultpoint.Here("answered")
	res.attempt = event.Attempt{At: start.UTC(), Duration: time.Since(start), Probe: res.probe, Sent: true}
	a := &res.attempt
	if err == nil {
		a.Status, a.ID, a.Effect = reply.Status, reply.ID, reply.Effect
		return reply, nil, nil
	}
	failed, ok := errors.AsType[*callgoose.Error](err)
	if !ok {
		return reply, nil, err
	}
	a.Status, a.Error, a.Sent = failed.Status, failed.Error(), failed.Sent
	if failed.Status == 0 { // other connections may be as bad
		d.sender.Renew()
	}
	return reply, failed, nil
}

// noBody ends an attempt that has no body. What cannot be read is a dead letter that
// says so, never in the way.
func (d *Deliverer) noBody(ctx context.Context, res *result, err error) {
	switch {
	case event.Unreadable(err):
		res.ruling = ruling{verdict: verdict{result: "dead", outcome: event.Dead, reason: reasonLost + err.Error()}}
		res.attempt = event.Attempt{At: time.Now().UTC(), Result: "dead", Error: err.Error()}
		d.record(ctx, res, false)
	case context.Cause(ctx) != nil:
		res.ruling.class, res.number = interrupted, 0
	default:
		res.err = fmt.Errorf("body of the event at %v: %w", res.w.At, err)
	}
}

// record writes what an attempt came to.
func (d *Deliverer) record(ctx context.Context, res *result, soon bool) {
	res.err = d.book.record(ctx, res, soon)
	if outcome := res.ruling.outcome; res.err == nil && outcome != "" {
		d.cfg.Observer.Settled(outcome, time.Since(res.w.QueuedAt))
		if !res.began.IsZero() {
			d.cfg.Observer.FirstTaken(max(time.Since(res.began), 0))
		}
	}
}
