package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose/callgoosetest"
)

func (r *rig) reopened() int {
	synctest.Wait()
	return strings.Count(r.logs.String(), "the store failed; opening it again")
}

// A commit of the ledger is shared: what one asks for wrongly is no failure of the
// store, and none of the others.
func TestAMistypedIDDisturbsNobody(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		ctx := context.Background()
		ledger := r.app.core.Load().ledger
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				for range 50 {
					if err := ledger.Do(ctx, func(tx *store.Tx) error { tx.Count("innocent", 1); return nil }); err != nil {
						t.Errorf("another write of the same commit: %v", err)
						return
					}
				}
			})
			wg.Go(func() {
				for range 50 {
					_, err := r.app.DropDeadLetters(ctx, admin.DropRequest{Filter: event.Filter{IDs: []string{"typo"}}})
					if !errors.Is(err, admin.ErrNotFound) {
						t.Errorf("a mistyped id: %v", err)
						return
					}
				}
			})
		}
		wg.Wait()
		r.accept(group(mysqlDown(1, "firing", time.Now())))
		if s := r.settle(); s.Delivered != 1 || r.reopened() != 0 {
			t.Errorf("delivered %d, reopened %d times", s.Delivered, r.reopened())
		}
	})
}

// However long an outage was, JetStream must hand out nothing a second time.
func TestAfterALongOutageNothingGoesOutTwice(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1300, 1700} {
		bubble(t, nil, func(r *rig) {
			r.net.Refuse(true)
			start := time.Now()
			for _, status := range []string{"firing", "resolved"} {
				for i := 0; i < n; i += 100 {
					var some []alert
					for j := range 100 {
						some = append(some, mysqlDown(i+j, status, start))
					}
					r.accept(group(some...))
				}
			}
			time.Sleep(3 * time.Hour)
			r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Hook, Hook: func(*http.Request, []byte) *callgoosetest.Response {
				time.Sleep(time.Duration(rand.IntN(400)) * time.Millisecond)
				return nil
			}})
			r.net.Refuse(false)
			r.settle()
			times := map[string]int{}
			for _, q := range r.fake.Received() {
				if q.Accepted() {
					times[q.EventID]++
				}
			}
			for id, k := range times {
				if k > 1 {
					t.Errorf("event %s was accepted %d times", id, k)
				}
			}
			if len(times) != 2*n {
				t.Errorf("%d events of %d", len(times), 2*n)
			}
		})
	}
}

// With a low rate those that wait for it must keep neither the probe nor a stop
// waiting.
func TestALowRateHoldsUpNeitherProbeNorStop(t *testing.T) {
	bubble(t, func(c *config.Config) { c.Rate = 1 }, func(r *rig) {
		var some []alert
		for i := range 400 {
			some = append(some, mysqlDown(i, "firing", time.Now()))
		}
		r.accept(group(some...))
		time.Sleep(10 * time.Second)
		r.net.Refuse(true)
		before := r.net.tried.Load()
		time.Sleep(10 * time.Second)
		if n := r.net.tried.Load() - before; n < 2 || n > 10 {
			t.Errorf("%d requests in the first 10 s of an outage", n)
		}
		r.net.Refuse(false)
		time.Sleep(20 * time.Second)
		at := time.Now()
		r.halt()
		if took := time.Since(at); took > time.Second {
			t.Errorf("the stop took %s", took)
		}
		r.start()
		r.cfg.Rate = 0
		r.restart()
		if s := r.settle(); s.Delivered != 400 {
			t.Errorf("delivered %d", s.Delivered)
		}
	})
}

// Retention takes the notification of an open alert; settings change, and it has to
// be sent again.
func TestNothingIsSentWithoutABody(t *testing.T) {
	bubble(t, func(c *config.Config) { c.Retention = time.Hour }, func(r *rig) {
		start := time.Now()
		r.accept(group(mysqlDown(1, "firing", start)))
		r.settle()
		time.Sleep(3 * time.Hour)
		r.cfg.ResendAfter = time.Hour
		r.restart()
		for range 5 {
			r.accept(group(mysqlDown(1, "firing", start)))
			time.Sleep(10 * time.Minute)
		}
		for _, q := range r.fake.Received() {
			if len(q.Body) == 0 {
				t.Error("Callgoose got a body of 0 bytes")
			}
		}
		if d, err := r.app.Event(context.Background(), r.events(event.Filter{OldestFirst: true})[0].ID); err != nil {
			t.Errorf("show: %+v, %v", d, err)
		}
	})
}

// What is imported is old, and stands behind what is young.
func TestAnImportTakesNothingYoungWithIt(t *testing.T) {
	bubble(t, func(c *config.Config) { c.Retention = 12 * time.Hour }, func(r *rig) {
		ctx := context.Background()
		first := time.Now()
		time.Sleep(24 * time.Hour)
		for i := range 10 {
			r.accept(group(mysqlDown(i, "resolved", time.Now())))
			time.Sleep(time.Hour)
		}
		r.settle()
		for i := range 40 {
			if _, err := r.app.Import(ctx, admin.Carried{
				Kind: admin.KindNotification, ID: "x", Source: "old", ReceivedAt: first,
				Body: group(mysqlDown(100+i, "resolved", time.Now())),
			}); err != nil {
				t.Fatal(err)
			}
		}
		r.settle()
		time.Sleep(time.Hour)
		for seq := range uint64(10) {
			if _, err := r.app.core.Load().queue.Read(ctx, seq+1); err != nil {
				t.Errorf("notification %d: %v", seq+1, err)
			}
		}
		time.Sleep(15 * time.Hour)
		if _, err := r.app.core.Load().queue.Read(ctx, 10); !errors.Is(err, event.ErrGone) {
			t.Errorf("after its time: %v", err)
		}
	})
}

// Settled history must not keep alerts out.
func TestHistoryGivesWayToMinFree(t *testing.T) {
	bubble(t, func(c *config.Config) { c.Retention = 30 * 24 * time.Hour }, func(r *rig) {
		for i := range 50 {
			r.accept(group(mysqlDown(i, "firing", time.Now())))
		}
		s := r.settle()
		r.cfg.MinFree = 2 * s.Store.FreeBytes // nothing that we could do is enough
		r.restart()
		time.Sleep(time.Minute)
		after := r.status()
		synctest.Wait() // the log may be read
		if after.Store.UsedBytes > s.Store.UsedBytes/2 || !strings.Contains(r.logs.String(), "short of --min-free") {
			t.Errorf("%d bytes used, before %d", after.Store.UsedBytes, s.Store.UsedBytes)
		}
		r.cfg.MinFree = 0
		r.restart()
		for i := range 50 { // all of them are still known
			r.accept(group(mysqlDown(i, "resolved", time.Now())))
		}
		if r.settle(); len(r.fake.Open()) != 0 {
			t.Errorf("%d incidents are open", len(r.fake.Open()))
		}
	})
}

// What stands in a body once is stored with each of its alerts: thousands of them
// must not fill the disk.
func TestASmallBodyOfManyAlertsStaysSmall(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		var b strings.Builder
		b.WriteString(`{"version":"1"`)
		rnd := rand.NewChaCha8([32]byte{})
		for i := range 4 { // that does not compress
			x := make([]byte, 7_000)
			_, _ = rnd.Read(x)
			fmt.Fprintf(&b, `,"x%d":"%x"`, i, x)
		}
		b.WriteString(`,"alerts":[`)
		for i := range 4000 {
			fmt.Fprintf(&b, `{"status":"firing","labels":{"a":"%d"}},`, i)
		}
		body := strings.TrimSuffix(b.String(), ",") + `]}`
		r.net.Refuse(true)
		r.accept([]byte(body))
		time.Sleep(20 * time.Second)
		s := r.status()
		if s.Queued != 4000 || s.Store.UsedBytes > 20<<20 {
			t.Errorf("%d KiB became %d MiB, %d events", len(body)>>10, s.Store.UsedBytes>>20, s.Queued)
		}
		r.net.Refuse(false)
		r.settle()
	})
}

// A recovery may come without the name that its alert fired under.
func TestARecoveryWithoutItsNameLeavesNobodyFiring(t *testing.T) {
	bubble(t, func(c *config.Config) { c.IncidentBy = "alertname" }, func(r *rig) {
		send := func(fingerprint, status string, labels map[string]string) {
			body, err := json.Marshal(map[string]any{"version": "1", "groupKey": "{}", "alerts": []any{
				map[string]any{"status": status, "labels": labels, "startsAt": time.Now(), "fingerprint": fingerprint},
			}})
			if err != nil {
				t.Fatal(err)
			}
			r.accept(body)
			r.settle()
			time.Sleep(time.Minute)
		}
		x := func(instance string) map[string]string {
			return map[string]string{"alertname": "X", "instance": instance}
		}
		send("c", "firing", x("c"))
		send("a", "firing", x("a"))
		send("c", "resolved", x("c")) // the splitter learns who is open
		send("a", "resolved", map[string]string{"instance": "a"})
		send("b", "firing", x("b"))
		send("b", "resolved", x("b"))
		var sent []string
		for _, q := range r.fake.Received() {
			if q.IncidentKey == "pmm-b" {
				sent = append(sent, q.Status)
			}
		}
		if !slices.Equal(sent, []string{"firing", "resolved"}) {
			t.Errorf("of the last alert went out: %v", sent)
		}
	})
}

// Whatever opens an incident must be followed by what closes it: of episodes that
// share one none may be collapsed away.
func TestACollapseLeavesNoIncidentOpen(t *testing.T) {
	for _, by := range []string{"alert", "alertname"} {
		t.Run(by, func(t *testing.T) {
			guide := callgoosetest.Config{KeepBodies: true, Filters: callgoosetest.GuideFilters(), Tokens: []string{token}}
			bubbleWith(t, guide, func(c *config.Config) { c.OnBacklog, c.IncidentBy = "collapse", by }, func(r *rig) {
				r.net.Refuse(true)
				start := time.Now()
				r.accept(group(mysqlDown(9, "resolved", start))) // finds out that nothing can be sent
				time.Sleep(time.Minute)
				r.accept(group(mysqlDown(1, "firing", start)))
				time.Sleep(10 * time.Minute)
				second := time.Now()
				r.accept(group(mysqlDown(1, "firing", second))) // began anew, and no recovery came between
				r.accept(group(mysqlDown(2, "firing", second)))
				time.Sleep(time.Minute)
				r.accept(group(mysqlDown(1, "resolved", second)))
				r.accept(group(mysqlDown(2, "resolved", second)))
				time.Sleep(time.Minute)
				third := time.Now()
				r.accept(group(mysqlDown(2, "firing", third))) // this one is alone
				r.accept(group(mysqlDown(2, "resolved", third)))
				r.net.Refuse(false)
				s := r.settle()
				if open := r.fake.Open(); len(open) != 0 {
					t.Errorf("left open: %+v", open)
				}
				if s.Collapsed < 2 {
					t.Errorf("collapsed %d", s.Collapsed)
				}
			})
		})
	}
}

// After an outage the oldest go first, whatever else waits to be claimed.
func TestAfterAnOutageTheOldestGoFirst(t *testing.T) {
	for _, concurrency := range []int{1, 16} {
		bubble(t, func(c *config.Config) { c.Rate, c.Concurrency = 10, concurrency }, func(r *rig) {
			r.net.Refuse(true)
			for i := range 200 {
				r.accept(group(mysqlDown(i, "firing", time.Now())))
			}
			time.Sleep(time.Minute)
			r.net.Refuse(false)
			r.settle()
			var order []int
			for _, q := range r.fake.Received() {
				_, text, _ := strings.Cut(string(q.Body), `"instance":"mysql-`)
				text, _, _ = strings.Cut(text, ":")
				n, err := strconv.Atoi(text)
				if err != nil {
					t.Fatalf("%s: %v", q.Body, err)
				}
				order = append(order, n)
			}
			for i, n := range order {
				if d := i - n; d < -concurrency || d > concurrency {
					t.Fatalf("with a concurrency of %d the order is %v", concurrency, order)
				}
			}
		})
	}
}

// PMM says it again as long as it fires, and a dead letter that was dropped must
// not keep that from going out.
func TestAfterADropTheAlertCanComeAgain(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		start := time.Now()
		r.fake.FailNext(2, callgoosetest.Failure{Mode: callgoosetest.Status, Status: 422})
		r.accept(group(mysqlDown(1, "firing", start)))
		r.accept(group(mysqlDown(2, "firing", start)))
		r.settle()
		if p, err := r.app.DropDeadLetters(context.Background(), admin.DropRequest{}); p.Events != 2 || err != nil {
			t.Fatalf("%+v, %v", p, err)
		}
		r.accept(group(mysqlDown(1, "firing", start)))   // it fires on
		r.accept(group(mysqlDown(2, "resolved", start))) // it is over
		s := r.settle()
		if s.Delivered != 1 || s.SuppressedReason[event.ReasonResolved] != 1 || len(r.fake.Open()) != 1 {
			t.Errorf("delivered %d, suppressed %v, open %d", s.Delivered, s.SuppressedReason, len(r.fake.Open()))
		}
		r.accept(group(mysqlDown(1, "resolved", start)))
		if r.settle(); len(r.fake.Open()) != 0 {
			t.Error("it was not closed")
		}
	})
}

// A store that is full of alerts which are all still open takes more: what an open
// alert needs stands in the ledger.
func TestAStoreFullOfOpenAlertsTakesMore(t *testing.T) {
	bubble(t, func(c *config.Config) { c.MaxStore = 1 << 20 }, func(r *rig) {
		rnd := rand.New(rand.NewPCG(1, 1))
		const n = 400
		for i := range n {
			a := mysqlDown(i, "firing", time.Now())
			note := make([]byte, 4<<10) // labels that do not compress
			for j := range note {
				note[j] = byte('a' + rnd.IntN(26))
			}
			a.Labels["note"] = string(note)
			r.accept(group(a))
			time.Sleep(3 * time.Second)
		}
		if s := r.settle(); s.Delivered != n || s.Queued != 0 || s.Store.UsedBytes > 1<<20 {
			t.Errorf("delivered %d, queued %d, %d bytes used", s.Delivered, s.Queued, s.Store.UsedBytes)
		}
		for i := range n {
			r.accept(group(mysqlDown(i, "resolved", time.Now())))
			time.Sleep(time.Second)
		}
		if r.settle(); len(r.fake.Open()) != 0 {
			t.Errorf("%d incidents are open", len(r.fake.Open()))
		}
	})
}
