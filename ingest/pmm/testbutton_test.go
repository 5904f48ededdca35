package pmm

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
)

func TestTheTestButtonsAlertGetsItsRecovery(t *testing.T) {
	at := time.Date(2026, 11, 27, 21, 0, 0, 500, time.UTC)
	sample, err := os.ReadFile("../../testdata/webhook/grafana-test-button.json")
	if err != nil {
		t.Fatal(err)
	}
	alert := func(extra string) string {
		return `{"status":"firing","labels":{"alertname":"TestAlert"},"fingerprint":"57c6d9296de2ad39"` + extra + `}`
	}
	const key = `"groupKey":"cp-57c6d9296de2ad39-1795426435"`
	for _, tt := range []struct {
		name, body string
		alerts     int // in the recovery, 0 = none is made
	}{
		{"as Grafana sends it", string(sample), 1},
		{"the shortest", `{` + key + `,"alerts":[` + alert("") + `]}`, 1},
		{"members named twice and in capitals", `{"status":"firing","status":"firing",` + key + `,"Status":1,"alerts":[` + alert(`,"endsAt":"0001-01-01T00:00:00Z","endsAt":null,"a\"b":[1]`) + `]}`, 1},
		{"an alert of a rule beside it", `{` + key + `,"truncatedAlerts":2,"alerts":[` + alert("") + `,{"status":"firing","labels":{"alertname":"Disk"}},{}]}`, 1},
		{"all labels replaced", `{` + key + `,"alerts":[{"status":"firing","labels":{"x":"y"},"fingerprint":"57c6d9296de2ad39"}]}`, 1},
		{"a rule's alert of that name", `{"groupKey":"{}/{}:{alertname=\"TestAlert\"}","alerts":[` + alert("") + `]}`, 0},
		{"no group key", `{"alerts":[` + alert("") + `]}`, 0},
		{"resolved already", `{` + key + `,"alerts":[` + strings.Replace(alert(""), "firing", "resolved", 1) + `]}`, 0},
		{"far too large for one", `{` + key + `,"alerts":[` + alert(`,"x":"`+strings.Repeat("x", maxTest)+`"`) + `]}`, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, ok := TestRecovery([]byte(tt.body), at)
			if ok != (tt.alerts > 0) {
				t.Fatalf("made: %v: %s", ok, out)
			}
			if !ok {
				return
			}
			if !json.Valid(out) {
				t.Fatalf("not JSON: %s", out)
			}
			n, err := Decode(out)
			if err != nil {
				t.Fatal(err)
			}
			sent, err := Decode([]byte(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			if n.Status != "resolved" || n.GroupKey != sent.GroupKey || n.TruncatedAlerts != 0 || len(n.Alerts) != tt.alerts || len(n.Unusable) != 0 {
				t.Errorf("made %+v", n)
			}
			a, first := n.Alerts[0], sent.Alerts[0]
			if a.Firing || !a.EndsAt.Equal(at) || !a.StartsAt.Equal(first.StartsAt) || a.Fingerprint != first.Fingerprint || Fingerprint(a.Labels) != Fingerprint(first.Labels) {
				t.Errorf("the alert is %+v", a)
			}
			if again, ok := TestRecovery(out, at); ok {
				t.Errorf("a recovery has its own: %s", again)
			}
		})
	}
}
