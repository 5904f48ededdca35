package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose/callgoosetest"
	"pmm-callgoose/worker/callgoose/filters"
)

// A 202 means that no filter matched: it does not count as sent, and the next
// repeat of PMM goes out, as the same event.
func TestARepeatGoesOutAfterADiscard(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		r.fake.SetFilters([]filters.Filter{})
		start := time.Now()
		body := group(mysqlDown(1, "firing", start))
		r.accept(body)
		if s := r.settle(); s.Discarded != 1 {
			t.Fatalf("status %+v", s)
		}
		r.fake.SetFilters(filters.Recommended())
		time.Sleep(4 * time.Hour)
		r.accept(body)
		if s := r.settle(); s.Discarded != 0 || s.Delivered != 1 {
			t.Fatalf("status %+v", s)
		}
		r.accept(body)
		if s := r.settle(); s.SuppressedReason["repeat"] != 1 {
			t.Fatalf("status %+v", s)
		}
		got := r.fake.Received()
		if len(got) != 2 || got[0].EventID != got[1].EventID || !bytes.Equal(got[0].Body, got[1].Body) {
			t.Errorf("received %d requests; the repeat must be the same event with the same bytes", len(got))
		}
		if len(r.fake.Open()) != 1 {
			t.Errorf("incidents %v", r.fake.Incidents())
		}
	})
}

// Every row of the outcome table.
func TestOutcomeByAnswer(t *testing.T) {
	t.Parallel()
	later := func(s int) callgoosetest.Failure { return callgoosetest.Failure{Mode: callgoosetest.Status, Status: s} }
	for _, c := range []struct {
		status int
		want   event.Outcome
		state  string
	}{
		{400, event.Dead, "up"},
		{413, event.Dead, "up"},
		{415, event.Dead, "up"},
		{422, event.Dead, "up"},
		{401, event.Queued, "held"},
		{403, event.Queued, "held"},
		{404, event.Queued, "held"},
		{405, event.Queued, "held"},
		{301, event.Queued, "held"},
		{302, event.Queued, "held"},
		{307, event.Queued, "held"},
		{408, event.Queued, "down"},
		{425, event.Queued, "down"},
		{429, event.Queued, "down"},
		{500, event.Queued, "down"},
		{502, event.Queued, "down"},
		{503, event.Queued, "down"},
		{418, event.Queued, "down"},
		{204, event.Delivered, "up"},
		{202, event.Discarded, "up"},
	} {
		t.Run(fmt.Sprint(c.status), func(t *testing.T) {
			bubble(t, nil, func(r *rig) {
				r.fake.Fail(later(c.status))
				r.accept(group(mysqlDown(1, "firing", time.Now())))
				time.Sleep(time.Minute)
				list := r.events(event.Filter{})
				if len(list) != 1 || list[0].Outcome != c.want {
					t.Fatalf("outcome %+v, want %s", list, c.want)
				}
				if s := r.status().Callgoose; s.State != c.state {
					t.Errorf("callgoose is %s (%s), want %s", s.State, s.LastError, c.state)
				}
				r.fake.Fail(callgoosetest.Failure{})
				r.settle()
				want := event.Delivered
				if c.want != event.Queued {
					want = c.want
				}
				if got := r.events(event.Filter{})[0]; got.Outcome != want {
					t.Errorf("afterwards %s, want %s", got.Outcome, want)
				}
			})
		})
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	t.Parallel()
	for name, header := range map[string]func() string{
		"seconds": func() string { return "600" },
		"date":    func() string { return time.Now().Add(10 * time.Minute).UTC().Format(http.TimeFormat) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(r *rig) {
				r.fake.FailNext(1, callgoosetest.Failure{Mode: callgoosetest.Status, Status: 429, RetryAfter: header()})
				r.accept(group(mysqlDown(1, "firing", time.Now()), mysqlDown(2, "firing", time.Now())))
				r.settle()
				got := r.fake.Received()
				if wait := got[len(got)-1].Time.Sub(got[0].Time); wait < 10*time.Minute-2*time.Second || wait > 11*time.Minute {
					t.Errorf("tried again after %s", wait)
				}
			})
		})
	}
}

// A lost reply leaves us not knowing: the same bytes go out again.
func TestTheBodyNeverChangesOnceItMayHaveBeenReceived(t *testing.T) {
	t.Parallel()
	bubbleWith(t, callgoosetest.Config{KeepBodies: true, DuplicateWindow: 24 * time.Hour}, nil, func(r *rig) {
		r.fake.FailNext(1, callgoosetest.Failure{Mode: callgoosetest.LoseReply})
		r.accept(group(mysqlDown(1, "firing", time.Now())))
		time.Sleep(100 * time.Millisecond)
		r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Status, Status: 503})
		time.Sleep(2 * time.Hour) // late by now
		r.restart()
		r.fake.Fail(callgoosetest.Failure{})
		r.settle()
		got := r.fake.Received()
		if len(got) < 3 {
			t.Fatalf("%d requests", len(got))
		}
		for i, q := range got {
			if !bytes.Equal(q.Body, got[0].Body) {
				t.Errorf("request %d has another body:\n%s\n%s", i, q.Body, got[0].Body)
			}
		}
	})
}

// While connections are refused nothing was received, so the words about the
// delay are those of the delivery.
func TestALateEventSaysSo(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		r.net.Refuse(true)
		r.accept(group(mysqlDown(1, "firing", time.Now())))
		time.Sleep(time.Hour)
		r.net.Refuse(false)
		r.settle()
		var body struct {
			DelayedBy   string `json:"delayed_by"`
			Description string `json:"description"`
		}
		got := r.fake.Received()
		if err := json.Unmarshal(got[len(got)-1].Body, &body); err != nil {
			t.Fatal(err)
		}
		d, err := time.ParseDuration(body.DelayedBy)
		if err != nil || d < time.Hour || d > 70*time.Minute || !strings.Contains(body.Description, body.DelayedBy) {
			t.Errorf("delayed_by %q, description %q", body.DelayedBy, body.Description)
		}
	})
}

func TestAnOutageCostsOneProbeAtATime(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		r.acceptFile("grafana-firing-1.json")
		r.settle()
		r.net.Refuse(true)
		var alerts []alert
		for i := range 500 {
			alerts = append(alerts, mysqlDown(i, "firing", time.Now()))
		}
		r.accept(group(alerts...))
		time.Sleep(20 * time.Second)
		tries := r.net.tried.Load() - 1
		if tries > 30 || tries < 5 {
			t.Errorf("%d connections were tried in 20 s of outage", tries)
		}
		if s := r.status(); s.Callgoose.State != "down" || s.Queued != 500 {
			t.Errorf("status %+v", s)
		}
		r.net.Refuse(false)
		up := time.Now()
		r.settle()
		for _, q := range r.fake.Received()[1:2] {
			if wait := q.Time.Sub(up); wait > 3*time.Second {
				t.Errorf("the first event went out %s after the end", wait)
			}
		}
		if s := r.status(); s.Delivered != 501 {
			t.Errorf("status %+v", s)
		}
	})
}

// An outage with answers begins under load: those that wait for their turn
// do not go out once the ones before them have failed.
func TestAnOutageThatAnswersCostsFewRequests(t *testing.T) {
	t.Parallel()
	for _, status := range []int{503, 429, 401} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			bubble(t, nil, func(r *rig) {
				r.acceptFile("grafana-firing-1.json")
				r.settle()
				r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Status, Status: status, Delay: 50 * time.Millisecond})
				var alerts []alert
				for i := range 1000 {
					alerts = append(alerts, mysqlDown(i, "firing", time.Now()))
				}
				r.accept(group(alerts...))
				time.Sleep(20 * time.Second)
				if tries := r.net.tried.Load() - 1; tries > 30 || tries < 16 {
					t.Errorf("%d requests in 20 s of outage", tries)
				}
				r.fake.Fail(callgoosetest.Failure{})
				if s := r.settle(); s.Delivered != 1001 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// What was known of Callgoose before a start is from before it: the first probe says
// what is.
func TestAStartRemembersNothingOfCallgoose(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		r.net.Refuse(true)
		r.accept(group(mysqlDown(1, "firing", time.Now())))
		time.Sleep(time.Minute)
		r.restart()
		at := time.Now()
		if s := r.status(); s.Callgoose.State != "unknown" && s.Callgoose.Since.Before(at) {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Minute)
		if s := r.status(); s.Callgoose.State != "down" || s.Callgoose.LastError == "" || s.Queued != 1 {
			t.Errorf("after a probe: %+v", s)
		}
		r.net.Refuse(false)
		r.settle()
	})
}

// What fired and resolved while nothing could be sent is no phone call, if one
// wishes so; what fires afterwards is.
func TestCollapse(t *testing.T) {
	t.Parallel()
	bubble(t, func(c *config.Config) { c.OnBacklog = "collapse" }, func(r *rig) {
		r.acceptFile("grafana-firing-1.json")
		r.settle()
		r.net.Refuse(true)
		start := time.Now()
		r.accept(group(mysqlDown(1, "firing", start), mysqlDown(2, "firing", start)))
		time.Sleep(10 * time.Minute)
		r.accept(group(mysqlDown(1, "resolved", start)))
		time.Sleep(10 * time.Minute)
		r.accept(group(mysqlDown(1, "firing", time.Now())))
		time.Sleep(10 * time.Minute)
		r.restart()
		r.net.Refuse(false)
		if s := r.settle(); s.Collapsed != 2 || s.Delivered != 3 {
			t.Errorf("%+v", s)
		}
		for key, got := range r.statuses() {
			if !slices.Equal(got, []string{"firing"}) {
				t.Errorf("%s was told %v", key, got)
			}
		}
	})
}

// Somebody pressed the Test button and looks at Callgoose: the pair is delivered,
// as the first thing of all and after an outage.
func TestCollapseLeavesTheTestButtonAlone(t *testing.T) {
	t.Parallel()
	bubble(t, func(c *config.Config) { c.OnBacklog = "collapse" }, func(r *rig) {
		r.acceptFile("grafana-test-button.json")
		if s := r.settle(); s.Delivered != 2 {
			t.Fatalf("at the start: %+v", s)
		}
		r.net.Refuse(true)
		r.accept(bytes.ReplaceAll(webhook(t, "grafana-test-button.json"), []byte("09:33:55"), []byte("10:33:55")))
		time.Sleep(time.Minute)
		start := time.Now()
		r.accept(group(mysqlDown(1, "firing", start)))
		r.accept(group(mysqlDown(1, "resolved", start)))
		time.Sleep(10 * time.Minute)
		r.net.Refuse(false)
		if s := r.settle(); s.Delivered != 4 || s.Collapsed != 2 {
			t.Errorf("after the outage: %+v", s)
		}
	})
}

// Callgoose was never tried yet: that is no outage, and nothing is collapsed.
func TestNothingIsCollapsedBeforeTheFirstAttempt(t *testing.T) {
	t.Parallel()
	bubble(t, func(c *config.Config) { c.OnBacklog = "collapse" }, func(r *rig) {
		start := time.Now()
		r.accept(group(mysqlDown(1, "firing", start), mysqlDown(2, "firing", start), mysqlDown(1, "resolved", start)))
		if s := r.settle(); s.Delivered != 3 {
			t.Errorf("%+v", s)
		}
	})
}

// An event that is older than --retry-for is given up, with the reason, also
// while nothing can be tried; and it can be sent again.
func TestEventsAreGivenUpAfterRetryFor(t *testing.T) {
	t.Parallel()
	bubble(t, func(c *config.Config) { c.RetryFor = time.Hour }, func(r *rig) {
		r.net.Refuse(true)
		r.accept(group(mysqlDown(1, "firing", time.Now()), mysqlDown(2, "firing", time.Now())))
		time.Sleep(62 * time.Minute)
		list := r.events(event.Filter{Outcomes: []event.Outcome{event.Dead}})
		if len(list) != 2 || !strings.Contains(list[0].Reason, "--retry-for") || !strings.Contains(list[0].Reason, "refused") {
			t.Fatalf("dead letters %+v", list)
		}
		r.net.Refuse(false)
		if _, err := r.app.Replay(context.Background(), admin.ReplayRequest{Filter: event.Filter{Outcomes: []event.Outcome{event.Dead}}}); err != nil {
			t.Fatal(err)
		}
		if s := r.settle(); s.Dead != 0 || s.Delivered != 2 {
			t.Errorf("%+v", s)
		}
	})
}

// However many events an outage leaves, nothing goes out a second time.
func TestAfterALongOutageNothingGoesOutTwice(t *testing.T) {
	t.Parallel()
	const n = 1300
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

// With a low rate those that wait for it must keep neither the probe nor a stop
// waiting.
func TestALowRateHoldsUpNeitherProbeNorStop(t *testing.T) {
	t.Parallel()
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

// Whatever opens an incident must be followed by what closes it: of episodes that
// share one none may be collapsed away.
func TestACollapseLeavesNoIncidentOpen(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"alert", "alertname"} {
		t.Run(by, func(t *testing.T) {
			guide := callgoosetest.Config{KeepBodies: true, Filters: filters.Guide(), Tokens: []string{token}}
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
	t.Parallel()
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
