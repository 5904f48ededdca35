package pmm

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
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
	if len(body) > maxTest {
		return nil, false
	}
	var key []byte
	_, err := survey(body, func(name, value []byte) {
		if string(name) == "groupKey" {
			key = text(value)
		}
	})
	if err != nil || len(key) == 0 || key[0] == '{' { // as Alert.Test does, before anything is decoded
		return nil, false
	}
	n, err := Decode(body)
	if err != nil {
		return nil, false
	}
	var alerts [][]byte
	for _, a := range n.Alerts {
		if a.Firing && a.Test(n) {
			alerts = append(alerts, resolved(a.Raw, at))
		}
	}
	if len(alerts) == 0 {
		return nil, false
	}
	out := []byte{'{'}
	for _, f := range n.Envelope {
		if f.Name != "status" && f.Name != "truncatedAlerts" {
			out = appendMember(out, f.Name, f.Value)
		}
	}
	out = appendMember(out, "status", []byte(`"resolved"`))
	out = appendMember(out, "alerts", slices.Concat([]byte{'['}, bytes.Join(alerts, []byte{','}), []byte{']'}))
	return append(out, '}'), true
}

// resolved is the alert in raw, a JSON object, as it looks resolved at that time.
func resolved(raw []byte, at time.Time) []byte {
	changed := map[string][]byte{
		"status": []byte(`"resolved"`),
		"endsAt": strconv.AppendQuote(nil, at.UTC().Format(time.RFC3339Nano)),
	}
	out := []byte{'{'}
	s := scanner{data: raw}
	for more := s.open('}'); more; more = s.more('}') {
		name, value := string(unquote(s.name())), s.value()
		if changed[name] == nil {
			out = appendMember(out, name, value)
		}
	}
	for _, name := range []string{"status", "endsAt"} {
		out = appendMember(out, name, changed[name])
	}
	return append(out, '}')
}

// appendMember adds a member to the object that b begins.
func appendMember(b []byte, name string, value []byte) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	quoted, _ := json.Marshal(name) // a string always can be
	return append(append(append(b, quoted...), ':'), value...)
}
