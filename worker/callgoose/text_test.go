package callgoose

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// keys are the flat keys of a body that is made from these labels and annotations.
func keys(t *testing.T, a Alert) func(name string) string {
	t.Helper()
	a.Raw = []byte("{}")
	m := members(t, Body(a))
	return func(name string) string {
		if _, ok := m[name]; !ok {
			return "-"
		}
		return text(t, m, name)
	}
}

type labels = map[string]string

func TestShortSaysWhatWhereAndHowBad(t *testing.T) {
	long := strings.Repeat("words ", 40)
	for _, c := range []struct {
		name   string
		labels labels
		length int
		want   string
	}{
		{"all of it", labels{"alertname": "MySQL Down", "service_name": "mysql-01", "instance": "/service_id/7", "severity": "critical"}, 0, "MySQL Down on mysql-01, critical"},
		{"nothing", nil, 0, "alert without a name"},
		{"no severity", labels{"alertname": "A", "node_name": "n"}, 0, "A on n"},
		{"no place", labels{"alertname": "A", "severity": "warning"}, 0, "A, warning"},
		{"line breaks and runs of white space", labels{"alertname": " A\r\n\tB\u2028C\u0085 ", "instance": "i\ni", "severity": "x\x00y"}, 0, "A B C on i i, x y"},
		{"invisible texts", labels{"alertname": "A", "instance": "\u200b", "severity": "\u00a0"}, 0, "A"},
		{"a long name is cut at a word", labels{"alertname": long, "instance": "db-1", "severity": "critical"}, 0, strings.Repeat("words ", 12) + "words… on db-1, critical"},
		{"a long place leaves the severity", labels{"alertname": "A", "instance": strings.Repeat("x", 300), "severity": "critical"}, 0, "A on " + strings.Repeat("x", 49) + "…, critical"},
		{
			"all are long",
			labels{"alertname": strings.Repeat("n", 300), "instance": strings.Repeat("x", 300), "severity": strings.Repeat("s", 300)},
			0,
			strings.Repeat("n", 18) + "… on " + strings.Repeat("x", 49) + "…, " + strings.Repeat("s", 24) + "…",
		},
		{"characters count, not bytes", labels{"alertname": strings.Repeat("é", 100)}, 0, strings.Repeat("é", 100)},
		{"one character too many", labels{"alertname": strings.Repeat("é", 101)}, 0, strings.Repeat("é", 99) + "…"},
		{"a word that just fits", labels{"alertname": "123 567 9012"}, 8, "123 567…"},
		{"another length", labels{"alertname": "MySQL Down", "service_name": "mysql-01", "severity": "critical"}, 40, "MySQL Down on mysql-01, critical"},
		{"a length that cuts", labels{"alertname": "MySQL Replication Down", "service_name": "mysql-01", "severity": "critical"}, 40, "MySQL Replication… on mysql-01, critical"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := keys(t, Alert{Labels: c.labels, ShortLength: c.length})("short"); got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
			for n := 1; n < 130; n++ {
				if got := short(Alert{Labels: c.labels, ShortLength: n}); utf8.RuneCountInString(got) > n || !utf8.ValidString(got) {
					t.Errorf("%d: %q", n, got)
				}
			}
		})
	}
}

func TestOptionalKeysAreThereWhenTheySaySomething(t *testing.T) {
	for _, c := range []struct {
		name  string
		alert Alert
		key   string
		want  string // "-" = not there
	}{
		{"the service is where", Alert{Labels: labels{"service_name": "s", "node_name": "n", "instance": "i"}}, "where", "s"},
		{"else the node", Alert{Labels: labels{"service_name": " ", "node_name": "n", "instance": "i"}}, "where", "n"},
		{"else the instance", Alert{Labels: labels{"instance": "i"}}, "where", "i"},
		{"a fingerprint is no place", Alert{Fingerprint: "fp"}, "where", "-"},
		{"a link", Alert{Link: "https://pmm/d"}, "link", "https://pmm/d"},
		{"no link", Alert{}, "link", "-"},
		{"a runbook", Alert{Annotations: labels{"runbook_url": "https://wiki"}}, "runbook", "https://wiki"},
		{"a blank runbook", Alert{Annotations: labels{"runbook_url": "\u200b "}}, "runbook", "-"},
		{"no runbook", Alert{}, "runbook", "-"},
		{"an episode that goes on", Alert{Reopened: true}, "reopened", "true"},
		{"an episode that begins", Alert{}, "reopened", "-"},
		{"found by comparing with PMM", Alert{Reconciled: "opened"}, "reconciled", "opened"},
		{"sent by PMM", Alert{}, "reconciled", "-"},
		{"firing has no recovery", Alert{Status: "firing", Recovery: RecoveryHollow}, "recovery", "-"},
		{"a recovery", Alert{Status: "resolved"}, "recovery", "confirmed"},
		{"a recovery that somebody judged", Alert{Status: "resolved", Recovery: RecoveryByEdit, Annotations: labels{"grafana_state_reason": "NoData"}}, "recovery", "by_edit"},
		{"critical is urgent", Alert{Labels: labels{"severity": "critical"}}, "urgency", "high"},
		{"in any case, with blanks", Alert{Labels: labels{"severity": " Emergency\n"}}, "urgency", "high"},
		{"alert is urgent", Alert{Labels: labels{"severity": "alert"}}, "urgency", "high"},
		{"error is urgent", Alert{Labels: labels{"severity": "error"}}, "urgency", "high"},
		{"warning is not", Alert{Labels: labels{"severity": "warning"}}, "urgency", "low"},
		{"part of a word is not", Alert{Labels: labels{"severity": "critical-ish"}}, "urgency", "low"},
		{"none is not", Alert{}, "urgency", "low"},
		{"another list", Alert{Labels: labels{"severity": "P1"}, UrgencyHigh: []string{"p1"}}, "urgency", "high"},
		{"another list without critical", Alert{Labels: labels{"severity": "critical"}, UrgencyHigh: []string{"p1"}}, "urgency", "low"},
		{"an empty list", Alert{Labels: labels{"severity": "critical"}, UrgencyHigh: []string{}}, "urgency", "low"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := keys(t, c.alert)(c.key); got != c.want {
				t.Errorf("%s = %q, want %q", c.key, got, c.want)
			}
		})
	}
}

func TestARecoveryThatIsNotConfirmedSaysSo(t *testing.T) {
	hollow := "D\n\nThis recovery is not confirmed: PMM lost the data, so the fault may still be there"
	edited := "D\n\nThis recovery is not confirmed: the alert rule was changed, paused or deleted"
	for _, c := range []struct{ reason, kind, description string }{
		{"", "confirmed", "D"},
		{"MissingSeries", "hollow", hollow + " (MissingSeries)."},
		{"NoData", "hollow", hollow + " (NoData)."},
		{"Error", "hollow", hollow + " (Error)."},
		{"Updated", "by_edit", edited + " (Updated)."},
		{"Paused", "by_edit", edited + " (Paused)."},
		{"RuleDeleted", "by_edit", edited + " (RuleDeleted)."},
		{"nodata", "confirmed", "D"},
		{"something new", "confirmed", "D"},
	} {
		t.Run(c.reason, func(t *testing.T) {
			a := Alert{Status: "resolved", Annotations: labels{"description": "D", "grafana_state_reason": c.reason}, RecoveryWords: true}
			if got := RecoveryKind(a.Annotations); got != c.kind {
				t.Errorf("kind %s, want %s", got, c.kind)
			}
			m := keys(t, a)
			if m("recovery") != c.kind || m("description") != c.description {
				t.Errorf("%s, %q", m("recovery"), m("description"))
			}
			a.RecoveryWords = false
			if m := keys(t, a); m("recovery") != c.kind || m("description") != "D" {
				t.Errorf("without words: %s, %q", m("recovery"), m("description"))
			}
			a.Status, a.RecoveryWords = "firing", true
			if m := keys(t, a); m("recovery") != "-" || m("description") != "D" {
				t.Errorf("firing: %s, %q", m("recovery"), m("description"))
			}
		})
	}
	a := Alert{Status: "resolved", Annotations: labels{"description": "D"}, Recovery: RecoveryHollow, RecoveryWords: true}
	if got := keys(t, a)("description"); got != hollow+"." {
		t.Errorf("without a known reason: %q", got)
	}
}

func TestLongTextsAreCutBetweenCharacters(t *testing.T) {
	for _, unit := range []string{"x", "é", "日", "🔥", "word ", "\xff"} {
		for _, n := range []int{1, 50, 254, 255, 256, 8000, 8<<10 - lateRoom, 8 << 10, 100_000} {
			s := strings.Repeat(unit, n)
			a := Alert{
				Status: "resolved", Labels: labels{"alertname": "A"}, RecoveryWords: true,
				Annotations: labels{"summary": s, "description": s, "grafana_state_reason": "RuleDeleted"},
			}
			m := keys(t, a)
			whole := "A - " + strings.ToValidUTF8(s, "\ufffd")
			if got := m("title"); utf8.RuneCountInString(got) > 255 || len(s) <= 251 && utf8.ValidString(s) && got != whole {
				t.Errorf("%q x %d: title of %d characters", unit, n, utf8.RuneCountInString(got))
			}
			if unit == "\xff" {
				continue // each becomes three bytes; ingest lets none in
			}
			if got := title(a); got != whole && (!strings.HasSuffix(got, "…") || !strings.HasPrefix(whole, strings.TrimSuffix(got, "…"))) {
				t.Errorf("%q x %d: title %q", unit, n, got)
			}
			a.Raw = []byte("{}")
			late, err := Late(Body(a), 1000*time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			got := text(t, members(t, late), "description")
			body, words, _ := strings.Cut(got, "\n\nThis recovery is not confirmed")
			if len(got) > 8<<10 || !strings.HasSuffix(words, "after the event.") {
				t.Errorf("%q x %d: description of %d bytes ends %.200q", unit, n, len(got), words)
			}
			if body != s && (!strings.HasSuffix(body, "…") || !strings.HasPrefix(s, strings.TrimSuffix(body, "…")) || len(got) < 8<<10-lateRoom) {
				t.Errorf("%q x %d: description was cut to %d bytes", unit, n, len(got))
			}
		}
	}
}

func TestTheShownNameIsWhatTheGuidesFiltersSee(t *testing.T) {
	a := Alert{Labels: labels{"alertname": "Disk full", "instance": "db-1", "mountpoint": "/var"}, Fingerprint: "fp", UniqueName: true}
	b := Alert{Labels: labels{"alertname": "Disk full", "instance": "db-1", "mountpoint": "/opt"}, Fingerprint: "fq", UniqueName: true}
	if x, y := ShownName(a.Labels, a.Fingerprint), ShownName(b.Labels, b.Fingerprint); x != y || x != "Disk full [db-1]" {
		t.Errorf("%q, %q", x, y)
	}
	if got := ShownName(nil, "fp"); got != "alert without a name [fp]" {
		t.Errorf("%q", got)
	}
	seen := map[string]bool{}
	for n := range 1000 {
		s := Suffix(fmt.Sprintf("pmm-%016x", n))
		if !regexp.MustCompile(`^[0-9a-f]{6}$`).MatchString(s) || seen[s] || s != Suffix(fmt.Sprintf("pmm-%016x", n)) {
			t.Errorf("%d: %q", n, s)
		}
		seen[s] = true
	}
	b.Suffix = Suffix("pmm-fq")
	common := func(a Alert) string {
		a.Raw = []byte("{}")
		return string(members(t, Body(a))["commonLabels"])
	}
	if got, want := common(b), `{"alertname":"Disk full [db-1] #`+b.Suffix+`","instance":"db-1","mountpoint":"/opt"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	b.UniqueName = false
	if got, want := common(b), `{"alertname":"Disk full","instance":"db-1","mountpoint":"/opt"}`; got != want {
		t.Errorf("one incident by name: got %s, want %s", got, want)
	}
}

// What a body costs must not grow faster than the alert it is made from.
func TestTheBodyIsNoMoreThanAFewTimesTheAlert(t *testing.T) {
	for _, n := range []int{10, 1000, 100_000} {
		a := sample()
		a.Labels["long"], a.Annotations["description"], a.Annotations["summary"] = strings.Repeat("l", n), strings.Repeat("d", n), strings.Repeat("s", n)
		a.Raw = []byte(`{"labels":"` + strings.Repeat("x", 3*n) + `"}`)
		if got, most := len(Body(a)), 3*len(a.Raw)+1500; got > most {
			t.Errorf("%d bytes from an alert of %d", got, len(a.Raw))
		}
	}
}
