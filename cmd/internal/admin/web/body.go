package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/store/event"
)

var templateFuncs = template.FuncMap{
	"short": text.Short, "clock": text.Clock, "ago": text.Ago, "until": text.Until, "span": text.Span, "bytes": text.Size,
	// For programs.
	"stamp": func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"title": func(s string) string { return strings.ToUpper(s[:1]) + s[1:] },
	"count": count, "plural": plural,
	"during": during, "seconds": func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) },
	"where": admin.Where, "why": why, "explain": admin.Explain,
	"rank": func(severity string) int { return min(admin.SeverityRank(severity)/3, 3) },
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

// during is the address of the events that came in from then on, for d.
func during(from time.Time, d time.Duration) string {
	stamp := func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
	return "/events?" + url.Values{"since": {stamp(from)}, "until": {stamp(from.Add(d))}}.Encode()
}

// count is a number with its digits in groups.
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
	Parts []part // what is shown
	Size  int64
	Cut   bool
	File  string // URL with all of it

	text string // the shown part
	all  string // indented, "" when it is too long for that
}

// part is a stretch of lines.
type part struct {
	Text  string
	Added bool // they stand nowhere in the other body
}

// newBody indents JSON; a JSON string is shown as what it holds: bytes that
// were no JSON.
func newBody(raw json.RawMessage, file string) *body {
	if len(raw) == 0 {
		return nil
	}
	b := &body{Size: int64(len(raw)), File: file}
	var out bytes.Buffer
	switch {
	case json.Unmarshal(raw, &b.text) == nil:
	case len(raw) <= 4*maxShown && json.Indent(&out, raw, "", "  ") == nil:
		b.text = out.String()
		b.all = text.Clean(b.text)
	default:
		b.text = string(raw)
	}
	if len(b.text) > maxShown {
		b.text, b.Cut = strings.ToValidUTF8(b.text[:maxShown], ""), true
	}
	b.text = text.Clean(b.text)
	b.Parts = []part{{Text: b.text}}
	return b
}

// compare marks the lines of b that stand nowhere in other, and reports whether both
// could be read for that.
func (b *body) compare(other *body) bool {
	if b == nil || other == nil || b.all == "" || other.all == "" {
		return false
	}
	plain := func(line string) string { return strings.TrimSuffix(strings.TrimSpace(line), ",") }
	known := map[string]bool{}
	for line := range strings.Lines(other.all) {
		known[plain(line)] = true
	}
	b.Parts = nil
	for line := range strings.Lines(b.text) {
		added, last := !known[plain(line)], len(b.Parts)-1
		if last < 0 || b.Parts[last].Added != added {
			b.Parts, last = append(b.Parts, part{Added: added}), last+1
		}
		b.Parts[last].Text += line
	}
	return true
}

// pair is a name and what belongs to it.
type pair struct{ Name, Value string }

// sentAlert is what a page shows of the one alert in a body sent.
type sentAlert struct {
	GeneratorURL string            `json:"generatorURL"`
	SilenceURL   string            `json:"silenceURL"`
	DashboardURL string            `json:"dashboardURL"`
	PanelURL     string            `json:"panelURL"`
	Annotations  map[string]string `json:"annotations"`
}

func readSent(sent json.RawMessage) sentAlert {
	var b struct {
		Alerts []sentAlert `json:"alerts"`
	}
	if json.Unmarshal(sent, &b) != nil || len(b.Alerts) == 0 {
		return sentAlert{}
	}
	return b.Alerts[0]
}

// links are what may be followed: addresses of the alert itself and annotations that
// are nothing but an address. Only http and https, and without a user name in front,
// which could pass for a host.
func (a sentAlert) links() (list []pair) {
	all := []pair{{"Rule", a.GeneratorURL}, {"Dashboard", a.DashboardURL}, {"Panel", a.PanelURL}, {"Silence", a.SilenceURL}}
	for _, name := range slices.Sorted(maps.Keys(a.Annotations)) {
		all = append(all, pair{name, a.Annotations[name]})
	}
	for _, l := range all {
		if safeLink(l.Value) && len(list) < 12 {
			list = append(list, l)
		}
	}
	return list
}

func safeLink(s string) bool {
	if len(s) > 2000 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || text.Deceives(r) }) {
		return false
	}
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.User == nil
}
