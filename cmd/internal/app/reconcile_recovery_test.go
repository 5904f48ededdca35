package app

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store/event"
)

// hollow is the recovery that Grafana makes when the data of an alert is gone.
func hollow(server int, starts time.Time) alert {
	a := mysqlDown(server, "resolved", starts)
	a.Labels["percona_alerting"] = "1"
	a.Annotations["grafana_state_reason"] = "MissingSeries"
	return a
}

func fromTemplate(server int, starts time.Time) alert {
	a := mysqlDown(server, "firing", starts)
	a.Labels["percona_alerting"] = "1"
	return a
}

func (r *rig) wantOpen(when string, want int) {
	r.t.Helper()
	if got := len(r.fake.Open()); got != want {
		r.t.Errorf("%s: %d incidents are open, want %d", when, got, want)
	}
}

func TestAHollowRecoveryWaits(t *testing.T) {
	t.Parallel()
	bubble(t, func(c *config.Config) { c.HollowRecovery, c.HoldHollow = "hold", 2*time.Hour }, func(r *rig) {
		began := time.Now()
		r.accept(group(fromTemplate(1, began), fromTemplate(2, began), mysqlDown(3, "firing", began)))
		r.settle()
		r.accept(group(hollow(1, began), hollow(2, began), mysqlDown(3, "resolved", began)))
		time.Sleep(time.Minute)
		r.wantOpen("the data of two is gone", 2)
		r.restart() // it is on disk
		time.Sleep(90 * time.Minute)
		r.wantOpen("and an hour and a half later", 2)
		if s := r.status(); s.OldestQueuedAt != nil || s.Queued != 2 {
			t.Errorf("the status says %d queued, the oldest at %v", s.Queued, s.OldestQueuedAt)
		}
		r.accept(group(fromTemplate(1, time.Now()))) // the agent is back, and the fault is still there
		time.Sleep(time.Hour)
		r.wantOpen("after two hours", 1)
		got := map[string]int{}
		for _, e := range r.events(event.Filter{Outcomes: []event.Outcome{event.Collapsed}}) {
			got[string(e.Status)+" "+e.Reason]++
		}
		if len(got) != 2 || got["firing flap"] != 1 || got["resolved flap"] != 1 {
			t.Errorf("collapsed are %v", got)
		}
		list := r.fake.Received()
		var body struct{ Recovery, DelayedBy string }
		if err := json.Unmarshal(list[len(list)-1].Body, &body); err != nil || body.Recovery != "hollow" || body.DelayedBy != "" {
			t.Errorf("sent was %+v, %v", body, err)
		}
	})
}

func TestWordsAboutAHollowRecovery(t *testing.T) {
	t.Parallel()
	for mode, words := range map[string]bool{"mark": true, "send": false} {
		bubble(t, func(c *config.Config) { c.HollowRecovery = mode }, func(r *rig) {
			began := time.Now()
			r.accept(group(fromTemplate(1, began)))
			r.settle()
			r.accept(group(hollow(1, began)))
			r.settle()
			r.wantOpen(mode, 0)
			list := r.fake.Received()
			var body struct{ Description, Recovery string }
			if err := json.Unmarshal(list[len(list)-1].Body, &body); err != nil || body.Recovery != "hollow" {
				t.Errorf("%s: sent was %+v, %v", mode, body, err)
			}
			if said := body.Description != "mysql-01 does not answer"; said != words {
				t.Errorf("%s: the description is %q", mode, body.Description)
			}
		})
	}
}

// A flapping alert is one incident: what fires again within the time keeps it.
func TestAFlappingAlertIsOneIncident(t *testing.T) {
	t.Parallel()
	bubble(t, func(c *config.Config) { c.HoldRecovery = 5 * time.Minute }, func(r *rig) {
		for range 10 {
			began := time.Now()
			r.accept(group(mysqlDown(1, "firing", began)))
			time.Sleep(time.Minute)
			r.accept(group(mysqlDown(1, "resolved", began)))
			time.Sleep(4 * time.Minute)
			r.wantOpen("between two of its times", 1)
		}
		time.Sleep(2 * time.Minute)
		r.wantOpen("five minutes after the last", 0)
		for key, got := range r.statuses() {
			if !slices.Equal(got, []string{"firing", "resolved"}) {
				t.Errorf("of %s were sent %q", key, got)
			}
		}
	})
}

// What is held keeps nothing else waiting, also where one incident is of all alerts of
// a name.
func TestAHeldRecoveryKeepsNothingWaiting(t *testing.T) {
	t.Parallel()
	bubble(t, func(c *config.Config) { c.HoldRecovery, c.IncidentBy = time.Hour, "alertname" }, func(r *rig) {
		began := time.Now()
		r.accept(group(mysqlDown(1, "firing", began)))
		r.settle()
		r.accept(group(mysqlDown(1, "resolved", began)))
		time.Sleep(time.Minute)
		r.wantOpen("the recovery of the one is held", 1)
		r.accept(group(mysqlDown(2, "firing", time.Now())))
		time.Sleep(time.Second)
		var got []string
		for _, q := range r.fake.Received() {
			got = append(got, q.Status)
		}
		if !slices.Equal(got, []string{"firing", "resolved", "firing"}) {
			t.Errorf("sent were %q", got)
		}
	})
}

// That --incident-by was another once ends no hold at a start.
func TestAHoldOutlivesARestartAfterIncidentByChanged(t *testing.T) {
	t.Parallel()
	bubble(t, func(c *config.Config) { c.HoldRecovery, c.IncidentBy = 5*time.Minute, "alertname" }, func(r *rig) {
		began := time.Now()
		r.accept(group(mysqlDown(9, "firing", began)))
		r.settle()
		r.cfg.IncidentBy = "alert"
		r.restart()
		r.accept(group(mysqlDown(1, "firing", began), mysqlDown(2, "firing", began)))
		r.settle()
		r.accept(group(mysqlDown(1, "resolved", began), mysqlDown(2, "resolved", began)))
		time.Sleep(time.Minute)
		r.wantOpen("while they are held", 3)
		r.restart()
		time.Sleep(time.Minute)
		r.wantOpen("after a restart", 3)
		time.Sleep(5 * time.Minute)
		r.wantOpen("after their time", 1)
	})
}
