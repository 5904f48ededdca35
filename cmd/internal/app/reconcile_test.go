package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/ingest/pmm/pmmtest"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker"
)

const viewer = "glsa_v1ewer-of-the-test"

// grafana is a fake PMM beside a forwarder: what fires there comes here as webhooks,
// and the forwarder asks it.
type grafana struct {
	*rig
	fake  *pmmtest.Fake
	world *pmmtest.World
	mu    sync.Mutex // a step and a request exclude each other
	told  []pmmtest.Notice
	deaf  bool // webhooks get lost though they were answered
	bare  bool // they have no fingerprint
	// spoil changes an answer.
	spoil   func(path string, body []byte) []byte
	revoked bool // the token
}

// change changes the world between two requests.
func (g *grafana) change(fn func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	fn()
}

func (g *grafana) RoundTrip(r *http.Request) (*http.Response, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.revoked {
		r.Header.Set("Authorization", "Bearer glsa_revoked")
	}
	resp, err := g.fake.RoundTrip(r)
	if err == nil && g.spoil != nil {
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return nil, err
		}
		resp.Body = io.NopCloser(bytes.NewReader(g.spoil(r.URL.Path, body)))
	}
	return resp, err
}

// beside runs fn with a forwarder in that mode beside a PMM of that many rules, half of
// them in another folder, each of one series that fires. All of them have incidents.
func beside(t *testing.T, mode string, rules int, fn func(g *grafana)) {
	t.Helper()
	bubble(t, nil, func(r *rig) {
		c := r.cfg
		c.PMMURL, c.PMMToken, c.ContactPoint = config.PMMs{{Source: "pmm", URL: "http://pmm.test"}}, config.NewSecret(viewer), "Callgoose SQIBS"
		c.Reconcile, c.ReconcileEvery, c.ReconcileCloseAfter, c.ReconcileLimit = mode, time.Minute, 15*time.Minute, 0.2
		g := &grafana{rig: r, fake: pmmtest.New(pmmtest.Config{Viewer: viewer})}
		g.fake.AddPoint(`{"uid":"callgoose-sqibs","name":"Callgoose SQIBS","type":"webhook","settings":{"url":"http://x/v1/webhook"}}`)
		g.fake.SetTree(`{"receiver":"grafana-default-email","routes":[{"receiver":"Callgoose SQIBS","continue":true,"group_wait":"10s","group_interval":"1m"}]}`)
		g.world = g.fake.World
		g.world.Now = time.Now().UTC().Truncate(time.Minute)
		g.world.Repeat = 4 * time.Hour
		g.world.Tell = func(n pmmtest.Notice) bool { g.told = append(g.told, n); return true }
		for i := range rules {
			g.world.AddRule(pmmtest.Rule{
				UID: fmt.Sprintf("rule%02d", i), Title: fmt.Sprintf("Rule %02d", i), Folder: fmt.Sprintf("folder%d", i%2),
				Interval: time.Minute, Series: map[string]bool{"db": true},
			})
		}
		r.pmm = g
		r.restart()
		g.run(5 * time.Minute)
		if open := g.open(); open != rules {
			t.Fatalf("%d alerts fire, %d incidents are open", rules, open)
		}
		fn(g)
	})
}

// run lets time pass.
func (g *grafana) run(d time.Duration) {
	g.t.Helper()
	for end := g.world.Now.Add(d); g.world.Now.Before(end); {
		time.Sleep(time.Until(g.world.Now.Add(pmmtest.Tick)))
		var told []pmmtest.Notice
		g.change(func() {
			g.world.Step()
			told, g.told = g.told, nil
		})
		for _, n := range told {
			if g.bare {
				n.Fingerprint = ""
			}
			if !g.deaf {
				g.accept(notice(n))
			}
		}
	}
	time.Sleep(2 * time.Second) // what came in is delivered
}

// notice is the webhook that tells of one alert.
func notice(n pmmtest.Notice) []byte {
	labels := map[string]string{}
	for name, value := range n.Labels {
		if !strings.HasPrefix(name, "__") {
			labels[name] = value
		}
	}
	b, err := json.Marshal(map[string]any{
		"receiver": "Callgoose SQIBS", "status": n.Status, "version": "1", "groupKey": `{}:{alertname="x"}`, "truncatedAlerts": 0,
		"alerts": []any{map[string]any{
			"status": n.Status, "labels": labels, "annotations": map[string]string{"summary": "it fires"}, "fingerprint": n.Fingerprint,
			"startsAt": n.StartsAt, "endsAt": n.EndsAt, "generatorURL": "https://pmm.test/graph/alerting/grafana/" + n.RuleUID + "/view",
		}},
	})
	if err != nil {
		panic(err)
	}
	return b
}

// open counts the incidents that are open at Callgoose.
func (g *grafana) open() int { return len(g.rig.fake.Open()) }

func (g *grafana) rule(i int) *pmmtest.Rule { return g.world.Rules()[i] }

// recover lets the series of a rule return to normal, under a silence: PMM says nothing.
func (g *grafana) recover(rules ...int) {
	g.change(func() {
		g.world.Silence("db", g.world.Now.Add(24*time.Hour))
		for _, i := range rules {
			g.rule(i).Series["db"] = false
		}
	})
}

func (g *grafana) key(i int) string { return event.Key("pmm", g.rule(i).Fingerprint("db")) }

func (g *grafana) reconcile(req admin.ReconcileRequest) admin.ReconcilePass {
	g.t.Helper()
	list, err := g.app.Reconcile(g.t.Context(), req)
	if err != nil || len(list) != 1 {
		g.t.Fatalf("%+v, %v", list, err)
	}
	return list[0]
}

// said are the values of the flat key reconciled in what Callgoose took, by how often.
func (g *grafana) said() map[string]int {
	out := map[string]int{}
	for _, q := range g.rig.fake.Received() {
		var body struct{ Reconciled string }
		if q.Accepted() && json.Unmarshal(q.Body, &body) == nil && body.Reconciled != "" {
			out[body.Reconciled]++
		}
	}
	return out
}

func (g *grafana) want(when string, open int, said map[string]int) {
	g.t.Helper()
	if got := g.open(); got != open {
		g.t.Errorf("%s: %d incidents are open, want %d", when, got, open)
	}
	if got := g.said(); fmt.Sprint(got) != fmt.Sprint(said) {
		g.t.Errorf("%s: events say reconciled %v, want %v", when, got, said)
	}
}

func TestARecoveryUnderASilenceClosesItsIncident(t *testing.T) {
	t.Parallel()
	beside(t, "both", 3, func(g *grafana) {
		g.recover(0)
		g.run(15 * time.Minute)
		g.want("before 15 minutes have passed", 3, nil)
		g.run(5 * time.Minute)
		g.want("after it", 2, map[string]int{"closed": 1})
		g.run(30 * time.Minute)
		g.want("later", 2, map[string]int{"closed": 1})
		if p := g.status().Sources[0]; *p.Drift != 0 || p.Reconcile.Skipped != "" || p.Reconcile.LastPassAt == nil {
			t.Errorf("the status says %+v, %+v", p, p.Reconcile)
		}
		// PMM told of no recovery, so it tells of no new firing either; of the next recovery it does.
		g.change(func() { g.rule(0).Series["db"] = true; g.world.Silence("db", g.world.Now) })
		g.run(10 * time.Minute)
		g.want("it fires again", 3, map[string]int{"closed": 1, "opened": 1})
		g.change(func() { g.rule(0).Series["db"] = false })
		g.run(5 * time.Minute)
		g.want("it recovers", 2, map[string]int{"closed": 1, "opened": 1})
	})
}

func TestReportChangesNothing(t *testing.T) {
	t.Parallel()
	beside(t, "report", 3, func(g *grafana) {
		g.recover(0)
		g.run(30 * time.Minute)
		g.want("reported", 3, nil)
		p := g.status().Sources[0]
		if *p.Drift != 1 || p.Reconcile.Differences[0].Kind != "stale" || p.Reconcile.Differences[0].Key != g.key(0) {
			t.Errorf("the status says %+v", p)
		}
		plan := g.reconcile(admin.ReconcileRequest{DryRun: true, Yes: true})
		g.run(time.Minute)
		if g.want("a dry run", 3, nil); len(plan.Close) != 1 || plan.Close[0].Key != g.key(0) {
			t.Errorf("it would do %+v", plan)
		}
	})
}

// fromNothing starts anew, with an empty directory and nothing open at Callgoose, and
// waits until what fires was opened.
func (g *grafana) fromNothing(firing int) {
	g.rig.fake.Reset()
	g.halt()
	if err := os.RemoveAll(g.cfg.DataDir); err != nil {
		g.t.Fatal(err)
	}
	g.start()
	g.run(15 * time.Minute)
	g.want("from an empty directory", firing, map[string]int{"opened": firing})
}

func TestALostDirectoryIsFilledFromWhatFires(t *testing.T) {
	t.Parallel()
	beside(t, "open", 20, func(g *grafana) {
		g.fromNothing(20)
		g.run(4 * time.Hour) // PMM repeats each of them
		g.want("after the repeats", 20, map[string]int{"opened": 20})
		if got := g.status().SuppressedReason[event.ReasonRepeat]; got != 20 {
			t.Errorf("%d repeats came in", got)
		}
		g.change(func() { g.rule(7).Series["db"] = false })
		g.run(5 * time.Minute)
		g.want("one recovers", 19, map[string]int{"opened": 20})
	})
}

// The heartbeat fires in PMM for ever, comes in as a webhook, and is no event.
func TestAHeartbeatIsNotMissing(t *testing.T) {
	t.Parallel()
	beside(t, "both", 1, func(g *grafana) {
		g.deaf = true
		g.change(func() {
			g.spoil = func(_ string, body []byte) []byte {
				return bytes.ReplaceAll(body, []byte(`"alertname":"Rule 01"`), []byte(`"alertname":"Rule 01","pmm_callgoose":"heartbeat"`))
			}
			g.world.AddRule(pmmtest.Rule{UID: "rule01", Title: "Rule 01", Folder: "folder0", Interval: time.Minute, Series: map[string]bool{"db": true}})
		})
		g.run(30 * time.Minute)
		if g.want("beside a heartbeat", 1, nil); *g.status().Sources[0].Drift != 0 {
			t.Errorf("the status says %+v", g.status().Sources[0])
		}
		g.change(func() { g.spoil = nil }) // without the label it is an alert that is missing
		g.run(10 * time.Minute)
		g.want("beside a lost webhook", 2, map[string]int{"opened": 1})
	})
}

// Whoever made PMM's payload left the fingerprint out.
func TestAnAlertWithoutAFingerprintIsOpenedOnce(t *testing.T) {
	t.Parallel()
	beside(t, "both", 1, func(g *grafana) {
		g.bare = true
		g.change(func() {
			g.world.AddRule(pmmtest.Rule{UID: "rule01", Title: "Rule 01", Folder: "folder0", Interval: time.Minute, Series: map[string]bool{"db": true, "db2": true}})
		})
		g.run(30 * time.Minute)
		if g.want("beside PMM's own list", 3, nil); *g.status().Sources[0].Drift != 0 {
			t.Errorf("the status says %+v", g.status().Sources[0].Reconcile.Differences)
		}
		g.change(func() { g.rule(1).Series["db"] = false })
		g.run(5 * time.Minute)
		g.want("one recovers", 2, nil)
	})
}

// The webhook of an alert that was opened from the list is known by its labels, too.
func TestAWebhookWithoutAFingerprintRepeatsWhatTheListOpened(t *testing.T) {
	t.Parallel()
	beside(t, "both", 2, func(g *grafana) {
		g.fromNothing(2)
		g.bare = true
		g.run(4 * time.Hour) // PMM repeats each of them
		g.want("after the repeats", 2, map[string]int{"opened": 2})
		g.deaf = true
		g.change(func() { g.rule(0).Series["db"] = false })
		g.run(5 * time.Minute)
		g.deaf = false
		g.change(func() { g.rule(0).Series["db"] = true })
		g.run(5 * time.Minute)
		g.want("one fires anew, its recovery was lost", 2, map[string]int{"opened": 2})
		g.change(func() { g.rule(0).Series["db"] = false })
		g.run(5 * time.Minute)
		g.want("one recovers", 1, map[string]int{"opened": 2})
	})
}

// A close by hand is for an alert that is over. While it fires PMM has the last word:
// its next webhook would open the incident again, and so does comparing.
func TestWhatAPersonClosedAndStillFiresIsOpenedAgain(t *testing.T) {
	t.Parallel()
	beside(t, "open", 2, func(g *grafana) {
		if err := g.app.CloseIncident(g.t.Context(), g.key(0), "a test"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		g.want("closed by hand", 1, nil)
		g.run(15 * time.Minute)
		g.want("and it still fires", 2, map[string]int{"opened": 1})
	})
}

// Under a steady load something always waits to be split. What came in after the pass
// began is judged where it is split.
func TestWhatComesInDuringAPassSkipsNone(t *testing.T) {
	t.Parallel()
	beside(t, "report", 1, func(g *grafana) {
		many := make([]alert, 5000)
		for i := range many {
			many[i] = mysqlDown(i, "firing", time.Now())
		}
		g.change(func() {
			g.spoil = func(_ string, body []byte) []byte {
				g.accept(group(many...))
				return body
			}
		})
		if p := g.reconcile(admin.ReconcileRequest{DryRun: true}); p.Skipped != "" {
			t.Errorf("the pass was not made: %s", p.Skipped)
		}
		g.change(func() { g.spoil = nil })
	})
}

// The other PMM's webhook was refused; this one has nothing to send again.
func TestARefusedWebhookOfOnePMMSkipsNoOther(t *testing.T) {
	t.Parallel()
	beside(t, "report", 1, func(g *grafana) {
		g.app.refused.note("dr")
		if p := g.reconcile(admin.ReconcileRequest{DryRun: true}); p.Skipped != "" {
			t.Errorf("of another PMM: %q", p.Skipped)
		}
		g.app.refused.note("pmm")
		if p := g.reconcile(admin.ReconcileRequest{DryRun: true}); p.Skipped == "" {
			t.Error("of this PMM: the pass was made")
		}
	})
}

func TestWhatCannotBeSeenIsNotClosed(t *testing.T) {
	t.Parallel()
	for name, trouble := range map[string]func(g *grafana){
		"the token loses a folder": func(g *grafana) { g.recover(0); g.change(func() { g.world.Hide("folder0", true) }) },
		"a proxy answers with pages": func(g *grafana) {
			g.recover(0)
			g.change(func() { g.spoil = func(string, []byte) []byte { return []byte("<html>Sign in</html>") } })
		},
		"the list is halved": func(g *grafana) {
			g.change(func() {
				g.spoil = func(path string, body []byte) []byte {
					var list []json.RawMessage
					if !strings.HasSuffix(path, "/api/v2/alerts") || json.Unmarshal(body, &list) != nil {
						return body
					}
					half, _ := json.Marshal(list[:len(list)/2])
					return half
				}
			})
		},
		"the token is revoked":      func(g *grafana) { g.recover(0); g.change(func() { g.revoked = true }) },
		"Grafana restarts for long": func(g *grafana) { g.change(func() { g.world.Restart(0, 25*time.Minute) }) },
		"the data source is down":   func(g *grafana) { g.recover(0); g.change(func() { g.rule(0).Failing = true }) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			beside(t, "both", 8, func(g *grafana) {
				trouble(g)
				g.run(40 * time.Minute)
				g.want(name, 8, nil)
			})
		})
	}
}

func TestTooMuchAtOnceWaitsForAPerson(t *testing.T) {
	t.Parallel()
	beside(t, "close", 10, func(g *grafana) {
		g.recover(0, 1, 2, 3, 4, 5)
		// A few at a time: half of a list that is gone at once begins a new epoch.
		g.run(40 * time.Minute)
		g.want("six of ten are gone", 10, nil)
		s := g.status().Sources[0]
		if !slices.ContainsFunc(s.Reconcile.Alarms, func(a worker.ReconcileAlarm) bool { return a.Code == "reconcile_mass" }) {
			t.Errorf("no alarm: %+v", s.Reconcile)
		}
		if pass := g.reconcile(admin.ReconcileRequest{Yes: true}); len(pass.Close) != 6 {
			t.Errorf("reconcile --yes closed %+v", pass)
		}
		g.run(time.Minute)
		g.want("a person said yes", 4, map[string]int{"closed": 6})
	})
}

func TestAPersonClosesOneIncident(t *testing.T) {
	t.Parallel()
	beside(t, "report", 3, func(g *grafana) {
		gone, fires := g.key(0), g.key(1)
		g.recover(0)
		g.change(func() { g.world.DeleteRule("rule00") })
		g.run(5 * time.Minute)
		if p := g.status().Sources[0]; *p.Drift != 1 || p.Reconcile.Differences[0].Kind != "rule_gone" {
			t.Errorf("the status says %+v", p)
		}
		if _, err := g.app.Reconcile(t.Context(), admin.ReconcileRequest{Keys: []string{"pmm-nobody"}}); !errors.Is(err, admin.ErrNotFound) {
			t.Errorf("an unknown key: %v", err)
		}
		pass := g.reconcile(admin.ReconcileRequest{Keys: []string{gone, fires}})
		if len(pass.Close) != 1 || pass.Close[0].Key != gone || pass.Refused[fires] == "" || len(pass.Refused) != 1 {
			t.Errorf("it did %+v", pass)
		}
		g.run(time.Minute)
		g.want("closed by a person", 2, map[string]int{"closed": 1})
	})
}

// What PMM itself says of the last webhook that it sent here.
func TestPMMsErrorAboutUsIsShown(t *testing.T) {
	t.Parallel()
	beside(t, "report", 1, func(g *grafana) {
		g.change(func() { g.world.Tell = func(pmmtest.Notice) bool { return false } })
		g.change(func() { g.rule(0).Series["db"] = false })
		g.run(5 * time.Minute)
		r := g.status().Sources[0].Reconcile
		if !slices.ContainsFunc(g.status().Attention, func(a admin.Attention) bool { return a.Code == "pmm_contact_point_failing" }) {
			t.Errorf("nobody is told to look: %+v", g.status().Attention)
		}
		if r.ContactLastError == "" || len(r.Alarms) != 1 || r.Alarms[0].Code != "pmm_contact_point_failing" {
			t.Errorf("the status says %+v", r)
		}
	})
}
