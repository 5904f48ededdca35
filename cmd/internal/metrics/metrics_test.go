package metrics

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/queue"
)

var update = flag.Bool("update", false, "write the golden file anew")

// root is the top of the repository.
const root = "../../../"

// busy is a forwarder that has seen everything, at a fixed time when it is made
// in a bubble.
func busy() *Metrics {
	share := 0.995
	oldest := time.Now().Add(-90 * time.Second)
	m := New(Config{Version: "1.2.3", Status: func() (admin.Status, bool) {
		s := admin.Status{
			Queued: 7, InFlight: 2, Delivered: 100, Discarded: 3, Dead: 4, Suppressed: 50, Collapsed: 6,
			Notifications: 80, Alerts: 170, Damaged: 1, OldestQueuedAt: &oldest, StormsTotal: 2, Storms: []admin.Storm{{Source: "pmm", Waiting: 470}, {Source: "dr", Waiting: 3}}, SLO: &admin.SLO{Share: &share, Objective: .99},
			Cluster:          &admin.Cluster{Role: "leader", Term: 962, Behind: new(uint64(3)), NATS: &queue.Servers{Connected: true, Replicas: 3, Streams: []queue.Stream{{Name: "NOTIFICATIONS", Replicas: 3, Current: 2}}}},
			AlertsByStatus:   map[string]int64{"firing": 99, "resolved": 70, "unusable": 1},
			SuppressedReason: map[string]int64{"repeat": 40, "late": 1, "already_resolved": 8, "still_firing": 1},
		}
		s.Callgoose.State, s.Callgoose.LastError = event.Down, "no such host of-the-customer"
		s.Store = admin.Store{Accepting: true, UsedBytes: 1 << 20, MaxBytes: 2 << 30, FreeBytes: 5 << 30}
		return s, true
	}})
	m.Webhook(202, 3*time.Millisecond)
	m.Webhook(503, 8*time.Second)
	m.TokenRefused("wrong")
	m.Stored("pmm")
	m.Stored("pmm-eu")
	m.Truncated("pmm", 5)
	m.Attempt(event.Attempt{Status: 201, Result: "delivered", Duration: 120 * time.Millisecond}, "")
	m.Attempt(event.Attempt{Status: 202, Result: "discarded", Duration: 80 * time.Millisecond}, "")
	m.Attempt(event.Attempt{Status: 503, Result: "retry", Error: "x"}, "")
	m.Attempt(event.Attempt{Status: 401, Result: "held", Error: "x"}, "")
	m.Attempt(event.Attempt{Status: 477, Result: "retry", Error: "x"}, "")
	for _, step := range []string{"dns", "connect", "tls", "proxy", "timeout", "reset"} {
		m.Attempt(event.Attempt{Result: "retry", Error: "x", Duration: 15 * time.Second}, step)
	}
	m.Settled(event.Delivered, 2*time.Second)
	m.Settled(event.Delivered, 20*time.Hour)
	m.Settled(event.Dead, 72*time.Hour)
	m.Settled(event.Collapsed, time.Hour)
	m.FirstTaken(75 * time.Second)
	m.Circuit(event.Down)
	m.IntakeCommit(4*time.Millisecond, 3)
	m.LedgerCommit(2 * time.Millisecond)
	m.StoreFailed()
	m.TookOver()
	m.Appended(3 * time.Millisecond)
	m.StaleRead()
	m.ReconcilePass("pmm", "ok", map[string]int{"hollow": 2}, true)
	m.Reconciled("closed")
	m.Reloaded(false)
	return m
}

// ours are the families of m that begin with our prefix.
func ours(t *testing.T, m *Metrics) []*dto.MetricFamily {
	t.Helper()
	all, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(f *dto.MetricFamily) bool { return !strings.HasPrefix(f.GetName(), prefix) })
}

func TestMetricsAreGolden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got bytes.Buffer
		for _, f := range ours(t, busy()) {
			if _, err := expfmt.MetricFamilyToText(&got, f); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(root, "testdata", "golden", "metrics.txt")
		if *update {
			if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
			return
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got.String() != string(want) {
			t.Errorf("%s differs (a changed name breaks dashboards and rules of others):\n%s", path, got.String())
		}
	})
}

func TestNamesFollowTheConventions(t *testing.T) {
	var lint prometheus.Gatherer = prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return ours(t, busy()), nil })
	problems, err := testutil.GatherAndLint(lint)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// What the table says is what is there, all of it, and nothing else.
func TestTheTableIsWhatIsThere(t *testing.T) {
	left := map[string]*Metric{}
	for _, row := range table {
		left[row.Name] = row
	}
	for _, f := range ours(t, busy()) {
		row, ok := left[f.GetName()]
		if !ok {
			t.Errorf("%s is not in the table", f.GetName())
			continue
		}
		delete(left, row.Name)
		var labels []string
		for _, l := range f.Metric[0].Label {
			labels = append(labels, l.GetName())
		}
		want := slices.Sorted(slices.Values(row.Labels))
		if strings.ToLower(f.GetType().String()) != row.Type || f.GetHelp() != row.Help || !slices.Equal(labels, want) {
			t.Errorf("%s is a %s %v, the table says %s %v", row.Name, f.GetType(), labels, row.Type, want)
		}
	}
	for name := range left {
		t.Errorf("%s is in the table and never there", name)
	}
}

// A zero while the store is being opened would be a lie and look like a reset.
func TestWhatIsNotKnownIsLeftOut(t *testing.T) {
	m := New(Config{Version: "1", Status: func() (admin.Status, bool) {
		return admin.Status{Cluster: &admin.Cluster{Role: "follower", NATS: &queue.Servers{}}}, false
	}})
	seen := map[string]float64{}
	for _, f := range ours(t, m) {
		seen[f.GetName()] = f.Metric[0].GetGauge().GetValue()
	}
	if v, ok := seen[accepting.Name]; !ok || v != 0 {
		t.Errorf("%s is %v, %v", accepting.Name, v, ok)
	}
	if v, ok := seen[natsConnected.Name]; !ok || v != 0 {
		t.Errorf("%s is %v, %v", natsConnected.Name, v, ok)
	}
	for _, row := range []*Metric{notifications, alerts, suppressed, queued, oldestAge, events, callgooseState, storeUsed, storeMax, diskFree, lastSuccess, clusterLeader, streamCurrent} {
		if _, ok := seen[row.Name]; ok {
			t.Errorf("%s is there", row.Name)
		}
	}
	follows := New(Config{Status: func() (admin.Status, bool) {
		return admin.Status{Notifications: 80, Cluster: &admin.Cluster{Role: "follower", NATS: &queue.Servers{Connected: true, Streams: []queue.Stream{{Name: "LEDGER", Current: 3}}}}}, true
	}})
	there := map[string]bool{}
	for _, f := range ours(t, follows) {
		there[f.GetName()] = true
		if name := f.GetName(); name == notifications.Name || name == clusterLeader.Name && f.Metric[0].GetGauge().GetValue() != 0 {
			t.Errorf("a follower shows %v", f)
		}
	}
	for _, row := range []*Metric{clusterLeader, natsConnected, streamCurrent} {
		if !there[row.Name] {
			t.Errorf("a follower does not show %s", row.Name)
		}
	}
	external := New(Config{Status: func() (admin.Status, bool) { return admin.Status{Store: admin.Store{FreeBytes: -1}}, true }})
	for _, f := range ours(t, external) {
		if f.GetName() == diskFree.Name {
			t.Errorf("the disk of an external server has %v", f.Metric[0])
		}
	}
}

// Who may post can name sources, and Callgoose can answer anything: neither may
// make series without end.
func TestNobodyOutsideMakesSeries(t *testing.T) {
	m := New(Config{Status: func() (admin.Status, bool) { return admin.Status{}, true }})
	for i := range 1000 {
		m.Stored(fmt.Sprintf("pmm-%d", i))
		m.Attempt(event.Attempt{Status: i, Result: "retry", Error: "x"}, "")
	}
	known := 0
	for code := range 1000 {
		if http.StatusText(code) != "" {
			known++
		}
	}
	for _, f := range ours(t, m) {
		switch n := len(f.Metric); f.GetName() {
		case lastWebhook.Name:
			if n != maxSources+1 {
				t.Errorf("%d series of sources", n)
			}
		case attempts.Name:
			if n > known+3 {
				t.Errorf("%d series of answers", n)
			}
		}
	}
	m.Stored("pmm-3") // one that is told apart stays so
	if got := testutil.CollectAndCount(m.gauges[lastWebhook]); got != maxSources+1 {
		t.Errorf("%d series after another webhook", got)
	}
}
