package app

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pmm-callgoose/ingest/pmm"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/queue"
	"pmm-callgoose/worker/callgoose/callgoosetest"
)

// hurt is one way to damage a data directory.
type hurt struct {
	do func(t *testing.T, dir string)
	// says is what the log must hold.
	says string
	// again: what was delivered before may be delivered once more.
	again bool
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

// Whatever is damaged, what can still be read somewhere arrives, in order, and
// the log says what was wrong.
func TestDamageForgetsNothingThatCanBeRead(t *testing.T) {
	t.Parallel()
	ledger := func(dir string) string { return filepath.Join(dir, store.FileName) }
	block := in("EVENTS", "msgs/1.blk")
	noIndex := gone(in("EVENTS", "msgs/index.db"))
	for name, h := range map[string]hurt{
		"a flipped bit among events":                       {edit(block, flip(0.5)), "mended", false},
		"a flipped bit among events, the index lost":       {both(edit(block, flip(0.5)), noIndex), "mended", false},
		"a flipped length among events":                    {edit(block, func(b []byte) []byte { return flipRecord("events.", 1)(b) }), "mended", false},
		"a flipped sequence, the index lost":               {both(edit(block, flipRecord("events.", 5)), noIndex), "mended", false},
		"a page of zeros among events":                     {edit(block, func(b []byte) []byte { clear(b[len(b)/2 : len(b)/2+4096]); return b }), "mended", false},
		"the last event flipped":                           {edit(block, flip(1)), "torn", false},
		"the last event flipped, the index lost":           {both(edit(block, flip(1)), noIndex), "messages are gone", false},
		"the end of the events cut off":                    {edit(block, cut(0.7)), "torn", false},
		"the end of the events cut off, the index lost":    {both(edit(block, cut(0.7)), noIndex), "messages are gone", false},
		"all events gone":                                  {gone(block), "", false},
		"all events gone, the index too":                   {both(gone(block), noIndex), "messages are gone", false},
		"an empty block of events":                         {edit(block, empty), "", false},
		"the index of events cut":                          {edit(in("EVENTS", "msgs/index.db"), cut(0.5)), "", false},
		"the index of events flipped":                      {edit(in("EVENTS", "msgs/index.db"), flip(0.3)), "", false},
		"the description of EVENTS cut":                    {edit(in("EVENTS", "meta.inf"), cut(0.5)), "description", false},
		"the description of EVENTS empty":                  {edit(in("EVENTS", "meta.inf"), empty), "description", false},
		"the description of EVENTS zero":                   {edit(in("EVENTS", "meta.inf"), zero), "description", false},
		"the description of EVENTS flipped":                {edit(in("EVENTS", "meta.inf"), flip(0.5)), "description", false},
		"the check sum of EVENTS gone":                     {gone(in("EVENTS", "meta.sum")), "description", false},
		"the description of NOTIFICATIONS cut":             {edit(in("NOTIFICATIONS", "meta.inf"), cut(0.5)), "description", false},
		"a flipped bit among notifications that are split": {edit(in("NOTIFICATIONS", "msgs/1.blk"), flip(0.5)), "mended", false},
		"the consumer's description cut":                   {edit(in("EVENTS", "obs/delivery/meta.inf"), cut(0.5)), "", false},
		"the consumer's description gone":                  {gone(in("EVENTS", "obs/delivery/meta.inf")), "", false},
		"the consumer's position zero":                     {edit(in("EVENTS", "obs/delivery/o.dat"), zero), "", false},
		"the ledger flipped":                               {edit(ledger, flipText("alertname")), "rebuilt", false},
		"the floor in the ledger flipped":                  {edit(ledger, flipText(`"floor"`)), "rebuilt", false},
		"the ledger cut":                                   {edit(ledger, cut(0.3)), "rebuilt", false},
		"the ledger zero":                                  {edit(ledger, zero), "rebuilt", false},
		"the ledger empty":                                 {edit(ledger, empty), "rebuilding", false},
		"the ledger gone":                                  {gone(ledger), "rebuilding", false},
		"the ledger gone and the consumer too":             {both(gone(ledger), gone(in("EVENTS", "obs/delivery/meta.inf"))), "rebuilding", true},
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
		if len(report.Missing)+len(report.OutOfOrder)+len(report.Unexpected)+len(report.Changed) > 0 || !h.again && len(report.Retried) > 0 {
			t.Errorf("%s", report)
		}
		if s.Dead != 0 || s.Queued != 0 {
			t.Errorf("%+v", s)
		}
		if log := r.logs.String()[before:]; !bytes.Contains([]byte(log), []byte(h.says)) {
			t.Errorf("the log does not say %q", h.says)
		}
		// What came of it is whole again.
		r.halt()
		found, err := queue.Check(r.cfg.DataDir)
		if err != nil || len(found) > 0 {
			t.Errorf("left behind: %v, %v", found, err)
		}
		r.start()
		if n := len(r.events(event.Filter{Outcomes: []event.Outcome{event.Queued}})); n > 0 {
			t.Errorf("%d events are queued again", n)
		}
	})
}
