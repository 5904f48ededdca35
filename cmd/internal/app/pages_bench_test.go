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

// stored is a service with so many events in its ledger, over three days, a thousandth
// of them dead, and an episode for each of its incidents, one in twenty open.
func stored(b *testing.B, events, incidents int) *App {
	b.Helper()
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
	began, ledger := time.Now().Add(-71*time.Hour).UTC(), a.core.Load().ledger
	for start := 0; start < events; start += 1000 {
		if err := ledger.Do(ctx, func(tx *store.Tx) {
			for n := start; n < start+1000; n++ {
				r := storedRecord(n, incidents, began.Add(time.Duration(n)*(71*time.Hour/time.Duration(events))))
				tx.PutRecord(r)
				if n >= incidents {
					continue
				}
				tx.PutEpisode(&store.Episode{
					Key: r.Key, Source: r.Source, Alertname: r.Alertname, Open: n%20 == 0, ID: r.ID, StartsAt: r.StartsAt, NamedAt: r.StartsAt, Firing: r.Pos, FiringAt: r.ReceivedAt,
				})
			}
		}); err != nil {
			b.Fatal(err)
		}
	}
	return a
}

// storedKey is the incident key of a host: fingerprints are spread.
func storedKey(host int) string { return fmt.Sprintf("pmm-%016x", uint64(host+1)*0x9e3779b97f4a7c15) }

func storedRecord(n, incidents int, at time.Time) *event.Record {
	host := n % incidents
	r := &event.Record{
		ID: fmt.Sprintf("%020x", n), Key: storedKey(host), Source: "pmm", Status: event.Firing,
		Alertname: "MySQL replication lag", Labels: map[string]string{
			"alertname": "MySQL replication lag", "severity": "warning", "instance": fmt.Sprintf("mysql-%04d:3306", host),
			"service_name": fmt.Sprintf("mysql-%04d", host), "environment": "production", "cluster": "orders", "grafana_folder": "MySQL",
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
	return r
}

// page is one address that is asked again and again.
type page struct{ name, path string }

func benchPages(b *testing.B, a *App, pages []page) {
	b.Helper()
	h := web.New(web.Config{Source: a, Replayer: a, Carrier: a})
	for _, p := range pages {
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

// BenchmarkPages is the operators' pages of a service with 100,000 events.
func BenchmarkPages(b *testing.B) {
	benchPages(b, stored(b, 100_000, 5000), []page{
		{"overview", "/"},
		{"overview-week", "/?hours=168"},
		{"list", "/events"},
		{"list-middle", "/events?before=50000.0.0"},
		{"dead", "/events?outcome=dead"},
		{"status-and-label", "/events?status=firing&match=instance%3Dmysql-0042%3A3306"},
		{"incident", "/events?incident=" + storedKey(42)},
		{"text-found", "/events?text=MYSQL-0042"},
		{"text-nowhere", "/events?text=nowhere"},
		{"nothing-matches", "/events?outcome=collapsed"},
		{"last-hours-nothing", "/events?since=20h&status=firing&match=cluster%3Dnone"},
		{"dead-letters", "/dead-letters"},
		{"replay-preview-dead", "/replay?outcome=dead"},
		{"api-dead", "/api/v1/events?outcome=dead"},
	})
}

// BenchmarkLookups finds one among 100,000 incidents of 100,000 events, and those open.
func BenchmarkLookups(b *testing.B) {
	const n = 100_000
	benchPages(b, stored(b, n, n), []page{
		{"event-oldest", "/api/v1/events/" + fmt.Sprintf("%020x", 0)},
		{"event-newest", "/api/v1/events/" + fmt.Sprintf("%020x", n-1)},
		{"story-oldest", "/api/v1/incidents/" + storedKey(0)},
		{"story-newest", "/api/v1/incidents/" + storedKey(n-1)},
		{"incidents", "/api/v1/incidents?limit=100"},
		{"incidents-label", "/api/v1/incidents?match=instance%3Dmysql-0040%3A3306"},
	})
}
