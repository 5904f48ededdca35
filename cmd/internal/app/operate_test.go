package app

import (
	"fmt"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/ingest/pmm/pmmtest"
	"pmm-callgoose/store/event"
)

// client is an operator who asks that instance.
func (r *forwarder) client() *admin.Client {
	r.t.Helper()
	srv := httptest.NewServer(r.app.operators)
	r.t.Cleanup(srv.Close)
	c, err := admin.NewURLClient(srv.URL, "", "")
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// again restarts an instance with other settings.
func (r *forwarder) again(change func(*config.Config)) {
	r.t.Helper()
	r.halt()
	change(r.cfg)
	r.make()
	r.run()
}

// came waits until that many events came to Callgoose, and returns the newest as status
// and incident.
func (f *fleet) came(n int) string {
	f.t.Helper()
	f.until(fmt.Sprintf("%d events do not come", n), func() bool { return len(f.fake.Received()) >= n })
	list := f.fake.Received()
	if len(list) != n {
		f.t.Fatalf("%d events came, %d are expected", len(list), n)
	}
	return list[n-1].Status + " " + list[n-1].IncidentKey
}

// Each act of an operator, asked of an instance that follows, happens once and at the one
// that leads, in the operator's name.
func TestWhatAFollowerIsAskedHappensAtTheLeader(t *testing.T) {
	t.Parallel()
	f, _, _ := newPair(t)
	pmm := pmmtest.New(pmmtest.Config{Viewer: viewer}) // one in which nothing fires
	pmm.AddPoint(`{"uid":"callgoose-sqibs","name":"Callgoose SQIBS","type":"webhook","settings":{"url":"http://x/v1/webhook"}}`)
	pmm.World.AddRule(pmmtest.Rule{UID: "rule", Title: "A rule", Folder: "a folder", Interval: time.Minute})
	srv := httptest.NewServer(pmm)
	t.Cleanup(srv.Close)
	for _, r := range f.all {
		r.again(func(c *config.Config) {
			c.PMMURL, c.PMMToken, c.ContactPoint = config.PMMs{{Source: "pmm", URL: srv.URL}}, config.NewSecret(viewer), "Callgoose SQIBS"
			c.Reconcile, c.ReconcileEvery, c.ReconcileCloseAfter, c.ReconcileLimit = "report", time.Hour, 15*time.Minute, 0.2
		})
		f.leader()
	}
	leads, follows := f.roles()
	c, by := follows.client(), "somebody from 127.0.0.1 through instance "+follows.cfg.Instance
	for i := 2; i <= 4; i++ {
		follows.accept(group(mysqlDown(i, "firing", time.Now())))
		f.came(i)
	}
	f.same()
	key := func(server string) string {
		t.Helper()
		list := follows.events(event.Filter{Labels: map[string]string{"instance": server}})
		if len(list) == 0 {
			t.Fatalf("no event of %s", server)
		}
		return list[0].Key
	}
	told := func(key, what string) {
		t.Helper()
		story, err := leads.app.Incident(t.Context(), key)
		if text := fmt.Sprintf("%+v", story.Story); err != nil || !strings.Contains(text, what) || !strings.Contains(text, by) {
			t.Errorf("the story says nothing of %s by %s: %s, %v", what, by, text, err)
		}
	}

	// events close
	first := key("mysql-01:3306")
	if _, err := admin.Ask[struct{}](t.Context(), c, "POST /api/v1/incidents/"+first+"/close", nil); err != nil {
		t.Fatal(err)
	}
	if got := f.came(5); got != "resolved "+first {
		t.Errorf("close: %s", got)
	}
	told(first, "close")

	// reconcile
	second := key("mysql-02:3306")
	if list, err := admin.Ask[[]admin.ReconcilePass](t.Context(), c, "POST /api/v1/reconcile", url.Values{"key": {second}, "yes": {"true"}}); err != nil || len(list) != 1 || len(list[0].Close) != 1 {
		t.Fatalf("reconcile: %+v, %v", list, err)
	}
	if got := f.came(6); got != "resolved "+second {
		t.Errorf("reconcile: %s", got)
	}

	// replay
	third := key("mysql-03:3306")
	plan, err := admin.Ask[admin.Plan](t.Context(), c, "POST /api/v1/replay", url.Values{"incident": {third}})
	if err != nil || plan.Events != 1 {
		t.Fatalf("replay: %+v, %v", plan, err)
	}
	if got := f.came(7); got != "firing "+third {
		t.Errorf("replay: %s", got)
	}
	f.until("the replay does not end", func() bool {
		j, err := admin.Ask[admin.Job](t.Context(), c, fmt.Sprint("GET /api/v1/replay/", plan.Job), nil)
		return err == nil && j.Settled == 1
	})
	told(third, "replay")

	// events park, dead-letters drop
	if _, err := admin.Ask[struct{}](t.Context(), c, "POST /api/v1/pause", nil); err != nil {
		t.Fatal(err)
	}
	f.until("the leader does not pause", func() bool { return leads.status().Pause != nil })
	follows.accept(group(mysqlDown(4, "resolved", time.Now())))
	var waits []*event.Record
	f.until("it does not wait", func() bool {
		waits = follows.events(event.Filter{Outcomes: []event.Outcome{event.Queued}})
		return len(waits) == 1
	})
	if _, err := admin.Ask[struct{}](t.Context(), c, "POST /api/v1/events/"+waits[0].ID+"/park", nil); err != nil {
		t.Fatal(err)
	}
	f.until("it is no dead letter", func() bool { return follows.status().Dead == 1 })
	if n, err := admin.Ask[map[string]int](t.Context(), c, "POST /api/v1/dead-letters/drop", url.Values{"id": {waits[0].ID}}); err != nil || n["dropped"] != 1 {
		t.Fatalf("drop: %v, %v", n, err)
	}
	f.until("the dead letter is still there", func() bool { return leads.status().Dead == 0 && follows.status().Dead == 0 })
	if _, err := admin.Ask[struct{}](t.Context(), c, "POST /api/v1/resume", nil); err != nil {
		t.Fatal(err)
	}
	f.same()
	if n := len(f.fake.Received()); n != 7 {
		t.Errorf("%d events came in all", n)
	}
}

// Before maintenance of its machine the leader is told to step down, from any instance:
// then another one leads, as often as it is done, and nobody waits for --takeover-after.
func TestWhoStepsDownLetsAnotherOneLead(t *testing.T) {
	t.Parallel()
	f, leads, follows := newPair(t)
	for range 3 {
		for _, asked := range []*forwarder{follows, follows} { // the second one leads by then
			f.until("they have not heard of each other", func() bool { return len(leads.status().Cluster.Instances) == 2 })
			ended, err := admin.Ask[map[string]uint64](t.Context(), asked.client(), "POST /api/v1/cluster/step-down", nil)
			if err != nil || ended["term"] == 0 {
				t.Fatalf("%v, %v", ended, err)
			}
			f.until("the other one does not lead", func() bool {
				c := follows.app.core.Load()
				return c.running.Load() && c.leads()
			})
			if leads.app.core.Load().leads() {
				t.Fatal("who stepped down leads")
			}
			f.until("the new leader is not known", func() bool {
				c := leads.status().Cluster
				return c.Leader == follows.cfg.Instance && c.Term > ended["term"]
			})
			leads, follows = follows, leads
		}
	}
	follows.accept(group(mysqlDown(2, "firing", time.Now())))
	f.came(2)
	text := scraped(t, leads)
	for _, want := range []string{"pmm_callgoose_cluster_leader 1", `pmm_callgoose_stream_replicas_current{stream="LEDGER"} 1`, "pmm_callgoose_nats_connected 1"} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("the leader's metrics lack %s", want)
		}
	}
	if strings.Contains(text, "pmm_callgoose_cluster_takeovers_total 0\n") || strings.Contains(text, "pmm_callgoose_ledger_append_seconds_count 0\n") {
		t.Error("no take-over, or no append, was counted")
	}
	if text = scraped(t, follows); !strings.Contains(text, `pmm_callgoose_stream_replicas_current{stream="SNAPSHOTS"} 1`) || strings.Contains(text, "pmm_callgoose_queued_events") {
		t.Error("a follower shows what only the leader should, or nothing of NATS")
	}

	follows.halt()
	f.until("the last one does not stay", func() bool {
		_, err := admin.Ask[struct{}](t.Context(), leads.client(), "POST /api/v1/cluster/step-down", nil)
		return err != nil && strings.Contains(err.Error(), "no other instance is there to lead")
	})
	follows.make()
	follows.run()
}

func scraped(t *testing.T, r *forwarder) string {
	t.Helper()
	w := httptest.NewRecorder()
	r.app.Metrics().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	return w.Body.String()
}

// A snapshot is made at once by the instance that leads, whoever is asked.
func TestASnapshotIsMadeWhoeverIsAsked(t *testing.T) {
	t.Parallel()
	f, _, follows := newPair(t)
	stored, err := admin.Ask[map[string]uint64](t.Context(), follows.client(), "POST /api/v1/cluster/snapshot", nil)
	if err != nil || stored["entry"] == 0 {
		t.Fatalf("%v, %v", stored, err)
	}
	f.until("NATS does not hold it", func() bool {
		for _, s := range follows.status().Cluster.NATS.Streams {
			if s.Name == "SNAPSHOTS" && s.Bytes > 0 {
				return true
			}
		}
		return false
	})
}

// What is set otherwise than at the leader, and a name that two have, is said where it is
// the case, and each instance says how it is whoever is asked.
func TestInstancesThatDifferSaySo(t *testing.T) {
	t.Parallel()
	f, leads, follows := newPair(t)
	follows.again(func(c *config.Config) { c.Instance, c.RetryFor, c.LogFormat = leads.cfg.Instance, time.Hour, "json" })
	codes := func(r *forwarder) (list []string) {
		for _, a := range r.status().Attention {
			list = append(list, a.Code)
		}
		return list
	}
	want := []string{admin.SettingsDiffer, admin.SameName}
	f.until("the follower says nothing", func() bool { return slices.Equal(codes(follows), want) })
	c := follows.status().Cluster
	if !slices.Equal(c.SettingsDiffer, []string{"retry-for"}) || !strings.HasPrefix(c.Instance, leads.cfg.Instance+"-") || len(c.Instance) != len(leads.cfg.Instance)+5 {
		t.Errorf("%+v", c)
	}
	if got := codes(leads); len(got) > 0 {
		t.Errorf("the leader says %q", got)
	}
	var list []admin.Instance
	f.until("not both answer", func() bool {
		var err error
		list, err = admin.Ask[[]admin.Instance](t.Context(), leads.client(), "GET /api/v1/cluster", nil)
		list = slices.DeleteFunc(list, func(i admin.Instance) bool { return i.Status == nil })
		return err == nil && len(list) == 2
	})
	for _, i := range list {
		if differs := len(i.Status.Attention) > 0; i.Role != i.Status.Cluster.Role || differs != (i.Name == c.Instance) || i.Status.Cluster.NATS == nil {
			t.Errorf("%+v", i)
		}
	}
}

// A service without other instances says that it runs alone.
func TestAServiceAloneHasNoCluster(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		if c := r.status().Cluster; c == nil || c.Role != "alone" || c.NATS != nil {
			t.Errorf("%+v", c)
		}
		_, err := r.app.StepDown()
		_, serr := r.app.Snapshot(t.Context())
		_, ierr := r.app.Instances(t.Context())
		for _, err := range []error{err, serr, ierr} {
			if err == nil || !strings.Contains(err.Error(), "runs alone") {
				t.Error(err)
			}
		}
	})
}
