package app

import (
	"context"
	"net/http"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose/callgoosetest"
)

func TestAnEventSaysWhenItIsTriedAgain(t *testing.T) {
	t.Parallel()
	bubble(t, func(c *config.Config) { c.RetryMin, c.RetryMax = time.Hour, time.Hour }, func(r *rig) {
		r.accept(group(mysqlDown(1, "firing", time.Now())))
		r.settle()
		r.fake.FailNext(1, callgoosetest.Failure{Mode: callgoosetest.Status, Status: http.StatusServiceUnavailable})
		r.accept(group(mysqlDown(2, "firing", time.Now())))
		time.Sleep(time.Second)
		waiting := r.events(event.Filter{Outcomes: []event.Outcome{event.Queued}})
		if len(waiting) != 1 || waiting[0].Tries != 1 {
			t.Fatalf("waiting are %+v", waiting)
		}
		d, err := r.app.Event(context.Background(), waiting[0].ID)
		if err != nil || d.NextTry == nil || d.NextTry.Before(time.Now()) || d.NextTry.After(time.Now().Add(time.Hour)) {
			t.Errorf("the next try is %v, %v", d.NextTry, err)
		}
		before := r.app.Changes()
		r.settle()
		if r.app.Changes() == before {
			t.Error("a delivery was no change")
		}
		if d, err := r.app.Event(context.Background(), waiting[0].ID); err != nil || d.NextTry != nil {
			t.Errorf("after it was delivered the next try is %v, %v", d.NextTry, err)
		}
	})
}

func TestTheHistorySurvivesARestart(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		began := time.Now()
		r.accept(group(mysqlDown(1, "firing", began), mysqlDown(2, "firing", began)))
		r.settle()
		r.accept(group(mysqlDown(1, "firing", began))) // a repeat
		r.settle()
		r.restart()
		list, err := r.app.History(began.Add(-time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		var sum event.Minute
		for _, m := range list {
			sum.Add(m)
		}
		if sum != (event.Minute{In: 2, Out: 2, Suppressed: 1}) {
			t.Errorf("the history is %+v", list)
		}
	})
}
