package callgoose

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func sample() Alert {
	return Alert{
		Status: "firing",
		Envelope: []Member{
			{"version", []byte(`"1"`)},
			{"status", []byte(`"resolved"`)},
			{"receiver", []byte(`"Callgoose SQIBS"`)},
			{"commonLabels", []byte(`{"of":"the group"}`)},
			{"externalURL", []byte(`"http://pmm-server/alerting/list"`)},
		},
		Raw:         []byte("{\n\"labels\": {\"alertname\": \"MySQL Down\"} }"),
		Labels:      map[string]string{"severity": "critical", "alertname": "MySQL Down", "instance": "mysql-01:3306"},
		Annotations: map[string]string{"summary": "MySQL is <down> & out", "description": "It does not answer."},
		Fingerprint: "18e04dbe104bb755", HasFinger: true, Source: "PerconaPMM",
		IncidentKey: "pmm-18e04dbe104bb755", EventID: "62aa110960031c02cbcd", UniqueName: true,
	}
}

// The bytes are part of the contract: Callgoose may recognise a repeat by them.
func TestBodyHasAFixedOrder(t *testing.T) {
	want := `{"receiver":"Callgoose SQIBS","status":"firing","alerts":[{
"labels": {"alertname": "MySQL Down"} }],"groupLabels":{"alertname":"MySQL Down"},` +
		`"commonLabels":{"alertname":"MySQL Down [mysql-01:3306]","instance":"mysql-01:3306","severity":"critical"},` +
		`"commonAnnotations":{"description":"It does not answer.","summary":"MySQL is <down> & out"},` +
		`"version":"1","externalURL":"http://pmm-server/alerting/list",` +
		`"source":"PerconaPMM","incident_key":"pmm-18e04dbe104bb755","event_id":"62aa110960031c02cbcd",` +
		`"title":"MySQL Down - MySQL is <down> & out","description":"It does not answer.","severity":"critical","instance":"mysql-01:3306",` +
		`"short":"MySQL Down on mysql-01:3306, critical","urgency":"high","where":"mysql-01:3306"}`
	for range 50 { // maps have another order each time
		if got := string(Body(sample())); got != want {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
	}
}

func TestBodyHasAllOptionalKeysInAFixedOrder(t *testing.T) {
	a := sample()
	a.Status, a.Suffix, a.Link, a.Reopened, a.Reconciled, a.RecoveryWords = "resolved", "a1b2c3", "https://pmm/d/1", true, "closed", true
	a.Annotations = map[string]string{"description": "Down.", "runbook_url": "https://wiki/mysql", "grafana_state_reason": "MissingSeries"}
	want := `"commonLabels":{"alertname":"MySQL Down [mysql-01:3306] #a1b2c3","instance":"mysql-01:3306","severity":"critical"}`
	if got := string(Body(a)); !strings.Contains(got, want) {
		t.Errorf("got %s\nwant %s", got, want)
	}
	want = `"title":"MySQL Down","description":"Down.\n\nThis recovery is not confirmed: PMM lost the data, so the fault may still be there (MissingSeries).",` +
		`"severity":"critical","instance":"mysql-01:3306","short":"MySQL Down on mysql-01:3306, critical","urgency":"high","where":"mysql-01:3306",` +
		`"link":"https://pmm/d/1","runbook":"https://wiki/mysql","recovery":"hollow","reopened":"true","reconciled":"closed"}`
	if got := string(Body(a)); !strings.HasSuffix(got, want) {
		t.Errorf("got %s\nwant %s", got, want)
	}
	late, err := Late(Body(a), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	m := members(t, late)
	if d := text(t, m, "description"); !strings.HasSuffix(d, "(MissingSeries).\n\nDelivered late by pmm-callgoose: 1h0m0s after the event.") {
		t.Errorf("late description %q", d)
	}
	if !bytes.HasSuffix(late, []byte(`"reconciled":"closed","delayed_by":"1h0m0s"}`)) {
		t.Errorf("late: %s", late)
	}
}

func TestBodyLeavesItsInputAlone(t *testing.T) {
	a := sample()
	a.HasFinger = false
	a.Raw = append(make([]byte, 0, 1000), a.Raw...)
	labels, raw := maps.Clone(a.Labels), bytes.Clone(a.Raw[:cap(a.Raw)])
	Body(a)
	if !maps.Equal(labels, a.Labels) || !bytes.Equal(raw, a.Raw[:cap(a.Raw)]) {
		t.Error("labels or alert were changed")
	}
}

// split takes a JSON object apart into its members, in order.
func split(body []byte) ([]Member, error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("the stored body is not a JSON object")
	}
	var out []Member
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			return nil, err
		}
		s, _ := name.(string)
		out = append(out, Member{s, v})
	}
	return out, nil
}

// join puts it together again.
func join(members []Member) []byte {
	size := 2
	for _, m := range members {
		size += len(m.Name) + len(m.Value) + 4
	}
	b := append(make([]byte, 0, size), '{')
	for _, m := range members {
		b = appendMember(b, m.Name, m.Value)
	}
	return append(b, '}')
}

// members reads a body, and fails on names that occur twice.
func members(t testing.TB, body []byte) map[string]json.RawMessage {
	t.Helper()
	if !json.Valid(body) || !utf8.Valid(body) {
		t.Fatalf("not JSON in UTF-8: %q", body)
	}
	list, err := split(body)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]json.RawMessage{}
	for _, x := range list {
		if _, again := m[x.Name]; again {
			t.Fatalf("%q occurs twice: %s", x.Name, body)
		}
		m[x.Name] = x.Value
	}
	return m
}

func text(t testing.TB, m map[string]json.RawMessage, name string) string {
	t.Helper()
	var s string
	if err := json.Unmarshal(m[name], &s); err != nil {
		t.Fatalf("%s: %v: %q", name, err, m[name])
	}
	return s
}

var flatKeys = []string{"source", "incident_key", "event_id", "title", "description", "severity", "instance"}

func TestBodyWithHostileInput(t *testing.T) {
	for name, s := range map[string]string{
		"quotes":             `he said "no" \ and left`,
		"control characters": "a\x00b\x01\x1f\x7f\r\n\t",
		"invalid UTF-8":      "a\xff\xc3(\xed\xa0\x80z",
		"HTML":               `<b>&amp;'"</b>`,
		"line separators":    "a\u2028b\u2029c",
		"an attempt to end":  `"}],"status":"resolved","x":[{"y":"`,
		"astral":             "🔥\U0010ffff",
		"long":               strings.Repeat("<é\">", 20000),
		"U+FFFD":             "\ufffd",
	} {
		t.Run(name, func(t *testing.T) {
			a := sample()
			a.Labels = map[string]string{"alertname": s, "instance": s, "severity": s, s: s}
			a.Annotations = map[string]string{"summary": s, "description": s, s: s}
			a.GroupLabels = map[string]string{s: s}
			a.Source, a.IncidentKey, a.EventID, a.Fingerprint, a.HasFinger = s, s, s, s, false
			body := Body(a)
			m := members(t, body)
			clean := strings.ToValidUTF8(strings.NewReplacer("\xff", "\ufffd", "\xc3(", "\ufffd(", "\xed\xa0\x80", "\ufffd\ufffd\ufffd").Replace(s), "\ufffd")
			for _, k := range flatKeys {
				want := clean
				if k == "title" {
					want += " - " + clean
				}
				got := text(t, m, k)
				if name == "long" && (k == "title" || k == "description") {
					got, want = strings.TrimSuffix(got, "…"), want[:min(len(want), len(got)-len("…"))]
				}
				if got != want {
					t.Errorf("%s: %q, want %q", k, got, want)
				}
			}
			if text(t, m, "status") != "firing" {
				t.Error("the status was changed from within")
			}
			var common map[string]string
			if err := json.Unmarshal(m["commonLabels"], &common); err != nil || common["alertname"] != clean+" ["+clean+"]" || common[clean] == "" {
				t.Errorf("commonLabels %v: %.200s", err, m["commonLabels"])
			}
			if strings.Contains(s, "<") && (bytes.Contains(body, []byte(`\u003c`)) || !bytes.Contains(m["title"], []byte("<"))) {
				t.Error("HTML characters are escaped: maintenance tags of Callgoose would not match")
			}
			late, err := Late(body, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			if d := text(t, members(t, late), "description"); !strings.HasPrefix(d, text(t, m, "description")+"\n\nDelivered late") {
				t.Errorf("late description %.100q", d)
			}
		})
	}
}

func TestTextsFallBackAndAreNeverEmpty(t *testing.T) {
	type labels = map[string]string
	for _, c := range []struct {
		name                         string
		labels, annotations          labels
		title, desc, severity, where string
		common                       string // the alert's name there
	}{
		{"nothing", nil, nil, "alert without a name", "alert without a name on fp", "unknown", "fp", "alert without a name [fp]"},
		{"empty values", labels{"alertname": "", "severity": "", "instance": ""}, labels{"summary": "", "description": ""}, "alert without a name", "alert without a name on fp", "unknown", "fp", "alert without a name [fp]"},
		{"only a name", labels{"alertname": "A"}, nil, "A", "A on fp", "unknown", "fp", "A [fp]"},
		{"summary stands in", labels{"alertname": "A"}, labels{"summary": "S"}, "A - S", "S", "unknown", "fp", "A [fp]"},
		{"description", labels{"alertname": "A"}, labels{"description": "D"}, "A", "D", "unknown", "fp", "A [fp]"},
		{"instance first", labels{"alertname": "A", "instance": "i", "service_name": "s", "node_name": "n"}, nil, "A", "A on i", "unknown", "i", "A [i]"},
		{"then service_name", labels{"alertname": "A", "service_name": "s", "node_name": "n"}, nil, "A", "A on s", "unknown", "s", "A [s]"},
		{"then node_name", labels{"alertname": "A", "node_name": "n", "severity": "warning"}, nil, "A", "A on n", "warning", "n", "A [n]"},
		{"white space", labels{"alertname": " ", "instance": "\t", "service_name": "s", "severity": " "}, labels{"summary": "   ", "description": "\n\n  \n"}, "alert without a name", "alert without a name on s", "unknown", "s", "alert without a name [s]"},
		{"no-break and zero width", labels{"alertname": "\u00a0", "instance": "\u200b\u2060", "severity": "\ufeff"}, labels{"summary": "\u202e\u00ad", "description": "\u3164\u2800\ufe0f\u034f"}, "alert without a name", "alert without a name on fp", "unknown", "fp", "alert without a name [fp]"},
		{"control characters", labels{"alertname": "A", "severity": "\x00\x1b"}, labels{"summary": "S", "description": "\u0085\u2028"}, "A - S", "S", "unknown", "fp", "A [fp]"},
		{"text among white space stays as it is", labels{"alertname": " A ", "instance": " i", "severity": "critical "}, labels{"summary": "\tS\n"}, " A  - \tS\n", "\tS\n", "critical ", " i", " A  [ i]"},
		{"no name but a summary", labels{"instance": "i"}, labels{"summary": "S"}, "alert without a name - S", "S", "unknown", "i", "alert without a name [i]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := Alert{Status: "firing", Raw: []byte("{}"), Labels: c.labels, Annotations: c.annotations, Fingerprint: "fp", Source: "x", IncidentKey: "k", EventID: "e", UniqueName: true}
			m := members(t, Body(a))
			for name, want := range map[string]string{"title": c.title, "description": c.desc, "severity": c.severity, "instance": c.where} {
				if got := text(t, m, name); got != want {
					t.Errorf("%s = %q, want %q", name, got, want)
				}
			}
			var common, group labels
			if json.Unmarshal(m["commonLabels"], &common) != nil || common["alertname"] != c.common {
				t.Errorf("commonLabels = %s", m["commonLabels"])
			}
			if json.Unmarshal(m["groupLabels"], &group) != nil || group["alertname"] != name(c.labels) {
				t.Errorf("groupLabels = %s", m["groupLabels"])
			}
			a.UniqueName = false
			if got := members(t, Body(a))["commonLabels"]; !bytes.Equal(got, appendObject(nil, c.labels)) {
				t.Errorf("--incident-by alertname: commonLabels = %s", got)
			}
		})
	}
}

func TestGroupLabelsOfTheNotificationArePassedOn(t *testing.T) {
	a := sample()
	a.GroupLabels = map[string]string{"grafana_folder": "PMM", "alertname": "other"}
	if got, want := string(members(t, Body(a))["groupLabels"]), `{"alertname":"other","grafana_folder":"PMM"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestOurKeysInTheEnvelopeAreReplaced(t *testing.T) {
	plain := Body(sample())
	a := sample()
	for _, k := range slices.Concat(flatKeys, []string{"short", "urgency", "where", "link", "runbook", "recovery", "reopened", "reconciled", "status", "alerts", "groupLabels", "commonLabels", "commonAnnotations", "delayed_by"}) {
		a.Envelope = append(a.Envelope, Member{k, []byte(`{"not":"ours"}`)})
	}
	a.Envelope = append([]Member{{"title", []byte(`"[FIRING:1] MySQL Down"`)}}, a.Envelope...) // Grafana has one
	if got := Body(a); !bytes.Equal(got, plain) {
		t.Errorf("got  %s\nwant %s", got, plain)
	}
	a.Envelope = append(a.Envelope, Member{"Title", []byte(`1`)}) // paths of Callgoose are case-sensitive
	if m := members(t, Body(a)); string(m["Title"]) != "1" {
		t.Error("a key of another case is gone")
	}
}

func TestLongEnvelopeMembersAreLeftOut(t *testing.T) {
	value := func(n int) []byte { return appendQuote(nil, strings.Repeat("x", n-2)) }
	a := sample()
	a.Envelope = []Member{{"message", value(maxMember + 1)}, {"fits", value(maxMember)}, {"receiver", value(maxMember + 1)}, {"after", []byte("[1, 2]")}}
	m := members(t, Body(a))
	if _, ok := m["message"]; ok {
		t.Error("message is still there")
	}
	if _, ok := m["receiver"]; ok {
		t.Error("an endless receiver is still there")
	}
	if len(m["fits"]) != maxMember || string(m["after"]) != "[1, 2]" {
		t.Errorf("fits: %d bytes, after: %s", len(m["fits"]), m["after"])
	}
	a.Raw = []byte(`{"x":` + string(value(3*maxMember)) + `}`)
	if !bytes.Contains(Body(a), a.Raw) {
		t.Error("the alert itself was cut")
	}
}

func TestFingerprintIsAddedToTheAlert(t *testing.T) {
	for raw, want := range map[string]string{
		`{}`:                   `{"fingerprint":"f\"p"}`,
		"{ \n}":                `{"fingerprint":"f\"p"}`,
		"{}\r\n\t ":            `{"fingerprint":"f\"p"}`,
		`{"a":1}`:              `{"a":1,"fingerprint":"f\"p"}`,
		"{\"a\": 1\n}\n":       "{\"a\": 1,\"fingerprint\":\"f\\\"p\"}",
		`{"a":{}}`:             `{"a":{},"fingerprint":"f\"p"}`,
		`{"a":"{"}`:            `{"a":"{","fingerprint":"f\"p"}`,
		" {\"a\":[{ }]  }  \n": ` {"a":[{ }],"fingerprint":"f\"p"}`,
		// One that cannot be used gives its place.
		`{"fingerprint":"","b":1.0,"a":"<"}`: `{"a":"<","b":1.0,"fingerprint":"f\"p"}`,
	} {
		got := appendWithFingerprint(nil, []byte(raw), `f"p`)
		if string(got) != want || !json.Valid(got) {
			t.Errorf("%q: %s, want %s", raw, got, want)
		}
		a := sample()
		a.Raw, a.HasFinger, a.Fingerprint = []byte(raw), false, `f"p`
		if alerts := members(t, Body(a))["alerts"]; string(alerts) != "["+want+"]" {
			t.Errorf("%q: alerts %s", raw, alerts)
		}
		a.HasFinger = true
		if alerts := members(t, Body(a))["alerts"]; string(alerts) != "["+raw+"]" {
			t.Errorf("%q was changed to %s though PMM sent a fingerprint", raw, alerts)
		}
	}
}

func TestLateAddsAWordAndKeepsTheRest(t *testing.T) {
	a := sample()
	a.Envelope = append(
		a.Envelope,
		Member{"delayed_by", []byte(`"an age"`)}, // some other forwarder's
		Member{"numbers", []byte(`[1.0, 1e400, 12345678901234567890, -0]`)},
		Member{"nested", []byte("{ \"description\" : \"mine\",\n\t\"a\":[ ] }")},
		Member{"escapes\"\n\u2028", []byte(`"\u0041\/\u003c"`)},
	)
	body := Body(a)
	before := bytes.Clone(body)
	late, err := Late(body, 90*time.Minute+400*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(body, before) {
		t.Error("Late changed its argument")
	}
	want := strings.Replace(string(body), `"description":"It does not answer.","severity"`,
		`"description":"It does not answer.\n\nDelivered late by pmm-callgoose: 1h30m0s after the event.","severity"`, 1)
	want = strings.TrimSuffix(want, "}") + `,"delayed_by":"1h30m0s"}`
	if string(late) != want {
		t.Errorf("got  %s\nwant %s", late, want)
	}
	if got := text(t, members(t, late), "delayed_by"); got != "1h30m0s" {
		t.Errorf("delayed_by = %q", got)
	}
	again, err := Late(body, 90*time.Minute)
	if err != nil || !bytes.Equal(again, late) {
		t.Errorf("the same delay gives other bytes: %v", err)
	}
}

func TestDelayIsToldInWholeSeconds(t *testing.T) {
	for by, want := range map[time.Duration]string{
		0: "0s", 499 * time.Millisecond: "0s", 500 * time.Millisecond: "1s", 5*time.Minute + time.Nanosecond: "5m0s", 72 * time.Hour: "72h0m0s",
	} {
		if got := Delay(by); got != want {
			t.Errorf("%v: %s, want %s", by, got, want)
		}
		// The record keeps the text, and the body is made from it again.
		if back, err := time.ParseDuration(Delay(by)); err != nil || Delay(back) != want {
			t.Errorf("%s does not come back: %v, %v", want, back, err)
		}
	}
}

func TestWhatIsNoObjectIsRefused(t *testing.T) {
	for _, s := range []string{"", " ", "null", "[]", `"x"`, "1", "{", `{"a"`, `{"a":`, `{"a":]}`, `{a:1}`, `{"a":1 "b":2}`, "\xff"} {
		late, lateErr := Late([]byte(s), time.Hour)
		if lateErr == nil && !json.Valid(late) {
			t.Errorf("Late(%q) = %q", s, late)
		}
		if lateErr == nil {
			t.Errorf("%q was accepted", s)
		}
	}
	for _, s := range []string{`{"a":1,"description":7}`, `{"a":1,"description":"}`, `{"a":1,"description":"\"}`, `{"a":1,"description":"`, `{"a":1,"description":"x"`} {
		if late, err := Late([]byte(s), time.Hour); err == nil {
			t.Errorf("Late(%q) = %q", s, late)
		}
	}
}

func FuzzBody(f *testing.F) {
	f.Add("firing", "MySQL Down", "mysql-01:3306", "critical", "it is down", "extra", []byte(`{"a": [1, 2.0]}`), []byte(`{"labels":{}}`), "18e04dbe104bb755", true, true)
	f.Add("resolved", "", "", "", "", "title", []byte(`null`), []byte("{ }\n"), "", false, false)
	f.Add("\xff", "\"\\\x00", "</script>", "\u2028", "\n", "delayed_by", []byte(`"\ud800"`), []byte(`{"fingerprint":""}`), "\x7f", false, true)
	f.Fuzz(func(t *testing.T, status, name, instance, severity, summary, member string, value, raw []byte, fingerprint string, has, unique bool) {
		// What ingest/pmm promises: valid JSON in valid UTF-8, the alert an object,
		// and names that occur once.
		if value = bytes.TrimSpace(bytes.ToValidUTF8(value, []byte("?"))); !json.Valid(value) {
			value = appendQuote(nil, string(value))
		}
		raw = bytes.ToValidUTF8(raw, []byte("?"))
		if !json.Valid(raw) || bytes.TrimSpace(raw)[0] != '{' {
			raw = []byte("{}")
		}
		member = strings.ToValidUTF8(member, "?")
		a := Alert{
			Status: status, Raw: raw, Envelope: []Member{{member, value}},
			Labels:      map[string]string{"alertname": name, "instance": instance, "severity": severity, member: name},
			Annotations: map[string]string{"summary": summary, name: instance},
			Fingerprint: fingerprint, HasFinger: has, Source: "PerconaPMM", IncidentKey: "pmm-" + fingerprint, EventID: "e", UniqueName: unique,
		}
		if len(name)%2 == 0 {
			a.GroupLabels = map[string]string{member: summary}
		}
		body := Body(a)
		if !bytes.Equal(body, Body(a)) {
			t.Fatal("other bytes the second time")
		}
		m := members(t, body)
		for _, k := range flatKeys {
			if got := text(t, m, k); got == "" && k != "instance" {
				t.Fatalf("%s is empty: %s", k, body)
			}
		}
		var alerts []map[string]json.RawMessage
		if err := json.Unmarshal(m["alerts"], &alerts); err != nil || len(alerts) != 1 {
			t.Fatalf("alerts: %v: %s", err, m["alerts"])
		}
		if has && string(m["alerts"]) != "["+string(raw)+"]" && json.Valid(raw) {
			t.Fatalf("the alert was changed: %s", m["alerts"])
		}
		if !has && text(t, alerts[0], "fingerprint") != strings.ToValidUTF8(fingerprint, "\ufffd") && !strings.Contains(string(m["alerts"]), string(appendQuote(nil, fingerprint))) {
			t.Fatalf("no fingerprint: %s", m["alerts"])
		}
		for _, k := range []string{"groupLabels", "commonLabels", "commonAnnotations"} {
			var labels map[string]string
			if err := json.Unmarshal(m[k], &labels); err != nil {
				t.Fatalf("%s: %v", k, err)
			}
		}
		if n := utf8.RuneCountInString(text(t, m, "title")); n > maxTitle {
			t.Fatalf("title of %d characters", n)
		}
		if s := text(t, m, "short"); first(s) == "" || utf8.RuneCountInString(s) > shortLength || strings.ContainsAny(s, "\n\r\v\f\u0085\u2028\u2029") {
			t.Fatalf("short: %q", s)
		}
		if _, ok := m["recovery"]; ok != (status == "resolved") {
			t.Fatalf("recovery of %s: %s", status, body)
		}
		late, err := Late(body, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		lm := members(t, late)
		if len(lm) != len(m)+1 || text(t, lm, "delayed_by") != "1h0m0s" {
			t.Fatalf("late: %s", late)
		}
		for k, v := range m {
			if k != "description" && !bytes.Equal(lm[k], v) {
				t.Fatalf("late changed %s", k)
			}
		}
		if d := text(t, lm, "description"); d != text(t, m, "description")+"\n\nDelivered late by pmm-callgoose: 1h0m0s after the event." {
			t.Fatalf("late description %q", d)
		}
		apart, err := split(late)
		if err != nil || !bytes.Equal(join(apart), late) || apart[len(apart)-1].Name != "delayed_by" {
			t.Fatalf("late, taken apart and put together: %v: %s", err, late)
		}
	})
}

func BenchmarkBody(b *testing.B) {
	for _, extra := range []int{0, 20} {
		b.Run(fmt.Sprintf("labels=%d", 3+extra), func(b *testing.B) {
			a := sample()
			a.HasFinger = false
			for i := range extra {
				a.Labels[fmt.Sprintf("label_%02d", i)] = "a value of some length, as PMM has them"
			}
			b.ReportAllocs()
			b.SetBytes(int64(len(Body(a))))
			for b.Loop() {
				Body(a)
			}
		})
	}
}

func BenchmarkLate(b *testing.B) {
	body := Body(sample())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Late(body, time.Hour); err != nil {
			b.Fatal(err)
		}
	}
}

func TestTextIsQuotedAsByTheEncoder(t *testing.T) {
	texts := []string{"", "plain", "\x80", "a\xffb", "é\xc3", "\xed\xa0\x80"}
	for r := range rune(0x3000) {
		texts = append(texts, string(r), "é"+string(r)+"x")
	}
	for _, s := range append(texts, "\ufffd", "\U0001f6a8", "\U0010ffff") {
		var want bytes.Buffer
		enc := json.NewEncoder(&want)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(s); err != nil {
			t.Fatal(err)
		}
		if got := appendQuote([]byte("x"), s); string(got)+"\n" != "x"+want.String() {
			t.Errorf("%q: %s", s, got)
		}
	}
}
