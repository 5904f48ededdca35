package pmm

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/ingest/pmm/pmmtest"
)

// recorded answers as a Grafana 12.4.3 did, with the answers of one moment.
type recorded struct {
	t     *testing.T
	spoil func(path, body string) string
}

func (r recorded) RoundTrip(req *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	name, ok := map[string]string{"alerts": "am-alerts", "rules": "prom-rules", "receivers": "am-receivers", "policies": "policies"}[req.URL.Path[strings.LastIndex(req.URL.Path, "/")+1:]]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return w.Result(), nil
	}
	body, err := os.ReadFile("../../testdata/grafana/" + name + ".json")
	if err != nil {
		r.t.Fatal(err)
	}
	text := string(body)
	if r.spoil != nil {
		text = r.spoil(name, text)
	}
	w.Header().Set("Date", "Fri, 27 Nov 2026 20:10:45 GMT")
	_, _ = w.WriteString(text)
	return w.Result(), nil
}

func viewer(t *testing.T, transport http.RoundTripper) *Viewer {
	c, err := NewClient(ClientConfig{URL: "https://pmm.example.net", Token: pmmtest.Token, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	return NewViewer(c, "")
}

func TestAViewOfARealGrafana(t *testing.T) {
	v := viewer(t, recorded{t: t})
	all := func(string) bool { return true }
	view, err := v.Read(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	if len(view.Alerts) != 5 || len(view.Rules) != 5 || !view.At.Equal(time.Date(2026, 11, 27, 20, 10, 45, 0, time.UTC)) {
		t.Fatalf("%d alerts, %d rules, at %s", len(view.Alerts), len(view.Rules), view.At)
	}
	for fp, want := range map[string]struct {
		rule, state  string
		active, ours bool
	}{
		"67a3d0e176e85e49": {"r-s1", "Alerting", true, true},
		"039a46013840ccf1": {"r-s1", "Alerting", false, true}, // silenced
		"7b7cc299a46d87fb": {"r-s3", "NoData", true, true},
		"9d3d827ce913e208": {"r-s4", "Error", true, true},
		"60a17c591cdd7b43": {"r-s5", "Alerting", true, false}, // of a rule with its own contact point
	} {
		a := view.Alerts[fp]
		if a.RuleUID != want.rule || a.Active != want.active || a.Ours != want.ours || a.StartsAt.IsZero() {
			t.Errorf("%s is %+v, want %+v", fp, a, want)
		}
		// The fingerprint of a webhook is found again among the rules' states.
		if got := view.Instances[fp]; got != want.state {
			t.Errorf("the state of %s is %q, want %q", fp, got, want.state)
		}
	}
	if r := view.Rules["r-s5"]; r.Receiver != "grafana-default-email" || r.Settle != 81*time.Second || r.Health != "ok" || r.LastEvaluation.IsZero() {
		t.Errorf("the rule is %+v", r)
	}
	if view.Routing == nil || *view.Routing != (Routing{Leads: true, Settle: 81 * time.Second}) {
		t.Errorf("the routing is %+v", view.Routing)
	}
	if view, err = v.Read(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	if c := view.Contacts[DefaultName]; c.LastAttempt.IsZero() || c.LastError != "" || view.Contacts["grafana-default-email"].LastError == "" || view.Contacts["empty"].Integrations != 0 {
		t.Errorf("the contact points are %+v", view.Contacts)
	}
}

// A template of a label can come to nothing. The Alertmanager drops such a label, and
// so it is in no fingerprint; the rules' states keep it.
func TestTheStateOfAnAlertIsFoundBesideAnEmptyLabel(t *testing.T) {
	empty := func(name, body string) string {
		return only(name, body, "prom-rules", strings.ReplaceAll(body, `"alertname":`, `"cluster": "", "alertname":`))
	}
	view, err := viewer(t, recorded{t, empty}).Read(t.Context(), func(string) bool { return true })
	must(t, err)
	for fp, want := range map[string]string{"67a3d0e176e85e49": "Alerting", "7b7cc299a46d87fb": "NoData", "9d3d827ce913e208": "Error"} {
		if got := view.Instances[fp]; got != want {
			t.Errorf("the state of %s is %q, want %q", fp, got, want)
		}
	}
}

// What the list says of an alert makes the webhook that Grafana sent for it, but for
// what only a webhook has.
func TestANotificationMadeOfTheListIsTheWebhook(t *testing.T) {
	view, err := viewer(t, recorded{t: t}).Read(t.Context(), func(string) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"webhook-0", "webhook-1", "webhook-2"} {
		sent, err := os.ReadFile("../../testdata/grafana/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var want, got struct{ Alerts []map[string]any }
		must(t, json.Unmarshal(sent, &want))
		a := want.Alerts[0]
		body, err := FiringNotification(DefaultName, view.Alerts[a["fingerprint"].(string)].Raw)
		must(t, err)
		must(t, json.Unmarshal(body, &got))
		for key, value := range a {
			switch key {
			case "silenceURL", "dashboardURL", "panelURL", "orgId":
				continue
			case "generatorURL":
				value = strings.TrimSuffix(value.(string), "?orgId=1")
			case "startsAt":
				at, err := time.Parse(time.RFC3339Nano, got.Alerts[0][key].(string))
				must(t, err)
				got.Alerts[0][key] = at.UTC().Format(time.RFC3339)
			}
			if !reflect.DeepEqual(got.Alerts[0][key], value) {
				t.Errorf("%s: %s is %v, sent was %v", name, key, got.Alerts[0][key], value)
			}
		}
		if n, err := Decode(body); err != nil || len(n.Alerts) != 1 {
			t.Errorf("%s: the intake makes %+v of it, %v", name, n, err)
		}
	}
}

// A node that has just started, or one that is behind, cannot make an alert active alone.
func TestAnAlertIsActiveWhereBothListingsSaySo(t *testing.T) {
	for _, odd := range []int{1, 2} {
		listing := 0
		view, err := viewer(t, recorded{t, func(name, body string) string {
			if name != "am-alerts" {
				return body
			}
			if listing++; listing == odd {
				return strings.ReplaceAll(body, `"active"`, `"suppressed"`)
			}
			return body
		}}).Read(t.Context(), func(string) bool { return true })
		must(t, err)
		for fingerprint, a := range view.Alerts {
			if a.Active {
				t.Errorf("%s is active, though not in listing %d", fingerprint, odd)
			}
		}
		if len(view.Alerts) != 5 {
			t.Errorf("%d alerts", len(view.Alerts))
		}
	}
}

func TestAViewIsWholeOrAnError(t *testing.T) {
	for name, spoil := range map[string]func(name, body string) string{
		"a page":                  func(_, _ string) string { return "<!DOCTYPE html><title>Login</title>" },
		"cut off":                 func(_, body string) string { return body[:len(body)-3] },
		"something behind it":     func(_, body string) string { return body + "[]" },
		"an alert without status": func(_, body string) string { return strings.Replace(body, `"status"`, `"stat"`, 1) },
		"without fingerprint":     func(_, body string) string { return strings.Replace(body, `"fingerprint"`, `"finger"`, 1) },
		"without receivers":       func(_, body string) string { return strings.Replace(body, `"receivers"`, `"recv"`, 1) },
		"no rules": func(n, body string) string {
			return only(n, body, "prom-rules", `{"status":"success","data":{"groups":[]}}`)
		},
		"a failure with 200": func(n, body string) string { return only(n, body, "prom-rules", `{"status":"error","error":"x"}`) },
		"a page of several": func(n, body string) string {
			return only(n, body, "prom-rules", strings.Replace(body, `"groups"`, `"groupNextToken":"x","groups"`, 1))
		},
		"a list that is null": func(n, body string) string { return only(n, body, "am-alerts", "null") },
		"an object":           func(n, body string) string { return only(n, body, "am-alerts", `{"message":"x"}`) },
	} {
		if _, err := viewer(t, recorded{t, spoil}).Read(t.Context(), func(string) bool { return true }); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	// An empty list is whole: that is what a restart looks like.
	empty := func(n, body string) string { return only(n, body, "am-alerts", "[]") }
	if view, err := viewer(t, recorded{t, empty}).Read(t.Context(), func(string) bool { return true }); err != nil || len(view.Alerts) != 0 {
		t.Errorf("of an empty list %d were read: %v", len(view.Alerts), err)
	}
}

func only(name, body, which, instead string) string {
	if name == which {
		return instead
	}
	return body
}

func TestAViewerMayRead(t *testing.T) {
	for grafana, policies := range map[string]bool{"12.4.1": true, "9.2.20": false} {
		f := pmmtest.New(pmmtest.Config{Grafana: grafana, Viewer: "glsa_v1ewer"})
		f.World.AddRule(pmmtest.Rule{UID: "r1", Title: "x", Folder: "f", Interval: time.Minute})
		f.World.Step()
		c, err := NewClient(ClientConfig{URL: "https://pmm.example.net", Token: "glsa_v1ewer", Transport: f})
		must(t, err)
		view, err := NewViewer(c, "").Read(t.Context(), func(string) bool { return true })
		if err != nil || (view.Routing != nil) != policies {
			t.Errorf("Grafana %s: routing %v, %v", grafana, view.Routing, err)
		}
	}
}

func TestTheRuleOfAnAlertIsFound(t *testing.T) {
	for url, want := range map[string]string{
		"https://pmm/graph/alerting/grafana/r-s1/view?orgId=1":   "r-s1",
		"https://pmm/graph/alerting/grafana/bg5lgo5breg3ke/view": "bg5lgo5breg3ke",
		"https://prometheus/graph?g0.expr=up":                    "",
		"":                                                       "",
	} {
		if got := RuleUID("", url); got != want {
			t.Errorf("of %q the rule is %q, want %q", url, got, want)
		}
	}
	if RuleUID("named", "https://pmm/alerting/grafana/other/view") != "named" {
		t.Error("the name in the webhook does not win")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
