package app

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose/callgoosetest"
	"pmm-callgoose/worker/callgoose/filters"
)

func brake(c *config.Config) { c.Storm = config.Storm{Most: 30, Within: time.Minute} }

// flood posts alerts of one name, 50 in a webhook, with one of another name in the
// middle, and calls between in front of that.
func (r *rig) flood(n int, began time.Time, between func()) {
	r.t.Helper()
	var list []alert
	for server := range n {
		if server == n/2 {
			between()
			list = append(list, alert{Status: "firing", StartsAt: began, Labels: map[string]string{"alertname": "Disk full", "severity": "critical", "instance": "other"}})
		}
		if list = append(list, mysqlDown(server, "firing", began)); len(list) >= 50 || server == n-1 {
			r.accept(group(list...))
			list = nil
		}
	}
}

// titles are the open incidents, by the first word of their alert's name.
func (r *rig) titles() map[string]int {
	n := map[string]int{}
	for _, i := range r.fake.Open() {
		_, name, _ := strings.Cut(i.Title, " - ")
		name, _, _ = strings.Cut(name, " ")
		n[name]++
	}
	return n
}

// names are the first words of what was accepted, in order.
func (r *rig) names() (list []string) {
	for _, q := range r.fake.Received() {
		if q.Accepted() {
			var said struct{ Title string }
			if err := json.Unmarshal(q.Body, &said); err != nil {
				r.t.Fatal(err)
			}
			name, _, _ := strings.Cut(said.Title, " ")
			list = append(list, name)
		}
	}
	return list
}

func TestAStormIsOneCallAndTheFirstOfEachName(t *testing.T) {
	t.Parallel()
	bubble(t, func(c *config.Config) { brake(c); c.Rate = 10 }, func(r *rig) {
		began := time.Now()
		r.flood(500, began, func() {})
		time.Sleep(10 * time.Second)
		if got := r.titles(); got["MySQL"] != 30 || got["Disk"] != 1 || got["Storm:"] != 1 || len(got) != 3 {
			t.Errorf("in the storm there are open %v", got)
		}
		s := r.status()
		if len(s.Storms) != 1 || s.Storms[0].Waiting != 470 || s.Storms[0].Alerts != 501 || s.Queued != 470 || s.OldestQueuedAt != nil ||
			!strings.Contains(s.Headline, "Storm: 501 alerts from pmm since") || s.Level != "warn" {
			t.Errorf("in the storm the status says %+v", s)
		}
		list := r.events(event.Filter{Outcomes: []event.Outcome{event.Queued}})
		if len(list) != 470 || slices.ContainsFunc(list, func(rec *event.Record) bool { return rec.Reason != "storm" }) {
			t.Errorf("%d wait, not all of them because of a storm", len(list))
		}
		var over []alert
		for server := range 400 { // those that were sent, too
			over = append(over, mysqlDown(server, "resolved", began))
		}
		r.accept(group(over...))
		time.Sleep(10 * time.Second)
		if got := r.titles(); got["MySQL"] != 0 || got["Disk"] != 1 || got["Storm:"] != 1 {
			t.Errorf("after most have recovered there are open %v", got)
		}
		if s := r.status(); s.Collapsed != 740 || s.Queued != 100 {
			t.Errorf("recovered are %d, %d wait", s.Collapsed, s.Queued)
		}
		r.restart()
		time.Sleep(time.Minute + 5*time.Second - time.Since(began))
		if got := r.titles(); got["Storm:"] != 0 || got["MySQL"] == 0 || got["MySQL"] > 51 {
			t.Errorf("when it is calm there are open %v: not at --rate", got)
		}
		s = r.settle()
		if got := r.titles(); got["MySQL"] != 100 || got["Disk"] != 1 || len(got) != 2 {
			t.Errorf("in the end there are open %v", got)
		}
		if len(s.Storms) != 0 || s.StormsTotal != 1 || len(s.Attention) != 0 {
			t.Errorf("in the end the status says %+v", s)
		}
	})
}

// An outage of twelve minutes with a flood in it, and restarts at bad moments.
func TestAStormWhileCallgooseIsAway(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"alert", "alertname"} {
		t.Run(by, func(t *testing.T) {
			fake := callgoosetest.Config{KeepBodies: true, Tokens: []string{token}, Filters: filters.Guide()}
			bubbleWith(t, fake, func(c *config.Config) { brake(c); c.IncidentBy = by }, func(r *rig) {
				r.callgooseIsDown()
				began := time.Now()
				r.flood(500, began, r.restart)
				r.restart()
				time.Sleep(30 * time.Second)
				if s := r.status(); len(s.Storms) != 1 || s.Storms[0].Waiting < 460 {
					t.Errorf("half a minute into it: %+v", s.Storms)
				}
				r.accept(group(mysqlDown(499, "resolved", began)))
				time.Sleep(11*time.Minute + 30*time.Second)
				if s := r.status(); len(s.Storms) != 0 || s.Queued < 500 {
					t.Errorf("after its window: %+v, %d wait", s.Storms, s.Queued)
				}
				r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Slow, Delay: 10 * time.Millisecond}) // back, and no sender gets far ahead
				if s := r.settle(); s.Dead+s.Discarded > 0 {
					t.Errorf("lost %+v", s)
				}
				names := r.names()
				if got := strings.Join(names[:min(len(names), 50)], " "); !strings.Contains(got, "Disk") || !strings.Contains(got, "Storm:") {
					t.Errorf("the first that were sent are %s", got)
				}
				if got, want := len(r.fake.Open()), map[string]int{"alert": 500, "alertname": 2}[by]; got != want {
					t.Errorf("in the end %d incidents are open, want %d", got, want)
				}
				var over []alert
				for server := range 499 {
					over = append(over, mysqlDown(server, "resolved", began))
				}
				r.accept(group(over...))
				r.settle()
				if open := r.fake.Open(); len(open) != 1 {
					t.Errorf("after the recoveries %d incidents are open", len(open))
				}
			})
		})
	}
}

func TestWithoutTheSettingThereIsNoStorm(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		r.flood(500, time.Now(), func() {})
		time.Sleep(10 * time.Second)
		if got := r.titles(); got["MySQL"] != 500 || got["Disk"] != 1 || len(got) != 2 {
			t.Errorf("there are open %v", got)
		}
	})
}
