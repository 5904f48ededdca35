package pmm

import (
	"bytes"
	"encoding/json"
	"time"
)

// maxTest is the size above which a body is not looked through for alerts of the
// Test button, which sends one alert of some hundred bytes.
const maxTest = 64 << 10

// TestRecovery returns the body that ends the alerts of Grafana's Test button in
// body, a body that [Check] took: the same notification with only those alerts,
// resolved at that time. ok is false when it holds none of them. PMM itself never
// resolves such an alert.
func TestRecovery(body []byte, at time.Time) (recovery []byte, ok bool) {
	if len(body) > maxTest || bytes.Contains(body, []byte(`"groupKey":"{`)) { // PMM's own alerts: not worth decoding
		return nil, false
	}
	n, err := Decode(body)
	if err != nil {
		return nil, false
	}
	var alerts []object
	for _, a := range n.Alerts {
		if !a.Firing || !a.Test(n) {
			continue
		}
		var m object
		if json.Unmarshal(a.Raw, &m) != nil {
			return nil, false // it was just decoded
		}
		m.set("status", "resolved")
		m.set("endsAt", at.UTC().Format(time.RFC3339Nano))
		alerts = append(alerts, m)
	}
	if len(alerts) == 0 {
		return nil, false
	}
	var out object
	if json.Unmarshal(bytes.TrimPrefix(body, []byte("\ufeff")), &out) != nil {
		return nil, false // likewise
	}
	delete(out, "truncatedAlerts")
	out.set("status", "resolved")
	out.set("alerts", alerts)
	return encode(out), true
}
