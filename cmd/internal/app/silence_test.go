package app

import (
	"bytes"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker"
)

// beat posts what the heartbeat rule of a PMM server sends again and again.
func (r *rig) beat(source string) {
	r.t.Helper()
	body := group(alert{
		Status: "firing", StartsAt: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		Labels: map[string]string{"alertname": "Heartbeat", "instance": source, worker.OurLabel: worker.Heartbeat},
	})
	w := httptest.NewRecorder()
	r.app.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "http://127.0.0.1/v1/webhook/"+source, bytes.NewReader(body)))
	if w.Code != http.StatusAccepted {
		r.t.Fatalf("heartbeat answered %d: %s", w.Code, w.Body)
	}
}

// silent lists the incidents that are open because of a silence, by title.
func (r *rig) silent() (titles []string) {
	for _, i := range r.fake.Open() {
		if strings.Contains(i.Title, "is silent") {
			titles = append(titles, i.Title)
		}
	}
	return titles
}

func (r *rig) silences(source string) []string { return r.statuses()[worker.SilenceKey(source)] }

func (r *rig) wantSilent(when string, want ...string) {
	r.t.Helper()
	if got := r.silent(); !slices.Equal(got, want) {
		r.t.Errorf("%s: open are %q, want %q", when, got, want)
	}
}

const silentDR = "PerconaPMM - PMM dr is silent - no notification for 30m0s"

func TestHoursWithASilentPMM(t *testing.T) {
	if testing.Short() {
		t.Skip("hours of ticks")
	}
	t.Parallel()
	bubble(t, func(c *config.Config) { c.ExpectEvery.Every = 30 * time.Minute }, func(r *rig) {
		hours := func(n int, sources ...string) {
			for range n * 6 {
				for _, s := range sources {
					r.beat(s)
				}
				time.Sleep(10 * time.Minute)
			}
		}
		hours(2, "pmm", "dr")
		r.wantSilent("after two good hours")

		// dr falls silent. Its time is counted from its last word, to the tick.
		time.Sleep(19 * time.Minute)
		r.beat("pmm")
		r.wantSilent("29 minutes after the last word")
		time.Sleep(time.Minute + 10*time.Second)
		r.wantSilent("30 minutes after the last word", silentDR)
		if s := r.status(); len(s.Sources) != 2 || s.Sources[0].Name != "dr" || s.Sources[0].SilentSince == nil || s.Sources[1].SilentSince != nil {
			t.Errorf("the status says %+v", s.Sources)
		}

		// It is told once, stays open across a restart, and the hours in which
		// we did not run are nobody's silence.
		hours(3, "pmm")
		r.halt()
		time.Sleep(3 * time.Hour)
		r.start()
		hours(1, "pmm")
		r.wantSilent("after the restart", silentDR)
		if got := r.silences("dr"); !slices.Equal(got, []string{"firing"}) {
			t.Errorf("dr's silence was sent as %q", got)
		}

		// The next notification ends it; a test of ours does not.
		body, err := worker.OwnAlert{
			Status: event.Firing, StartsAt: time.Now(), Labels: map[string]string{"alertname": "t", worker.OurLabel: "test"},
		}.Body()
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		r.app.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "http://127.0.0.1/v1/webhook/dr", bytes.NewReader(body)))
		time.Sleep(time.Minute)
		r.wantSilent("after a test of ours", silentDR)
		r.beat("dr")
		time.Sleep(10 * time.Second)
		r.wantSilent("after dr's notification")

		// A second silence is a new episode, also while Callgoose is away.
		r.net.Refuse(true)
		hours(2, "pmm")
		r.net.Refuse(false)
		r.settle()
		r.wantSilent("after the outage", "PerconaPMM - PMM dr is silent - no notification for 30m0s")
		hours(1, "pmm", "dr")
		r.settle()
		r.wantSilent("in the end")
		if got := r.silences("dr"); !slices.Equal(got, []string{"firing", "resolved", "firing", "resolved"}) {
			t.Errorf("dr's silences were sent as %q", got)
		}
		if got := r.statuses(); len(got) != 2 {
			t.Errorf("besides dr's silence and the test there were sent %q", got)
		}
	})
}

// Whatever happens between a decision and its split, and whatever becomes of
// the ledger, there is one incident and it ends.
func TestASilenceIsToldOnce(t *testing.T) {
	t.Parallel()
	bubble(t, func(c *config.Config) { c.ExpectEvery.Every = 30 * time.Minute }, func(r *rig) {
		time.Sleep(29 * time.Minute)
		r.wantSilent("before one period has passed")
		time.Sleep(2 * time.Minute)
		r.wantSilent("pmm, never heard of", "PerconaPMM - PMM pmm is silent - no notification for 30m0s")
		for range 3 {
			r.restart()
			time.Sleep(time.Hour)
		}
		r.beat("pmm")
		r.restart() // perhaps before the watch has seen it
		time.Sleep(10 * time.Second)
		r.wantSilent("after a word and a restart")
		if got := r.silences("pmm"); !slices.Equal(got, []string{"firing", "resolved"}) {
			t.Errorf("the silence was sent as %q", got)
		}
	})
}

// A webhook that cannot be stored: that PMM lives, we only cannot take its word.
func TestRefusedWebhooksAreNoSilence(t *testing.T) {
	t.Parallel()
	bubble(t, func(c *config.Config) { c.ExpectEvery.Every = 30 * time.Minute }, func(r *rig) {
		r.cfg.MinFree = 1 << 60
		r.restart()
		var refused time.Time
		for range 12 {
			time.Sleep(10 * time.Minute)
			if code := r.post(group(mysqlDown(1, "firing", time.Now()))).Code; code != http.StatusServiceUnavailable {
				t.Fatalf("the full disk answered %d", code)
			}
			refused = time.Now()
		}
		if at := r.app.refused.latest(); !at.Equal(refused) {
			t.Fatalf("the last refusal was noted at %s, not %s", at, refused)
		}
		// There is room again. A refusal some time after the start counts as well.
		r.cfg.MinFree = 0
		r.restart()
		time.Sleep(20 * time.Minute)
		r.app.refused.note("dr")
		time.Sleep(29 * time.Minute)
		r.wantSilent("one period after the last refusal")
		time.Sleep(2 * time.Minute)
		r.wantSilent("later", "PerconaPMM - PMM pmm is silent - no notification for 30m0s")
	})
}

// Who is no longer waited for is no longer silent.
func TestUnwatchedSilenceEnds(t *testing.T) {
	t.Parallel()
	bubble(t, func(c *config.Config) {
		c.ExpectEvery.Sources = map[string]time.Duration{"a": time.Hour, "b": 10 * time.Minute}
	}, func(r *rig) {
		time.Sleep(2 * time.Hour)
		if got := r.silent(); len(got) != 2 {
			t.Errorf("open are %q", got)
		}
		r.cfg.ExpectEvery = config.Expect{}
		r.restart()
		time.Sleep(10 * time.Second)
		r.wantSilent("with --expect-every off")
	})
}

func TestWhoIsSilent(t *testing.T) {
	at := func(minute int) time.Time { return time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC) }
	type times = map[string]time.Time
	every := config.Expect{Every: 30 * time.Minute}
	list := config.Expect{Sources: map[string]time.Duration{"a": 30 * time.Minute}}
	for _, tt := range []struct {
		name        string
		rules       config.Expect
		heard, open times
		want        map[string]bool // source -> begins (else ends)
	}{
		{"nobody was heard of, so it is pmm", every, nil, nil, map[string]bool{"pmm": true}},
		{"one of two", every, times{"a": at(40), "b": at(20)}, nil, map[string]bool{"b": true}},
		{"to the minute", every, times{"a": at(30)}, nil, map[string]bool{"a": true}},
		{"told already", every, times{"a": at(20)}, times{"a": at(50)}, nil},
		{"heard again", every, times{"a": at(58)}, times{"a": at(50)}, map[string]bool{"a": false}},
		{"an old notification that was imported", every, times{"a": at(45)}, times{"a": at(50)}, nil},
		{"not in the list", list, times{"a": at(59), "b": at(1)}, nil, nil},
		{"in the list and never heard of", list, nil, nil, map[string]bool{"a": true}},
		{"no longer in the list", list, times{"a": at(59), "b": at(1)}, times{"b": at(31)}, map[string]bool{"b": false}},
		{"switched off", config.Expect{}, times{"a": at(1)}, times{"a": at(31)}, map[string]bool{"a": false}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := silenceWatch{rules: tt.rules, since: at(0)}
			got := map[string]bool{}
			for _, s := range w.decide(at(60), tt.heard, tt.open) {
				got[s.Source] = s.Until.IsZero()
			}
			if !maps.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	w := silenceWatch{rules: every, since: at(31)}
	if got := w.decide(at(60), times{"a": at(1)}, nil); got != nil {
		t.Errorf("29 minutes after our start: %v", got)
	}
}

// What a PMM says after the clock was set back ends its silence, until that is stored.
func TestASilenceEndsThoughTheClockWasSetBack(t *testing.T) {
	type times = map[string]time.Time
	now := time.Now()
	at := func(minute time.Duration) time.Time { return now.Add(minute * time.Minute) }
	w, open := silenceWatch{rules: config.Expect{Every: 30 * time.Minute}, since: now}, times{"a": at(-10)}
	for i, heard := range []time.Duration{-40, -40, -70, -70} {
		if got := w.decide(now, times{"a": at(heard)}, open); len(got) != i/2 {
			t.Errorf("heard %s: %v", heard*time.Minute, got)
		}
	}
	w.decide(now, times{"a": at(-70)}, nil)
	if got := w.decide(now, times{"a": at(-70)}, open); len(got) != 0 {
		t.Errorf("silent again: %v", got)
	}
}

func TestAPauseRightAfterTheStartIsNoSilence(t *testing.T) {
	start := time.Now()
	w := silenceWatch{since: start}
	if !w.away(start.Add(time.Hour)) {
		t.Error("the first look came an hour late, and counts as an hour of listening")
	}
	w = silenceWatch{since: start}
	if w.away(start.Add(silenceEvery)) {
		t.Error("the first look came in time")
	}
}
