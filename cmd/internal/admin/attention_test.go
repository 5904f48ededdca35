package admin

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/ingest"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/queue"
)

// three is instance a on three servers, when all is well.
func three(role string) *Cluster {
	return &Cluster{Role: role, Instance: "a", Leader: "a", Behind: new(uint64(2)), NATS: &queue.Servers{
		Connected: true, Replicas: 3, Streams: []queue.Stream{{Name: "NOTIFICATIONS", Current: 3}, {Name: "LEDGER", Current: 3}},
	}}
}

func TestTheHeadlineSaysWhatAPersonShouldLookAt(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) *time.Time { at := now.Add(-d); return &at }
	refused := ingest.Refusals{LastHour: 14, LastAt: ago(3 * time.Second), LastCode: 401, LastReason: "the Bearer token is not ours", LastRemote: "172.17.0.2"}
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
			s.Callgoose.State, s.Pause = event.Paused, &store.Pause{By: "socket", Reason: "filters"}
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
		{"alone", func(s *Status) { s.Cluster = &Cluster{Role: "alone"} }, Good, nil, "Callgoose takes events; nothing waits."},
		{"leading", func(s *Status) { s.Cluster = three("leader") }, Good, nil, "Instance a leads. Callgoose takes events"},
		{"following", func(s *Status) { s.Cluster = three("follower"); s.Cluster.Instance = "b" }, Good, nil, "Instance b follows a."},
		{"no nats", func(s *Status) {
			s.Cluster = three("follower")
			s.Cluster.NATS.Connected, s.Cluster.Leader = false, ""
		}, Bad, []string{NATSUnreachable}, "do not answer this instance"},
		{"no leader", func(s *Status) { s.Cluster = three("follower"); s.Cluster.Leader = "" }, Bad, []string{NoLeader}, "nothing is delivered"},
		{"far behind", func(s *Status) { s.Cluster = three("follower"); *s.Cluster.Behind = 1001 }, Odd, []string{IsBehind}, "1001 transactions behind"},
		{
			"a server of nats is away", func(s *Status) { s.Cluster = three("leader"); s.Cluster.NATS.Streams[1].Current = 2 }, Odd,
			[]string{NotReplicated},
			"2 of 3 NATS servers hold all of the stream LEDGER",
		},
		{
			"other settings than the leader", func(s *Status) { s.Cluster = three("follower"); s.Cluster.SettingsDiffer = []string{"rate", "storm"} }, Odd,
			[]string{SettingsDiffer},
			"Other settings than at a, which leads, would hold after a take-over: rate, storm.",
		},
		{"two instances of a name", func(s *Status) { s.Cluster = three("follower"); s.Cluster.SameName = true }, Odd, []string{SameName}, "which is called a now"},
		{"clocks that nearly agree", func(s *Status) { s.Cluster = three("follower"); s.Cluster.ClockSkew = -119 }, Good, nil, ""},
		{"clocks that differ", func(s *Status) { s.Cluster = three("follower"); s.Cluster.ClockSkew = -180 }, Odd, []string{ClockSkew}, "The clock of NATS is 3 min behind the clock"},
		{"not accepting", func(s *Status) { s.Store.Accepting, s.Store.Problem = false, "the store is full" }, Bad, []string{NotAccepting}, "NOT ACCEPTED (503): the store is full."},
		{"the last firing event opened nothing", func(s *Status) {
			s.LastDelivered.Effect, s.LastDelivered.Status = "duplicate", event.Firing
		}, Odd, nil, "opened nothing for the last one"},
		{"the last recovery closed nothing", func(s *Status) {
			s.LastDelivered.Effect, s.LastDelivered.Status = "none", event.Resolved
		}, Good, nil, "takes events"},
		{"no pmm for three days", func(s *Status) { s.Sources[0].LastHeardAt = ago(72 * time.Hour) }, Odd, []string{IsQuiet}, "No PMM has sent anything since"},
		{"no pmm for three days, but it can be read", func(s *Status) {
			s.Sources[0].LastHeardAt, s.Sources[0].Reconcile = ago(72*time.Hour), &Reconcile{LastPassAt: ago(time.Minute)}
		}, Good, nil, "takes events"},
		{"one of two pmm for three days", func(s *Status) {
			s.Sources = append(s.Sources, PMM{Name: "old", LastHeardAt: ago(72 * time.Hour)})
		}, Good, nil, "takes events"},
		{"no pmm for three days, which is watched", func(s *Status) {
			s.Sources[0].LastHeardAt, s.Sources[0].ExpectEvery = ago(72*time.Hour), 3600
		}, Good, nil, "takes events"},
		{"a pmm that cannot be read", func(s *Status) {
			s.Sources[0].Reconcile = &Reconcile{LastPassAt: ago(time.Minute), Failures: 3, Skipped: "PMM answered 401"}
		}, Odd, []string{IsUnread}, "PMM pmm cannot be compared with: PMM answered 401."},
		{"the heartbeat is taken", func(s *Status) { s.Ping = &Ping{LastAt: ago(time.Second)} }, Good, nil, "takes events"},
		{"the heartbeat fails", func(s *Status) { s.Ping = &Ping{LastError: "call webhook: answered 404"} }, Odd, []string{HeartbeatFails}, "not taken: call webhook: answered 404."},
		{"the heartbeat is withheld for a reason that nothing else says", func(s *Status) {
			s.Ping = &Ping{Withheld: "a webhook would not be accepted"}
		}, Odd, []string{HeartbeatWithheld}, "withheld: a webhook"},
		{"the heartbeat is withheld for a known reason", func(s *Status) {
			s.Ping, s.Callgoose.State = &Ping{Withheld: "Callgoose has been held"}, event.Held
		}, Bad, []string{IsHeld}, "everything is held"},
		{"the fallback fails when it is needed", func(s *Status) {
			s.Fallback, s.Callgoose.State, s.Queued = &Fallback{LastError: "webhook: answered 500"}, event.Down, 1
		}, Bad, []string{IsDown, FallbackFails}, "did not get through: webhook: answered 500."},
		{"the fallback failed in an outage that is over", func(s *Status) { s.Fallback = &Fallback{LastError: "answered 500"} }, Odd, []string{FallbackFails}, "did not get through"},
		{"the filters differ", func(s *Status) { s.Filters = &Filters{Drift: 2, LastAt: ago(time.Hour)} }, Odd, []string{FiltersDiffer}, "2 answers of Callgoose are not what"},
		{"the filters differed two days ago", func(s *Status) { s.Filters = &Filters{Drift: 2, LastAt: ago(48 * time.Hour)} }, Good, nil, "takes events"},
		{"one in a hundred late", func(s *Status) { s.SLO = &SLO{Events: 100, InTime: 99, Late: 1, Objective: .99} }, Good, nil, "takes events"},
		{"more late than may be", func(s *Status) {
			s.SLO = &SLO{WithinSeconds: 60, Days: 30, Events: 100, InTime: 97, Late: 1, Objective: .99}
		}, Odd, []string{ServedLate}, "3 of 100 firing events of the last 30 days were not taken within 60 s"},
		{"more late than may be, but none lately", func(s *Status) { s.SLO = &SLO{Events: 100, InTime: 97, Objective: .99} }, Good, nil, "takes events"},
		{"the first event was discarded", func(s *Status) {
			s.Discarded, s.DiscardedDay, s.SLO = 1, 1, &SLO{Events: 1, Late: 1, Objective: .99}
		}, Bad, []string{IsDiscarded}, "no filter matched"},
		{"the first event waits", func(s *Status) { s.Queued, s.SLO = 1, &SLO{Events: 1, Late: 1, Objective: .99} }, Good, nil, "1 event waits"},
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

func TestTheLineOfTheSLOSaysHowMuchOfTheBudgetIsLeft(t *testing.T) {
	for inTime, want := range map[int64]string{
		1000: "100.00 % of 1000 firing events of the last 30 days within 60 s, 100 % of the budget left",
		995:  "99.50 % of 1000 firing events of the last 30 days within 60 s, 50 % of the budget left",
		980:  "98.00 % of 1000 firing events of the last 30 days within 60 s, 0 % of the budget left",
	} {
		o := SLO{WithinSeconds: 60, Days: 30, Events: 1000, InTime: inTime, Objective: SLOObjective, Share: new(float64(inTime) / 1000)}
		if got := o.Line(); got != want {
			t.Errorf("%d of 1000 in time: %q, want %q", inTime, got, want)
		}
	}
}
