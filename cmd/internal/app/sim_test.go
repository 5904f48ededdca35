package app

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/ingest/pmm"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose/callgoosetest"
)

// model is the plainest picture of section 5 of the contract: what Callgoose
// should hear of a sequence of accepted alerts.
type model struct {
	open map[int]time.Time // server -> start of its open episode
	want []callgoosetest.Expect
}

func (m *model) expect(server int, status string) {
	a := mysqlDown(server, status, time.Time{})
	m.want = append(m.want, callgoosetest.Expect{IncidentKey: "pmm-" + pmm.Fingerprint(a.Labels), Status: status})
}

// member is the state of one server as PMM reports it now.
func (m *model) member(rng *rand.Rand, server int) alert {
	starts, open := m.open[server]
	switch {
	case open && rng.IntN(3) == 0: // it recovers
		delete(m.open, server)
		m.expect(server, "resolved")
		return mysqlDown(server, "resolved", starts)
	case open: // a repeat: nothing new
		return mysqlDown(server, "firing", starts)
	case rng.IntN(3) == 0 && m.known(server): // Grafana sends a recovery again, with another start
		return mysqlDown(server, "resolved", time.Now())
	}
	m.open[server] = time.Now()
	m.expect(server, "firing")
	return mysqlDown(server, "firing", time.Now())
}

func (m *model) known(server int) bool {
	key := "pmm-" + pmm.Fingerprint(mysqlDown(server, "firing", time.Time{}).Labels)
	for _, e := range m.want {
		if e.IncidentKey == key {
			return true
		}
	}
	return false
}

// Hours, from one day into the next, in which Callgoose is away for all of them, the
// forwarder is restarted three times, and alerts come and go.
func TestANightOfOutage(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		m := &model{open: map[int]time.Time{}}
		rng := rand.New(rand.NewPCG(1, 2))
		r.away(21 * time.Hour)
		r.net.Refuse(true)
		for hour := range 6 {
			for range 4 {
				var members []alert
				for range 1 + rng.IntN(5) {
					members = append(members, m.member(rng, len(members)*10+rng.IntN(10)))
				}
				r.accept(group(members...))
				time.Sleep(15 * time.Minute)
			}
			if hour%2 == 0 {
				r.restart()
			}
		}
		s := r.status()
		if s.Callgoose.State != "down" || s.Queued != int64(len(m.want)) {
			t.Errorf("after the night: %+v, want %d queued", s, len(m.want))
		}
		r.net.Refuse(false)
		end := time.Now()
		r.settle()
		if took := time.Since(end); took > 2*time.Minute {
			t.Errorf("drained %s after the end of the outage", took)
		}
		if report := r.fake.Check(m.want); !report.OK() || report.Count(callgoosetest.Retried) != 0 {
			t.Errorf("%s", report)
		}
		if got := len(r.fake.Open()); got != len(m.open) {
			t.Errorf("%d incidents are open, want %d", got, len(m.open))
		}
		for _, e := range r.fake.Received()[:1] {
			if e.Time.Sub(end) > 70*time.Second {
				t.Errorf("the first event came %s after the end", e.Time.Sub(end))
			}
		}
	})
}

// Days of random faults, each of its own seed. PMM_CALLGOOSE_SEED replays one day,
// PMM_CALLGOOSE_DAYS makes more of them.
func TestDaysOfRandomFaults(t *testing.T) {
	t.Parallel()
	days := 1
	if n, err := strconv.Atoi(os.Getenv("PMM_CALLGOOSE_DAYS")); err == nil {
		days = n
	}
	seed := uint64(1)
	if n, err := strconv.ParseUint(os.Getenv("PMM_CALLGOOSE_SEED"), 10, 64); err == nil {
		seed, days = n, 1
	}
	for d := range days {
		t.Run(fmt.Sprintf("seed=%d", seed+uint64(d)), func(t *testing.T) { dayOfFaults(t, seed+uint64(d)) })
	}
}

func dayOfFaults(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0))
	faults := []callgoosetest.Failure{
		{},
		{},
		{},
		{Mode: callgoosetest.Status, Status: 500},
		{Mode: callgoosetest.Status, Status: 503, RetryAfter: "90"},
		{Mode: callgoosetest.Status, Status: 429, RetryAfter: "5"},
		{Mode: callgoosetest.Status, Status: 401},
		{Mode: callgoosetest.Status, Status: 404},
		{Mode: callgoosetest.Status, Status: 302},
		{Mode: callgoosetest.Hang},
		{Mode: callgoosetest.Reset},
		{Mode: callgoosetest.Slow, Delay: 3 * time.Second},
		{Mode: callgoosetest.LoseReply, Count: 5},
	}
	// Lost replies and interrupted attempts make Callgoose see an event twice; it
	// recognises equal bytes.
	fake := callgoosetest.Config{KeepBodies: true, Tokens: []string{token}, DuplicateWindow: 48 * time.Hour}
	// One kind of violence a day: what both places have lost nobody can know.
	kinds := []func(*testing.T, *rand.Rand, string){
		func(*testing.T, *rand.Rand, string) {},
		func(t *testing.T, rng *rand.Rand, dir string) { // the ledger is lost, or damaged
			name := filepath.Join(dir, store.FileName)
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			switch rng.IntN(3) {
			case 0:
				err = os.Remove(name)
			case 1:
				err = os.Truncate(name, rng.Int64N(int64(len(b))))
			case 2:
				b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
				err = os.WriteFile(name, b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		},
	}
	kind := rng.IntN(len(kinds))
	violence := kinds[kind]
	bubbleWith(t, fake, nil, func(r *rig) {
		m := &model{open: map[int]time.Time{}}
		refused := false
		for range 40 {
			var members []alert
			first := rng.IntN(30)
			for i := range 1 + rng.IntN(8) {
				members = append(members, m.member(rng, first+i))
			}
			r.accept(group(members...))
			time.Sleep(time.Duration(rng.Int64N(int64(14 * time.Minute))))
			switch rng.IntN(8) {
			case 0, 1, 2:
				r.fake.Fail(faults[rng.IntN(len(faults))])
			case 3:
				refused = !refused
				r.net.Refuse(refused)
			case 4:
				r.halt()
				violence(t, rng, r.cfg.DataDir)
				r.start()
			case 5: // an operator sends again what is delivered: Callgoose knows it
				if kind == 1 {
					continue // not by its bytes: see below
				}
				_, err := r.app.Replay(context.Background(), admin.ReplayRequest{
					Filter: event.Filter{Outcomes: []event.Outcome{event.Delivered}, OldestFirst: true}, Limit: 1 + rng.IntN(30),
				})
				if err != nil {
					t.Errorf("seed %d: replay: %v", seed, err)
				}
			}
		}
		r.fake.Fail(callgoosetest.Failure{})
		r.net.Refuse(false)
		s := r.settle()
		report := r.fake.Check(m.want)
		if kind == 1 { // what an event said about its lateness is known to the ledger only
			delete(report.Findings, callgoosetest.Changed)
		}
		if report.Count(callgoosetest.Missing, callgoosetest.OutOfOrder, callgoosetest.Unexpected, callgoosetest.Changed, callgoosetest.Discarded) > 0 {
			t.Errorf("seed %d: %s", seed, report)
		}
		if s.Dead != 0 || s.Delivered+s.Unknown != int64(len(m.want)) {
			t.Errorf("seed %d: %+v, want %d delivered", seed, s, len(m.want))
		}
		if got := len(r.fake.Open()); got != len(m.open) {
			t.Errorf("seed %d (violence %d): %d incidents are open, want %d", seed, kind, got, len(m.open))
		}
	})
}
