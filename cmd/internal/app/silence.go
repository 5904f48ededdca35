package app

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store"
	"pmm-callgoose/worker"
)

// silenceEvery is how often it is checked whether a PMM has been silent too long.
const silenceEvery = 5 * time.Second

// defaultSource is the PMM that is waited for when none was ever heard of.
const defaultSource = "pmm"

// silenceWatch waits for signs of life of each PMM server, and tells Callgoose
// through the ordinary queue when there is none: --expect-every. A refused
// webhook is a sign of life that we cannot assign, and time in which we could not
// listen is not PMM's silence; after both every PMM has one whole period.
//
// What is open and who was heard of stand in the ledger, written by the splitter
// in the order of arrival. If we die between a decision and the split of its
// notification, that one is on disk and is split first; if before, we decide
// again after one period.
type silenceWatch struct {
	rules  config.Expect
	since  time.Time       // listening without a gap since then
	passed time.Time       // of the last pass, zero before the first
	known  map[string]bool // sources of silences that were open when we began; nil = no pass was made yet
	// before is when each PMM whose silence is open had been heard of when that was found:
	// where the clock is set back, what it says afterwards seems older than its silence.
	before map[string]time.Time
}

// watchSilence runs until ctx ends, or until there is nothing to wait for.
func (a *App) watchSilence(ctx context.Context) {
	w := silenceWatch{rules: a.cfg.ExpectEvery, since: time.Now()}
	tick := time.NewTicker(silenceEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		c := a.core.Load()
		if c == nil || w.away(now) || !c.leads() { // also: who leads hears of everybody
			w.since = now
			continue
		}
		if at := a.refused.latest(); at.After(w.since) {
			w.since = at
		}
		heard, open, caughtUp, err := w.pass(c)
		if err != nil || !caughtUp { // what came in is not known yet
			continue
		}
		if !w.rules.On() && len(open) == 0 {
			return
		}
		for _, s := range w.decide(now, heard, open) {
			a.tellSilence(ctx, c, now, s)
		}
	}
}

// away reports whether this process did not run since the last pass, or the start: it was
// frozen, or the machine slept, or somebody moved the clock. That is no PMM's silence.
func (w *silenceWatch) away(now time.Time) bool {
	last := cmp.Or(w.passed, w.since)
	w.passed = now
	gap, wall := now.Sub(last), now.Round(0).Sub(last.Round(0)) // on either clock
	return gap > 2*silenceEvery || wall.Abs() > 2*silenceEvery
}

// pass reads who was heard of, and since when which silence is open.
func (w *silenceWatch) pass(c *core) (heard, open map[string]time.Time, caughtUp bool, err error) {
	last := c.queue.Last()
	open = map[string]time.Time{}
	err = c.ledger.View(func(tx *store.Tx) {
		caughtUp, heard = worker.Decided(tx, last), tx.Heard()
		if w.known == nil {
			w.known = map[string]bool{}
			for ep := range tx.OpenEpisodes("", "") {
				if ep.Key == worker.SilenceKey(ep.Source) {
					w.known[ep.Source] = true
				}
			}
		}
		for source := range maps.Keys(w.sources(heard)) {
			w.known[source] = true
		}
		for source := range w.known {
			if ep := tx.Episode(worker.SilenceKey(source)); ep != nil && ep.Open {
				open[source] = ep.StartsAt
			}
		}
	})
	return heard, open, caughtUp, err
}

// sources is how long each PMM that is waited for may be silent.
func (w *silenceWatch) sources(heard map[string]time.Time) map[string]time.Duration {
	if w.rules.Every == 0 {
		return w.rules.Sources
	}
	all := make(map[string]time.Duration, len(heard))
	for source := range heard {
		all[source] = w.rules.Every
	}
	if len(all) == 0 {
		all[defaultSource] = w.rules.Every
	}
	return all
}

// decide says which silences begin and which end.
func (w *silenceWatch) decide(now time.Time, heard, open map[string]time.Time) (out []worker.Silence) {
	sources, before := w.sources(heard), w.before
	w.before = map[string]time.Time{}
	for _, source := range slices.Sorted(maps.Keys(sources)) {
		s := worker.Silence{Source: source, Every: sources[source], Heard: heard[source]}
		began, isOpen := open[source]
		from := w.since
		if s.Heard.After(from) && !s.Heard.After(now) { // a clock that was ahead says nothing
			from = s.Heard
		}
		first, seen := before[source]
		if !seen {
			first = s.Heard
		}
		if isOpen {
			w.before[source] = first
		}
		switch {
		case isOpen && (s.Heard.After(began) || !s.Heard.Equal(first)):
			s.Since, s.Until = began, s.Heard
		case !isOpen && now.Sub(from) >= s.Every:
			s.Since = now.UTC()
		default:
			continue
		}
		out = append(out, s)
	}
	for _, source := range slices.Sorted(maps.Keys(open)) {
		if _, watched := sources[source]; !watched {
			out = append(out, worker.Silence{Source: source, Since: open[source], Until: now.UTC(), Unwatched: true})
		}
	}
	return out
}

// tellSilence stores the notification. If it cannot be stored, the next pass
// comes to the same decision.
func (a *App) tellSilence(ctx context.Context, c *core, now time.Time, s worker.Silence) {
	n, err := s.Alert().Notification(s.Source, now)
	if err == nil {
		_, err = c.queue.Publish(ctx, n)
	}
	switch {
	case err != nil && ctx.Err() != nil:
	case err != nil:
		a.log.Error("the silence of a pmm server could not be stored", "source", s.Source, "err", err)
	case !s.Until.IsZero():
		a.log.Info("a pmm server is no longer silent", "source", s.Source, "since", s.Since)
	default:
		a.log.Warn("a pmm server is silent", "source", s.Source, "expect_every", s.Every, "last_heard", s.Heard)
	}
}
