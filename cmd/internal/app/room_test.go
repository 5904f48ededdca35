package app

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/ingest"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
)

// When what filled the store is settled, PMM need not wait: there is room again
// within seconds, although nothing else happens.
func TestAFullStoreRecoversSoon(t *testing.T) {
	t.Parallel()
	bubble(t, func(c *config.Config) { c.MaxStore = 256 << 10; c.Retention = 720 * time.Hour }, func(r *rig) {
		r.net.Refuse(true)
		for i := 0; r.post(group(mysqlDown(i, "firing", time.Now()))).Code == http.StatusAccepted; i++ {
			time.Sleep(100 * time.Millisecond)
		}
		r.net.Refuse(false)
		r.settle()
		time.Sleep(30 * time.Second)
		if err := r.app.Ready(); err != nil {
			t.Error(err)
		}
	})
}

// Whoever sends webhooks by readiness sends none to who is not ready: it must not need one.
func TestAWebhookThatCouldNotBeStoredIsSeenByOperators(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		late := func() { // no answer of the disk in the time that a webhook has
			ctx, cancel := context.WithTimeout(context.Background(), 0)
			defer cancel()
			for err := error(nil); err == nil; { // some are stored nevertheless
				_, err = r.app.Publish(ctx, ingest.Notification{Source: "pmm", Body: group(mysqlDown(1, "firing", time.Now())), Alerts: 1})
			}
		}
		want := func(when string, accepting bool) {
			t.Helper()
			s := r.status()
			told := slices.ContainsFunc(s.Attention, func(a admin.Attention) bool { return a.Code == admin.NotAccepting })
			if err := r.app.Ready(); (err == nil) != accepting || s.Store.Accepting != accepting || told == accepting {
				t.Errorf("%s: ready %v, %+v, attention %+v", when, err, s.Store, s.Attention)
			}
		}
		want("before", true)
		late()
		want("it was refused", false)
		if w := r.post(group(mysqlDown(2, "firing", time.Now()))); w.Code != http.StatusAccepted {
			t.Fatalf("answered %d", w.Code)
		}
		want("it was stored", true)
		late()
		time.Sleep(time.Minute)
		want("a minute later", false)
		time.Sleep(2 * time.Minute)
		want("nobody has tried since", true)
	})
}

func TestAFullStoreIsAnsweredWith503(t *testing.T) {
	t.Parallel()
	bubble(t, func(c *config.Config) { c.MaxStore = 64 << 10 }, func(r *rig) {
		r.net.Refuse(true)
		accepted := 0
		for i := range 1000 {
			w := r.post(group(mysqlDown(i, "firing", time.Now())))
			if w.Code == http.StatusAccepted {
				accepted++
				time.Sleep(time.Millisecond)
				continue
			}
			if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
				t.Fatalf("answered %d %v: %s", w.Code, w.Header(), w.Body)
			}
			break
		}
		if accepted == 0 || accepted > 300 {
			t.Fatalf("%d were accepted", accepted)
		}
		r.net.Refuse(false)
		if s := r.settle(); s.Delivered != int64(accepted) {
			t.Errorf("accepted %d, delivered %d", accepted, s.Delivered)
		}
	})
}

// Retention removes what is settled, never what is waiting, and forgets no open
// episode.
func TestRetention(t *testing.T) {
	t.Parallel()
	bubble(t, func(c *config.Config) { c.Retention = 24 * time.Hour }, func(r *rig) {
		start := time.Now()
		r.accept(group(mysqlDown(1, "firing", start), mysqlDown(2, "firing", start)))
		r.settle()
		r.accept(group(mysqlDown(2, "resolved", start)))
		r.settle()
		for day := range 2 {
			r.away(24 * time.Hour)
			at := time.Now()
			r.accept(group(mysqlDown(10+day, "firing", at)))
			r.settle()
			if day == 1 {
				r.net.Refuse(true) // one that waits
			}
			r.accept(group(mysqlDown(10+day, "resolved", at)))
		}
		r.away(12 * time.Hour)
		time.Sleep(time.Hour)
		var old int
		for _, rec := range r.events(event.Filter{}) {
			if time.Since(rec.ReceivedAt) > 50*time.Hour && rec.Outcome != event.Queued {
				old++
				if rec.Labels["instance"] != "mysql-01:3306" {
					t.Errorf("still there: %s of %s", rec.Labels["instance"], rec.ReceivedAt)
				}
			}
		}
		if old != 1 {
			t.Errorf("%d old records, want the one of the open episode", old)
		}
		r.halt()
		if err := os.Remove(filepath.Join(r.cfg.DataDir, store.FileName)); err != nil {
			t.Fatal(err)
		}
		r.start()
		r.net.Refuse(false)
		r.settle()
		// Ledger and notification are gone: PMM's word opens it again, and closes it.
		r.accept(group(mysqlDown(1, "firing", start)))
		if s := r.settle(); len(r.fake.Open()) != 1 {
			t.Errorf("the open episode was forgotten: %+v", s)
		}
		r.accept(group(mysqlDown(1, "resolved", start)))
		r.settle()
		if open := r.fake.Open(); len(open) != 0 {
			t.Errorf("open: %v", open)
		}
	})
}

// A full store makes room by itself, from what is settled.
func TestAFullStoreMakesRoom(t *testing.T) {
	t.Parallel()
	bubble(t, func(c *config.Config) { c.MaxStore = 256 << 10; c.Retention = 720 * time.Hour }, func(r *rig) {
		refused := 0
		for i := range 400 {
			status := []string{"firing", "resolved"}[i%2]
			if w := r.post(group(mysqlDown(i/2, status, time.Now()))); w.Code != http.StatusAccepted {
				refused++
				if refused > 300 {
					t.Fatalf("no room was made: %+v", r.status().Store)
				}
			}
			time.Sleep(time.Second)
		}
		if s := r.settle(); s.Delivered+s.Suppressed != int64(400-refused) || refused > 60 {
			t.Errorf("%d refused, %+v", refused, s)
		}
	})
}

// Retention takes the notification of an open alert; settings change, and it has to
// be sent again.
func TestNothingIsSentWithoutABody(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
	bubble(t, func(c *config.Config) { c.Retention = 12 * time.Hour }, func(r *rig) {
		ctx := context.Background()
		first := time.Now()
		r.away(24 * time.Hour)
		for i := range 10 {
			r.accept(group(mysqlDown(i, "resolved", time.Now())))
			time.Sleep(10 * time.Minute)
		}
		r.settle()
		r.away(8 * time.Hour)
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
		r.away(15 * time.Hour)
		time.Sleep(11 * time.Minute) // what a start removes first may wait for a clock that is put right
		if _, err := r.app.core.Load().queue.Read(ctx, 10); !errors.Is(err, event.ErrGone) {
			t.Errorf("after its time: %v", err)
		}
	})
}

// Settled history must not keep alerts out.
func TestHistoryGivesWayToMinFree(t *testing.T) {
	t.Parallel()
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

// A store that is full of alerts which are all still open takes more: what an open
// alert needs stands in the ledger.
func TestAStoreFullOfOpenAlertsTakesMore(t *testing.T) {
	t.Parallel()
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
