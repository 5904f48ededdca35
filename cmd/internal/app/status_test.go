package app

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose/callgoosetest"
	"pmm-callgoose/worker/callgoose/filters"
)

func codes(s admin.Status) (list []string) {
	for _, a := range s.Attention {
		list = append(list, a.Code)
	}
	return list
}

func TestTheLastCallIsKnownAlsoAfterARestart(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		if s := r.status(); s.LastDelivered != nil || s.Level != admin.Idle || len(s.Attention) != 0 {
			t.Errorf("before anything was sent: %+v", s)
		}
		start := time.Now()
		r.accept(group(mysqlDown(1, "firing", start)))
		r.settle()
		r.accept(group(mysqlDown(1, "resolved", start)))
		want := r.settle()
		check := func(when string) {
			t.Helper()
			s := r.status()
			l := s.LastDelivered
			if l == nil || l.Title != "MySQL down on mysql-01:3306" || l.Effect != "resolved" || l.Status != event.Resolved || !l.At.Equal(want.LastDelivered.At) {
				t.Errorf("%s the last call is %+v, want %+v", when, l, want.LastDelivered)
			}
			if s.Level != admin.Good && when != "after the restart" || s.Effects != (admin.Effects{Opened: 1, Closed: 1}) {
				t.Errorf("%s: %s, effects %+v", when, s.Headline, s.Effects)
			}
		}
		check("at once")
		want = r.status()
		r.restart()
		s := r.status()
		if l := s.LastDelivered; l == nil || l.Title != want.LastDelivered.Title || l.Effect != "resolved" || l.At.Sub(want.LastDelivered.At).Abs() > time.Second {
			t.Errorf("after the restart the last call is %+v", l)
		}
		if s.Effects != (admin.Effects{Opened: 1, Closed: 1}) {
			t.Errorf("after the restart the effects are %+v", s.Effects)
		}
	})
}

func TestWhatWaitsIsCountedBySeverityAndWhatStillFiresByName(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Status, Status: http.StatusServiceUnavailable})
		start := time.Now()
		info := mysqlDown(3, "firing", start)
		info.Labels["severity"], info.Labels["alertname"] = "info", "Noise"
		bare := mysqlDown(4, "firing", start)
		delete(bare.Labels, "severity")
		over := mysqlDown(5, "firing", start)
		r.accept(group(mysqlDown(1, "firing", start), mysqlDown(2, "firing", start), info, bare, over))
		time.Sleep(time.Minute)
		r.accept(group(mysqlDown(5, "resolved", start)))
		time.Sleep(2 * time.Minute)
		s := r.status()
		if w := s.WaitingBySeverity; w["critical"] != 4 || w["info"] != 1 || w["none"] != 1 || len(w) != 3 {
			t.Errorf("waiting by severity: %v", w)
		}
		want := []admin.Waiting{{Severity: "critical", Name: "MySQL down", Count: 2}, {Severity: "info", Name: "Noise", Count: 1}, {Severity: "none", Name: "MySQL down", Count: 1}}
		if !slices.Equal(s.StillFiring, want) {
			t.Errorf("still firing: %+v, want %+v", s.StillFiring, want)
		}
		if !slices.Equal(codes(s), []string{admin.IsDown}) || s.Level != admin.Bad || !strings.Contains(s.Headline, "6 events wait") {
			t.Errorf("%v: %s", codes(s), s.Headline)
		}
		r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Off})
		if s := r.settle(); len(s.WaitingBySeverity) != 0 || len(s.StillFiring) != 0 {
			time.Sleep(2 * time.Minute)
			if s = r.status(); len(s.WaitingBySeverity) != 0 || len(s.StillFiring) != 0 || s.Level != admin.Good {
				t.Errorf("with nothing waiting: %+v", s)
			}
		}
	})
}

func TestRefusedWebhooksAreSaidUntilAnHourHasPassed(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		r.accept(group(mysqlDown(1, "firing", time.Now())))
		r.settle()
		req := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/v1/webhook", strings.NewReader("{"))
		req.RemoteAddr = "192.0.2.7:4321"
		r.app.Handler().ServeHTTP(httptest.NewRecorder(), req)
		s := r.status()
		if f := s.Refused; f.LastHour != 1 || f.LastCode != 400 || f.LastRemote != "192.0.2.7" || f.LastReason == "" || f.LastAt == nil {
			t.Errorf("refused: %+v", f)
		}
		if !slices.Equal(codes(s), []string{admin.IsRefused}) || s.Level != admin.Bad || !strings.Contains(s.Headline, "192.0.2.7") {
			t.Errorf("%v %s: %s", codes(s), s.Level, s.Headline)
		}
		time.Sleep(time.Second)
		r.accept(group(mysqlDown(2, "firing", time.Now())))
		r.settle()
		if s := r.status(); s.Level != admin.Odd {
			t.Errorf("after one was accepted: %s %s", s.Level, s.Headline)
		}
		time.Sleep(2 * time.Hour)
		if s := r.status(); s.Level != admin.Good || s.Refused.LastHour != 0 {
			t.Errorf("two hours later: %s %s", s.Level, s.Headline)
		}
	})
}

func TestDiscardsAreSaidForADay(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		r.fake.SetFilters([]filters.Filter{})
		r.accept(group(mysqlDown(1, "firing", time.Now())))
		r.settle()
		time.Sleep(2 * time.Second)
		s := r.status()
		if !slices.Equal(codes(s), []string{admin.IsDiscarded}) || s.DiscardedFiring != 1 {
			t.Errorf("%v, %d: %s", codes(s), s.DiscardedFiring, s.Headline)
		}
		later := outlook{}
		if err := later.count(r.app.core.Load(), time.Now().Add(25*time.Hour)); err != nil || later.discarded != 0 {
			t.Errorf("a day later %d are said (%v)", later.discarded, err)
		}
	})
}

func TestAPauseHoldsDeliveryAcrossARestartUntilItIsResumed(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		ctx := context.Background()
		if err := r.app.Pause(ctx, store.Pause{Reason: "filters", By: "socket"}); err != nil {
			t.Fatal(err)
		}
		r.accept(group(mysqlDown(1, "firing", time.Now())))
		time.Sleep(time.Minute)
		r.restart()
		time.Sleep(time.Minute)
		s := r.status()
		if s.Callgoose.State != event.Paused || s.Queued != 1 || s.Pause == nil || s.Pause.Reason != "filters" || s.Pause.By != "socket" || !s.Pause.Until.IsZero() {
			t.Errorf("while paused: %+v %+v", s.Callgoose, s.Pause)
		}
		if !slices.Equal(codes(s), []string{admin.IsPaused}) || len(r.fake.Received()) != 0 {
			t.Errorf("%v: %s; %d sent", codes(s), s.Headline, len(r.fake.Received()))
		}
		if err := r.app.Resume(ctx, "socket"); err != nil {
			t.Fatal(err)
		}
		if s := r.settle(); s.Delivered != 1 || s.Pause != nil || s.Callgoose.State != event.Up {
			t.Errorf("after the pause: %+v", s)
		}
		until := time.Now().Add(time.Hour)
		if err := r.app.Pause(ctx, store.Pause{Until: until, By: "socket"}); err != nil {
			t.Fatal(err)
		}
		r.accept(group(mysqlDown(2, "firing", time.Now())))
		time.Sleep(50 * time.Minute)
		if s := r.status(); s.Queued != 1 || s.Pause == nil {
			t.Errorf("before its end: %+v", s.Pause)
		}
		time.Sleep(11 * time.Minute)
		if s := r.settle(); s.Delivered != 2 || s.Pause != nil {
			t.Errorf("after its end: %+v", s)
		}
	})
}

func TestAnIncidentsStoryTellsWhatHappenedAndWhoDidWhat(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		ctx := context.Background()
		start := time.Now()
		r.fake.FailNext(1, callgoosetest.Failure{Mode: callgoosetest.Status, Status: http.StatusServiceUnavailable})
		r.accept(group(mysqlDown(1, "firing", start)))
		r.settle()
		for range 3 {
			time.Sleep(time.Minute)
			r.accept(group(mysqlDown(1, "firing", start)))
		}
		time.Sleep(time.Minute)
		list, err := r.app.Incidents(ctx, event.Filter{Labels: map[string]string{"severity": "critical"}}, 10)
		if err != nil || len(list) != 1 || !list[0].Open || list[0].Outcome != event.Delivered {
			t.Fatalf("incidents: %+v, %v", list, err)
		}
		key := list[0].Key
		if err := r.app.CloseIncident(ctx, key, "token from 192.0.2.1"); err != nil {
			t.Fatal(err)
		}
		r.settle()
		s, err := r.app.Incident(ctx, key)
		if err != nil || s.Open {
			t.Fatalf("%+v, %v", s, err)
		}
		var told []string
		for _, step := range s.Story {
			told = append(told, step.What+": "+step.Text+" "+step.By)
		}
		all := strings.Join(told, "\n")
		at := -1
		for _, want := range []string{
			"received: firing received from pmm", "attempt: firing not taken (retry)", "attempt: Callgoose took firing: opened an incident",
			"repeated: PMM said firing again (repeat), 3 times until", "close: closed by hand, as a recovery token from 192.0.2.1",
			"attempt: Callgoose took resolved: closed the incident",
		} {
			i := strings.Index(all, want)
			if i <= at {
				t.Errorf("%q does not come behind the step before it in\n%s", want, all)
			}
			at = i
		}
		if _, err := r.app.Incident(ctx, "pmm-nobody"); !errors.Is(err, admin.ErrNotFound) {
			t.Errorf("an unknown incident: %v", err)
		}
	})
}

func TestAParkedEventLetsTheOthersGoOn(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Status, Status: http.StatusServiceUnavailable})
		r.accept(group(mysqlDown(1, "firing", time.Now())))
		time.Sleep(time.Minute)
		queued := r.events(event.Filter{Outcomes: []event.Outcome{event.Queued}})
		if len(queued) != 1 {
			t.Fatalf("%d queued", len(queued))
		}
		if err := r.app.ParkEvent(context.Background(), queued[0].ID, "socket"); err != nil {
			t.Fatal(err)
		}
		if err := r.app.ParkEvent(context.Background(), queued[0].ID, "socket"); !errors.Is(err, admin.ErrNotFound) {
			t.Errorf("parked twice: %v", err)
		}
		time.Sleep(2 * time.Second)
		if s := r.status(); s.Queued != 0 || s.Dead != 1 || !slices.Contains(codes(s), admin.IsDead) {
			t.Errorf("%+v", s)
		}
		s, err := r.app.Incident(context.Background(), queued[0].Key)
		if err != nil || !slices.ContainsFunc(s.Story, func(st admin.Step) bool { return st.What == "park" && st.By == "socket" }) {
			t.Errorf("the story: %+v, %v", s.Story, err)
		}
	})
}

func TestWhenNobodyWasCalledIsKeptAcrossARestart(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		ctx, began := context.Background(), time.Now()
		r.callgooseIsDown()
		r.accept(group(mysqlDown(1, "firing", began)))
		time.Sleep(10 * time.Minute)
		r.restart()
		time.Sleep(10 * time.Minute)
		r.callgooseIsBack()
		r.settle()
		time.Sleep(time.Minute)
		back := time.Now()
		if err := r.app.Pause(ctx, store.Pause{By: "socket"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		list, err := r.app.Outages()
		if err != nil || len(list) != 2 {
			t.Fatalf("%+v, %v", list, err)
		}
		down, paused := list[0], list[1]
		if lasted := down.Until.Sub(down.From); down.State != event.Down || down.From.Sub(began) > 10*time.Second || lasted < 20*time.Minute || lasted > 22*time.Minute {
			t.Errorf("the outage was %+v", down)
		}
		if paused.State != event.Paused || !paused.Until.IsZero() || paused.From.Before(back) || paused.From.Sub(back) > 10*time.Second {
			t.Errorf("the pause is %+v", paused)
		}
	})
}
