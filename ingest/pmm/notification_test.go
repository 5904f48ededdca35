package pmm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// samples returns the bodies of testdata/webhook by name.
func samples(tb testing.TB) map[string][]byte {
	tb.Helper()
	paths, err := filepath.Glob("../../testdata/webhook/*.json")
	if err != nil || len(paths) == 0 {
		tb.Fatalf("no samples: %v", err)
	}
	bodies := make(map[string][]byte, len(paths))
	for _, p := range paths {
		body, err := os.ReadFile(p)
		if err != nil {
			tb.Fatal(err)
		}
		bodies[strings.TrimSuffix(filepath.Base(p), ".json")] = body
	}
	return bodies
}

func decode(tb testing.TB, body string) *Notification {
	tb.Helper()
	n, err := Decode([]byte(body))
	if err != nil {
		tb.Fatalf("Decode(%.200s): %v", body, err)
	}
	return n
}

func TestEverySampleDecodesAsEncodingJSONReadsIt(t *testing.T) {
	for name, body := range samples(t) {
		t.Run(name, func(t *testing.T) {
			var want struct {
				Status, GroupKey, Version string
				TruncatedAlerts           int64
				GroupLabels               map[string]string
				Alerts                    []struct {
					Status              string
					Labels, Annotations map[string]string
					StartsAt, EndsAt    time.Time
					Fingerprint         string
				}
			}
			var raw struct{ Alerts []json.RawMessage }
			if err := errors.Join(json.Unmarshal(body, &want), json.Unmarshal(body, &raw)); err != nil {
				t.Fatal(err)
			}
			n := decode(t, string(body))
			if n.Status != want.Status || n.GroupKey != want.GroupKey || n.Version != want.Version ||
				n.TruncatedAlerts != want.TruncatedAlerts || !reflect.DeepEqual(n.GroupLabels, want.GroupLabels) {
				t.Errorf("top level: got %+v, want %+v", n, want)
			}
			if len(n.Alerts) != len(want.Alerts) || len(n.Unusable) != 0 {
				t.Fatalf("%d usable and %d unusable alerts, want %d", len(n.Alerts), len(n.Unusable), len(want.Alerts))
			}
			for i, a := range n.Alerts {
				w := want.Alerts[i]
				if a.Index != i || !bytes.Equal(a.Raw, raw.Alerts[i]) || a.Firing != (w.Status == "firing") ||
					!reflect.DeepEqual(a.Labels, w.Labels) || !reflect.DeepEqual(a.Annotations, w.Annotations) ||
					!a.StartsAt.Equal(w.StartsAt) || !a.EndsAt.Equal(w.EndsAt) || a.Fingerprint != w.Fingerprint {
					t.Errorf("alert %d: got %+v, want %+v", i, a, w)
				}
				if test := a.Test(n); test != (name == "grafana-test-button") {
					t.Errorf("alert %d: Test() = %v", i, test)
				}
			}
			members, truncated, err := Check(body)
			if members != len(want.Alerts) || truncated != want.TruncatedAlerts || err != nil {
				t.Errorf("Check = %d, %d, %v", members, truncated, err)
			}
		})
	}
}

func TestBodiesThatCannotBeUsed(t *testing.T) {
	for _, tt := range []struct{ name, body, want string }{
		{"empty", "", "not JSON: the body is empty"},
		{"white space", " \r\n\t", "not JSON: the body is empty"},
		{"a template's text", "MySQL is down", `not JSON: unexpected "M" at byte 0`},
		{"cut short", `{"alerts":[{"stat`, "not JSON: it ends too early, after 17 bytes"},
		{"two documents", `{"alerts":[]} {}`, `not JSON: unexpected "{" at byte 14`},
		{"trailing comma", `{"alerts":[1,]}`, `not JSON: unexpected "]" at byte 13`},
		{"line break in a string", "{\"a\":\"x\ny\"}", `not JSON: unexpected "\n" at byte 7`},
		{"too deep", strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1), "not JSON: it nests deeper than 512 levels"},
		{"an array", `[{"status":"firing"}]`, `no "alerts" array; a custom payload in PMM's contact point must keep it`},
		{"no alerts", `{"status":"firing"}`, `no "alerts" array; a custom payload in PMM's contact point must keep it`},
		{"alerts in another case", `{"Alerts":[{"status":"firing","labels":{"a":"b"}}]}`, `no "alerts" array; a custom payload in PMM's contact point must keep it`},
		{"alerts null", `{"alerts":null}`, `no "alerts" array; a custom payload in PMM's contact point must keep it`},
		{"alerts overwritten", `{"alerts":[{"status":"firing","labels":{"a":"b"}}],"alerts":{}}`, `no "alerts" array; a custom payload in PMM's contact point must keep it`},
		{"alerts empty", `{"alerts":[ ]}`, `the "alerts" array is empty`},
		{"too many alerts", `{"alerts":[{"status":"firing","labels":{"a":"b"}}` + strings.Repeat(",1", maxMembers) + `]}`, `"alerts" has more than 100000 members`},
		{"member no object", `{"status":"firing","alerts":[7,{}]}`, `none of the 2 members of "alerts" is usable; the first: not a JSON object`},
		{"no status", `{"alerts":[{"labels":{"a":"b"}}]}`, `none of the 1 members of "alerts" is usable; the first: no "status", neither its own nor the group's`},
		{"odd status", `{"status":"firing","alerts":[{"status":"Firing","labels":{"a":"b"}}]}`, `none of the 1 members of "alerts" is usable; the first: "status" is neither "firing" nor "resolved"`},
		{"no labels", `{"alerts":[{"status":"firing","fingerprint":"ab"}]}`, `none of the 1 members of "alerts" is usable; the first: no "labels" object`},
		{"no identity", `{"alerts":[{"status":"firing","labels":{ },"fingerprint":"a.b"}]}`, `none of the 1 members of "alerts" is usable; the first: neither a label nor a fingerprint to know it by`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Decode([]byte(tt.body))
			if e, ok := errors.AsType[*Error](err); !ok || e.Reason != tt.want {
				t.Errorf("Decode: got %v, want %s", err, tt.want)
			}
			if _, _, err := Check([]byte(tt.body)); err == nil || err.Error() != tt.want {
				t.Errorf("Check: got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestOneBadMemberLeavesTheOthers(t *testing.T) {
	n := decode(t, `{"status":"resolved","alerts":[ null , {"labels":{"a":"b"}},{"status":"odd" },{"status":"firing","labels":{},"fingerprint":"x-1_Z"}]}`)
	want := []Unusable{
		{Index: 0, Raw: []byte(`null`), Reason: "not a JSON object"},
		{Index: 2, Raw: []byte(`{"status":"odd" }`), Reason: `"status" is neither "firing" nor "resolved"`},
	}
	if !reflect.DeepEqual(n.Unusable, want) {
		t.Errorf("unusable: %+v", n.Unusable)
	}
	if len(n.Alerts) != 2 || n.Alerts[0].Index != 1 || n.Alerts[1].Index != 3 {
		t.Fatalf("alerts: %+v", n.Alerts)
	}
	if n.Alerts[0].Firing || !n.Alerts[1].Firing {
		t.Error("the group's status stands in only where a member has none")
	}
	if n.Alerts[1].Fingerprint != "x-1_Z" {
		t.Errorf("fingerprint %q", n.Alerts[1].Fingerprint)
	}
}

func TestOddValues(t *testing.T) {
	n := decode(t, "\ufeff"+`{ "status" : "resolved","x":1,"status":"firing","truncatedAlerts":3,"Version":"9","version":4,"groupLabels":null,
		"alerts":[{"Status":"resolved","labels":{"n":1.50,"t":true,"z":null,"o":{"a": [1, "é"]},"e":"a\n\u00e9\ud83d\ude00\ud800","twice":"1","twice":"2"},
		"annotations":[],"values":null,"startsAt":"2026-01-02t03:04:05.678+02:00","endsAt":"yesterday","fingerprint":"`+strings.Repeat("f", 65)+`"}]}`)
	a := n.Alerts[0]
	if want := map[string]string{
		"n": "1.50", "t": "true", "z": "", "o": `{"a":[1,"é"]}`, "e": "a\né😀\ufffd", "twice": "2",
	}; !reflect.DeepEqual(a.Labels, want) {
		t.Errorf("labels: %q", a.Labels)
	}
	if a.Annotations == nil || len(a.Annotations) != 0 {
		t.Errorf("annotations: %v", a.Annotations)
	}
	if want := time.Date(2026, 1, 2, 1, 4, 5, 678e6, time.UTC); a.StartsAt != want || !a.EndsAt.IsZero() {
		t.Errorf("startsAt %v, endsAt %v", a.StartsAt, a.EndsAt)
	}
	if !a.Firing || a.Fingerprint != "" || n.Status != "firing" || n.Version != "4" || n.TruncatedAlerts != 3 || n.GroupLabels != nil {
		t.Errorf("got %+v", n)
	}
	var names []string
	for _, f := range n.Envelope {
		names = append(names, f.Name+"="+string(f.Value))
	}
	if got, want := strings.Join(names, " "), `status="firing" x=1 truncatedAlerts=3 Version="9" version=4 groupLabels=null`; got != want {
		t.Errorf("envelope: got %s, want %s", got, want)
	}
}

func TestInvalidUTF8IsReplaced(t *testing.T) {
	n := decode(t, "{\"x\xff\":\"\xc3(\",\"alerts\":[{\"status\":\"firing\",\"labels\":{\"a\xfe\":\"\xed\xa0\x80\"}}]}")
	if got := n.Envelope[0]; got.Name != "x\ufffd" || string(got.Value) != "\"\ufffd(\"" {
		t.Errorf("envelope: %q = %q", got.Name, got.Value)
	}
	a := n.Alerts[0]
	if string(a.Raw) != "{\"status\":\"firing\",\"labels\":{\"a\ufffd\":\"\ufffd\ufffd\ufffd\"}}" || a.Labels["a\ufffd"] != "\ufffd\ufffd\ufffd" {
		t.Errorf("alert: %q, %q", a.Raw, a.Labels)
	}
}

func TestTheTestButton(t *testing.T) {
	for _, tt := range []struct {
		name, key, alertname, fingerprint string
		want                              bool
	}{
		{"as Grafana sends it", "Callgoose-57c6d9296de2ad39-1795426435", "TestAlert", "57c6d9296de2ad39", true},
		{"with labels of the user's own", "a-b-57c6d9296de2ad39-1795426435", "Mine", "57c6d9296de2ad39", true},
		{"a rule that is named so", `{}:{alertname="TestAlert"}`, "TestAlert", "57c6d9296de2ad39", false},
		{"no group key", "", "TestAlert", "57c6d9296de2ad39", false},
		{"a foreign group key", "mysql", "MySQL down", "57c6d9296de2ad39", false},
		{"no time at the end", "x-57c6d9296de2ad39-", "Mine", "57c6d9296de2ad39", false},
		{"another fingerprint", "x-57c6d9296de2ad38-1", "Mine", "57c6d9296de2ad39", false},
		{"no fingerprint", "x--1", "Mine", "", false},
	} {
		a := Alert{Labels: map[string]string{"alertname": tt.alertname}, Fingerprint: tt.fingerprint}
		if got := a.Test(&Notification{GroupKey: tt.key}); got != tt.want {
			t.Errorf("%s: got %v", tt.name, got)
		}
	}
}

func TestFingerprintIsThatOfPrometheus(t *testing.T) {
	guide := map[string]string{"alertname": "MySQL Down", "severity": "critical", "instance": "mysql-01:3306"}
	if got := Fingerprint(guide); got != "18e04dbe104bb755" {
		t.Errorf("guide: %s", got)
	}
	delete(guide, "instance")
	if got := Fingerprint(guide); got != "040c9efda0595288" {
		t.Errorf("guide without instance: %s", got)
	}
	for _, a := range decode(t, string(samples(t)["alertmanager-mixed"])).Alerts {
		if got := Fingerprint(a.Labels); got != a.Fingerprint {
			t.Errorf("Alertmanager sent %s, we make it %s", a.Fingerprint, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, body := range samples(f) {
		f.Add(body)
	}
	f.Add([]byte("\ufeff{\"alerts\":[{\"status\":\"firing\",\"labels\":{\"\xff\":{\"a\":[1e9]}}},null]}"))
	f.Add([]byte(`{"\u0061lerts":[{"labels":{"a\"":"\ud800\\"}}],"status":"resolved","truncatedAlerts":-1,"x":1,"x":2}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		n, err := Decode(body)
		members, truncated, checkErr := Check(body)
		if fmt.Sprint(err) != fmt.Sprint(checkErr) {
			t.Fatalf("Decode: %v; Check: %v", err, checkErr)
		}
		if err != nil {
			return
		}
		if members != len(n.Alerts)+len(n.Unusable) || truncated != n.TruncatedAlerts {
			t.Fatalf("Check: %d members, %d truncated; Decode: %d+%d, %d",
				members, truncated, len(n.Alerts), len(n.Unusable), n.TruncatedAlerts)
		}
		if again := decode(t, string(rebuild(t, n))); !reflect.DeepEqual(again, n) {
			t.Fatalf("rebuilt and decoded again:\n got %+v\nwant %+v", again, n)
		}
	})
}

// rebuild writes n as a body again, checking every piece on the way.
func rebuild(t *testing.T, n *Notification) []byte {
	raw := make([][]byte, len(n.Alerts)+len(n.Unusable))
	for _, a := range n.Alerts {
		raw[a.Index] = a.Raw
		if a.Labels == nil || a.Annotations == nil || len(a.Labels) == 0 && a.Fingerprint == "" {
			t.Fatalf("incomplete alert %+v", a)
		}
	}
	for _, u := range n.Unusable {
		raw[u.Index] = u.Raw
		if u.Reason == "" {
			t.Fatalf("member %d is unusable for no reason", u.Index)
		}
	}
	for i, r := range raw {
		if !json.Valid(r) {
			t.Fatalf("member %d is not JSON: %q", i, r)
		}
	}
	var b bytes.Buffer
	b.WriteString(`{"alerts":[` + string(bytes.Join(raw, []byte(","))) + `]`)
	for _, field := range n.Envelope {
		if !json.Valid(field.Value) {
			t.Fatalf("field %q is not JSON: %q", field.Name, field.Value)
		}
		name, err := json.Marshal(field.Name)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, ",%s:%s", name, field.Value)
	}
	b.WriteByte('}')
	return b.Bytes()
}

func BenchmarkCheck(b *testing.B) {
	benchmark(b, func(body []byte) error { _, _, err := Check(body); return err })
}

func BenchmarkDecode(b *testing.B) {
	benchmark(b, func(body []byte) error { _, err := Decode(body); return err })
}

func benchmark(b *testing.B, f func([]byte) error) {
	bodies := samples(b)
	for _, name := range []string{"grafana-firing-1", "grafana-firing-group-5"} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(bodies[name])))
			b.ReportAllocs()
			for b.Loop() {
				if err := f(bodies[name]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestTheLinkIsTheFirstThatABrowserOpens(t *testing.T) {
	for _, tt := range []struct{ name, members, want string }{
		{"the panel first", `"generatorURL":"https://g","dashboardURL":"https://d","panelURL":"https://p"`, "https://p"},
		{"else the dashboard", `"generatorURL":"https://g","dashboardURL":"http://d","panelURL":""`, "http://d"},
		{"else the rule", `"generatorURL":"https://g?a\u0026b","dashboardURL":null`, "https://g?a&b"},
		{"none", `"silenceURL":"https://s"`, ""},
		{"no web page", `"panelURL":"javascript:x","dashboardURL":7,"generatorURL":{"https://":1}`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := decode(t, `{"alerts":[{"status":"firing","labels":{"a":"b"},`+tt.members+`}]}`)
			if got := n.Alerts[0].Link; got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
