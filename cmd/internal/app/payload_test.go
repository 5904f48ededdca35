package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose/callgoosetest"
	"pmm-callgoose/worker/callgoose/filters"
)

// Every body that PMM and Alertmanager really sent, and the guide's samples in
// sequence: what goes out for them, byte for byte.
func TestPayloadsAreGolden(t *testing.T) {
	t.Parallel()
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

// The worked examples of both samples, as the receiving side documents them.
func TestTheGuidesSamplesInSequence(t *testing.T) {
	t.Parallel()
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
	filters := map[string][]filters.Filter{"recommended": filters.Recommended(), "guide": filters.Guide()}
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
	t.Parallel()
	bubbleWith(t, callgoosetest.Config{KeepBodies: true, Filters: filters.Guide(), Tokens: []string{token}},
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
	t.Parallel()
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

func TestAnUnusableMemberIsKeptAndTheOthersGoOn(t *testing.T) {
	t.Parallel()
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

// An alert with times that no format can hold again is an alert like others.
func TestStrangeTimesStopNothing(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		for _, at := range []string{"9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00", "nonsense", "2026-02-30T00:00:00Z", ""} {
			r.accept(fmt.Appendf(nil, `{"status":"firing","alerts":[{"status":"firing","labels":{"alertname":"A","at":%q},"startsAt":%q,"endsAt":%q}]}`, at, at, at))
		}
		if s := r.settle(); s.Delivered != 5 {
			t.Errorf("%+v", s)
		}
	})
}

// What stands in a body once is stored with each of its alerts: thousands of them
// must not fill the disk.
func TestASmallBodyOfManyAlertsStaysSmall(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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

// What stands in the body once goes out with every alert: bounded for each event
// and for all of them together, and a body of many is split in several steps.
func TestALargeGroupIsSplitInSteps(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		const n = 700
		body := map[string]any{"version": "1", "groupLabels": map[string]string{"big": strings.Repeat("g", 1<<20)}}
		for i := range 40 {
			body[fmt.Sprintf("member%02d", i)] = strings.Repeat("m", 15<<10)
		}
		var alerts []alert
		for i := range n {
			alerts = append(alerts, mysqlDown(i, "firing", time.Now()))
		}
		body["alerts"] = alerts
		b, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		r.accept(b)
		r.accept(group(mysqlDown(n, "firing", time.Now())))
		s := r.settle()
		if s.Delivered != n+1 || s.Notifications != 2 || s.Alerts != n+1 || s.Queued != 0 {
			t.Errorf("%+v", s)
		}
		most := 0
		for _, q := range r.fake.Received() {
			most = max(most, len(q.Body))
		}
		if most > 30<<10 || most < 15<<10 {
			t.Errorf("the largest event has %d bytes", most)
		}
	})
}
