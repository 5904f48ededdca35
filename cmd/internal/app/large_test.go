package app

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

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
