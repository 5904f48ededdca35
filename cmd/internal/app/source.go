package app

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker"
)

// Ready implements web.Source: would a webhook be answered with 202?
func (a *App) Ready() error {
	c := a.core.Load()
	if c == nil {
		return a.whyClosed()
	}
	if err := a.refusing(c); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), readyWithin, errors.New("the disk, or NATS, does not answer"))
	defer cancel()
	return c.queue.Alive(ctx)
}

// refusing says why webhooks are answered 503, as far as that is known without asking the
// disk or NATS.
func (a *App) refusing(c *core) error {
	if at := a.unstored.Load(); at != nil && time.Since(*at) < unstoredFor {
		return errors.New("the last webhook could not be stored")
	}
	return c.queue.Full()
}

// unstoredFor is how long the next webhook is expected to fare as the last one did. None
// may come while others are told that we are not ready.
const unstoredFor = 2 * time.Minute

// readyWithin is how long storing may be under way for the service to count as ready.
const readyWithin = time.Second

// Settings implements web.Source.
func (a *App) Settings() any { return a.cfg.Effective() }

// Status implements web.Source.
func (a *App) Status(context.Context) (admin.Status, error) {
	s, ok := a.observe()
	c := a.core.Load()
	if !ok || c == nil {
		s.Store.Problem = a.whyClosed().Error()
		s.Refused = a.handler.Refused()
		s.Conclude()
		return s, nil
	}
	if err := a.outlook(c, &s, time.Now()); err != nil {
		return s, err
	}
	s.Sources = a.addReconcile(s.Sources)
	s.Attention = append(s.Attention, differing(s.Sources)...)
	s.Conclude()
	return s, nil
}

// observe is the status; ok is false while the store is not open, and then
// nothing in it is known.
func (a *App) observe() (s admin.Status, ok bool) {
	s = admin.Status{
		Version: a.opts.Version, StartedAt: a.started.UTC(),
		SuppressedReason: map[string]int64{}, AlertsByStatus: map[string]int64{},
		WaitingBySeverity: map[string]int64{}, StillFiring: []admin.Waiting{}, Attention: []admin.Attention{}, Storms: []admin.Storm{},
		Ping: a.ping.status(), Fallback: a.fallback.status(), Filters: a.opts.drift.status(),
	}
	s.Callgoose.State, s.Sources = event.Unknown, []admin.PMM{}
	if addrs := a.addrs.Load(); addrs != nil {
		s.WebhookURL = addrs.Webhooks
	}
	c := a.core.Load()
	if c == nil {
		s.Cluster = a.withoutNATS()
		return s, false
	}
	sum, view := c.ledger.Summary(), c.deliver().View()
	n := sum.Counts
	waiting := max(c.queue.Accepted()-c.splitter().Split(), 0)
	if waiting == 0 && c.splitter().Behind() {
		waiting = 1 // at least; they are from before the start
	}
	if c.log != nil { // what others took in waits, too: at least one in each message
		waiting = int64(c.queue.Last() - min(c.queue.Last(), sum.Progress.Seq)) //nolint:gosec // far below 2^63
	}
	s.Queued, s.InFlight = n[string(event.Queued)]+waiting, view.InFlight
	s.Delivered, s.Discarded, s.Dead = n[string(event.Delivered)], n[string(event.Discarded)], n[string(event.Dead)]
	s.Suppressed, s.Collapsed, s.Unknown = n[string(event.Suppressed)], n[string(event.Collapsed)], n[event.Unknown]
	s.Notifications, s.Alerts, s.Truncated, s.Damaged = n["notifications"], n["alerts"], n["truncated"], n["damaged"]
	s.AcceptedLosses = n["accepted_losses"]
	for k, v := range n {
		if reason, ok := strings.CutPrefix(k, "suppressed:"); ok {
			s.SuppressedReason[reason] = v
		}
		if status, ok := strings.CutPrefix(k, "alerts:"); ok {
			s.AlertsByStatus[status] = v
		}
	}
	s.DiscardedFiring = n["discarded_firing"]
	s.Effects = admin.Effects{
		Opened: n["effect:created"], Closed: n["effect:resolved"], Nothing: n["effect:duplicate"] + n["effect:none"], Unknown: n["effect:unknown"],
	}
	s.SLO = slo(c)
	s.OldestQueuedAt = timeOrNil(view.Oldest)
	s.StormsTotal, s.Storms = n["storms"], c.storms()
	s.Callgoose = admin.Callgoose{
		State: view.Circuit.State, Since: timeOrNil(view.Circuit.Since), LastError: view.Circuit.LastError,
		NextProbe: timeOrNil(view.NextProbe),
	}
	if p := view.Pause; p != nil && view.Circuit.State == event.Paused {
		s.Pause = p
	}
	s.Store.UsedBytes, s.Store.MaxBytes, s.Store.FreeBytes = c.queue.Room()
	s.Store.Accepting = true
	if err := a.refusing(c); err != nil {
		s.Store.Accepting, s.Store.Problem = false, err.Error()
	}
	s.Cluster = c.cluster()
	return s, true
}

// storms are those that are on, or of which events still wait.
func (c *core) storms() []admin.Storm {
	out := []admin.Storm{}
	_ = c.ledger.View(func(tx *store.Tx) { // whoever writes reports what is wrong
		for _, s := range tx.Storms() {
			if waiting := tx.InStorm(s.Source); s.On() || waiting > 0 {
				out = append(out, admin.Storm{Source: s.Source, Since: timeOrNil(s.Since), Alerts: s.Total, Waiting: waiting, Key: s.Key})
			}
		}
	})
	return out
}

// sources lists the PMM servers, by name.
func sources(c *core, rules config.Expect) ([]admin.PMM, error) {
	w, heard := silenceWatch{rules: rules}, c.ledger.Summary().Heard
	every := w.sources(heard)
	names := maps.Clone(heard)
	for name := range every {
		names[name] = heard[name]
	}
	list := make([]admin.PMM, 0, len(names))
	err := c.ledger.View(func(tx *store.Tx) {
		sent := tx.AlertsOfDay()
		for _, name := range slices.Sorted(maps.Keys(names)) {
			s := admin.PMM{Name: name, AlertsDay: sent[name], LastHeardAt: timeOrNil(heard[name]), ExpectEvery: every[name].Seconds()}
			if ep := tx.Episode(worker.SilenceKey(name)); ep != nil && ep.Open {
				s.SilentSince = timeOrNil(ep.StartsAt)
			}
			list = append(list, s)
		}
	})
	return list, err
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// Events implements web.Source.
func (a *App) Events(_ context.Context, f event.Filter, limit int) (list []*event.Record, err error) {
	c := a.core.Load()
	if c == nil {
		return nil, a.whyClosed()
	}
	err = c.ledger.Each(f, func(r *event.Record) bool {
		list = append(list, r)
		return len(list) < limit
	})
	return list, err
}

// Event implements web.Source.
func (a *App) Event(ctx context.Context, id string) (*admin.Detail, error) {
	c := a.core.Load()
	if c == nil {
		return nil, a.whyClosed()
	}
	r, err := c.ledger.Find(id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, admin.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	d := &admin.Detail{Row: admin.NewRow(r), NextTry: c.nextTry(r)}
	if r.Status == "" {
		raw, err := c.builder.Raw(ctx, r)
		d.Raw = asJSON(raw)
		return d, missing(d, err)
	}
	if r.IsEvent() {
		if d.Sent, err = c.builder.Body(ctx, r, r.ClaimedAt); missing(d, err) != nil {
			return nil, err
		}
		var said struct {
			DelayedBy string `json:"delayed_by"`
		}
		if json.Unmarshal(d.Sent, &said) == nil {
			d.DelayedBy = said.DelayedBy
		}
	}
	n, err := c.notification(ctx, r.Pos)
	d.Raw = asJSON(n.Body)
	return d, missing(d, err)
}

// missing says in d why something cannot be shown; other errors are returned.
func missing(d *admin.Detail, err error) error {
	switch {
	case errors.Is(err, event.ErrGone):
		d.Missing = "the notification is no longer stored (--retention)"
	case errors.Is(err, event.ErrDamaged):
		d.Missing = "the notification is damaged on disk"
	default:
		return err
	}
	return nil
}

// notification reads the one that a position belongs to.
func (c *core) notification(ctx context.Context, pos event.Position) (n event.Notification, err error) {
	notes, err := c.queue.Read(ctx, pos.Seq)
	if err != nil {
		return n, err
	}
	if int(pos.Note) >= len(notes) {
		return n, event.ErrDamaged
	}
	return notes[pos.Note], notes[pos.Note].Err
}

// nextTry is when the event is tried again; nil when it is settled, or comes
// behind others of its lane.
func (c *core) nextTry(r *event.Record) *time.Time {
	if r.Outcome != event.Queued {
		return nil
	}
	for _, n := range c.deliver().View().Next {
		if n.Place == r.At {
			return timeOrNil(n.At)
		}
	}
	return nil
}

// History implements web.Source.
func (a *App) History(since time.Time) ([]event.Minute, error) {
	c := a.core.Load()
	if c == nil {
		return nil, a.whyClosed()
	}
	return c.ledger.History(since)
}

// Changes implements web.Source.
func (a *App) Changes() uint64 {
	if c := a.core.Load(); c != nil {
		return c.ledger.Changes()
	}
	return 0
}

// asJSON is raw as it can stand in a JSON answer: itself, or as a string.
func asJSON(raw []byte) json.RawMessage {
	if raw == nil {
		return nil
	}
	if json.Valid(raw) {
		return raw
	}
	quoted, err := json.Marshal(string(raw))
	if err != nil {
		return nil
	}
	return quoted
}
