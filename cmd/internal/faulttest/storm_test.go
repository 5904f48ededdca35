package faulttest

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"pmm-callgoose/cmd/internal/admin"
)

// postAtOnce posts firing alerts of one name in one webhook.
func (r *rig) postAtOnce(n int) {
	r.t.Helper()
	var alerts []string
	for host := range n {
		alerts = append(alerts, fmt.Sprintf(`{"status":"firing","labels":{"alertname":"Disk","severity":"critical","instance":"host%d"}}`, host))
	}
	resp, err := http.Post(*r.url.Load(), "application/json", strings.NewReader(`{"version":"1","alerts":[`+strings.Join(alerts, ",")+`]}`))
	if err != nil { // it died before it answered, and has it
		return
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		r.t.Fatalf("answered %d", resp.StatusCode)
	}
}

// Wherever the process dies in a storm of alerts, the storm is told and ends, and what
// waited for its end and still fires goes out.
func TestKilledAtEveryStepOfAStormWhatFiresGoesOut(t *testing.T) {
	needFaultpoints(t)
	t.Parallel()
	for _, moment := range []string{
		"decided@1",        // the storm is on, and nobody was told
		"storm-told@1",     // its firing is stored, and not split
		"storm-over@1",     // its recovery is
		"storm-released@1", // what waits was asked for, and still waits
	} {
		t.Run(moment, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "--storm", "3/2s")
			r.env = []string{"FAULTPOINT=" + moment}
			r.start()
			r.postAtOnce(5)
			r.awaitDeath()
			r.env = nil
			r.start()
			var delivered int64
			r.until("calm", func(s admin.Status) bool {
				delivered = s.Delivered
				return s.StormsTotal > 0 && len(s.Storms) == 0 && s.Queued == 0
			})
			var open []string
			for _, i := range r.fake.Open() {
				open = append(open, i.Title)
			}
			if len(open) != 5 || strings.Contains(strings.Join(open, "\n"), "Storm") {
				t.Errorf("open are %q", open)
			}
			if delivered != 7 {
				t.Errorf("%d were delivered, want the five and both words of the storm", delivered)
			}
			r.stop()
		})
	}
}
