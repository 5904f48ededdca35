package app

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/admin/web"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
)

// BenchmarkPages is the operators' pages of a service with 100,000 events in
// its ledger, over three days, a thousandth of them dead.
func BenchmarkPages(b *testing.B) {
	const events = 100_000
	cfg := &config.Config{
		DataDir: b.TempDir(), CallgooseURL: "https://callgoose.test/v1/process", CallgooseToken: config.NewSecret(token),
		CallgooseAuth: "bearer", CallgooseFrom: "PerconaPMM", IncidentBy: "alert", OnBacklog: "deliver", Concurrency: 16,
		MaxBody: 10 << 20, MaxStore: 2 << 30, RetryFor: 72 * time.Hour,
	}
	ready := make(chan Addresses, 1)
	a, err := New(cfg, Options{Version: "bench", NoListen: true, NoSync: true, Ready: func(a Addresses) { ready <- a }})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	<-ready
	began := time.Now().Add(-71 * time.Hour).UTC()
	ledger := a.core.Load().ledger
	for start := 0; start < events; start += 1000 {
		if err := ledger.Do(ctx, func(tx *store.Tx) error {
			for n := start; n < start+1000; n++ {
				at := began.Add(time.Duration(n) * (71 * time.Hour / events))
				r := &event.Record{
					ID: fmt.Sprintf("%020x", n), Key: fmt.Sprintf("pmm-%016x", n%5000), Source: "pmm", Status: event.Firing,
					Alertname: "MySQL replication lag", Labels: map[string]string{
						"alertname": "MySQL replication lag", "severity": "warning", "instance": fmt.Sprintf("mysql-%04d:3306", n%5000),
						"service_name": fmt.Sprintf("mysql-%04d", n%5000), "environment": "production", "cluster": "orders", "grafana_folder": "MySQL",
					},
					StartsAt: at, ReceivedAt: at, SettledAt: at, Pos: event.Position{Seq: uint64(n + 1)}, Notification: fmt.Sprintf("n%d.0", n+1),
					Outcome: event.Delivered, Tries: 1, CallgooseID: "INC-1", At: event.Position{Seq: uint64(n + 1)},
					Attempts: []event.Attempt{{At: at, Duration: time.Millisecond, Status: 201, Result: "delivered", ID: "INC-1", Effect: "created", Sent: true}},
				}
				if n%2 == 1 {
					r.Status = event.Resolved
				}
				if n%1000 == 7 {
					r.Outcome, r.LastError, r.Reason = event.Dead, "callgoose answered 422", "callgoose answered 422"
				}
				if err := tx.PutRecord(r); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
	h := web.New(web.Config{Source: a, Replayer: a, Carrier: a, Pages: a})
	for _, p := range []struct{ name, path string }{
		{"overview", "/"},
		{"overview-week", "/?hours=168"},
		{"list", "/events"},
		{"list-middle", "/events?before=50000.0.0"},
		{"dead", "/events?outcome=dead"},
		{"status-and-label", "/events?status=firing&match=instance%3Dmysql-0042%3A3306"},
		{"incident", "/events?incident=pmm-000000000000002a"},
		{"text-found", "/events?text=MYSQL-0042"},
		{"text-nowhere", "/events?text=nowhere"},
		{"nothing-matches", "/events?outcome=collapsed"},
		{"last-hours-nothing", "/events?since=20h&status=firing&match=cluster%3Dnone"},
		{"dead-letters", "/dead-letters"},
		{"replay-preview-dead", "/replay?outcome=dead"},
		{"api-dead", "/api/v1/events?outcome=dead"},
	} {
		b.Run(p.name, func(b *testing.B) {
			for b.Loop() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, p.path, nil))
				if w.Code != http.StatusOK {
					b.Fatal(w.Code, w.Body)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/page")
		})
	}
}
