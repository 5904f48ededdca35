package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose/callgoosetest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Every body that PMM and Alertmanager really sent, and the guide's samples in
// sequence: what goes out for them, byte for byte.
func TestPayloadsAreGolden(t *testing.T) {
	cases := map[string][]string{"guide": {"guide-firing.json", "guide-resolved.json"}}
	files, err := filepath.Glob("../../../testdata/webhook/*.json")
	if err != nil || len(files) < 9 {
		t.Fatal("no payloads", err)
	}
	for _, f := range files {
		name := filepath.Base(f)
		cases[strings.TrimSuffix(name, ".json")] = []string{name}
	}
	for name, files := range cases {
		for _, by := range []string{"alert", "alertname"} {
			t.Run(name+"-"+by, func(t *testing.T) {
				bubble(t, func(c *config.Config) { c.IncidentBy = by }, func(r *rig) {
					for _, f := range files {
						r.acceptFile(f)
						r.settle()
					}
					var lines []string
					for _, q := range r.fake.Received() {
						lines = append(lines, string(bytes.ReplaceAll(q.Body, []byte("\n"), []byte("⏎"))))
					}
					if len(files) == 1 { // one group: its keys go out side by side
						slices.Sort(lines)
					}
					golden(t, fmt.Sprintf("%s-%s.jsonl", name, by), strings.Join(lines, "\n")+"\n")
				})
			})
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("..", "..", "..", "testdata", "golden", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (a changed payload changes what Callgoose sees):\n got %s\nwant %s", name, got, want)
	}
}

// The worked examples of both samples, as the receiving side documents them.
func TestTheGuidesSamplesInSequence(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.acceptFile("guide-firing.json")
		r.settle()
		r.acceptFile("guide-resolved.json")
		r.settle()
		got := r.fake.Received()
		if len(got) != 2 {
			t.Fatalf("received %d requests", len(got))
		}
		for i, want := range []map[string]any{
			{"status": "firing", "description": "Instance mysql-01:3306 has been unreachable for more than 1 minute."},
			{"status": "resolved", "description": "Instance mysql-01:3306 has been unreachable for more than 1 minute."},
		} {
			var body map[string]any
			if err := json.Unmarshal(got[i].Body, &body); err != nil {
				t.Fatal(err)
			}
			want["incident_key"], want["source"], want["severity"], want["instance"] = "pmm-18e04dbe104bb755", "PerconaPMM", "critical", "mysql-01:3306"
			want["title"] = "MySQL Down - MySQL instance is down"
			for k, v := range want {
				if body[k] != v {
					t.Errorf("event %d: %s is %q, want %q", i, k, body[k], v)
				}
			}
			labels := body["commonLabels"].(map[string]any)
			if labels["alertname"] != "MySQL Down [mysql-01:3306]" || labels["instance"] != "mysql-01:3306" {
				t.Errorf("event %d: commonLabels %v", i, labels)
			}
			if fp := body["alerts"].([]any)[0].(map[string]any)["fingerprint"]; fp != "18e04dbe104bb755" {
				t.Errorf("event %d: fingerprint %v", i, fp)
			}
		}
		if open := r.fake.Open(); len(open) != 0 || len(r.fake.Incidents()) != 1 {
			t.Errorf("incidents %v", r.fake.Incidents())
		}
	})
}

// Two instances of one rule are two incidents, each closed by its own recovery,
// with the recommended filters and with the guide's as they are printed, under
// every answer that Callgoose's documentation leaves open.
func TestEachInstanceHasItsOwnIncident(t *testing.T) {
	t.Parallel()
	filters := map[string][]callgoosetest.Filter{"recommended": callgoosetest.RecommendedFilters(), "guide": callgoosetest.GuideFilters()}
	for name, f := range filters {
		for _, unknown := range []callgoosetest.Config{
			{},
			{ResolveOne: true},
			{UnmatchedStatus: 202},
			{SecondTrigger: 1},
			{DuplicateWindow: time.Hour},
			{DuplicateWindow: time.Hour, DuplicateStatus: 202},
		} {
			t.Run(fmt.Sprintf("%s-%+v", name, unknown), func(t *testing.T) {
				unknown.Filters, unknown.KeepBodies, unknown.Tokens = f, true, []string{token}
				bubbleWith(t, unknown, nil, func(r *rig) {
					start := time.Now()
					r.accept(group(mysqlDown(1, "firing", start), mysqlDown(2, "firing", start)))
					r.settle()
					if open := r.fake.Open(); len(open) != 2 {
						t.Fatalf("%d incidents are open, want 2: %v", len(open), open)
					}
					time.Sleep(5 * time.Minute)
					// A mixed group: its top-level status is still firing.
					r.accept(group(mysqlDown(1, "resolved", start), mysqlDown(2, "firing", start)))
					r.settle()
					open := r.fake.Open()
					if len(open) != 1 || !strings.Contains(open[0].Description, "mysql-02") {
						t.Fatalf("open after the first recovery: %v", open)
					}
					r.accept(group(mysqlDown(2, "resolved", start)))
					r.settle()
					if open := r.fake.Open(); len(open) != 0 || len(r.fake.Incidents()) != 2 {
						t.Fatalf("incidents at the end: %v", r.fake.Incidents())
					}
				})
			})
		}
	}
}

// With one incident per alert name the first recovery must not close it.
func TestByAlertnameTheLastRecoveryCloses(t *testing.T) {
	bubbleWith(t, callgoosetest.Config{KeepBodies: true, Filters: callgoosetest.GuideFilters(), Tokens: []string{token}},
		func(c *config.Config) { c.IncidentBy = "alertname" }, func(r *rig) {
			start := time.Now()
			r.accept(group(mysqlDown(1, "firing", start), mysqlDown(2, "firing", start)))
			r.settle()
			r.accept(group(mysqlDown(1, "resolved", start), mysqlDown(2, "firing", start)))
			s := r.settle()
			if len(r.fake.Open()) != 1 || s.SuppressedReason["still_firing"] != 1 {
				t.Fatalf("open %v, suppressed %v", r.fake.Open(), s.SuppressedReason)
			}
			r.restart()
			r.accept(group(mysqlDown(2, "resolved", start)))
			r.settle()
			if len(r.fake.Open()) != 0 || len(r.fake.Incidents()) != 1 {
				t.Fatalf("incidents %v", r.fake.Incidents())
			}
		})
}

func TestATestAlertLeavesNoIncidentOpen(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.acceptFile("grafana-test-button.json")
		r.settle()
		if got := r.statuses()["pmm-57c6d9296de2ad39"]; !slices.Equal(got, []string{"firing", "resolved"}) {
			t.Errorf("sent %v", got)
		}
		if len(r.fake.Open()) != 0 {
			t.Error("its incident is open")
		}
	})
}

// A 202 means that no filter matched: it does not count as sent, and the next
// repeat of PMM goes out, as the same event.
func TestARepeatGoesOutAfterADiscard(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.fake.SetFilters([]callgoosetest.Filter{})
		start := time.Now()
		body := group(mysqlDown(1, "firing", start))
		r.accept(body)
		if s := r.settle(); s.Discarded != 1 {
			t.Fatalf("status %+v", s)
		}
		r.fake.SetFilters(callgoosetest.RecommendedFilters())
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

// When what filled the store is settled, PMM need not wait: there is room again
// within seconds, although nothing else happens.
func TestAFullStoreRecoversSoon(t *testing.T) {
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

// What a ledger's file holds is a view: without it nothing that waits is lost
// and no open episode is forgotten.
func TestTheLedgerIsRebuilt(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		start := time.Now()
		r.accept(group(mysqlDown(1, "firing", start), mysqlDown(2, "firing", start)))
		r.settle()
		r.net.Refuse(true)
		r.accept(group(mysqlDown(1, "resolved", start), mysqlDown(3, "firing", start)))
		time.Sleep(time.Minute)
		r.halt()
		if err := os.Remove(filepath.Join(r.cfg.DataDir, store.FileName)); err != nil {
			t.Fatal(err)
		}
		r.start()
		time.Sleep(time.Second)
		if s := r.status(); s.Queued != 2 || s.Notifications != 2 || s.Alerts != 4 {
			t.Errorf("after the rebuild: %+v", s)
		}
		r.net.Refuse(false)
		r.settle()
		for range 2 { // whether Callgoose has 2 is not known: its first repeat goes out
			r.accept(group(mysqlDown(2, "firing", start), mysqlDown(3, "firing", start)))
			r.settle()
		}
		if s := r.status(); s.SuppressedReason["repeat"] != 3 || s.Unknown != 1 {
			t.Errorf("open episodes were forgotten: %+v", s)
		}
		for key, got := range r.statuses() {
			if len(got) > 2 || got[0] != "firing" {
				t.Errorf("%s got %v", key, got)
			}
		}
		if !strings.Contains(r.logs.String(), "the ledger is new") {
			t.Error("nobody was told what is gone")
		}
	})
}

func TestOneDirectoryHasOneOwner(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		second, err := New(r.cfg, Options{NoListen: true, Transport: r.net})
		if err != nil {
			t.Fatal(err)
		}
		if err := second.Run(context.Background()); !errors.Is(err, store.ErrLocked) {
			t.Errorf("the second says %v", err)
		}
	})
}

func TestAFullStoreIsAnsweredWith503(t *testing.T) {
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

func TestAnUnusableMemberIsKeptAndTheOthersGoOn(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.accept([]byte(`{"status":"firing","alerts":[{"status":"firing","labels":{"alertname":"A"}},"nonsense"]}`))
		s := r.settle()
		if s.Delivered != 1 || s.Dead != 1 {
			t.Fatalf("status %+v", s)
		}
		dead := r.events(event.Filter{Outcomes: []event.Outcome{event.Dead}})[0]
		d, err := r.app.Event(context.Background(), dead.ID)
		if err != nil || string(d.Raw) != `"nonsense"` || dead.Reason == "" {
			t.Errorf("dead letter %+v, raw %s, %v", dead, d.Raw, err)
		}
	})
}

// Retention removes what is settled, never what is waiting, and forgets no open
// episode.
func TestRetention(t *testing.T) {
	if testing.Short() {
		t.Skip("days of ticks")
	}
	t.Parallel()
	bubble(t, func(c *config.Config) { c.Retention = 24 * time.Hour }, func(r *rig) {
		start := time.Now()
		r.accept(group(mysqlDown(1, "firing", start), mysqlDown(2, "firing", start)))
		r.settle()
		r.accept(group(mysqlDown(2, "resolved", start)))
		r.settle()
		for day := range 2 {
			time.Sleep(24 * time.Hour)
			at := time.Now()
			r.accept(group(mysqlDown(10+day, "firing", at)))
			r.settle()
			if day == 1 {
				r.net.Refuse(true) // one that waits
			}
			r.accept(group(mysqlDown(10+day, "resolved", at)))
		}
		time.Sleep(12 * time.Hour)
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

// After the filter was repaired, what was discarded is sent again: the same
// events, the same bytes, in order, and not what is over.
func TestReplay(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.fake.SetFilters([]callgoosetest.Filter{})
		start := time.Now()
		r.accept(group(mysqlDown(1, "firing", start), mysqlDown(2, "firing", start)))
		r.settle()
		r.accept(group(mysqlDown(1, "resolved", start)))
		r.settle()
		r.fake.SetFilters(callgoosetest.RecommendedFilters())
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
		if n, err := r.app.DropDeadLetters(context.Background(), admin.DropRequest{}); n.Events != 1 || err != nil {
			t.Errorf("dropped %+v, %v", n, err)
		}
		if s := r.status(); s.Dead != 0 || s.Delivered != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// A limit means the oldest so many, and an ID with a typing error is no work done.
func TestDroppingAndReplayingTakeExactlyWhatWasNamed(t *testing.T) {
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
		if n, err := r.app.DropDeadLetters(ctx, admin.DropRequest{Filter: event.Filter{OldestFirst: true}, Limit: 2}); n.Events != 2 || err != nil {
			t.Errorf("dropped %+v of 2, %v", n, err)
		}
		if left := r.events(event.Filter{OldestFirst: true, Outcomes: []event.Outcome{event.Dead}}); len(left) != 3 || left[0].ID != dead[2].ID {
			t.Errorf("left are %d", len(left))
		}
		wrong := event.Filter{IDs: []string{dead[3].ID, "no-such-id"}, OldestFirst: true}
		if n, err := r.app.DropDeadLetters(ctx, admin.DropRequest{Filter: wrong}); n.Events != 0 || !errors.Is(err, admin.ErrNotFound) || !strings.Contains(err.Error(), "no-such-id") {
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

// What fired and resolved while nothing could be sent is no phone call, if one
// wishes so; what fires afterwards is.
func TestCollapse(t *testing.T) {
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

// A directory copied from a dead host, in the middle of an outage: everything
// that waited goes out, in order, and the directory stays as it was.
func TestReplayFromACopiedDirectory(t *testing.T) {
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

// An alert with times that no format can hold again is an alert like others.
func TestStrangeTimesStopNothing(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		for _, at := range []string{"9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00", "nonsense", "2026-02-30T00:00:00Z", ""} {
			r.accept(fmt.Appendf(nil, `{"status":"firing","alerts":[{"status":"firing","labels":{"alertname":"A","at":%q},"startsAt":%q,"endsAt":%q}]}`, at, at, at))
		}
		if s := r.settle(); s.Delivered != 5 {
			t.Errorf("%+v", s)
		}
	})
}

// A service that never got a webhook has nothing to remove, and looks for it all the same.
func TestNothingHappensToAnIdleService(t *testing.T) {
	bubble(t, func(c *config.Config) { c.Retention = time.Hour }, func(r *rig) {
		time.Sleep(3 * time.Hour)
		if log := r.logs.String(); strings.Contains(log, "level=ERROR") || strings.Contains(log, "level=WARN") {
			t.Error("an idle service complains")
		}
		r.acceptFile("grafana-firing-1.json")
		if s := r.settle(); s.Delivered != 1 {
			t.Errorf("%+v", s)
		}
	})
}
