package app

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/worker/callgoose/callgoosetest"
)

// scrape is /metrics as text, and its values by series.
func (r *rig) scrape() (text string, values map[string]float64) {
	r.t.Helper()
	synctest.Wait() // everybody has done what there is to do now
	w := httptest.NewRecorder()
	r.app.Metrics().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		r.t.Fatalf("/metrics answered %d: %s", w.Code, w.Body)
	}
	values = map[string]float64{}
	for line := range strings.Lines(w.Body.String()) {
		name, value, ok := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "pmm_callgoose_")), " ")
		if !ok || strings.HasPrefix(line, "#") || strings.Contains(value, " ") {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			r.t.Fatalf("line %q: %v", line, err)
		}
		values[name] = v
	}
	return w.Body.String(), values
}

func (r *rig) wantMetrics(want map[string]float64) {
	r.t.Helper()
	_, got := r.scrape()
	for series, v := range want {
		if g, ok := got[series]; !ok || g != v {
			r.t.Errorf("%s is %v (%v), want %v", series, g, ok, v)
		}
	}
}

// The metrics follow what really happens: alerts, a repeat, an outage, its end,
// a discarded event, a dead letter, and a restart.
func TestMetricsFollowWhatHappens(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		r.wantMetrics(map[string]float64{
			`webhooks_total{code="202"}`: 0, `queued_events`: 0, `oldest_queued_age_seconds`: 0, `store_accepting`: 1,
			`callgoose_state{state="unknown"}`: 1, `build_info{version="test"}`: 1, `secrets_last_reload_successful`: 1,
		})
		start := time.Now()
		r.accept(group(mysqlDown(1, "firing", start), mysqlDown(2, "firing", start)))
		r.settle()
		r.accept(group(mysqlDown(1, "firing", start)))
		r.settle()
		if w := r.post([]byte("no json")); w.Code != http.StatusBadRequest {
			t.Fatal(w.Code)
		}
		r.wantMetrics(map[string]float64{
			`webhooks_total{code="202"}`: 2, `webhooks_total{code="400"}`: 1, `webhook_duration_seconds_count`: 3,
			`notifications_total`: 2, `alerts_received_total{status="firing"}`: 3, `alerts_received_total{status="resolved"}`: 0,
			`alerts_suppressed_total{reason="repeat"}`: 1, `events{outcome="delivered"}`: 2, `events{outcome="suppressed"}`: 1,
			`events_settled_total{outcome="delivered"}`: 2, `delivery_attempts_total{cause="ok",result="delivered"}`: 2,
			`delivery_delay_seconds_count`: 2, `callgoose_state{state="up"}`: 1, `callgoose_state{state="unknown"}`: 0,
			`callgoose_state_changes_total{state="up"}`: 1, `intake_commit_duration_seconds_count`: 2,
		})
		_, before := r.scrape()
		if before["last_success_timestamp_seconds"] < float64(start.Unix()) || before[`last_webhook_timestamp_seconds{source="pmm"}`] < float64(start.Unix()) ||
			before["ledger_commit_duration_seconds_count"] < 2 || before["store_used_bytes"] < 100 || before["disk_free_bytes"] < 1 {
			t.Errorf("%v", before)
		}

		// An outage of ten minutes.
		r.net.Refuse(true)
		r.accept(group(mysqlDown(1, "resolved", start)))
		time.Sleep(10 * time.Minute)
		r.wantMetrics(map[string]float64{
			`callgoose_state{state="down"}`: 1, `callgoose_state{state="up"}`: 0, `queued_events`: 1, `oldest_queued_age_seconds`: 600,
			`events_settled_total{outcome="delivered"}`: 2,
		})
		if _, got := r.scrape(); got[`delivery_attempts_total{cause="connect",result="retry"}`] < 2 {
			t.Errorf("no attempt that could not connect: %v", got)
		}
		r.net.Refuse(false)
		r.settle()
		r.wantMetrics(map[string]float64{
			`queued_events`: 0, `oldest_queued_age_seconds`: 0, `events_settled_total{outcome="delivered"}`: 3,
			`delivery_delay_seconds_count`: 3, `delivery_delay_seconds_bucket{le="300"}`: 2, `callgoose_state_changes_total{state="down"}`: 1,
		})

		// An answer that gives an event up, and one that discards another.
		r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Status, Status: 422})
		r.accept(group(mysqlDown(3, "firing", start)))
		r.settle()
		r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Status, Status: 202})
		r.accept(group(mysqlDown(4, "firing", start)))
		r.settle()
		r.accept(bytes.Replace(group(mysqlDown(5, "firing", start), mysqlDown(6, "firing", start)), []byte(`"truncatedAlerts":0`), []byte(`"truncatedAlerts":3`), 1))
		r.settle()
		r.wantMetrics(map[string]float64{
			`events{outcome="dead"}`: 1, `events_settled_total{outcome="dead"}`: 1, `delivery_attempts_total{cause="http_422",result="dead"}`: 1,
			`events_settled_total{outcome="discarded"}`: 3, `events{outcome="discarded"}`: 3, `delivery_attempts_total{cause="ok",result="discarded"}`: 3,
			`truncated_alerts_total`: 3,
		})

		// What the ledger counts goes on after a restart, the rest begins anew.
		r.restart()
		r.wantMetrics(map[string]float64{
			`webhooks_total{code="202"}`: 0, `alerts_suppressed_total{reason="repeat"}`: 1, `events{outcome="dead"}`: 1,
			`alerts_received_total{status="resolved"}`: 1, `callgoose_state{state="unknown"}`: 1,
		})
		r.halt()
		_, stopped := r.scrape()
		if stopped["store_accepting"] != 0 {
			t.Errorf("after the stop the store is accepting")
		}
		if v, ok := stopped["queued_events"]; ok {
			t.Errorf("after the stop %v are queued", v)
		}
		r.start()
	})
}

// Whatever PMM and Callgoose say, none of it gets into a metric.
func TestMetricsHoldNoTextOfOthers(t *testing.T) {
	t.Parallel()
	const poison = "poi5on"
	bubble(t, nil, func(r *rig) {
		a := mysqlDown(1, "firing", time.Now())
		for _, k := range []string{"alertname", "instance", "severity", poison, `x"} 1` + "\n" + poison} {
			a.Labels[k] = poison + "\n# HELP pmm_callgoose_" + poison + `{"`
		}
		a.Annotations = map[string]string{"summary": poison, poison: poison}
		r.accept(group(a))
		r.settle()
		r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Status, Status: 500})
		a.Labels["instance"] = poison + "-2"
		r.accept(group(a))
		time.Sleep(time.Minute)
		text, _ := r.scrape()
		for _, word := range []string{poison, token, "callgoose.test", "mysql", "Bearer"} {
			if strings.Contains(text, word) {
				t.Errorf("%q stands in /metrics:\n%s", word, text)
			}
		}
		r.fake.Fail(callgoosetest.Failure{})
		r.settle()
	})
}

// At info a forwarder says that it has started and then, when nothing happens,
// nothing; one line for each attempt, with everything about it, is all that a
// good day leaves.
func TestAGoodDayLeavesOneLineForEachAttempt(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		time.Sleep(2 * time.Hour)
		if strings.Count(r.logs.String(), "\n") != 1 || !strings.Contains(r.logs.String(), "msg=started component=app version=test data_dir=") {
			t.Errorf("an idle forwarder says\n%s", r.logs)
		}
		start := time.Now()
		r.accept(group(mysqlDown(1, "firing", start), mysqlDown(2, "firing", start)))
		r.settle()
		for range 12 { // repeats
			r.accept(group(mysqlDown(1, "firing", start), mysqlDown(2, "firing", start)))
			time.Sleep(10 * time.Minute)
		}
		var lines []string
		for line := range strings.Lines(r.logs.String()) {
			if !strings.Contains(line, `msg="callgoose is up"`) && !strings.Contains(line, "msg=started") { // once
				lines = append(lines, line)
			}
		}
		if len(lines) != 2 {
			t.Fatalf("%d lines:\n%s", len(lines), r.logs)
		}
		for _, attr := range []string{
			"level=INFO", "msg=attempt", "component=delivery", "event_id=", "event_key=pmm-", `alertname="MySQL down"`, "status=firing", "source=pmm",
			"notification_id=n1.0", "attempt=1", "outcome=delivered", "duration=", "waited=", "http_status=201", "effect=created", "callgoose_id=",
		} {
			if !strings.Contains(lines[0], attr) {
				t.Errorf("no %s in %s", attr, lines[0])
			}
		}
	})
}

// An attempt that failed says when the next one is, and attempts are counted
// across a restart.
func TestTheLineOfAFailedAttempt(t *testing.T) {
	t.Parallel()
	bubble(t, nil, func(r *rig) {
		r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Status, Status: 503, RetryAfter: "120"})
		r.accept(group(mysqlDown(1, "firing", time.Now())))
		time.Sleep(time.Minute)
		r.restart()
		time.Sleep(time.Minute)
		r.fake.Fail(callgoosetest.Failure{})
		r.settle()
		var lines []string
		for line := range strings.Lines(r.logs.String()) {
			if strings.Contains(line, "msg=attempt") {
				lines = append(lines, line)
			}
		}
		if len(lines) < 2 {
			t.Fatalf("lines:\n%s", r.logs)
		}
		for _, attr := range []string{"level=WARN", "attempt=1 ", "outcome=retry", "http_status=503", "retry_in=1m59.", `err="callgoose answered 503`} {
			if !strings.Contains(lines[0], attr) {
				t.Errorf("no %s in %s", attr, lines[0])
			}
		}
		last := lines[len(lines)-1]
		if !strings.Contains(last, "outcome=delivered") || !strings.Contains(last, " attempt="+strconv.Itoa(len(lines))+" ") {
			t.Errorf("the last of %d is %s", len(lines), last)
		}
	})
}

// A secret in an error of anybody must not reach the log through the handler
// that serve uses, before and after a rotation.
func TestTheLogOfAnAppHoldsNoSecret(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			bubble(t, func(c *config.Config) {
				c.AdminToken, c.AlarmWebhook = config.NewSecret("adm1n-t0ken"), config.NewSecret("https://hooks.test/services/alarm-path-s3cr3t")
			}, func(r *rig) {
				r.halt()
				raw := r.logs
				lines := r.cfg.Redactor().Writer(raw)
				r.log = slog.New(slog.NewTextHandler(lines, nil))
				if format == "json" {
					r.log = slog.New(slog.NewJSONHandler(lines, nil))
				}
				r.start()
				// Callgoose repeats what it was sent, and, worse, what it should not know.
				r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Hook, Hook: func(*http.Request, []byte) *callgoosetest.Response {
					return &callgoosetest.Response{Status: 500, Body: []byte("you sent " + token + ", not adm1n-t0ken")}
				}})
				r.accept(group(mysqlDown(1, "firing", time.Now())))
				time.Sleep(time.Minute)
				r.log.Error("a library says", "err", "Post https://x/?token="+token+" failed, alarm-path-s3cr3t")
				for _, word := range []string{token, "alarm-path-s3cr3t", "adm1n-t0ken"} {
					if strings.Contains(raw.String(), word) {
						t.Errorf("%q stands in the log:\n%s", word, raw)
					}
				}
				if !slices.ContainsFunc(strings.Split(raw.String(), "\n"), func(l string) bool { return strings.Contains(l, "attempt") && strings.Contains(l, "not [redacted]") }) {
					t.Errorf("no line shows that something was redacted:\n%s", raw)
				}
				r.fake.Fail(callgoosetest.Failure{})
				r.settle()
			})
		})
	}
}
