package store

import (
	"testing"
	"time"

	"pmm-callgoose/store/event"
)

func TestOutagesAreKeptAcrossRestartsWithTheirBeginningAndEnd(t *testing.T) {
	s, dir := open(t)
	note := func(state string, at time.Time) {
		t.Helper()
		if err := s.Do(t.Context(), func(tx *Tx) { tx.NoteOutage(state, at) }); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now().UTC().Truncate(time.Second)
	for _, at := range []struct {
		ago   time.Duration
		state string
	}{
		{keepHistory + 3*time.Hour, event.Down}, // over for longer than history reaches back
		{keepHistory + time.Hour, ""},
		{5 * time.Hour, event.Down},
		{4 * time.Hour, event.Down},
		{3 * time.Hour, event.Held},
		{2 * time.Hour, ""},
		{time.Hour, ""},
		{time.Minute, event.Paused},
	} {
		note(at.state, now.Add(-at.ago))
	}
	want := []event.Outage{
		{From: now.Add(-5 * time.Hour), Until: now.Add(-3 * time.Hour), State: event.Down},
		{From: now.Add(-3 * time.Hour), Until: now.Add(-2 * time.Hour), State: event.Held},
		{From: now.Add(-time.Minute), State: event.Paused},
	}
	for _, when := range []string{"before", "after"} {
		got, err := s.Outages()
		if err != nil || len(got) != len(want) {
			t.Fatalf("%s a restart: %v, %v", when, got, err)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%s a restart: outage %d is %+v, want %+v", when, i, got[i], want[i])
			}
		}
		if when == "after" {
			continue
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s, _, err = Open(Config{Dir: dir}); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
	}
	if err := s.Do(t.Context(), func(tx *Tx) {
		for range 3 * mostOutages {
			tx.NoteOutage(event.Down, now)
			tx.NoteOutage("", now)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Outages(); err != nil || len(got) != mostOutages {
		t.Errorf("%d outages are kept, %v", len(got), err)
	}
}
