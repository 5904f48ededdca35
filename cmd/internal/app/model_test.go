package app

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pmm-callgoose/ingest/pmm"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker"
)

// TestModel runs random notifications, faults, kills, restarts, losses of the
// ledger and replays against the oracle. PMM_CALLGOOSE_MODEL_STEPS makes more of
// them; PMM_CALLGOOSE_MODEL_SEED begins with the run of a seed that failed (its
// notifications and faults are the same, the jitter of retries and the turns of
// goroutines are not: with many steps the same run is made again and again).
func TestModel(t *testing.T) {
	want := 1500
	if n, err := strconv.Atoi(os.Getenv("PMM_CALLGOOSE_MODEL_STEPS")); err == nil {
		want = n
	}
	first, again := uint64(time.Now().UnixNano()), uint64(1)
	if n, err := strconv.ParseUint(os.Getenv("PMM_CALLGOOSE_MODEL_SEED"), 10, 64); err == nil {
		first, again = n, 0
	}
	began, next, did := time.Now(), atomic.Uint64{}, tally{}
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for did.steps.Load() < int64(want) && !t.Failed() {
				seed := first + again*(next.Add(1)-1)
				t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { modelRun(t, seed, &did) })
			}
		})
	}
	wg.Wait()
	second := time.Since(began).Seconds()
	t.Logf("from seed %d: %d steps in %d runs, with %d alerts, %d requests and %d lives; %.0f steps, %.0f of all of these a second", first,
		did.steps.Load(), next.Load(), did.alerts.Load(), did.requests.Load(), did.lives.Load(),
		float64(did.steps.Load())/second, float64(did.steps.Load()+did.alerts.Load()+did.requests.Load()+did.lives.Load())/second)
}

// tally is what all runs together did.
type tally struct{ steps, alerts, requests, lives atomic.Int64 }

const stepsOfARun = 200

// modelRun makes the steps of one seed, lets everything settle, and compares
// every alert's fate with the ledger.
func modelRun(t *testing.T, seed uint64, did *tally) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(seed, 0))
		r := rules{
			byName: rng.IntN(3) == 0, collapse: rng.IntN(3) == 0,
			tellLate:    []time.Duration{time.Minute, 5 * time.Minute}[rng.IntN(2)],
			resend:      []time.Duration{0, 0, time.Minute, time.Hour}[rng.IntN(4)],
			retryFor:    []time.Duration{72 * time.Hour, 10 * time.Minute, 3 * time.Minute}[rng.IntN(3)],
			concurrency: []int{1, 2, 16}[rng.IntN(3)],
		}
		s := &sandbox{
			t: t, seed: seed, dir: dir, oracle: newOracle(r), fault: "none", requests: map[string]int{}, busy: map[string]bool{},
			acked: map[uint64]bool{}, wake: make(chan struct{}, 1), published: make(chan struct{}),
		}
		g := &script{sandbox: s, rng: rng, calm: rng.IntN(2) == 0}
		s.start()
		defer func() { s.halt(true) }()
		for range stepsOfARun {
			if g.step(); t.Failed() {
				break
			}
		}
		if !t.Failed() {
			g.drain()
		}
		if !t.Failed() {
			s.compare()
		}
		if t.Failed() {
			t.Logf("seed %d, %+v", seed, r)
			for _, line := range g.told {
				t.Log(line)
			}
			_ = s.ledger.Each(event.Filter{OldestFirst: true}, func(r *event.Record) bool {
				t.Logf("%+v %s %s %s %s (%s) %v, seq %d, settled %s %+v", r.Pos, r.ID, r.Key, r.Status, r.Outcome, r.Reason, r.Frozen, r.Seq, r.SettledAt.Format("15:04:05.000"), r.Attempts)
				return true
			})
		}
		did.steps.Add(stepsOfARun)
		did.alerts.Add(int64(len(s.all)))
		did.lives.Add(int64(s.lives))
		for _, n := range s.requests {
			did.requests.Add(int64(n))
		}
	})
}

// script makes the steps.
type script struct {
	*sandbox
	rng  *rand.Rand
	calm bool // it dies less often
	told []string
}

func (g *script) tell(format string, args ...any) {
	g.told = append(g.told, fmt.Sprintf("%3d %s ", len(g.told), time.Now().Format("15:04:05.000"))+fmt.Sprintf(format, args...))
}

func (g *script) step() {
	if g.rng.IntN(12) == 0 && (!g.calm || g.rng.IntN(8) == 0) { // it dies somewhere in this step, or one of the next
		g.p.fuse.Store(1 + g.rng.Int64N(25))
	}
	switch n := g.rng.IntN(100); {
	case n < 60:
		g.notify()
	case n < 80:
		g.pass(time.Duration(g.rng.Int64N(int64(3 * time.Second))))
	case n < 86:
		g.pass(time.Duration(g.rng.Int64N(int64(3 * time.Minute))))
	case n < 88:
		g.pass(time.Duration(g.rng.Int64N(int64(15 * time.Minute))))
	case n < 94:
		names := []string{"none", "none", "refused", "reset", "hang", "slow", "lost", "500", "503", "429", "401", "302", "discard", "by event", "one in three", "mixed", "mixed"}
		g.mu.Lock()
		g.fault = names[g.rng.IntN(len(names))]
		g.mu.Unlock()
		g.tell("callgoose: %s", g.fault)
	case n < 96:
		g.replayStep()
	case !g.calm || g.rng.IntN(8) == 0:
		g.restart(g.rng.IntN(2) == 0, g.rng.IntN(4) == 0)
	}
	g.settled()
}

// settled waits until nothing moves, and looks.
func (g *script) settled() {
	g.rest()
	if !g.verify() && g.p.dead.Load() {
		g.restart(true, g.rng.IntN(6) == 0)
		g.rest()
		g.verify()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, fault := range g.oracle.faults {
		g.t.Errorf("after step %d: %s", len(g.told), fault)
	}
	g.oracle.faults = nil
}

func (g *script) restart(kill, lost bool) {
	// With both a discarded event and its repeat in line again, it cannot be told
	// from outside which of the two was collapsed or given up.
	lost = lost && !g.oracle.rules.collapse && g.oracle.rules.retryFor > time.Hour
	g.tell("restart, kill %v, the ledger is lost %v", kill, lost)
	g.halt(kill)
	if lost {
		g.lose()
		g.position -= min(g.position, g.rng.Uint64N(3)) // not every acknowledgement got there
		clear(g.acked)
	}
	g.start()
}

func (g *script) pass(d time.Duration) {
	g.tell("%s pass", d)
	time.Sleep(d)
}

func (g *script) replayStep() {
	closedToo := g.rng.IntN(2) == 0
	g.tell("replay, closed ones too %v", closedToo)
	g.replay(closedToo)
}

// drain ends all faults and waits until nothing is in line.
func (g *script) drain() {
	g.p.fuse.Store(-1)
	g.mu.Lock()
	g.fault = "none"
	g.mu.Unlock()
	waiting := 0
	for range 24 * 60 {
		g.pass(time.Minute)
		if g.settled(); g.t.Failed() {
			return
		}
		waiting = 0
		g.mu.Lock()
		for _, line := range g.oracle.queues {
			waiting += len(line)
		}
		g.mu.Unlock()
		if waiting == 0 {
			return
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, line := range g.oracle.queues {
		for _, m := range line {
			g.t.Errorf("event %d, %s %s %s, is in line a day after all faults ended", m.seq, m.key, m.status, m.id)
		}
	}
}

// compare looks up every alert.
func (s *sandbox) compare() {
	records := map[event.Position]*event.Record{}
	if err := s.ledger.Each(event.Filter{}, func(r *event.Record) bool { records[r.Pos] = r; return true }); err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.oracle.fates {
		r := records[f.pos]
		delete(records, f.pos)
		switch {
		case f.gone:
			if r != nil {
				s.t.Errorf("%s %s of %+v is %s; it was forgotten with the ledger", f.key, f.status, f.pos, r.Outcome)
			}
		case r == nil:
			s.t.Errorf("nothing is known of %s %s of %+v, want %s", f.key, f.status, f.pos, f.outcome)
		case r.Key != f.key || r.Status != f.status || r.Outcome != f.outcome || f.reason != "" && r.Reason != f.reason || f.id != "" && r.ID != f.id:
			s.t.Errorf("%s %s %s of %+v is %s (%s), want %s %s %s, %s (%s)", r.ID, r.Key, r.Status, f.pos, r.Outcome, r.Reason, f.id, f.key, f.status, f.outcome, f.reason)
		}
	}
	for pos, r := range records {
		s.t.Errorf("%s %s of %+v is %s (%s), want nothing", r.Key, r.Status, pos, r.Outcome, r.Reason)
	}
}

// place is something that alerts are about.
type place struct {
	source, name, instance string
	finger                 bool
}

func (p place) labels() map[string]string {
	return map[string]string{"alertname": p.name, "instance": p.instance, "severity": "critical", "node": "n" + p.instance}
}

func (p place) fingerprint() string {
	if p.finger {
		return "f" + p.name + p.instance
	}
	return pmm.Fingerprint(p.labels())
}

// sentAlert is a member of a body. Its times are left out when they are zero.
type sentAlert struct {
	Status      string            `json:"status"`
	Labels      map[string]string `json:"labels"`
	Fingerprint string            `json:"fingerprint,omitempty"`
	StartsAt    time.Time         `json:"startsAt,omitzero"`
	EndsAt      time.Time         `json:"endsAt,omitzero"`
}

// notify posts one or two notifications at once.
func (g *script) notify() {
	time.Sleep(10 * time.Millisecond) // no two episodes of a place begin at once
	g.settled()
	g.mu.Lock()
	var stored []event.Notification
	seq := uint64(len(g.notes)) + 1
	taken, alone, count := map[place]bool{}, false, 0
	for range 1 + g.rng.IntN(4)/3 {
		source := []string{"pmm", "pmm", "dr"}[g.rng.IntN(3)]
		note := uint32(len(stored))
		test := g.rng.IntN(25) == 0
		var members []any
		for range 1 + g.rng.IntN(3) {
			if alone && !adoptsAtOnce {
				break
			}
			pos := event.Position{Seq: seq, Note: note, Item: uint32(2 * len(members))}
			p := place{source, []string{"A", "A", "B"}[g.rng.IntN(3)], strconv.Itoa(g.rng.IntN(3)), g.rng.IntN(2) == 0}
			p.finger = p.instance != "0"
			if test {
				p.name = "TestAlert"
			}
			if taken[p] && !repeatsOnce {
				continue
			}
			taken[p] = true
			began := time.Now().UTC().Truncate(time.Millisecond).Add(-time.Duration(count) * time.Millisecond)
			count++
			m, a := g.member(p, began, len(members) == 0, len(taken) == 1)
			alone = len(taken) == 1 && a.trimmed
			a.pos, a.source, a.received, a.test = pos, source, time.Now().UTC(), test && a.firing
			if a.key != "" {
				a.key = source + "-" + a.key
			}
			g.tell("%+v %s %s firing %v, starts %s, labels %v, unusable %v", a.pos, a.key, a.name, a.firing, a.starts.Format("15:04:05.000"), a.labels, a.unusable)
			members = append(members, m)
			g.all = append(g.all, a)
			g.oracle.decide(a)
		}
		if len(members) == 0 {
			continue
		}
		key := "{}:{}"
		if test {
			key = "test"
		}
		body, err := json.Marshal(map[string]any{"receiver": "callgoose", "version": "1", "groupKey": key, "alerts": members, "truncatedAlerts": 0})
		if err != nil {
			panic(err)
		}
		stored = append(stored, event.Notification{Source: source, ReceivedAt: time.Now().UTC(), Body: body, Alerts: len(members)})
	}
	if len(stored) > 0 {
		g.notes = append(g.notes, stored)
	}
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// member is what PMM says of a place now, or has said before, or what its twin
// says; and the same in the oracle's words.
func (g *script) member(p place, now time.Time, first, alone bool) (any, accepted) {
	id := g.oracle.identity(p.source + "-" + p.fingerprint())
	m := sentAlert{Status: "firing", Labels: p.labels(), StartsAt: now}
	if p.finger {
		m.Fingerprint = p.fingerprint()
	}
	starts := now
	if ep := id.open; ep != nil && len(ep.starts) > 0 {
		starts = ep.starts[0]
	}
	n, trimmed := g.rng.IntN(100), false
	switch {
	case n < 2 && !first:
		return []any{42, map[string]any{"status": "firing"}, map[string]any{"status": "so so", "labels": map[string]string{"a": "b"}}}[g.rng.IntN(3)], accepted{unusable: true}
	case n < 4:
		m.Labels[worker.OurLabel] = worker.Heartbeat
	case n < 20: // a recovery, the full one
		m.Status, m.StartsAt, m.EndsAt = "resolved", starts, now
	case n < 25: // Grafana sends it again so
		m.Status, m.StartsAt, m.EndsAt = "resolved", now, now
	case n < 27:
		m.Status, m.StartsAt = "resolved", time.Time{}
	case n < 35 && (alone || adoptsAtOnce): // trimmed by hand
		trimmed = true
		m.Status, m.StartsAt, m.Fingerprint = "resolved", time.Time{}, ""
		delete(m.Labels, "node")
		if g.rng.IntN(2) == 0 {
			delete(m.Labels, "instance")
		}
	case n < 60: // a repeat, when it is open
		m.StartsAt = starts
	case n < 67 && id.open != nil && len(id.open.starts) > 0 && len(id.open.starts) < 3: // PMM's twin
		m.StartsAt = starts.Add(time.Duration(g.rng.IntN(240_001)-120_000) * time.Millisecond)
	case n < 73 && len(id.ended) > 0: // late
		m.StartsAt = id.ended[g.rng.IntN(len(id.ended))]
	case n < 76:
		m.StartsAt = time.Time{}
	case n < 85 && id.open == nil: // PMM waited before it told
		m.StartsAt = now.Add(-time.Duration(g.rng.Int64N(int64(6 * time.Minute)))).Truncate(time.Millisecond)
	case id.open != nil && len(id.open.starts) >= 3: // twins are two; four are remembered
		m.StartsAt = starts
	}
	a := accepted{
		key: p.fingerprint(), name: m.Labels["alertname"], firing: m.Status == "firing", labels: m.Labels,
		starts: m.StartsAt, ends: m.EndsAt, heart: m.Labels[worker.OurLabel] == worker.Heartbeat, trimmed: trimmed,
	}
	if m.Fingerprint == "" {
		a.key = pmm.Fingerprint(m.Labels)
	}
	return m, a
}
