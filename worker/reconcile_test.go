package worker_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/ingest/pmm"
	"pmm-callgoose/ingest/pmm/pmmtest"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker"
)

// firing is a PMM with one rule of a minute and n series, all of which fire and are open.
func firing(t *testing.T, n int, template ...bool) (*source, *pmmtest.Rule) {
	s := newSource(t, worker.ReconcileBoth)
	rule := s.world.AddRule(pmmtest.Rule{UID: "r1", Title: "MySQL down", Folder: "f1", Interval: time.Minute, Series: series(n, true), Template: slices.Contains(template, true)})
	s.world.AddRule(pmmtest.Rule{UID: "r2", Title: "Quiet", Folder: "f2", Interval: time.Minute, Series: map[string]bool{"db": false}})
	s.run(20 * time.Minute)
	if len(s.open) != n {
		t.Fatalf("%d are open, want %d", len(s.open), n)
	}
	return s, rule
}

func series(n int, firing bool) map[string]bool {
	out := map[string]bool{}
	for i := range n {
		out[fmt.Sprintf("db%d", i)] = firing
	}
	return out
}

// unheard lets series recover under a silence that ends too late to be told.
func unheard(s *source, rule *pmmtest.Rule, services ...string) {
	for _, service := range services {
		s.world.Silence(service, s.world.Now.Add(17*time.Minute))
		rule.Series[service] = false
	}
}

func TestWhatReconcilingDoesWhen(t *testing.T) {
	for _, tt := range []struct {
		name     string
		n        int // alerts that fire and are open
		template bool
		do       func(s *source, rule *pmmtest.Rule)
		wait     time.Duration // 0 = 40 minutes
		open     int
		// drift of db0's episode and alarm are what is reported at the end.
		drift, alarm string
	}{
		{name: "Grafana restarts, and its list is empty for minutes", n: 3, open: 3, do: func(s *source, _ *pmmtest.Rule) {
			s.world.Restart(0, 20*time.Second)
		}},
		{name: "a rule is slow: its episodes wait for three evaluations", n: 2, open: 2, wait: 90 * time.Minute, do: func(s *source, rule *pmmtest.Rule) {
			rule.Interval = time.Hour
			unheard(s, rule, "db0")
			s.world.Restart(0, 20*time.Second)
		}},
		{name: "and are closed after them", n: 2, open: 1, wait: 5 * time.Hour, do: func(s *source, rule *pmmtest.Rule) {
			rule.Interval = time.Hour
			s.world.Silence("db0", s.world.Now.Add(3*time.Hour))
			rule.Series["db0"] = false
		}},
		{name: "another node answers", n: 2, open: 2, do: func(s *source, _ *pmmtest.Rule) {
			s.world.Nodes(2)
		}},
		{name: "evaluation hangs, and the recovery that is none does not arrive", n: 2, open: 2, drift: "firing_unlisted", do: func(s *source, rule *pmmtest.Rule) {
			rule.Hanging = true
			s.lost = "notification"
		}},
		{name: "a data source is down", n: 2, open: 2, do: func(_ *source, rule *pmmtest.Rule) { rule.Failing = true }},
		{name: "it went down after the alert recovered unheard", n: 2, open: 2, drift: "rule_unhealthy", do: func(s *source, rule *pmmtest.Rule) {
			unheard(s, rule, "db0")
			s.run(2 * time.Minute)
			rule.Failing = true
		}},
		{name: "agent and database die together", template: true, n: 2, open: 2, drift: "hollow", do: func(s *source, rule *pmmtest.Rule) {
			s.world.Silence("db0", s.world.Now.Add(time.Hour))
			s.lost = "notification"
			delete(rule.Series, "db0")
		}},
		{name: "an alert recovers under a silence, and the silence ends", n: 2, open: 1, do: func(s *source, rule *pmmtest.Rule) { unheard(s, rule, "db0") }},
		{name: "an alert is silenced and goes on", n: 2, open: 2, do: func(s *source, _ *pmmtest.Rule) {
			s.world.Silence("db0", s.world.Now.Add(time.Hour))
		}},
		{name: "an alert fires while it is muted", n: 0, open: 0, drift: "muted", do: func(s *source, rule *pmmtest.Rule) {
			s.fake.SetTree(fmt.Sprintf(ourTree, `,"mute_time_intervals":["nights"]`))
			s.world.Muting = true
			s.run(5 * time.Minute)
			rule.Series["db0"] = true
		}},
		{name: "an alert fires while it is silenced", n: 0, open: 0, do: func(s *source, rule *pmmtest.Rule) {
			s.world.Silence("db0", s.world.Now.Add(time.Hour))
			rule.Series["db0"] = true
		}},
		{name: "the route to us is removed", n: 2, open: 2, drift: "not_routed", alarm: "pmm_not_routed", do: func(s *source, rule *pmmtest.Rule) {
			s.fake.SetTree(`{"receiver":"grafana-default-email"}`)
			rule.Series["new"] = true
		}},
		{name: "the token loses a folder", n: 2, open: 2, drift: "rule_gone", do: func(s *source, rule *pmmtest.Rule) {
			s.world.Hide("f1", true)
			unheard(s, rule, "db0")
		}},
		{name: "the token is revoked", n: 2, open: 2, do: func(s *source, rule *pmmtest.Rule) {
			s.token("glsa_revoked")
			unheard(s, rule, "db0")
		}},
		{name: "a proxy answers 200 with a page", n: 2, open: 2, do: func(s *source, rule *pmmtest.Rule) {
			s.fake.Page(http.StatusOK)
			unheard(s, rule, "db0")
		}},
		{name: "half of the listing is lost", n: 10, open: 10, drift: "firing_unlisted", do: func(s *source, _ *pmmtest.Rule) {
			s.spoil = func(v *pmm.View) {
				for _, fp := range s.world.Alerts()[:5] {
					delete(v.Alerts, fp)
				}
			}
		}},
		{name: "the rule is deleted, and its recovery is not heard", n: 2, open: 2, drift: "rule_gone", do: func(s *source, _ *pmmtest.Rule) {
			s.lost = "notification"
			s.world.DeleteRule("r1")
		}},
		{name: "all alerts are gone at once", n: 60, open: 60, drift: "stale", alarm: "reconcile_mass", do: func(s *source, rule *pmmtest.Rule) {
			s.lost = "notification"
			rule.Series = series(60, false)
		}},
		{name: "three of three are gone at once", n: 3, open: 0, do: func(s *source, rule *pmmtest.Rule) { unheard(s, rule, "db0", "db1", "db2") }},
		{name: "something of the key is queued", n: 2, open: 2, do: func(s *source, rule *pmmtest.Rule) {
			unheard(s, rule, "db0")
			for _, e := range s.open {
				e.Queued = true
			}
		}},
		{name: "a webhook named it a moment ago", n: 2, open: 2, wait: 20 * time.Minute, do: func(s *source, rule *pmmtest.Rule) {
			unheard(s, rule, "db0")
			for _, e := range s.open {
				e.HeardAt = s.now().Add(14 * time.Minute)
			}
		}},
		{name: "our clock was a day ahead when a webhook named it", n: 2, open: 1, do: func(s *source, rule *pmmtest.Rule) {
			unheard(s, rule, "db0")
			for _, e := range s.open {
				e.HeardAt = s.now().Add(24 * time.Hour)
			}
		}},
		{name: "the service made it itself", n: 2, open: 2, do: func(s *source, rule *pmmtest.Rule) {
			unheard(s, rule, "db0")
			for _, e := range s.open {
				e.Made = true
			}
		}},
		{name: "its rule is not known, as in the guide's bodies", n: 2, open: 2, drift: "rule_unknown", do: func(s *source, rule *pmmtest.Rule) {
			unheard(s, rule, "db0")
			for _, e := range s.open {
				e.RuleUID = ""
			}
		}},
		{name: "our clock is an hour slow", n: 2, open: 1, do: func(s *source, rule *pmmtest.Rule) {
			s.skew = -time.Hour
			for _, e := range s.open {
				e.HeardAt = e.HeardAt.Add(-time.Hour)
			}
			unheard(s, rule, "db0")
		}},
		{name: "our clock is an hour fast, and everything fires on", n: 2, open: 2, do: func(s *source, _ *pmmtest.Rule) { s.skew = time.Hour }},
		{name: "our data directory is lost", n: 30, open: 30, wait: 6 * time.Minute, do: func(s *source, _ *pmmtest.Rule) { clear(s.open) }},
		{name: "it is lost with more alerts than may be opened without a person", n: 60, open: 0, wait: 6 * time.Minute, drift: "missing", alarm: "reconcile_missing", do: func(s *source, _ *pmmtest.Rule) {
			s.world.Repeat = 4 * time.Hour
			clear(s.open)
		}},
		{name: "PMM cannot reach us", n: 0, open: 1, wait: 6 * time.Minute, alarm: "pmm_contact_point_failing", do: func(s *source, rule *pmmtest.Rule) {
			s.world.Tell = nil
			rule.Series["db0"] = true
		}},
		{name: "only reports", n: 2, open: 2, drift: "stale", do: func(s *source, rule *pmmtest.Rule) {
			s.cfg.Mode = worker.ReconcileReport
			unheard(s, rule, "db0")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, rule := firing(t, tt.n, tt.template)
			tt.do(s, rule)
			if tt.wait == 0 {
				tt.wait = 40 * time.Minute
			}
			s.run(tt.wait)
			if len(s.open) != tt.open {
				t.Errorf("%d are open, want %d", len(s.open), tt.open)
			}
			if got := s.drift(rule.Fingerprint("db0")); got != tt.drift {
				t.Errorf("the drift is %q, want %q", got, tt.drift)
			}
			if tt.alarm != "" && !s.alarm(tt.alarm) || tt.alarm == "" && len(s.last.Alarms) > 0 {
				t.Errorf("the alarms are %v, want %q", s.last.Alarms, tt.alarm)
			}
		})
	}
}

// Grafana's fingerprint covers labels that its webhooks do not have, so it is known
// only where the webhook holds it.
func TestAnAlertWithoutAFingerprintIsFoundByItsLabels(t *testing.T) {
	for _, tt := range []struct {
		name   string
		labels map[string]string
		found  bool
	}{
		{"all of its labels", map[string]string{"alertname": "MySQL down", "grafana_folder": "f1", "service_name": "db0"}, true},
		{"some of them, as in the guide's bodies", map[string]string{"alertname": "MySQL down", "service_name": "db0"}, true},
		{"those of another alert", map[string]string{"alertname": "MySQL down", "service_name": "db7"}, false},
		{"no name", map[string]string{"service_name": "db0"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, rule := firing(t, 2)
			listed := rule.Fingerprint("db0")
			e := s.open[listed]
			delete(s.open, listed)
			e.Fingerprint, e.Labels = pmm.Fingerprint(tt.labels), tt.labels
			e.Key = "pmm-" + e.Fingerprint
			s.open[e.Fingerprint] = e
			s.world.Tell = nil
			s.run(10 * time.Minute)
			if opened := s.open[listed] != nil; opened == tt.found {
				t.Errorf("opened a second time: %t", opened)
			}
			if p := s.pass(worker.ReconcileOrder{Keys: []string{e.Key}}); (p.Refused[e.Key] == "PMM lists it as firing") != tt.found {
				t.Errorf("a person is told %q", p.Refused[e.Key])
			}
		})
	}
}

// Its rule may say that it fires: nobody can tell.
func TestAnAlertWithoutAFingerprintIsClosedByAPersonAlone(t *testing.T) {
	s, rule := firing(t, 2)
	e := s.open[rule.Fingerprint("db0")]
	delete(s.open, e.Fingerprint)
	e.Labels = map[string]string{"alertname": "MySQL down", "service_name": "db0"}
	e.Fingerprint = pmm.Fingerprint(e.Labels)
	e.Key = "pmm-" + e.Fingerprint
	s.open[e.Fingerprint] = e
	unheard(s, rule, "db0")
	s.run(40 * time.Minute)
	if s.open[e.Fingerprint] == nil || s.drift(e.Fingerprint) != "rule_unknown" {
		t.Errorf("it is open: %t; the drift is %q", s.open[e.Fingerprint] != nil, s.drift(e.Fingerprint))
	}
	if p := s.pass(worker.ReconcileOrder{Keys: []string{e.Key}}); len(p.Close) != 1 {
		t.Errorf("a person could not close it: %v", p.Refused)
	}
}

func TestAtMostFiveAreClosedAMinute(t *testing.T) {
	s, rule := firing(t, 60)
	for i := range 12 { // a fifth, which the mass guard lets through
		unheard(s, rule, fmt.Sprintf("db%d", i))
	}
	before := len(s.open)
	for range 240 {
		s.run(pmmtest.Tick)
		if len(s.last.Close) > 5 {
			t.Fatalf("%d were closed in one pass", len(s.last.Close))
		}
	}
	if before-len(s.open) != 12 {
		t.Errorf("%d of 12 were closed", before-len(s.open))
	}
}

func TestAPersonClosesWhatNoRuleVouchesFor(t *testing.T) {
	s, rule := firing(t, 2)
	s.world.Hide("f1", true)
	unheard(s, rule, "db0")
	s.run(2 * time.Minute)
	gone, fires := "pmm-"+rule.Fingerprint("db0"), "pmm-"+rule.Fingerprint("db1")
	p := s.pass(worker.ReconcileOrder{Keys: []string{gone, fires, "pmm-0"}})
	if len(p.Close) != 1 || p.Close[0].Key != gone {
		t.Errorf("closed %v, want %s alone", p.Close, gone)
	}
	if len(p.Refused) != 2 || p.Refused[fires] != "PMM lists it as firing" {
		t.Errorf("refused %v", p.Refused)
	}
}

func TestAPersonLetsAMassThrough(t *testing.T) {
	s, rule := firing(t, 40)
	s.world.Tell = nil
	rule.Series = series(40, false)
	s.run(40 * time.Minute)
	if p := s.pass(worker.ReconcileOrder{Yes: true}); len(p.Close) != 40 {
		t.Errorf("%d were closed, want 40", len(p.Close))
	}
}

func TestACloseIsRevokedWhenPMMListsTheAlertAgain(t *testing.T) {
	s, rule := firing(t, 2)
	fp := rule.Fingerprint("db0")
	e := *s.open[fp]
	unheard(s, rule, "db0")
	s.run(40 * time.Minute)
	if s.open[fp] != nil {
		t.Fatal("it was not closed")
	}
	// The same episode goes on: what was closed was none of its ends.
	s.world.Tell = nil
	s.world.Rearm(fp, e.StartsAt)
	rule.Series["db0"] = true
	s.run(2 * time.Minute)
	if s.open[fp] == nil || !strings.Contains(s.opened[len(s.opened)-1].Why, "is revoked") || !s.open[fp].StartsAt.Equal(e.StartsAt) {
		t.Errorf("the close was not revoked: %+v", s.opened)
	}
}

func TestTwoPMMsAreJudgedApart(t *testing.T) {
	one, _ := firing(t, 2)
	two, rule := firing(t, 2)
	one.fake.Page(http.StatusBadGateway)
	unheard(two, rule, "db0")
	for range 240 {
		one.run(pmmtest.Tick)
		two.run(pmmtest.Tick)
	}
	if len(one.open) != 2 || len(two.open) != 1 {
		t.Errorf("%d and %d are open, want 2 and 1", len(one.open), len(two.open))
	}
	if one.last.Next < 5*time.Minute {
		t.Errorf("the one that cannot be reached is asked again after %s", one.last.Next)
	}
}

// What was decided and not written, because we died, is decided again.
func TestADecisionThatWasNotWrittenIsMadeAgain(t *testing.T) {
	s, rule := firing(t, 2)
	fp := rule.Fingerprint("db0")
	unheard(s, rule, "db0")
	before := *s.open[fp]
	for s.open[fp] != nil {
		s.run(pmmtest.Tick)
	}
	s.open[fp] = &before
	s.state = worker.ReconcileState{}
	s.run(20 * time.Minute)
	if s.open[fp] != nil {
		t.Error("it was not closed again")
	}
}

func TestAWaitingSplitterOrARefusedWebhookSkipsThePass(t *testing.T) {
	now := time.Now()
	view := &pmm.View{At: now}
	for name, in := range map[string]worker.ReconcileInput{
		"behind":  {Now: now, View: view, Behind: true},
		"refused": {Now: now, View: view, RefusedAt: now.Add(-time.Minute)},
	} {
		if p := worker.PlanReconcile(worker.ReconcileConfig{}, worker.ReconcileState{}, in); p.Skipped == "" || !p.State.Epoch.IsZero() {
			t.Errorf("%s: the pass was made", name)
		}
	}
}

// The bodies are what PMM should have sent, and a recovery does not inherit a reason
// that makes it hollow.
func TestTheBodyOfACloseIsTheEpisodesRecovery(t *testing.T) {
	s, rule := firing(t, 1)
	unheard(s, rule, "db0")
	s.run(40 * time.Minute)
	if len(s.closed) != 1 {
		t.Fatalf("%d were closed", len(s.closed))
	}
	c := s.closed[0]
	for _, firing := range []string{"", `{"status":"firing","labels":{"alertname":"MySQL down","a":"b"},"annotations":{"grafana_state_reason":"Error","summary":"s"},"startsAt":"2026-01-01T00:00:00Z","fingerprint":"x","future":[1]}`} {
		var member []byte
		if firing != "" {
			member = []byte(firing)
		}
		body, err := c.Body(member)
		if err != nil {
			t.Fatal(err)
		}
		n, err := pmm.Decode(body)
		if err != nil || len(n.Alerts) != 1 {
			t.Fatalf("%s: %v", body, err)
		}
		a := n.Alerts[0]
		if a.Firing || a.Fingerprint != event.Fingerprint(c.Key) || !a.StartsAt.Equal(c.StartsAt) || !a.EndsAt.Equal(c.EndsAt) || a.Labels["alertname"] != "MySQL down" {
			t.Errorf("the body is %s", body)
		}
		if bytes.Contains(body, []byte("grafana_state_reason")) || firing != "" && !bytes.Contains(body, []byte(`"future":[1]`)) {
			t.Errorf("the body is %s", body)
		}
	}
	if !c.EndsAt.After(c.StartsAt) || !strings.Contains(c.Why, "evaluates to normal") {
		t.Errorf("closed at %s: %s", c.EndsAt, c.Why)
	}
}

// cached answers for ever what it answered first, its Date included.
type cached struct {
	*pmmtest.Fake
	answers map[string]http.Response
	bodies  map[string][]byte
}

func (c cached) RoundTrip(r *http.Request) (*http.Response, error) {
	path := r.URL.Path
	if _, ok := c.answers[path]; !ok {
		resp, err := c.Fake.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		c.answers[path] = *resp
		if c.bodies[path], err = io.ReadAll(resp.Body); err != nil {
			return nil, err
		}
	}
	resp := c.answers[path]
	resp.Body = io.NopCloser(bytes.NewReader(c.bodies[path]))
	return &resp, nil
}

func TestAnOldAnswerOpensNothing(t *testing.T) {
	s, rule := firing(t, 2)
	client, err := pmm.NewClient(pmm.ClientConfig{URL: "http://pmm.example.net", Token: pmmtest.Token, Transport: cached{s.fake, map[string]http.Response{}, map[string][]byte{}}})
	if err != nil {
		t.Fatal(err)
	}
	s.viewer = pmm.NewViewer(client, contact)
	s.run(5 * time.Minute)
	rule.Series["db0"] = false // and PMM tells it
	s.run(20 * time.Minute)
	if len(s.open) != 1 {
		t.Errorf("%d are open, want 1", len(s.open))
	}
}

// huge answers a listing of n alerts, piece by piece.
type huge struct {
	*pmmtest.Fake
	n, filler int
}

func (h huge) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.HasSuffix(r.URL.Path, "/v2/alerts") {
		return h.Fake.RoundTrip(r)
	}
	read, write := io.Pipe()
	go func() {
		out, sep, filler := bufio.NewWriter(write), "[", strings.Repeat("y", h.filler)
		for i := range h.n {
			_, err := fmt.Fprintf(out, `%s{"fingerprint":"%016x","startsAt":"2026-11-27T20:10:20.000Z","status":{"state":"active"},"receivers":[{"name":%q}],"labels":{"alertname":"x","filler":"%s"}}`,
				sep, i, contact, filler)
			if err != nil {
				return // the reader went away
			}
			sep = ","
		}
		_, _ = out.WriteString("]")
		_ = out.Flush()
		_ = write.Close()
	}()
	return &http.Response{
		StatusCode: http.StatusOK, Body: read, Request: r,
		Header: http.Header{"Date": {h.World.Now.Format(http.TimeFormat)}, "Content-Type": {"application/json"}},
	}, nil
}

func TestAListingAsLargeAsFiftyThousandIsReadAndOneThatNeverEndsIsNot(t *testing.T) {
	for n, filler := range map[int]int{10_000: 4000, 20_001: 5000} {
		complete := n == 10_000
		s, _ := firing(t, 1)
		client, err := pmm.NewClient(pmm.ClientConfig{URL: "http://pmm.example.net", Token: pmmtest.Token, Transport: huge{s.fake, n, filler}})
		if err != nil {
			t.Fatal(err)
		}
		before := heap()
		view, err := pmm.NewViewer(client, contact).Read(t.Context(), func(string) bool { return true })
		if held := heap() - before; held > 32<<20 {
			t.Errorf("a view of %d alerts takes %d MiB", len(view.Alerts), held>>20)
		}
		if (err == nil) != complete || complete && len(view.Alerts) != n {
			t.Errorf("of %d alerts %d were read: %v", n, len(view.Alerts), err)
		}
		for _, a := range view.Alerts {
			if a.Raw != nil {
				t.Fatal("what is open is kept in memory")
			}
		}
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
