package alarm

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store/event"
)

var epoch = time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)

// healthy is a status with nothing to say.
func healthy() admin.Status {
	return admin.Status{
		Callgoose: admin.Callgoose{State: event.Up, Since: &epoch},
		Store:     admin.Store{Accepting: true, MaxBytes: 1 << 30},
	}
}

// step holds from a moment on, until the next.
type step struct {
	at     string
	change func(now time.Time, s *admin.Status)
}

func callgooseIs(state string, queued int64) func(time.Time, *admin.Status) {
	return func(now time.Time, s *admin.Status) {
		if s.Callgoose.State != state {
			s.Callgoose.State, s.Callgoose.Since = state, &now
		}
		if s.Queued = queued; queued == 0 {
			s.OldestQueuedAt = nil
		} else if s.OldestQueuedAt == nil {
			s.OldestQueuedAt = &now
		}
	}
}

func deadAre(n int64) func(time.Time, *admin.Status) {
	return func(_ time.Time, s *admin.Status) { s.Dead = n }
}

func discardedAre(kept, firing int64) func(time.Time, *admin.Status) {
	return func(_ time.Time, s *admin.Status) { s.Discarded, s.DiscardedFiring = kept, firing }
}

func accepting(yes bool) func(time.Time, *admin.Status) {
	return func(_ time.Time, s *admin.Status) { s.Store.Accepting, s.Store.Problem = yes, "disk is full" }
}

// reopening is what the status is while the store is being opened again.
func reopening(_ time.Time, s *admin.Status) {
	*s = admin.Status{Callgoose: admin.Callgoose{State: event.StateUnknown}, Store: admin.Store{Problem: "reopening"}}
}

func TestWatch(t *testing.T) {
	const down, held, up, unknown = event.Down, event.Held, event.Up, event.StateUnknown
	ago := epoch.Add(-time.Hour)
	tests := []struct {
		name  string
		start func(*admin.Status)
		steps []step
		until string
		want  []string
	}{
		{
			"an outage is raised once, repeated every hour, ended once", nil,
			[]step{{"1m", callgooseIs(down, 3)}, {"2h10m", callgooseIs(up, 3)}},
			"3h",
			[]string{"6m0s unreachable 1 300", "1h6m0s unreachable 2 3900", "2h6m0s unreachable 3 7500", "2h10m0s unreachable over 7740"},
		},
		{
			"an outage shorter than After is nobody's business", nil,
			[]step{{"1m", callgooseIs(down, 3)}, {"5m59s", callgooseIs(up, 0)}, {"6m", callgooseIs(down, 1)}, {"10m", callgooseIs(up, 0)}},
			"1h", nil,
		},
		{"an outage nobody waits in is none", nil, []step{{"1m", callgooseIs(down, 0)}}, "1h", nil},
		{
			"an event that comes late into an outage gets its own chance", nil,
			[]step{{"1m", callgooseIs(down, 0)}, {"20m", callgooseIs(down, 1)}},
			"30m",
			[]string{"25m0s unreachable 1 1440"},
		},
		{
			"an outage ends when nothing waits for a minute, and goes on with the next event", nil,
			[]step{
				{"1m", callgooseIs(down, 1)},
				{"10m", callgooseIs(down, 0)},
				{"10m30s", callgooseIs(down, 1)},
				{"20m", callgooseIs(down, 0)},
				{"30m", callgooseIs(down, 1)},
			},
			"40m",
			[]string{"6m0s unreachable 1 300", "21m0s unreachable over 1200", "35m0s unreachable 1 2040"},
		},
		{
			"refused is another alarm", nil,
			[]step{{"1m", callgooseIs(held, 2)}, {"10m", callgooseIs(up, 2)}},
			"1h",
			[]string{"6m0s held 1 300", "10m0s held over 540"},
		},
		{
			"a change between down and held starts no new wait", nil,
			[]step{{"1m", callgooseIs(down, 2)}, {"4m", callgooseIs(held, 2)}},
			"8m",
			[]string{"6m0s held 1 300"},
		},
		{
			"one alarm hands over to the other when the change lasted", nil,
			[]step{
				{"0s", callgooseIs(down, 2)},
				{"7m", callgooseIs(held, 2)},
				{"7m30s", callgooseIs(down, 2)},
				{"8m", callgooseIs(held, 2)},
				{"12m", callgooseIs(up, 2)},
			},
			"1h",
			[]string{"5m0s unreachable 1 300", "9m0s unreachable over 540", "9m0s held 1 540", "12m0s held over 720"},
		},
		{
			"unknown is no news, neither good nor bad", nil,
			[]step{{"1m", callgooseIs(down, 2)}, {"7m", callgooseIs(unknown, 2)}, {"8m", callgooseIs(down, 2)}, {"9m", callgooseIs(up, 0)}},
			"1h",
			[]string{"6m0s unreachable 1 300", "9m0s unreachable over 480"},
		},
		{"unknown from the start raises nothing", nil, []step{{"0s", callgooseIs(unknown, 9)}}, "1h", nil},
		{
			"a start in the middle of an outage may try first",
			func(s *admin.Status) {
				s.Callgoose = admin.Callgoose{State: down, Since: &ago}
				s.Queued, s.OldestQueuedAt = 1, &ago
			},
			nil, "1m",
			[]string{"30s unreachable 1 3630"},
		},
		{
			"a clock that was set back delays nothing for ever",
			func(s *admin.Status) {
				later := epoch.Add(24 * time.Hour)
				s.Callgoose, s.Queued, s.OldestQueuedAt = admin.Callgoose{State: down, Since: &later}, 1, &later
			},
			nil, "10m",
			[]string{"5m0s unreachable 1 300"},
		},
		{
			"dead letters: at once, then at most one a minute, each with how many are new",
			func(s *admin.Status) { s.Dead = 10 },
			[]step{
				{"5m", deadAre(11)},
				{"5m10s", deadAre(13)},
				{"5m20s", deadAre(15)},
				{"6m30s", deadAre(12)},
				{"7m10s", deadAre(14)},
				{"30m", deadAre(9)},
			},
			"2h",
			[]string{"5m0s dead 1 0 +1", "6m0s dead 2 60 +4", "7m10s dead 3 130 +2", "30m0s dead over 1500"},
		},
		{
			"discarded firing events: at once, then at most one a minute; dealt with when none is left",
			func(s *admin.Status) { s.Discarded, s.DiscardedFiring = 2, 7 },
			[]step{{"10s", discardedAre(3, 8)}, {"20s", discardedAre(5, 9)}, {"3m", discardedAre(2, 9)}},
			"10m",
			[]string{"10s discarded 1 0 +1", "1m10s discarded 2 60 +1", "3m0s discarded over 170"},
		},
		{
			"discarded recoveries are nobody's business", nil,
			[]step{{"10s", discardedAre(3, 0)}},
			"10m", nil,
		},
		{
			"a pause is told of after After, and when it is over; meanwhile an outage is not", nil,
			[]step{{"1m", callgooseIs(down, 3)}, {"2m", callgooseIs(event.Paused, 3)}, {"30m", callgooseIs(up, 3)}},
			"1h",
			[]string{"7m0s paused 1 300", "30m0s paused over 1680"},
		},
		{
			"dead letters nobody deals with are repeated", nil,
			[]step{{"1m", deadAre(2)}},
			"2h5m",
			[]string{"1m0s dead 1 0 +2", "1h1m0s dead 2 3600", "2h1m0s dead 3 7200"},
		},
		{
			"a store that is opened again is no news of dead letters nor of Callgoose",
			func(s *admin.Status) { s.Dead = 7 },
			[]step{
				{"1m", callgooseIs(down, 2)},
				{"7m", reopening},
				{"7m10s", func(now time.Time, s *admin.Status) {
					*s = healthy()
					s.Dead = 7
					callgooseIs(down, 2)(now, s)
				}},
			},
			"20m",
			[]string{"6m0s unreachable 1 300"},
		},
		{
			"a full store is raised after a minute and over after ten seconds", nil,
			[]step{{"1m", accepting(false)}, {"5m", accepting(true)}, {"5m5s", accepting(false)}, {"10m", accepting(true)}},
			"1h",
			[]string{"2m0s store_full 1 60", "10m10s store_full over 540"},
		},
		{"a store that refuses for a moment is nobody's business", nil, []step{{"1m", accepting(false)}, {"1m59s", accepting(true)}}, "1h", nil},
		{
			"a store that cannot be opened is full", nil,
			[]step{{"1m", reopening}},
			"3m",
			[]string{"2m0s store_full 1 60"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w, s := newWatch(5*time.Minute), healthy()
			if tt.start != nil {
				tt.start(&s)
			}
			var got []string
			for d := time.Duration(0); d < length(t, tt.until); d += time.Second {
				now := epoch.Add(d)
				for _, st := range tt.steps {
					if length(t, st.at) == d {
						st.change(now, &s)
					}
				}
				for _, n := range w.observe(now, s) {
					got = append(got, brief(d, n))
					check(t, n)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func length(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func brief(at time.Duration, n Notice) string {
	name := map[string]string{Unreachable: "unreachable", Held: "held", DeadLetters: "dead", StoreFull: "store_full", Discarded: "discarded", Paused: "paused"}[n.Alarm]
	what := fmt.Sprint(n.Count)
	if n.Over {
		what = "over"
	}
	text := fmt.Sprintf("%s %s %s %d", at, name, what, n.LastedSeconds)
	if fresh := n.NewDead + n.NewDiscarded; fresh > 0 {
		text += fmt.Sprintf(" +%d", fresh)
	}
	return text
}

// check is true of every notice.
func check(t *testing.T, n Notice) {
	t.Helper()
	if n.Text == "" || strings.ContainsAny(n.Text, "\"\\\n%") || (n.Hint == "") != n.Over || n.At.IsZero() || n.Since.IsZero() {
		t.Errorf("odd notice: %+v", n)
	}
}

func TestWatchShortAfter(t *testing.T) {
	w, s := newWatch(2*time.Second), healthy()
	callgooseIs(event.Down, 1)(epoch, &s)
	accepting(false)(epoch, &s)
	var got []string
	for d := range 4 {
		for _, n := range w.observe(epoch.Add(time.Duration(d)*time.Second), s) {
			got = append(got, fmt.Sprint(d, n.Alarm))
		}
	}
	if want := []string{"2" + Unreachable, "2" + StoreFull}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestUnheardIsRepeatedSoon(t *testing.T) {
	w, s := newWatch(time.Minute), healthy()
	callgooseIs(event.Down, 1)(epoch, &s)
	var got []string
	for d := time.Duration(0); d < 2*time.Hour; d += time.Second {
		if d == 2*time.Minute {
			w.unheard(epoch.Add(d), Unreachable)
			w.unheard(epoch.Add(d), Held) // not raised: nothing happens
		}
		for range w.observe(epoch.Add(d), s) {
			got = append(got, d.String())
		}
	}
	if want := []string{"1m0s", "7m0s", "1h7m0s"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSentences(t *testing.T) {
	oldest, at := epoch.Add(-72*time.Minute), epoch
	base := Notice{
		Alarm: Unreachable, LastedSeconds: 3900, Queued: 14, OldestQueuedAt: &oldest, At: at,
		Callgoose: Callgoose{LastError: "cannot connect to \"x\": connection\nrefused\x00"},
	}
	with := func(change func(*Notice)) Notice { n := base; change(&n); return n }
	tests := []struct {
		n    Notice
		want string
	}{
		{base, "Callgoose has taken no alert for 1 h 5 min (cannot connect to ”x”: connection refused‹U+0000›): nobody is paged, 14 alerts wait, the oldest for 1 h 12 min."},
		{
			with(func(n *Notice) { n.Alarm, n.Callgoose.LastError = Held, "callgoose answered 401" }),
			"Callgoose has refused the service for 1 h 5 min (callgoose answered 401): nobody is paged, 14 alerts wait, the oldest for 1 h 12 min.",
		},
		{with(func(n *Notice) { n.Over, n.Queued = true, 1 }), "Callgoose takes alerts again, after 1 h 5 min; 1 alert waits."},
		{
			with(func(n *Notice) { n.Over, n.Queued, n.why, n.Dead = true, 0, nothingWaits, 3 }),
			"No alert waits for Callgoose any more, after 1 h 5 min; whether it answers again is known with the next alert (dead letters: 3).",
		},
		{
			with(func(n *Notice) { n.Over, n.why, n.Callgoose.LastError = true, Held, "" }),
			"Callgoose can be reached again but refuses the service: see the alarm callgoose_held; 14 alerts wait.",
		},
		{
			with(func(n *Notice) { n.Alarm, n.NewDead, n.Dead = DeadLetters, 1, 5 }),
			"1 alert was given up and will not reach Callgoose; 5 dead letters in all.",
		},
		{
			with(func(n *Notice) { n.Alarm, n.NewDiscarded, n.Discarded = Discarded, 2, 5 }),
			"Callgoose matched no filter for 2 alerts that fire, and called nobody; 5 discarded in all.",
		},
		{
			with(func(n *Notice) { n.Alarm, n.why, n.OldestQueuedAt = Paused, "filters", nil }),
			"Delivery has been paused by hand for 1 h 5 min (filters): nobody is paged, 14 alerts wait.",
		},
		{with(func(n *Notice) { n.Alarm, n.Dead = DeadLetters, 5 }), "5 dead letters that nobody has dealt with for 1 h 5 min."},
		{
			with(func(n *Notice) { n.Alarm, n.LastedSeconds, n.why = StoreFull, 60, `disk \ full` }),
			"Alerts from PMM have been refused for 1 min: disk / full.",
		},
	}
	for _, tt := range tests {
		if got := tt.n.sentence(); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
	if got := quotable("`id` $(id) $HOME 'x' \"y\" \\"); strings.ContainsAny(got, "`$'\"\\") {
		t.Errorf("a script would obey %s", got)
	}
	if got := quotable(strings.Repeat("ü", 1000)); len(got) > 810 || !strings.HasSuffix(got, "ü…") {
		t.Error(got)
	}
}

// The names of the fields are a promise to those who read them.
func TestNoticeFields(t *testing.T) {
	b, err := json.Marshal(Notice{})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"alarm":"","over":false,"since":"0001-01-01T00:00:00Z","lasted_seconds":0,"count":0,"queued":0,"oldest_queued_at":null,` +
		`"dead":0,"new_dead":0,"discarded":0,"new_discarded":0,"callgoose":{"state":"","since":null,"last_error":""},"text":"","hint":"","host":"","version":"","at":"0001-01-01T00:00:00Z"}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
}
