package worker_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/ingest/pmm"
	"pmm-callgoose/ingest/pmm/pmmtest"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker"
)

var (
	reconcileSeed  = flag.Uint64("reconcile.seed", 0, "run this random schedule of reconciling alone")
	reconcileSeeds = flag.Uint64("reconcile.seeds", 25, "random schedules of reconciling")
)

const contact = "Callgoose SQIBS"

// ourTree leads everything to us, as setup makes it.
const ourTree = `{"receiver":"grafana-default-email","routes":[{"receiver":"Callgoose SQIBS","continue":true,"group_wait":"10s","group_interval":"1m","repeat_interval":"15m"%s}]}`

// source is one PMM, and what is open of it here.
type source struct {
	t      testing.TB
	fake   *pmmtest.Fake
	world  *pmmtest.World
	viewer *pmm.Viewer
	cfg    worker.ReconcileConfig
	state  worker.ReconcileState
	open   map[string]*worker.ReconcileEpisode
	down   bool // we are: webhooks are refused
	// lost is what does not arrive: our "answer", or the "notification" though it was
	// answered (truncatedAlerts, a directory restored from an old copy).
	lost string
	// rerouted is when the policies were changed last.
	rerouted time.Time
	next     time.Time
	last     worker.ReconcilePlan
	gets     int
	spoil    func(*pmm.View)
	closed   []worker.ReconcileAct
	opened   []worker.ReconcileAct
	// skew is how far our clock is off.
	skew time.Duration
}

func newSource(t testing.TB, mode worker.ReconcileMode) *source {
	s := &source{t: t, fake: pmmtest.New(pmmtest.Config{Viewer: "glsa_v1ewer"}), cfg: worker.ReconcileConfig{Source: "pmm", Mode: mode}, open: map[string]*worker.ReconcileEpisode{}}
	s.fake.AddPoint(`{"uid":"callgoose-sqibs","name":"Callgoose SQIBS","type":"webhook","settings":{"url":"http://x/v1/webhook"}}`)
	s.fake.SetTree(fmt.Sprintf(ourTree, ""))
	s.fake.Before(func(http.ResponseWriter, *http.Request) bool {
		s.gets++
		return false
	})
	s.world = s.fake.World
	s.world.Tell = s.webhook
	s.token("glsa_v1ewer")
	return s
}

func (s *source) token(token string) {
	client, err := pmm.NewClient(pmm.ClientConfig{URL: "http://pmm.example.net", Token: token, Transport: s.fake})
	if err != nil {
		s.t.Fatal(err)
	}
	s.viewer = pmm.NewViewer(client, contact)
}

func (s *source) now() time.Time { return s.world.Now.Add(s.skew) }

func (s *source) webhook(n pmmtest.Notice) bool {
	if !s.down && s.lost != "notification" {
		s.receive(n)
	}
	return !s.down && s.lost != "answer"
}

func (s *source) receive(n pmmtest.Notice) {
	if n.Status == "resolved" {
		delete(s.open, n.Fingerprint)
		return
	}
	e := s.open[n.Fingerprint]
	if e == nil || !e.StartsAt.Equal(n.StartsAt) {
		e = &worker.ReconcileEpisode{
			Key: "pmm-" + n.Fingerprint, Fingerprint: n.Fingerprint, RuleUID: n.RuleUID, Title: n.Labels["alertname"],
			StartsAt: n.StartsAt, Template: n.Labels["percona_alerting"] == "1",
		}
		s.open[n.Fingerprint] = e
	}
	e.HeardAt = s.now()
}

// run lets time pass; passes are made when they are due.
func (s *source) run(d time.Duration) {
	for end := s.world.Now.Add(d); s.world.Now.Before(end); {
		s.world.Step()
		if !s.world.Now.Before(s.next) && !s.down {
			s.pass(worker.ReconcileOrder{})
			s.next = s.world.Now.Add(s.last.Next)
		}
	}
}

// pass reads PMM and does what is decided.
func (s *source) pass(order worker.ReconcileOrder) worker.ReconcilePlan {
	s.t.Helper()
	s.gets = 0
	in := worker.ReconcileInput{Order: order, Jitter: 0.5}
	view, err := s.viewer.Read(context.Background(), func(fp string) bool { return s.open[fp] != nil })
	if s.gets > 4 {
		s.t.Errorf("a pass made %d requests", s.gets)
	}
	if err == nil {
		in.View = &view
		if s.spoil != nil {
			s.spoil(in.View)
		}
	}
	in.Err, in.Now = err, s.now()
	for _, e := range s.open {
		in.Open = append(in.Open, *e)
	}
	slices.SortFunc(in.Open, func(a, b worker.ReconcileEpisode) int { return strings.Compare(a.Key, b.Key) })
	s.last = worker.PlanReconcile(s.cfg, s.state, in)
	if b, err := json.Marshal(s.last.State); err != nil { // as it is kept
		s.t.Fatal(err)
	} else if s.state = (worker.ReconcileState{}); json.Unmarshal(b, &s.state) != nil {
		s.t.Fatalf("the state cannot be read again: %s", b)
	}
	for _, c := range s.last.Close {
		if s.world.Firing(event.Fingerprint(c.Key)) {
			s.t.Errorf("%s: closed %s (%s), which fires: %s", s.world.Now.Format(time.TimeOnly), c.Key, c.Title, c.Why)
		}
		delete(s.open, event.Fingerprint(c.Key))
	}
	for _, o := range s.last.Open {
		fingerprint := event.Fingerprint(o.Key)
		if !s.world.Firing(fingerprint) {
			s.t.Errorf("%s: opened %s (%s), which does not fire", s.world.Now.Format(time.TimeOnly), fingerprint, o.Title)
		}
		// What the policies say acts within a minute, and they are read every other pass.
		if s.world.Held(fingerprint) && s.world.Now.Sub(s.rerouted) > 4*time.Minute {
			s.t.Errorf("%s: opened %s (%s), which is silenced, muted or not ours", s.world.Now.Format(time.TimeOnly), fingerprint, o.Title)
		}
		body, err := o.Body(nil)
		if err != nil {
			s.t.Fatal(err)
		}
		n, err := pmm.Decode(body)
		if err != nil || len(n.Alerts) != 1 {
			s.t.Fatalf("the body to open %s is refused by the intake: %v", fingerprint, err)
		}
		a := n.Alerts[0]
		var named struct{ RuleUID, GeneratorURL string }
		_ = json.Unmarshal(a.Raw, &named)
		s.receive(pmmtest.Notice{Status: "firing", Fingerprint: a.Fingerprint, RuleUID: pmm.RuleUID("", named.GeneratorURL), Labels: a.Labels, StartsAt: a.StartsAt})
	}
	s.closed, s.opened = append(s.closed, s.last.Close...), append(s.opened, s.last.Open...)
	return s.last
}

// drift is what was reported of an open episode or a missing alert.
func (s *source) drift(fingerprint string) string {
	for _, d := range s.last.Drift {
		if event.Fingerprint(d.Key) == fingerprint {
			return d.Kind
		}
	}
	return ""
}

func (s *source) alarm(code string) bool {
	return slices.ContainsFunc(s.last.Alarms, func(a worker.ReconcileAlarm) bool { return a.Code == code })
}

// TestRandomSchedulesNeverCloseWhatFires plays restarts, silences, mutes, pauses,
// deletions, hidden folders, failing data sources, slow rules, a second node and two
// PMMs at random, then lets everything rest: what fires and comes to us is open, and
// what is open fires, or it is said why it stays.
func TestRandomSchedulesNeverCloseWhatFires(t *testing.T) {
	if *reconcileSeed != 0 {
		randomSchedule(t, *reconcileSeed)
		return
	}
	seeds := *reconcileSeeds
	if testing.Short() {
		seeds = min(seeds, 10)
	}
	var closed, opened int
	for seed := uint64(1); seed <= seeds; seed++ {
		c, o := randomSchedule(t, seed)
		if t.Failed() {
			t.Fatalf("again with -run %s -reconcile.seed %d", t.Name(), seed)
		}
		closed, opened = closed+c, opened+o
	}
	if t.Logf("%d closed, %d opened", closed, opened); (closed == 0 || opened == 0) && !testing.Short() {
		t.Error("these schedules proved nothing")
	}
}

func randomSchedule(t *testing.T, seed uint64) (closed, opened int) {
	r := rand.New(rand.NewPCG(seed, 20))
	sources := []*source{newSource(t, worker.ReconcileBoth)}
	if seed%5 == 0 {
		sources = append(sources, newSource(t, worker.ReconcileBoth))
	}
	for _, s := range sources {
		if seed%7 == 0 {
			s.world.Nodes(2)
		}
		if seed%11 == 0 {
			s.world.Repeat = 4 * time.Hour
		}
		for i := range 2 + r.IntN(3) {
			rule := pmmtest.Rule{
				UID: fmt.Sprintf("r%d", i), Title: fmt.Sprintf("Rule %d", i), Folder: fmt.Sprintf("f%d", i%2), Template: r.IntN(2) == 0,
				Interval: []time.Duration{10 * time.Second, time.Minute, 10 * time.Minute}[min(2, r.IntN(6)/2)], Series: map[string]bool{},
			}
			if r.IntN(5) == 0 {
				rule.Receiver = []string{contact, "grafana-default-email"}[r.IntN(2)]
			}
			for j := range 1 + r.IntN(4) {
				rule.Series[fmt.Sprintf("db%d", j)] = r.IntN(2) == 0
			}
			s.world.AddRule(rule)
		}
		s.run(10 * time.Minute)
		for range 15 + r.IntN(15) {
			s.trouble(r)
			s.run(time.Duration(r.IntN(300)) * time.Second)
		}
		s.rest()
		if seed%7 != 0 { // behind a balancer that alternates every epoch is short
			s.converged()
		}
		closed, opened = closed+len(s.closed), opened+len(s.opened)
	}
	return closed, opened
}

// trouble does one thing to PMM.
func (s *source) trouble(r *rand.Rand) {
	w := s.world
	rules := w.Rules()
	if len(rules) == 0 {
		return
	}
	rule := rules[r.IntN(len(rules))]
	service := fmt.Sprintf("db%d", r.IntN(4))
	switch r.IntN(22) {
	case 0:
		w.Restart(r.IntN(2), time.Duration(r.IntN(90))*time.Second)
	case 1, 2:
		w.Silence(service, w.Now.Add(time.Duration(r.IntN(60))*time.Minute))
	case 3:
		s.fake.SetTree(fmt.Sprintf(ourTree, []string{"", `,"mute_time_intervals":["nights"]`}[r.IntN(2)]))
		w.Muting, s.rerouted = r.IntN(2) == 0, w.Now
	case 4:
		w.Pause(rule.UID, !rule.Paused)
	case 5:
		if r.IntN(3) == 0 {
			w.DeleteRule(rule.UID)
		}
	case 6:
		w.Hide(rule.Folder, r.IntN(2) == 0)
	case 7:
		rule.Failing = !rule.Failing
	case 8:
		rule.Hanging = !rule.Hanging
	case 9:
		s.fake.Page([]int{0, 502}[r.IntN(2)])
	case 10:
		s.down = !s.down
	case 11:
		delete(rule.Series, service)
	case 12:
		s.token([]string{"glsa_v1ewer", pmmtest.Token, "glsa_wrong"}[r.IntN(3)])
	case 13: // the usual maintenance
		w.Silence(service, w.Now.Add(time.Duration(20+r.IntN(40))*time.Minute))
		for _, rule := range rules {
			if _, there := rule.Series[service]; there {
				rule.Series[service] = false
			}
		}
	case 14: // our data directory is lost, or an old copy of it came back
		for fp := range s.open {
			if r.IntN(2) == 0 {
				delete(s.open, fp)
			}
		}
	case 15:
		s.lost = []string{"", "answer", "notification"}[r.IntN(3)]
	default:
		rule.Series[service] = r.IntN(2) == 0
	}
}

// rest takes every trouble away but what people have to decide, and waits for as long
// as is promised: 15 minutes and two passes, once the slowest rule was evaluated.
func (s *source) rest() {
	s.fake.Page(0)
	s.down, s.lost, s.world.Muting = false, "", false
	s.fake.SetTree(fmt.Sprintf(ourTree, ""))
	s.token("glsa_v1ewer")
	slowest := time.Duration(0)
	for _, rule := range s.world.Rules() {
		rule.Failing, rule.Hanging = false, false
		slowest = max(slowest, rule.Interval)
	}
	s.state.Failures, s.next = 0, time.Time{}
	s.run(slowest + 2*time.Minute)
	s.run(15*time.Minute + 2*time.Minute + max(0, 3*slowest-15*time.Minute))
	if s.alarm("reconcile_mass") {
		s.pass(worker.ReconcileOrder{Yes: true})
	}
	s.run(2 * time.Minute) // at most 5 a minute
}

func (s *source) converged() {
	if strings.Contains(s.last.Skipped, "no rules") {
		return // the token may see none: nothing can be said, and it is said
	}
	for _, fp := range s.world.Alerts() {
		if s.open[fp] == nil && !s.world.Held(fp) {
			s.t.Errorf("%s fires, and no episode is open (%s), %d passes; skipped %q, alarms %v", fp, s.drift(fp), s.state.Missing[fp], s.last.Skipped, s.last.Alarms)
		}
	}
	for fp, e := range s.open {
		if !s.world.Firing(fp) && (s.drift(fp) == "" || s.drift(fp) == "stale") {
			s.t.Errorf("%s (%s) does not fire, and its episode is open (%q): %+v; epoch %s %q, skipped %q, alarms %v", fp, e.RuleUID, s.drift(fp), s.state.Gone[e.Key], s.state.Epoch.Format(time.TimeOnly), s.state.Why, s.last.Skipped, s.last.Alarms)
		}
	}
}
