package app

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose/callgoosetest"
	"pmm-callgoose/worker/callgoose/filters"
)

// After the filter was repaired, what was discarded is sent again: the same
// events, the same bytes, in order, and not what is over.
func TestReplay(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		r.fake.SetFilters([]filters.Filter{})
		start := time.Now()
		r.accept(group(mysqlDown(1, "firing", start), mysqlDown(2, "firing", start)))
		r.settle()
		r.accept(group(mysqlDown(1, "resolved", start)))
		r.settle()
		r.fake.SetFilters(filters.Recommended())
		before := r.fake.Received()

		replay := func(req admin.ReplayRequest) (admin.Plan, admin.Job) {
			req.Filter.OldestFirst = true
			p, err := r.app.Replay(context.Background(), req)
			if err != nil || p.Job == 0 {
				return p, admin.Job{}
			}
			for range 1000 {
				time.Sleep(time.Second)
				if j, err := r.app.ReplayJob(p.Job); err != nil || j.Done {
					return p, j
				}
			}
			t.Fatal("never done")
			return p, admin.Job{}
		}
		discarded := event.Filter{Outcomes: []event.Outcome{event.Discarded}}
		if p, _ := replay(admin.ReplayRequest{Filter: discarded, DryRun: true}); p.Events != 2 || p.Firing != 1 || p.Resolved != 1 || p.Closed != 1 || p.Incidents != 2 {
			t.Errorf("plan %+v", p)
		}
		if len(r.fake.Received()) != len(before) {
			t.Error("a dry run sent something")
		}
		_, j := replay(admin.ReplayRequest{Filter: discarded, IncludeClosed: true})
		if j.Total != 3 || j.Outcomes[event.Delivered] != 3 {
			t.Errorf("job %+v", j)
		}
		first := map[string][]byte{}
		for _, q := range before {
			first[q.EventID] = q.Body
		}
		var order []string
		for _, q := range r.fake.Received()[len(before):] {
			if !bytes.Equal(first[q.EventID], q.Body) {
				t.Errorf("%s was sent with other bytes", q.EventID)
			}
			if strings.Contains(string(q.Body), "mysql-01") {
				order = append(order, q.Status)
			}
		}
		if !slices.Equal(order, []string{"firing", "resolved"}) || len(r.fake.Open()) != 1 {
			t.Errorf("order %v, open %v", order, r.fake.Open())
		}
		if s := r.status(); s.Discarded != 0 || s.Delivered != 3 {
			t.Errorf("%+v", s)
		}
	})
}

func TestDeadLettersAreRetriedAndDropped(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Status, Status: 422})
		start := time.Now()
		r.accept(group(mysqlDown(1, "firing", start), mysqlDown(2, "firing", start)))
		if s := r.settle(); s.Dead != 2 {
			t.Fatalf("%+v", s)
		}
		r.fake.Fail(callgoosetest.Failure{})
		dead := r.events(event.Filter{})
		if _, err := r.app.Replay(context.Background(), admin.ReplayRequest{Filter: event.Filter{IDs: []string{dead[0].ID}}}); err != nil {
			t.Fatal(err)
		}
		r.settle()
		if n, err := r.app.DropDeadLetters(context.Background(), admin.ReplayRequest{}); n.Events != 1 || err != nil {
			t.Errorf("dropped %+v, %v", n, err)
		}
		if s := r.status(); s.Dead != 0 || s.Delivered != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// A limit means the oldest so many, and an ID with a typing error is no work done.
func TestDroppingAndReplayingTakeExactlyWhatWasNamed(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		ctx := context.Background()
		r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Status, Status: 422})
		for i := range 5 {
			if i == 3 { // five in a row of different keys would be Callgoose's fault, not theirs
				r.fake.FailNext(1, callgoosetest.Failure{})
				r.accept(group(mysqlDown(99, "resolved", time.Now())))
				time.Sleep(time.Second)
			}
			r.accept(group(mysqlDown(i, "firing", time.Now())))
			time.Sleep(time.Second)
		}
		r.settle()
		dead := r.events(event.Filter{OldestFirst: true, Outcomes: []event.Outcome{event.Dead}})
		if n, err := r.app.DropDeadLetters(ctx, admin.ReplayRequest{Filter: event.Filter{OldestFirst: true}, Limit: 2}); n.Events != 2 || err != nil {
			t.Errorf("dropped %+v of 2, %v", n, err)
		}
		if left := r.events(event.Filter{OldestFirst: true, Outcomes: []event.Outcome{event.Dead}}); len(left) != 3 || left[0].ID != dead[2].ID {
			t.Errorf("left are %d", len(left))
		}
		wrong := event.Filter{IDs: []string{dead[3].ID, "no-such-id"}, OldestFirst: true}
		if n, err := r.app.DropDeadLetters(ctx, admin.ReplayRequest{Filter: wrong}); n.Events != 0 || !errors.Is(err, admin.ErrNotFound) || !strings.Contains(err.Error(), "no-such-id") {
			t.Errorf("dropped %+v, %v", n, err)
		}
		if p, err := r.app.Replay(ctx, admin.ReplayRequest{Filter: wrong}); p.Job != 0 || !errors.Is(err, admin.ErrNotFound) {
			t.Errorf("replay %+v, %v", p, err)
		}
		var lines []string
		if err := r.app.Export(ctx, admin.KindEvent, event.Filter{OldestFirst: true, Outcomes: []event.Outcome{event.Dead}}, 2, func(c admin.Carried) error {
			lines = append(lines, c.ID)
			return nil
		}); err != nil || !slices.Equal(lines, []string{dead[2].ID, dead[3].ID}) {
			t.Errorf("exported %v, %v", lines, err)
		}
	})
}

// A directory copied from a dead host, in the middle of an outage: everything
// that waited goes out, in order, and the directory stays as it was.
func TestReplayFromACopiedDirectory(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		start := time.Now()
		r.accept(group(mysqlDown(1, "firing", start)))
		r.settle()
		r.net.Refuse(true)
		r.accept(group(mysqlDown(1, "resolved", start), mysqlDown(2, "firing", start)))
		r.accept(group(mysqlDown(2, "resolved", start)))
		time.Sleep(time.Minute)
		r.halt()
		defer r.start()
		r.net.Refuse(false)

		other := *r.cfg
		req := admin.ReplayRequest{Filter: event.Filter{Outcomes: []event.Outcome{event.Queued}, OldestFirst: true}}
		for range 2 { // nothing changes, so it can be done again
			before := len(r.fake.Received())
			o, err := OpenOffline(context.Background(), &other, req, r.net, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			job, err := o.Send(context.Background())
			o.Close()
			if err != nil || job.Outcomes[event.Delivered] != 3 || o.Plan.Incidents != 2 {
				t.Fatalf("job %+v, plan %+v, %v", job, o.Plan, err)
			}
			var second []string
			for _, q := range r.fake.Received()[before:] {
				if strings.Contains(string(q.Body), "mysql-02") {
					second = append(second, q.Status)
				}
			}
			if !slices.Equal(second, []string{"firing", "resolved"}) {
				t.Errorf("sent %v", second)
			}
		}
	})
}

// A backlog carried to another host goes out there, as the same events.
func TestABacklogIsCarriedToAnotherHost(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		r.net.Refuse(true)
		r.acceptFile("grafana-firing-group-5.json")
		r.acceptFile("alertmanager-mixed.json")
		time.Sleep(time.Minute)
		ids := map[string]bool{}
		for _, rec := range r.events(event.Filter{}) {
			ids[rec.ID] = true
		}
		var lines []admin.Carried
		if err := r.app.Export(context.Background(), admin.KindNotification,
			event.Filter{Outcomes: []event.Outcome{event.Queued}, OldestFirst: true}, 0,
			func(c admin.Carried) error { lines = append(lines, c); return nil }); err != nil {
			t.Fatal(err)
		}
		if len(lines) != 2 || !bytes.Equal(lines[0].Body, webhook(t, "grafana-firing-group-5.json")) {
			t.Fatalf("%d lines", len(lines))
		}
		r.halt()
		r.cfg.DataDir = filepath.Join(r.cfg.DataDir, "other-host")
		time.Sleep(100 * time.Hour) // on a stick: longer than --retry-for, which begins anew
		r.start()
		for _, l := range lines {
			if _, err := r.app.Import(context.Background(), l); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute) // the other host has no way out yet
		r.net.Refuse(false)
		if s := r.settle(); s.Delivered != int64(len(ids)) {
			t.Errorf("%+v, want %d", s, len(ids))
		}
		for _, q := range r.fake.Received() {
			if !ids[q.EventID] {
				t.Errorf("%s is another event", q.EventID)
			}
		}
	})
}

func (r *rig) reopened() int {
	synctest.Wait()
	return strings.Count(r.logs.String(), "the store failed; opening it again")
}

// A commit of the ledger is shared: what one asks for wrongly is no failure of the
// store, and none of the others.
func TestAMistypedIDDisturbsNobody(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		ctx := context.Background()
		ledger := r.app.core.Load().ledger
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				for range 50 {
					if err := ledger.Do(ctx, func(tx *store.Tx) { tx.Count("innocent", 1) }); err != nil {
						t.Errorf("another write of the same commit: %v", err)
						return
					}
				}
			})
			wg.Go(func() {
				for range 50 {
					_, err := r.app.DropDeadLetters(ctx, admin.ReplayRequest{Filter: event.Filter{IDs: []string{"typo"}}})
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

// PMM says it again as long as it fires, and a dead letter that was dropped must
// not keep that from going out.
func TestAfterADropTheAlertCanComeAgain(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		start := time.Now()
		r.fake.FailNext(2, callgoosetest.Failure{Mode: callgoosetest.Status, Status: 422})
		r.accept(group(mysqlDown(1, "firing", start)))
		r.accept(group(mysqlDown(2, "firing", start)))
		r.settle()
		if p, err := r.app.DropDeadLetters(context.Background(), admin.ReplayRequest{}); p.Events != 2 || err != nil {
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
