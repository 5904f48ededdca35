package alarm

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store/queue"
)

func TestWhatAPersonMustDecideAboutPMM(t *testing.T) {
	const after = 5 * time.Minute
	status := func(codes ...string) admin.Status {
		s := healthy()
		for _, code := range codes {
			s.Attention = append(s.Attention, admin.Attention{Code: code, Level: admin.Bad, Text: "PMM dr: 9 of 20 \"gone\".", Fix: "reconcile --yes"})
		}
		s.Conclude()
		return s
	}
	for _, code := range []string{"reconcile_mass", "reconcile_missing", "pmm_contact_point_failing", "pmm_not_routed"} {
		w, now := newWatch(after), time.Date(2026, 11, 27, 3, 0, 0, 0, time.UTC)
		see := func(d time.Duration, s admin.Status, want int) []Notice {
			t.Helper()
			now = now.Add(d)
			out := w.observe(now, s)
			if len(out) != want {
				t.Fatalf("%s: %d notices, want %d: %+v", code, len(out), want, out)
			}
			return out
		}
		see(0, status(), 0)
		see(time.Second, status(code), 0)
		see(after-time.Second, status(code), 0)
		see(time.Second, status(), 0) // it was over before anybody was told
		see(time.Second, status(code), 0)
		n := see(after, status(code), 1)[0]
		if n.Alarm != code || n.Over || n.Hint != "reconcile --yes" || !strings.Contains(n.Text, "PMM dr: 9 of 20 ”gone”") {
			t.Errorf("%+v", n)
		}
		see(time.Minute, status(code), 0)
		see(again, status(code), 1)
		see(time.Second, status(), 0)
		if n = see(settled, status(), 1)[0]; !n.Over || n.Hint != "" || !strings.HasPrefix(n.Text, "Over, after ") {
			t.Errorf("%+v", n)
		}
		see(time.Second, status(), 0)
	}
}

// Each instance raises by itself that NATS does not answer and that none leads, and neither
// is taken for the other, or for a full store.
func TestEachInstanceSaysThatNobodyLeads(t *testing.T) {
	const after = 5 * time.Minute
	status := func(change func(*admin.Status)) admin.Status {
		s := admin.Status{Store: admin.Store{Accepting: true, MaxBytes: 1}, Dead: 7, Cluster: &admin.Cluster{
			Role: "follower", Instance: "b", Leader: "a", NATS: &queue.Servers{Connected: true},
		}}
		s.Callgoose.State = "unknown"
		change(&s)
		s.Conclude()
		return s
	}
	well := status(func(*admin.Status) {})
	leaderless := status(func(s *admin.Status) { s.Cluster.Leader = "" })
	away := status(func(s *admin.Status) {
		s.Cluster.Leader, s.Cluster.NATS.Connected, s.Store.Accepting, s.Store.Problem = "", false, false, "nats has not answered"
	})
	w, now := newWatch(after), time.Date(2026, 11, 27, 3, 0, 0, 0, time.UTC)
	see := func(d time.Duration, s admin.Status, want ...string) {
		t.Helper()
		now = now.Add(d)
		var got []string
		for _, n := range w.observe(now, s) {
			if n.Text == "" || n.Over == (n.Hint != "") {
				t.Errorf("%+v", n)
			}
			got = append(got, n.Alarm+map[bool]string{true: " over"}[n.Over])
		}
		if !slices.Equal(got, want) {
			t.Fatalf("after %s: %q, want %q", d, got, want)
		}
	}
	see(0, well)
	see(time.Second, leaderless)
	see(time.Minute, well) // an election
	see(time.Second, leaderless)
	see(after, leaderless, "no_leader")
	see(time.Minute, away) // whether one leads is not known any more
	see(after, away, "nats_unreachable")
	see(again, away, "nats_unreachable")
	see(time.Second, leaderless, "no_leader")
	see(settled, leaderless, "nats_unreachable over")
	see(time.Second, well)
	see(settled, well, "no_leader over")
	see(again, well)
}
