package app

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
)

// Incidents implements web.Source. What it holds in memory is bounded by limit, and only
// what it returns is read in full.
func (a *App) Incidents(_ context.Context, f event.Filter, limit int) ([]admin.Incident, error) {
	c := a.core.Load()
	if c == nil {
		return nil, a.whyClosed()
	}
	list := []admin.Incident{}
	err := c.ledger.View(func(tx *store.Tx) {
		var newest []*store.Episode
		for ep := range tx.OpenEpisodes("", "") {
			as := &event.Record{Key: ep.Key, Alertname: ep.Alertname, Pos: ep.Firing}
			if len(f.Labels) > 0 || f.Text != "" {
				as.Labels = tx.Labels(ep.Key)
			}
			if !f.Match(as) {
				continue
			}
			if newest = append(newest, ep); len(newest) >= 2*limit+1000 {
				newest = newestFirst(newest, limit)
			}
		}
		for _, ep := range newestFirst(newest, limit) {
			list = append(list, incident(tx, ep))
		}
	})
	return list, err
}

// newestFirst sorts episodes by their begin, else by the receipt of their firing event,
// and keeps limit of them.
func newestFirst(list []*store.Episode, limit int) []*store.Episode {
	began := func(ep *store.Episode) time.Time {
		if ep.StartsAt.IsZero() {
			return ep.FiringAt
		}
		return ep.StartsAt
	}
	slices.SortFunc(list, func(a, b *store.Episode) int {
		return cmp.Or(began(b).Compare(began(a)), strings.Compare(a.Key, b.Key))
	})
	return list[:min(len(list), limit)]
}

func incident(tx *store.Tx, ep *store.Episode) admin.Incident {
	in := admin.Incident{
		Key: ep.Key, Source: ep.Source, Alertname: ep.Alertname, Open: ep.Open,
		StartsAt: timeOrNil(ep.StartsAt), NamedAt: timeOrNil(ep.NamedAt), Labels: map[string]string{},
	}
	if labels := tx.Labels(ep.Key); labels != nil {
		in.Labels = labels
	}
	if r := tx.Brief(ep.FiringAt, ep.Firing); r != nil {
		in.Outcome, in.Tries = r.Outcome, r.Tries
	}
	return in
}

// Incident implements web.Source.
func (a *App) Incident(_ context.Context, key string) (s admin.Story, err error) {
	c := a.core.Load()
	if c == nil {
		return s, a.whyClosed()
	}
	var records []*event.Record
	var acts []store.Act
	err = c.ledger.View(func(tx *store.Tx) {
		if ep := tx.Episode(key); ep != nil {
			s.Incident = incident(tx, ep)
		}
		acts = tx.Acts(key)
		for r := range tx.Records(event.Filter{Incident: key}) {
			if records = append(records, r); len(records) == admin.StoryEvents {
				break
			}
		}
	})
	switch {
	case err != nil:
		return s, err
	case s.Key == "" && len(records) == 0 && len(acts) == 0:
		return s, fmt.Errorf("%w under the incident key %s", admin.ErrNotFound, text.Short(100, key))
	case s.Key == "" && len(records) > 0:
		r := records[0]
		s.Incident = admin.Incident{Key: key, Source: r.Source, Alertname: r.Alertname, Labels: r.Labels, Outcome: r.Outcome, Tries: r.Tries}
	}
	s.Key, s.Cut = key, len(records) == admin.StoryEvents
	for _, act := range acts {
		s.Story = append(s.Story, admin.Step{At: act.At, What: act.What, By: act.By, Text: done(act), Level: admin.Odd})
	}
	s.Tell(records)
	return s, nil
}

// done says what an operator did.
func done(act store.Act) string {
	said := map[string]string{
		"replay": "queued again", "drop": "dead letters dropped: forgotten for good", "park": "parked: taken out of the queue as a dead letter",
		"close": "closed by hand, as a recovery",
	}[act.What]
	if said == "" {
		said = act.What
	}
	if act.Count > 1 {
		said += fmt.Sprintf(" (with %d events in all)", act.Count)
	}
	return said
}
