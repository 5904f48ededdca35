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
	return func(_ time.Time, s *admin.Status) {
		s.Discarded, s.DiscardedDay, s.DiscardedFiring = kept, kept, firing
	}
}

func accepting(yes bool) func(time.Time, *admin.Status) {
	return func(_ time.Time, s *admin.Status) { s.Store.Accepting, s.Store.Problem = yes, "disk is full" }
}

// concluded is a status as the service gives it.
func concluded(s admin.Status) admin.Status {
	s.Attention = slices.Clone(s.Attention)
	s.Conclude()
	return s
}

// reopening is what the status is while the store is being opened again.
func reopening(_ time.Time, s *admin.Status) {
	*s = admin.Status{Callgoose: admin.Callgoose{State: event.Unknown}, Store: admin.Store{Problem: "reopening"}}
}

func TestWatch(t *testing.T) {
	const down, held, up, unknown = event.Down, event.Held, event.Up, event.Unknown
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
			[]string{"6m0s away 1 300", "1h6m0s away 2 3900", "2h6m0s away 3 7500", "2h11m0s away over 7740"},
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
			[]string{"25m0s away 1 300"},
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
			[]string{"6m0s away 1 300", "21m0s away over 1140", "35m0s away 1 300"},
		},
		{
			"down and held are one outage", nil,
			[]step{{"0s", callgooseIs(down, 2)}, {"4m", callgooseIs(held, 2)}, {"7m", callgooseIs(down, 2)}, {"12m", callgooseIs(up, 2)}},
			"1h",
			[]string{"5m0s away 1 300", "13m0s away over 720"},
		},
		{
			"unknown is no news, neither good nor bad", nil,
			[]step{{"1m", callgooseIs(down, 2)}, {"7m", callgooseIs(unknown, 2)}, {"17m", callgooseIs(down, 2)}, {"18m", callgooseIs(up, 0)}},
			"1h",
			[]string{"6m0s away 1 300", "19m0s away over 1020"},
		},
		{"unknown from the start raises nothing", nil, []step{{"0s", callgooseIs(unknown, 9)}}, "1h", nil},
		{
			"dead letters: at once, then at most one notice a minute; dealt with when none is left",
			func(s *admin.Status) { s.Dead = 10 },
			[]step{
				{"5m", deadAre(11)},
				{"5m10s", deadAre(13)},
				{"5m20s", deadAre(15)},
				{"6m30s", deadAre(12)},
				{"7m10s", deadAre(14)},
				{"30m", deadAre(0)},
				{"31m30s", deadAre(1)},
			},
			"40m",
			[]string{"5m0s dead_letters 1 300", "6m0s dead_letters 2 360", "7m10s dead_letters 3 430", "31m0s dead_letters over 1800", "31m30s dead_letters 1 0"},
		},
		{
			"discarded firing events: at once, then at most one notice a minute; dealt with when none is left",
			func(s *admin.Status) { discardedAre(2, 7)(epoch, s) },
			[]step{
				{"10s", discardedAre(3, 8)},
				{"20s", discardedAre(5, 9)},
				{"3m", discardedAre(0, 9)},
				{"4m", discardedAre(0, 10)}, // counted before the status tells of it
				{"4m20s", discardedAre(1, 10)},
			},
			"10m",
			[]string{"10s discarded 1 10", "1m10s discarded 2 70", "4m0s discarded over 180", "4m20s discarded 1 0"},
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
			[]string{"7m0s paused 1 300", "31m0s paused over 1680"},
		},
		{
			"dead letters nobody deals with are repeated", nil,
			[]step{{"1m", deadAre(2)}},
			"2h5m",
			[]string{"1m0s dead_letters 1 0", "1h1m0s dead_letters 2 3600", "2h1m0s dead_letters 3 7200"},
		},
		{
			"a store that is opened again is no news of dead letters nor of Callgoose",
			func(s *admin.Status) { s.Dead = 7 },
			[]step{
				{"1m", callgooseIs(down, 2)},
				{"7m", reopening},
				{"7m50s", func(now time.Time, s *admin.Status) {
					*s = healthy()
					s.Dead = 7
					callgooseIs(down, 2)(now, s)
				}},
			},
			"20m",
			[]string{"6m0s away 1 300"},
		},
		{
			"a full store is raised after a minute and over after another", nil,
			[]step{{"1m", accepting(false)}, {"5m", accepting(true)}, {"5m50s", accepting(false)}, {"10m", accepting(true)}},
			"1h",
			[]string{"2m0s not_accepting 1 60", "11m0s not_accepting over 540"},
		},
		{"a store that refuses for a moment is nobody's business", nil, []step{{"1m", accepting(false)}, {"1m59s", accepting(true)}}, "1h", nil},
		{
			"a store that cannot be opened takes nothing", nil,
			[]step{{"1m", reopening}},
			"3m",
			[]string{"2m0s not_accepting 1 60"},
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
				for _, n := range w.observe(now, concluded(s)) {
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
	what := fmt.Sprint(n.Count)
	if n.Over {
		what = "over"
	}
	return fmt.Sprintf("%s %s %s %d", at, strings.TrimPrefix(n.Alarm, "callgoose_"), what, n.LastedSeconds)
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
		for _, n := range w.observe(epoch.Add(time.Duration(d)*time.Second), concluded(s)) {
			got = append(got, fmt.Sprint(d, n.Alarm))
		}
	}
	if want := []string{"2" + Away, "2" + admin.NotAccepting}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestUnheardIsRepeatedSoon(t *testing.T) {
	w, s := newWatch(time.Minute), healthy()
	callgooseIs(event.Down, 1)(epoch, &s)
	var got []string
	for d := time.Duration(0); d < 2*time.Hour; d += time.Second {
		if d == 2*time.Minute {
			w.unheard(epoch.Add(d), Away)
			w.unheard(epoch.Add(d), admin.IsPaused) // not raised: nothing happens
		}
		for range w.observe(epoch.Add(d), concluded(s)) {
			got = append(got, d.String())
		}
	}
	if want := []string{"1m0s", "7m0s", "1h7m0s"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSentences(t *testing.T) {
	w, s := newWatch(5*time.Minute), healthy()
	callgooseIs(event.Down, 14)(epoch, &s)
	s.Callgoose.LastError = "cannot connect to \"x\": connection\nrefused\x00"
	w.observe(epoch, concluded(s))
	told := w.observe(epoch.Add(65*time.Minute), concluded(s))
	s = healthy()
	w.observe(epoch.Add(66*time.Minute), concluded(s))
	told = append(told, w.observe(epoch.Add(67*time.Minute), concluded(s))...)
	deadAre(1)(epoch, &s)
	told = append(told, w.observe(epoch, concluded(s))...)
	want := []string{
		"Callgoose cannot be reached (cannot connect to ”x”: connection refused‹U+0000›): 14 events wait (for 1 h 5 min).",
		"Over, after 1 h 6 min: Callgoose cannot be reached (cannot connect to ”x”: connection refused‹U+0000›): 14 events wait. Now: Nothing was sent to Callgoose yet; nothing waits.",
		"1 event was given up: Callgoose does not have it.",
	}
	for i, n := range told {
		if n.Text != want[i] {
			t.Errorf("got  %s\nwant %s", n.Text, want[i])
		}
	}
	if len(told) != len(want) {
		t.Errorf("%d notices", len(told))
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
		`"dead":0,"discarded":0,"callgoose":{"state":"","since":null,"last_error":"","next_probe_at":null},"text":"","hint":"","host":"","version":"","at":"0001-01-01T00:00:00Z"}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
}
