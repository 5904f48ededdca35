package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"pmm-callgoose/store/event"
)

var templateFuncs = template.FuncMap{
	"clean": clean, "short": short, "clock": clock, "stamp": stamp, "ago": ago, "until": until, "span": span,
	"bytes": size, "count": count, "where": Where, "severity": severity, "why": why, "explain": Explain, "plural": plural,
	// As the errors of worker/callgoose begin when there was an answer.
	"answered": func(lastError string) bool { return strings.HasPrefix(lastError, "callgoose answered ") },
	"percent": func(part, of int64) int64 {
		if of <= 0 {
			return 0
		}
		return min(100, max(0, part*100/of))
	},
	"dict": func(kv ...any) map[string]any {
		m := map[string]any{}
		for i := 0; i+1 < len(kv); i += 2 {
			m[kv[i].(string)] = kv[i+1]
		}
		return m
	},
	"add": func(a, b int) int { return a + b },
	"str": func(v any) string { return fmt.Sprint(v) },
}

// clean makes text of alerts harmless to the eye: characters that control, hide
// or turn round what stands beside them are shown as their code. New lines and
// tabs stay.
func clean(s string) string {
	if !strings.ContainsFunc(s, deceives) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		_, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, "‹%02X›", s[i])
		case deceives(r):
			fmt.Fprintf(&b, "‹U+%04X›", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func deceives(r rune) bool {
	switch r {
	case '\n', '\t':
		return false
	case '\u00ad', '\u034f', '\u115f', '\u1160', '\u3164', '\uffa0':
		return true
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co)
}

// short is clean text for one line, of n characters at most.
func short(n int, s string) string {
	if len(s) > 8*n { // no more work than needed
		s = s[:8*n]
		for len(s) > 0 && !utf8.RuneStart(s[len(s)-1]) {
			s = s[:len(s)-1]
		}
		if len(s) > 0 {
			s = s[:len(s)-1]
		}
	}
	s = strings.Join(strings.Fields(clean(s)), " ")
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// clock is a time of today, or with its date.
func clock(t, now time.Time) string {
	t = t.UTC()
	switch {
	case t.IsZero():
		return "never"
	case t.Format(time.DateOnly) == now.UTC().Format(time.DateOnly):
		return t.Format(time.TimeOnly)
	case t.Year() == now.Year():
		return t.Format("Jan 2 15:04:05")
	}
	return t.Format("2006-01-02 15:04:05")
}

// stamp is a time for machines.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// span is a duration as people say it: its two largest units.
func span(d time.Duration) string {
	d = d.Abs()
	h, m, s := int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", s)
	case d < 10*time.Minute && s > 0:
		return fmt.Sprintf("%d min %d s", m, s)
	case d < time.Hour:
		return fmt.Sprintf("%d min", m)
	case d < 24*time.Hour && m > 0:
		return fmt.Sprintf("%d h %d min", h, m)
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h", h)
	case h%24 > 0:
		return fmt.Sprintf("%d d %d h", h/24, h%24)
	}
	return fmt.Sprintf("%d d", h/24)
}

func ago(t, now time.Time) string {
	if d := now.Sub(t); d >= time.Second {
		return span(d) + " ago"
	}
	return "just now"
}

func until(t, now time.Time) string {
	if d := t.Sub(now); d >= time.Second {
		return "in " + span(d)
	}
	return "now"
}

func size(n int64) string {
	f, unit := float64(n), "B"
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if f < 1024 {
			break
		}
		f, unit = f/1024, u
	}
	if unit == "B" || f >= 100 {
		return fmt.Sprintf("%.0f %s", f, unit)
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}

// count groups the digits.
func count(v any) string {
	s, out := fmt.Sprint(v), ""
	for len(s) > 3 && s[len(s)-4] != '-' {
		s, out = s[:len(s)-3], "\u202f"+s[len(s)-3:]+out
	}
	return s + out
}

func plural(n any, one, many string) string {
	if fmt.Sprint(n) == "1" {
		return "1 " + one
	}
	return count(n) + " " + many
}

// Where is the place that an alert speaks of, as PMM's own pages name it; "" when it
// names none.
func Where(r *event.Record) string {
	for _, name := range []string{"service_name", "node_name", "instance"} {
		if v := r.Labels[name]; v != "" {
			return v
		}
	}
	return ""
}

func severity(r *event.Record) string { return r.Labels["severity"] }

// Explain says what an outcome means, and what can be done about it, where the
// one word of its reason does not.
func Explain(r *event.Record) string {
	switch {
	case r.Outcome == event.Discarded:
		return "Callgoose answered that no filter of its service matched. Mend the filter (pmm-callgoose send-test says how), then send this again."
	case r.Outcome == event.Suppressed && r.Reason == event.ReasonRepeat:
		return "PMM repeats an alert as long as it fires. The first one is an event of its own; see the incident's other events."
	case r.Outcome == event.Suppressed && r.Reason == event.ReasonResolved:
		return "The incident was closed before: Callgoose knows already."
	case r.Outcome == event.Suppressed && r.Reason == event.ReasonLate:
		return "It fired for an episode that was over when it came in."
	case r.Outcome == event.Suppressed && r.Reason == event.ReasonStillFiring:
		return "Other alerts of that name still fire: the incident closes with the last of them (--incident-by alertname)."
	case r.Outcome == event.Suppressed && r.Reason == event.ReasonHeartbeat:
		return "A sign of life of PMM, made by a rule for it: never an alert."
	case r.Outcome == event.Dead && r.Status == "":
		return "It can only be dropped: PMM sent something of which no event can be made."
	}
	return ""
}

// why is the reason of an outcome, or the last error.
func why(r *event.Record) string {
	switch {
	case r.Outcome == event.Delivered:
		return ""
	case r.Outcome == event.Queued, r.Reason == "":
		return r.LastError
	case r.LastError == "" || strings.Contains(r.Reason, r.LastError):
		return r.Reason
	}
	return r.Reason + ": " + r.LastError
}

// maxShown bounds a body on a page; a link has all of it.
const maxShown = 48 << 10

// body is JSON as it is shown.
type body struct {
	Text string
	Size int64
	Cut  bool
	File string // URL with all of it
}

// newBody indents JSON; a JSON string is shown as what it holds: bytes that
// were no JSON.
func newBody(raw json.RawMessage, file string) *body {
	if len(raw) == 0 {
		return nil
	}
	b := &body{Size: int64(len(raw)), File: file}
	var plain string
	var out bytes.Buffer
	switch {
	case json.Unmarshal(raw, &plain) == nil:
		b.Text = plain
	case len(raw) <= 4*maxShown && json.Indent(&out, raw, "", "  ") == nil:
		b.Text = out.String()
	default:
		b.Text = string(raw)
	}
	if len(b.Text) > maxShown {
		b.Text, b.Cut = strings.ToValidUTF8(b.Text[:maxShown], ""), true
	}
	b.Text = clean(b.Text)
	return b
}

// link is an address out of an alert that may be followed.
type link struct{ Name, URL string }

// links finds what may be followed in the body sent: addresses of the alert
// itself and annotations that are nothing but an address. Only http and https,
// and without a user name in front, which could pass for a host.
func links(sent json.RawMessage) (list []link) {
	var b struct {
		ExternalURL string `json:"externalURL"`
		Alerts      []struct {
			GeneratorURL string            `json:"generatorURL"`
			SilenceURL   string            `json:"silenceURL"`
			DashboardURL string            `json:"dashboardURL"`
			PanelURL     string            `json:"panelURL"`
			Annotations  map[string]string `json:"annotations"`
		} `json:"alerts"`
	}
	if json.Unmarshal(sent, &b) != nil || len(b.Alerts) == 0 {
		return nil
	}
	a := b.Alerts[0]
	all := []link{{"Rule", a.GeneratorURL}, {"Dashboard", a.DashboardURL}, {"Panel", a.PanelURL}, {"Silence", a.SilenceURL}}
	for _, name := range sortedKeys(a.Annotations) {
		all = append(all, link{name, a.Annotations[name]})
	}
	for _, l := range all {
		if safeLink(l.URL) && len(list) < 12 {
			list = append(list, l)
		}
	}
	return list
}

func safeLink(s string) bool {
	if len(s) > 2000 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || deceives(r) }) {
		return false
	}
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.User == nil
}
