package admin

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/store/event"
)

func TestTheHeadlineSaysWhatAPersonShouldLookAt(t *testing.T) {
	now := time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) *time.Time { at := now.Add(-d); return &at }
	refused := Refusals{LastHour: 14, LastAt: ago(3 * time.Second), LastCode: 401, LastReason: "the Bearer token is not ours", LastRemote: "172.17.0.2"}
	for _, c := range []struct {
		name   string
		change func(*Status)
		level  Level
		codes  []string
		says   string
	}{
		{"all is well", func(*Status) {}, Good, nil, "Callgoose takes events; nothing waits."},
		{"it drains", func(s *Status) { s.Queued = 5 }, Good, nil, "5 events wait"},
		{"nothing was sent yet", func(s *Status) { s.LastDelivered = nil }, Idle, nil, "Nothing was sent"},
		{"the last answer was none of Callgoose's", func(s *Status) { s.LastDelivered.Effect = "unknown" }, Odd, nil, "could not be read"},
		{"down with events waiting", func(s *Status) { s.Callgoose.State, s.Queued = event.Down, 2 }, Bad, []string{IsDown}, "2 events wait"},
		{"down with nothing waiting", func(s *Status) { s.Callgoose.State = event.Down }, Odd, nil, "could not be reached"},
		{"held", func(s *Status) { s.Callgoose.State = event.Held }, Bad, []string{IsHeld}, "everything is held"},
		{"paused", func(s *Status) {
			s.Callgoose.State, s.Pause = event.Paused, &Pause{By: "socket", Reason: "filters"}
		}, Odd, []string{IsPaused}, "paused by socket (filters)"},
		{"webhooks refused", func(s *Status) { s.Refused = refused }, Bad, []string{IsRefused}, "14 webhooks were refused in the last hour, the last from 172.17.0.2 with 401"},
		{"refused and accepted since", func(s *Status) { s.Refused = refused; s.Sources[0].LastHeardAt = ago(time.Second) }, Odd, []string{IsRefused}, "14 webhooks"},
		{"a silent pmm", func(s *Status) { s.Sources[0].SilentSince = ago(time.Hour) }, Bad, []string{IsSilent}, "PMM pmm is silent"},
		{"a storm", func(s *Status) {
			s.Storms = []Storm{{Source: "pmm", Since: ago(time.Minute), Alerts: 501, Waiting: 470, Key: "pmm-1"}}
		}, Odd, []string{IsStorm}, "Storm: 501 alerts from pmm since"},
		{"a storm that is over", func(s *Status) { s.Storms = []Storm{{Source: "pmm", Waiting: 470}} }, Good, nil, "takes events"},
		{"dead letters", func(s *Status) { s.Dead = 1 }, Bad, []string{IsDead}, "1 event was given up"},
		{"discards of today", func(s *Status) { s.Discarded, s.DiscardedDay = 3, 3 }, Bad, []string{IsDiscarded}, "no filter matched 3 events"},
		{"discards of last week", func(s *Status) { s.Discarded = 3 }, Good, nil, "takes events"},
		{"discards that were sent again", func(s *Status) { s.DiscardedDay = 3 }, Good, nil, "takes events"},
		{"not accepting", func(s *Status) { s.Store.Accepting, s.Store.Problem = false, "the store is full" }, Bad, []string{NotAccepting}, "NOT ACCEPTED (503): the store is full."},
		{"what others found", func(s *Status) {
			s.Dead, s.Attention = 1, []Attention{{Code: "drift", Level: Odd, Text: "Two alerts differ.", Fix: "reconcile"}}
		}, Bad, []string{IsDead, "drift"}, "given up: Callgoose does not have it. Two alerts differ."},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := Status{
				Callgoose: Callgoose{State: event.Up}, Store: Store{Accepting: true}, Sources: []PMM{{Name: "pmm", LastHeardAt: ago(time.Minute)}},
				LastDelivered: &LastDelivered{At: *ago(time.Minute), Effect: "created"},
			}
			c.change(&s)
			s.Conclude()
			var codes []string
			for _, a := range s.Attention {
				codes = append(codes, a.Code)
				if a.Text == "" || a.Fix == "" {
					t.Errorf("no way out: %+v", a)
				}
			}
			if s.Level != c.level || !slices.Equal(codes, c.codes) || !strings.Contains(s.Headline, c.says) {
				t.Errorf("%s %v: %s\nwant %s %v: %s", s.Level, codes, s.Headline, c.level, c.codes, c.says)
			}
		})
	}
}
