package app

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/alarm"
	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/faultpoint"
)

const (
	fallbackPass    = 5 * time.Second // between two passes
	fallbackEvery   = time.Minute     // between two messages
	fallbackTimeout = 10 * time.Second
	// fallbackMost bounds the alerts, and the recoveries, of one message.
	fallbackMost = 20
)

// fallback tells people of alerts by another way while Callgoose is away. It
// takes nothing out of the queue.
//
//	pass ──▶ notes in the ledger ──fsync──▶ send ──failed──▶ notes taken back, again in a minute
//
// If we die behind the notes, that message may be lost, and is never sent twice:
// Callgoose still gets the alerts. A lost ledger forgets the notes.
type fallback struct {
	ways  []alarm.Way
	after time.Duration
	match map[string]string // labels
	about message           // what every message says
	log   *slog.Logger
	told  func(result string, alerts int)
	// Owned by run: the last message, sent or not; and what was seen when there was
	// nobody to tell.
	last    time.Time
	changes uint64
	lasted  bool

	mu    sync.Mutex
	state admin.Fallback // guarded by mu
}

// message is what is sent: the body of the webhook, the input of the command.
type message struct {
	Text      string      `json:"text"`
	Alerts    []toldAlert `json:"alerts"`
	More      int         `json:"more"` // alerts that a later message will name
	Recovered []toldAlert `json:"recovered"`
	Callgoose struct {
		State     string    `json:"state"`
		Since     time.Time `json:"since,omitzero"`
		LastError string    `json:"last_error"`
	} `json:"callgoose"`
	Test    bool   `json:"test,omitempty"`
	Host    string `json:"host"`
	Version string `json:"version"`
}

// toldAlert is one alert of a message.
type toldAlert struct {
	Key        string    `json:"incident_key"`
	EventID    string    `json:"event_id,omitempty"`
	Severity   string    `json:"severity,omitempty"`
	Title      string    `json:"title,omitempty"`
	Short      string    `json:"short"`
	Link       string    `json:"link,omitempty"`
	ReceivedAt time.Time `json:"received_at,omitzero"`

	episode string
	record  *event.Record
	note    *store.Told // of one that recovered
}

func (a *App) newFallback() *fallback {
	f := &fallback{
		after: cmp.Or(a.cfg.FallbackAfter, 10*time.Minute), match: a.cfg.FallbackMatch,
		log: a.opts.Logger.With("component", "fallback"), told: a.opts.metrics.Told,
		ways: alarm.Ways(a.cfg.FallbackWebhook.Reveal, a.opts.Outside, a.cfg.FallbackCommand, fallbackTimeout),
	}
	f.about.Version = a.opts.Version
	f.about.Host, _ = os.Hostname()
	for _, w := range f.ways {
		f.state.Ways = append(f.state.Ways, w.Name)
	}
	return f
}

// run makes passes until ctx ends. An error says that the ledger failed.
func (f *fallback) run(ctx context.Context, c *core) error {
	tick := time.NewTicker(faultpoint.Often(fallbackPass))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := f.pass(ctx, c); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// pass sends at most one message.
func (f *fallback) pass(ctx context.Context, c *core) error {
	now := time.Now()
	if err := c.noteOutage(ctx, now); err != nil {
		return err
	}
	if len(f.ways) == 0 || now.Sub(f.last) < faultpoint.Often(fallbackEvery) {
		return nil
	}
	m, changes, since := f.about, c.ledger.Changes(), c.outage()
	m.Callgoose.Since = since.UTC()
	lasts := !since.IsZero() && now.Sub(since) >= f.after
	if changes == f.changes && lasts == f.lasted {
		return nil // nothing happened since there was nobody to tell
	}
	if err := c.ledger.View(func(tx *store.Tx) { f.choose(tx, &m, lasts) }); err != nil {
		return err
	}
	if len(m.Alerts)+len(m.Recovered) == 0 {
		f.changes, f.lasted = changes, lasts
		return nil
	}
	faultpoint.Here("fallback-chosen")
	if err := c.ledger.Do(ctx, func(tx *store.Tx) { m.noteDown(tx, now) }); err != nil {
		return err
	}
	if len(m.Alerts)+len(m.Recovered) == 0 {
		return nil
	}
	faultpoint.Here("fallback-noted")
	f.last = now
	m.describe(ctx, c)
	sent := f.send(ctx, m)
	faultpoint.Here("fallback-sent")
	if sent {
		f.count(len(m.Alerts), now)
		return nil
	}
	return c.ledger.Do(context.WithoutCancel(ctx), m.takeBack)
}

// choose finds whom to tell of: what waits, still fires, and was not told of yet;
// and what was told of and recovered.
func (f *fallback) choose(tx *store.Tx, m *message, lasts bool) {
	for note := range tx.AllTold() {
		if ep := tx.Episode(note.Key); ep != nil && ep.Open {
			continue
		}
		m.Recovered = append(m.Recovered, toldAlert{Key: note.Key, Short: note.Name, episode: note.Episode, note: note})
		if len(m.Recovered) == fallbackMost {
			break
		}
	}
	if !lasts {
		return
	}
	for w := range tx.Waiting(event.Position{}) {
		if w.Status != event.Firing {
			continue
		}
		switch a := f.untold(tx, w); {
		case a == nil:
		case len(m.Alerts) < fallbackMost:
			m.Alerts = append(m.Alerts, *a)
		default:
			m.More++
		}
	}
}

// untold is the alert of a waiting event, nil when people need not be told of it.
func (f *fallback) untold(tx *store.Tx, w store.Waiting) *toldAlert {
	ep := tx.Episode(w.Key)
	if ep == nil || !ep.Open || ep.Firing != w.Pos {
		return nil
	}
	if note := tx.Told(w.Key); note != nil && note.Episode == ep.ID {
		return nil
	}
	r := tx.Record(w.ReceivedAt, w.Pos)
	if r == nil {
		return nil
	}
	for label, value := range f.match {
		if r.Labels[label] != value {
			return nil
		}
	}
	return &toldAlert{
		Key: w.Key, EventID: r.ID, Severity: r.Labels["severity"], Short: name(r), ReceivedAt: r.ReceivedAt, episode: ep.ID, record: r,
	}
}

// name is what an alert is called when no better text can be made.
func name(r *event.Record) string {
	called := text.Short(80, cmp.Or(r.Alertname, r.Key))
	if at := admin.Where(r.Labels); at != "" {
		called += " on " + text.Short(80, at)
	}
	return called
}

// noteDown writes the notes before anybody is told, and leaves out what changed
// since it was chosen.
func (m *message) noteDown(tx *store.Tx, now time.Time) {
	alerts, recovered := m.Alerts, m.Recovered
	m.Alerts, m.Recovered = []toldAlert{}, []toldAlert{}
	for _, a := range alerts {
		if ep := tx.Episode(a.Key); ep != nil && ep.Open && ep.ID == a.episode {
			tx.PutTold(&store.Told{Key: a.Key, Episode: a.episode, At: now.UTC(), Name: a.Short})
			m.Alerts = append(m.Alerts, a)
		}
	}
	for _, a := range recovered {
		if note := tx.Told(a.Key); note != nil && note.Episode == a.episode {
			tx.DropTold(a.Key)
			m.Recovered = append(m.Recovered, a)
		}
	}
}

// takeBack undoes noteDown: nobody was told.
func (m *message) takeBack(tx *store.Tx) {
	for _, a := range m.Alerts {
		if note := tx.Told(a.Key); note != nil && note.Episode == a.episode {
			tx.DropTold(a.Key)
		}
	}
	for _, a := range m.Recovered {
		if tx.Told(a.Key) == nil {
			tx.PutTold(a.note)
		}
	}
}

// describe gives the alerts the texts that Callgoose will get, and the message its own.
func (m *message) describe(ctx context.Context, c *core) {
	view := c.deliver().View()
	m.Callgoose.State, m.Callgoose.LastError = view.Circuit.State, view.Circuit.LastError
	var lines []string
	if len(m.Alerts) > 0 {
		lines = append(lines, fmt.Sprintf("Callgoose is %s since %s. These alerts wait for it and still fire:",
			awayState(m.Callgoose.State), m.Callgoose.Since.Format("2006-01-02 15:04 MST")))
	}
	for i := range m.Alerts {
		a := &m.Alerts[i]
		var said struct{ Title, Short, Link string }
		if body, err := c.builder.Body(ctx, a.record, time.Time{}); err == nil && json.Unmarshal(body, &said) == nil {
			a.Title, a.Short, a.Link = said.Title, cmp.Or(text.Line(said.Short), a.Short), said.Link
		}
		lines = append(lines, "- "+a.Short)
	}
	if m.More > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", m.More))
	}
	if len(m.Recovered) > 0 {
		var names []string
		for _, a := range m.Recovered {
			names = append(names, a.Short)
		}
		lines = append(lines, "Recovered: "+strings.Join(names, "; "))
	}
	m.Text = strings.Join(lines, "\n")
}

// send reports whether one of the ways took m. A stop leaves it the time it has.
func (f *fallback) send(ctx context.Context, m message) (sent bool) {
	ways := f.try(context.WithoutCancel(ctx), m)
	var errs []error
	for _, w := range ways {
		if sent = sent || w.OK; !w.OK {
			errs = append(errs, errors.New(w.Name+": "+w.Error))
		}
	}
	err := errors.Join(errs...)
	f.mu.Lock()
	if f.state.LastError = ""; err != nil {
		f.state.LastError = text.Line(err.Error())
	}
	f.mu.Unlock()
	log := f.log.With("alerts", len(m.Alerts), "more", m.More, "recovered", len(m.Recovered))
	switch {
	case !sent:
		f.told("failed", 0)
		log.ErrorContext(ctx, "nobody could be told by the other way; again in a minute", "err", err)
	case err != nil:
		log.ErrorContext(ctx, "told by one of the other ways; another one failed", "err", err)
	default:
		log.WarnContext(ctx, "told by the other way")
	}
	return sent
}

// try sends m by all ways side by side.
func (f *fallback) try(ctx context.Context, m message) []admin.Way {
	ways := make([]admin.Way, len(f.ways))
	body, _ := json.Marshal(m) // texts, numbers and times
	var wg sync.WaitGroup
	for i, w := range f.ways {
		wg.Go(func() {
			ways[i] = admin.Way{Name: w.Name, OK: true}
			if err := w.Send(ctx, body, "PMM_CALLGOOSE_FALLBACK_TEXT="+m.Text); err != nil {
				ways[i].OK, ways[i].Error = false, err.Error()
			}
		})
	}
	wg.Wait()
	return ways
}

func (f *fallback) count(alerts int, now time.Time) {
	f.told("sent", alerts)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state.Told += int64(alerts)
	f.state.LastAt = timeOrNil(now)
}

// status is what operators see of it, nil when there is none.
func (f *fallback) status() *admin.Fallback {
	if len(f.ways) == 0 {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.state
	return &s
}

// TestFallback implements web.Source: a test message by every way.
func (a *App) TestFallback(ctx context.Context) ([]admin.Way, error) {
	f := a.fallback
	if len(f.ways) == 0 {
		return nil, errors.New("there is no other way out: serve has neither --fallback-webhook-file nor --fallback-command")
	}
	m := f.about
	m.Alerts, m.Recovered, m.Test = []toldAlert{}, []toldAlert{}, true
	m.Text = "A test of pmm-callgoose on " + m.Host + ": this way out works. Nothing is wrong."
	if c := a.core.Load(); c != nil {
		m.Callgoose.State = c.deliver().View().Circuit.State
	}
	return f.try(ctx, m), nil
}
