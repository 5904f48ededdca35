package app

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/ingest/pmm"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/queue/blocks"
	"pmm-callgoose/worker/callgoose/callgoosetest"
)

// hurt is one way to damage a data directory.
type hurt struct {
	do func(t *testing.T, dir string)
	// says is what the log must hold.
	says string
	// lost is how many of the events that are waiting may be dead letters.
	lost int
}

func streamFile(dir, stream, name string) string {
	return filepath.Join(dir, "jetstream", "jetstream", "$G", "streams", stream, name)
}

// edit rewrites a file.
func edit(file func(dir string) string, change func([]byte) []byte) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		b, err := os.ReadFile(file(dir))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file(dir), change(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func in(stream, name string) func(string) string {
	return func(dir string) string { return streamFile(dir, stream, name) }
}

// flip flips one bit at a share of the file.
func flip(share float64) func([]byte) []byte {
	return func(b []byte) []byte {
		b[int(share*float64(len(b)-1))] ^= 4
		return b
	}
}

// flipRecord flips a bit at off in the record that holds text.
func flipRecord(text string, off int) func([]byte) []byte {
	return func(b []byte) []byte {
		b[bytes.Index(b, []byte(text))-22+off] ^= 4
		return b
	}
}

// flipText flips a bit everywhere where text stands: old pages hold it, too.
func flipText(text string) func([]byte) []byte {
	return func(b []byte) []byte {
		bad := []byte(text)
		bad[1] ^= 1
		return bytes.ReplaceAll(b, []byte(text), bad)
	}
}

func cut(share float64) func([]byte) []byte {
	return func(b []byte) []byte { return b[:int(share*float64(len(b)))] }
}

func empty([]byte) []byte { return nil }

func zero(b []byte) []byte { return make([]byte, len(b)) }

func gone(file func(string) string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		if err := os.Remove(file(dir)); err != nil {
			t.Fatal(err)
		}
	}
}

func both(a, b func(*testing.T, string)) func(*testing.T, string) {
	return func(t *testing.T, dir string) { t.Helper(); a(t, dir); b(t, dir) }
}

// Whatever is damaged, what can still be read arrives, in order, what cannot be is
// a dead letter, and the log says what was wrong.
func TestDamageForgetsNothingThatCanBeRead(t *testing.T) {
	t.Parallel()
	ledger := func(dir string) string { return filepath.Join(dir, store.FileName) }
	block := in("NOTIFICATIONS", "msgs/1.blk")
	noIndex := gone(in("NOTIFICATIONS", "msgs/index.db"))
	for name, h := range map[string]hurt{
		"a flipped bit among what is settled":                  {edit(block, flip(0.2)), "repaired", 0},
		"a flipped bit among what is waiting":                  {edit(block, flip(0.8)), "repaired", 5},
		"a flipped bit among what is waiting, the index lost":  {both(edit(block, flip(0.8)), noIndex), "repaired", 5},
		"a flipped length":                                     {edit(block, flipRecord("notifications.", 1)), "repaired", 0},
		"a flipped sequence, the index lost":                   {both(edit(block, flipRecord("notifications.", 5)), noIndex), "repaired", 0},
		"the index cut":                                        {edit(in("NOTIFICATIONS", "msgs/index.db"), cut(0.5)), "", 0},
		"the index flipped":                                    {edit(in("NOTIFICATIONS", "msgs/index.db"), flip(0.3)), "", 0},
		"the description cut":                                  {edit(in("NOTIFICATIONS", "meta.inf"), cut(0.5)), "description", 0},
		"the description empty":                                {edit(in("NOTIFICATIONS", "meta.inf"), empty), "description", 0},
		"the description flipped":                              {edit(in("NOTIFICATIONS", "meta.inf"), flip(0.5)), "description", 0},
		"the check sum of the description gone":                {gone(in("NOTIFICATIONS", "meta.sum")), "description", 0},
		"all notifications gone, the index too":                {both(gone(block), noIndex), "", 32},
		"the ledger flipped":                                   {edit(ledger, flipText("alertname")), "rebuilt", 0},
		"the progress in the ledger flipped":                   {edit(ledger, flipText(`"progress"`)), "rebuilt", 0},
		"the ledger cut":                                       {edit(ledger, cut(0.3)), "rebuilt", 0},
		"the ledger zero":                                      {edit(ledger, zero), "rebuilt", 0},
		"the ledger empty":                                     {edit(ledger, empty), "rebuilt", 0},
		"the ledger gone":                                      {gone(ledger), "rebuilt", 0},
		"the ledger gone, and a bit flipped among the waiting": {both(gone(ledger), edit(block, flip(0.8))), "rebuilt", 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			damaged(t, h)
		})
	}
}

func damaged(t *testing.T, h hurt) {
	bubble(t, nil, func(r *rig) {
		var want []callgoosetest.Expect
		send := func(from int) {
			for i := range 6 {
				var members []alert
				for j := range 5 {
					a := mysqlDown(from+i*5+j, "firing", time.Now())
					members = append(members, a)
					want = append(want, callgoosetest.Expect{IncidentKey: "pmm-" + pmm.Fingerprint(a.Labels), Status: "firing"})
				}
				r.accept(group(members...))
			}
		}
		send(0)
		r.settle()
		r.net.Refuse(true)
		send(30)
		r.accept(group(mysqlDown(3, "resolved", time.Now()), mysqlDown(34, "resolved", time.Now())))
		want = append(want,
			callgoosetest.Expect{IncidentKey: "pmm-" + pmm.Fingerprint(mysqlDown(3, "", time.Time{}).Labels), Status: "resolved"},
			callgoosetest.Expect{IncidentKey: "pmm-" + pmm.Fingerprint(mysqlDown(34, "", time.Time{}).Labels), Status: "resolved"})
		time.Sleep(20 * time.Second) // split, tried, saved
		r.halt()
		before := len(r.logs.String())
		h.do(t, r.cfg.DataDir)
		r.start()
		r.net.Refuse(false)
		time.Sleep(time.Minute)
		s := r.settle()
		report := r.fake.Check(want)
		missing := report.Count(callgoosetest.Missing)
		if report.Count(callgoosetest.OutOfOrder, callgoosetest.Unexpected, callgoosetest.Changed, callgoosetest.Retried) > 0 || missing > h.lost {
			t.Errorf("%s", report)
		}
		dead := len(r.events(event.Filter{Outcomes: []event.Outcome{event.Dead}}))
		if dead > h.lost || dead == 0 && missing > 0 || s.Queued != 0 {
			t.Errorf("%d dead letters, %d missing, %+v", dead, missing, s)
		}
		if log := r.logs.String()[before:]; !strings.Contains(log, h.says) {
			t.Errorf("the log does not say %q", h.says)
		}
		// What came of it is whole again.
		r.halt()
		found, err := blocks.Stream{DataDir: r.cfg.DataDir, Name: "NOTIFICATIONS", Subject: "notifications.in"}.Check()
		if err != nil || len(found) > 0 {
			t.Errorf("left behind: %v, %v", found, err)
		}
		r.start()
		if n := len(r.events(event.Filter{Outcomes: []event.Outcome{event.Queued}})); n > 0 {
			t.Errorf("%d events are queued again", n)
		}
	})
}
