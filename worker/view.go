package worker

import (
	"context"
	"log/slog"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
)

// View is what operators see of the deliverer.
type View struct {
	InFlight int // requests
	Window   int // queued events in memory
	// Oldest is when the oldest waiting event was queued, zero when none waits.
	Oldest    time.Time
	Circuit   Circuit
	Pause     *store.Pause // what holds delivery by hand, nil = nothing
	NextProbe time.Time
	// Next are events that wait for their next attempt, a bounded number of them.
	Next []NextTry
	// Last is the event that Callgoose took last, in this life.
	Last Taken
}

// NextTry is when an event of the window may be tried again.
type NextTry struct {
	Place event.Position // in the queue
	At    time.Time
}

// Taken is an event that Callgoose took.
type Taken struct {
	At        time.Time // zero: none
	Effect    string
	Key       string
	Alertname string
	Status    event.Status
}

// nextTries bounds View.Next: the picture is made anew at every turn.
const nextTries = 64

// View is the newest picture. Safe concurrently.
func (d *Deliverer) View() View {
	v := *d.view.Load()
	var storm event.Position
	v.InFlight = d.gate.stand(time.Now()).requests
	v.Oldest, storm = d.book.oldest(*d.storm.Load())
	d.storm.Store(&storm)
	return v
}

// Outage reports whether the last attempts said that Callgoose takes nothing. Safe
// concurrently.
func (d *Deliverer) Outage() bool {
	seen := d.gate.stand(time.Now()).seen
	return seen == event.Down || seen == event.Held
}

// announce tells of a change of the state, once.
func (d *Deliverer) announce(ctx context.Context) {
	s := d.gate.stand(time.Now())
	if s.State == d.announced {
		return
	}
	d.announced = s.State
	d.cfg.Observer.Circuit(s.State)
	switch s.State {
	case event.Up:
		d.log.InfoContext(ctx, "callgoose is up", "waiting", d.w.size)
	case event.Held:
		d.log.ErrorContext(ctx, "callgoose refuses every request: everything is held until token and address are right", "err", s.LastError)
	case event.Down:
		d.log.WarnContext(ctx, "callgoose is down: events wait, one probe at a time goes out", "err", s.LastError)
	case event.Paused:
		d.log.WarnContext(ctx, "delivery is paused", "reason", s.pause.Reason, "by", s.pause.By)
	default:
		d.log.InfoContext(ctx, "delivery goes on, callgoose was not reached yet")
	}
}

func (d *Deliverer) publishView(now time.Time) {
	s := d.gate.stand(now)
	v := &View{Window: d.w.size, Circuit: s.Circuit, Pause: s.pause, Last: d.last}
	if s.seen != event.Up {
		v.NextProbe = s.probeAt
	} else {
		for _, l := range d.w.waiting.lanes[:min(nextTries, len(d.w.waiting.lanes))] {
			v.Next = append(v.Next, NextTry{l.head().at, l.notBefore})
		}
	}
	d.view.Store(v)
}

// logAttempt is one line with everything about the attempt. next is when the event may
// go out again, if it does.
func (d *Deliverer) logAttempt(ctx context.Context, r result, now, next time.Time) {
	a, v, w := r.attempt, r.ruling, &r.w
	level := slog.LevelInfo
	switch {
	case v.outcome == event.Dead:
		level = slog.LevelError
	case v.outcome == event.Discarded, v.outcome == "" && v.class != interrupted, a.Effect == "unknown":
		level = slog.LevelWarn
	}
	attrs := append(make([]slog.Attr, 0, 20),
		slog.String("event_id", r.id), slog.String("event_key", w.Key), slog.String("alertname", w.Alertname),
		slog.String("status", string(w.Status)), slog.String("source", w.Source),
		slog.String("notification_id", w.Pos.NotificationID()), slog.Int("attempt", r.number), slog.String("outcome", a.Result),
		slog.Duration("duration", a.Duration.Round(time.Microsecond)),
		slog.Duration("waited", now.Sub(w.QueuedAt).Round(time.Millisecond)))
	if r.probe {
		attrs = append(attrs, slog.Bool("probe", true))
	}
	if a.Status != 0 {
		attrs = append(attrs, slog.Int("http_status", a.Status))
	}
	if a.Effect != "" {
		attrs = append(attrs, slog.String("effect", a.Effect))
	}
	if a.ID != "" {
		attrs = append(attrs, slog.String("callgoose_id", a.ID))
	}
	if a.Error != "" {
		attrs = append(attrs, slog.String("err", a.Error))
	}
	if v.outcome == "" && v.class != interrupted && !next.IsZero() {
		attrs = append(attrs, slog.Duration("retry_in", max(next.Sub(now), 0).Round(time.Millisecond)))
	}
	switch v.outcome {
	case event.Discarded:
		attrs = append(attrs, slog.String("hint", "no filter of Callgoose matched; repair it, then replay --outcome discarded"))
	case event.Dead:
		attrs = append(attrs, slog.String("reason", v.reason), slog.String("hint", "dead-letters list, then retry or drop"))
	}
	d.log.LogAttrs(ctx, level, "attempt", attrs...)
}
