package web

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store/event"
)

// oneLine reports whether a text can stand in a line of a terminal.
func oneLine(text string) bool { return !strings.ContainsFunc(text, unicode.IsControl) }

// FuzzFilter: a filter chooses what was asked for and nothing else, its limits
// hold, and a query that was pinned means the same whenever it is read.
func FuzzFilter(f *testing.F) {
	for _, q := range []string{
		"since=2h&until=2026-11-23T03:00:00Z&status=firing&outcome=dead,discarded&match=service_name%3Dmysql-1&match=a%3D&limit=7",
		"incident=pmm-1&text=down&id=a&id=b&outcome=queued&outcome=dead", "since=-9223372036854775808ns&limit=100001", "match=a%3D1&match=a%3D2",
		"since=2026-01-31&until=2026-01-31+03:04&limit=+1", "match==&status=", "all=1&include_closed=maybe&rate=NaN", "all&rate=Inf&dry_run=true",
		"rate=1e300&all=&limit=1", "rate=-0&id=x", "since=%00%0a", "until=9999-12-31T23:59:59.999999999-23:59", "since=0000-01-01",
	} {
		f.Add(q)
	}
	now := time.Date(2026, 11, 23, 3, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		r, err := admin.ParseReplay(sent(q))
		switch {
		case err != nil && !oneLine(err.Error()):
			t.Fatalf("not one line: %q", err)
		case err == nil && (math.IsNaN(r.Rate) || math.IsInf(r.Rate, 0) || r.Rate < 0 || r.Limit < 0 || r.Limit > admin.MaxLimit || !r.Filter.OldestFirst):
			t.Fatalf("a replay of %+v", r)
		}
		filter, limit, err := admin.ParseFilter(q)
		if err != nil {
			if !oneLine(err.Error()) {
				t.Fatalf("not one line: %q", err)
			}
			return
		}
		if limit < 1 || limit > admin.MaxLimit {
			t.Fatalf("limit %d", limit)
		}
		for _, m := range q["match"] {
			k, v, _ := strings.Cut(m, "=")
			if filter.Labels[k] != v {
				t.Fatalf("%q was asked for, %q is looked for", m, filter.Labels)
			}
		}
		if err := pin(q, now); err != nil {
			t.Fatalf("what can be read cannot be pinned: %v", err)
		}
		once, limit1, err1 := admin.ParseFilter(q)
		again, limit2, err2 := admin.ParseFilter(sent(q))
		if err1 != nil || err2 != nil || limit1 != limit2 || !reflect.DeepEqual(once, again) {
			t.Fatalf("pinned as %q it is %+v, %v, then %+v, %v", q.Encode(), once, err1, again, err2)
		}
		chosen := &event.Record{
			ID: "x", Key: filter.Incident, Status: filter.Status, Outcome: event.Dead, Labels: filter.Labels,
			Reason: filter.Text, Pos: event.Position{Seq: 1}, ReceivedAt: filter.Since,
		}
		if len(filter.IDs) > 0 {
			chosen.ID = filter.IDs[0]
		}
		if len(filter.Outcomes) > 0 {
			chosen.Outcome = filter.Outcomes[0]
		}
		if filter.Until.IsZero() && !filter.Match(chosen) {
			t.Fatalf("%q does not choose %+v", query, chosen)
		}
	})
}

// sent is a query as it arrives when it is sent.
func sent(q url.Values) url.Values {
	out, err := url.ParseQuery(q.Encode())
	if err != nil {
		panic(err)
	}
	return out
}

// hand is a Carrier that keeps what it is given, and gives it back.
type hand struct {
	lines []admin.Carried
	fails string // source that cannot be stored
}

func (h *hand) Export(_ context.Context, _ string, _ event.Filter, _ int, line func(admin.Carried) error) error {
	for _, c := range h.lines {
		if err := line(c); err != nil {
			return err
		}
	}
	return nil
}

func (h *hand) Import(_ context.Context, c admin.Carried) (int, error) {
	if h.fails != "" && c.Source == h.fails {
		return 0, fmt.Errorf("notification %s cannot be stored", c.ID)
	}
	h.lines = append(h.lines, c)
	return 1, nil
}

// FuzzImport: no line is stored after one that was refused, all before it are,
// and what is exported again is imported as it was.
func FuzzImport(f *testing.F) {
	f.Add([]byte(`{"kind":"notification","id":"n1.0","source":"pmm","received_at":"2026-11-23T03:00:00Z","body":"e30="}` + "\n\n" + `{"kind":"event","body":""}` + "\r\n"))
	f.Add([]byte(`{"kind":"notification","source":"full"}` + "\n" + `{"kind":"notification"}`))
	f.Add([]byte(`{"KIND":"notification","record":{"attempt_log":[{}],"labels":null},"body":null}` + "\n[]"))
	f.Add([]byte(`{"kind":"nonsense"}`))
	f.Add([]byte(`{"kind":"notification","id":"\u001b[2J\u009b","source":"full"}`))
	f.Add([]byte("\xff\n{\"kind\":\"notification\",\"body\":\"!\"}"))
	f.Add([]byte(`{"kind":"notification","received_at":"9999-12-31T23:59:59-23:59"}`))
	f.Fuzz(func(t *testing.T, lines []byte) {
		h := &hand{fails: "full"}
		done := carryIn(t, h, lines)
		if done.Notifications != len(h.lines) || done.Alerts != len(h.lines) || !oneLine(done.Error) {
			t.Fatalf("%d were stored, and it says %+v", len(h.lines), done)
		}
		if all := bytes.Count(bytes.TrimSpace(lines), []byte("\n")) + 1; done.Notifications+done.Skipped > all {
			t.Fatalf("%+v of %d lines", done, all)
		}
		for _, c := range h.lines {
			if c.Kind != admin.KindNotification {
				t.Fatalf("stored a line of kind %q", c.Kind)
			}
		}
		w := httptest.NewRecorder()
		newSite(Config{Carrier: h}).export(w, httptest.NewRequest(http.MethodGet, "/?all=1&kind=notification", nil).WithContext(t.Context()))
		if w.Code != http.StatusBadRequest { // "all" is a filter of replays only
			t.Fatalf("export: %d", w.Code)
		}
		w = httptest.NewRecorder()
		func() {
			defer func() {
				// A time that JSON cannot hold breaks the export off; none may get in.
				if r := recover(); r != nil {
					t.Fatalf("what was imported cannot be exported: %v: %+v", r, h.lines)
				}
			}()
			newSite(Config{Carrier: h}).export(w, httptest.NewRequest(http.MethodGet, "/?kind=notification", nil))
		}()
		other := &hand{}
		if again := carryIn(t, other, w.Body.Bytes()); again.Error != "" || len(other.lines) != len(h.lines) {
			t.Fatalf("exported and imported again: %+v of %d", again, len(h.lines))
		}
		for i, c := range other.lines {
			if was := h.lines[i]; c.ID != was.ID || c.Source != was.Source || !bytes.Equal(c.Body, was.Body) || !c.ReceivedAt.Equal(was.ReceivedAt) {
				t.Fatalf("imported %+v, exported %+v", was, c)
			}
		}
	})
}

func carryIn(t *testing.T, h *hand, lines []byte) (done admin.Imported) {
	t.Helper()
	w := httptest.NewRecorder()
	newSite(Config{Carrier: h}).doImport(w, httptest.NewRequest(http.MethodPost, "/api/v1/import", bytes.NewReader(lines)))
	if err := json.Unmarshal(w.Body.Bytes(), &done); w.Code != http.StatusOK || err != nil {
		t.Fatalf("import: %d %s, %v", w.Code, w.Body, err)
	}
	return done
}

// FuzzNext: logging in leads to a page of ours, as a browser understands it.
func FuzzNext(f *testing.F) {
	for _, next := range []string{"/", "/events?status=firing", "//evil.example", "/\\evil.example", "https://evil.example", "/\t/evil.example", "/.//evil.example", "/events/../../evil", "javascript:alert(1)", "/events#//x", "/%2f/evil", "/api/v1/status", "", "/events\r\nSet-Cookie: a=b"} {
		f.Add(next)
	}
	h := visitor(nil, some(1), "").h
	f.Fuzz(func(t *testing.T, next string) {
		r := httptest.NewRequest(http.MethodGet, "http://localhost/login?next="+url.QueryEscape(next), nil)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		to := w.Header().Get("Location")
		// A browser leaves out tabs and line ends, and takes \ for /.
		seen := strings.NewReplacer("\t", "", "\r", "", "\n", "", "\\", "/").Replace(to)
		u, err := url.Parse(to)
		if w.Code != http.StatusSeeOther || err != nil || !strings.HasPrefix(seen, "/") || strings.HasPrefix(seen, "//") || u.Host != "" || !isPage(path.Clean(u.Path)) {
			t.Fatalf("%q leads to %q (%d, %v)", next, to, w.Code, err)
		}
	})
}

// FuzzRequests: whatever is asked of the operators' address, nothing panics,
// JSON is JSON, a page holds nothing that was asked for as its own HTML, and
// nothing is answered, or done, without the token.
func FuzzRequests(f *testing.F) {
	for _, target := range []string{
		"/", "/?hours=168", "/events?status=firing&before=3.0.0", "/events?before=18446744073709551615.4294967295.0x", "/events/id1", "/events/id1/sent.json", "/events/id1/..%2f",
		"/dead-letters", "/dead-letters/drop?all=true", "/replay?id=id1&include_closed=true&rate=5", "/replay/7", "/replay/9999999999999999999", "/login?next=/events", "/static/x/style.css", "/static/x/..%2fsite.go",
		"/api/v1/status", "/api/v1/events?match=a%3Db", "/api/v1/events/id2", "/api/v1/events/tail?limit=1", "/api/v1/replay?id=id1", "/api/v1/export?kind=event&limit=1", "/api/v1/import", "/api/v1/dead-letters/drop?all=1", "/healthz", "/readyz", "/metrics", "/events?text=<zz onload=x>",
	} {
		f.Add("GET", target, "localhost", "Bearer "+opsToken, "", "")
		f.Add("POST", target, "[::1]:4668", "", "pmm_callgoose=x", "expect=1&query=id%3Did1")
	}
	f.Add("POST", "/login", "evil.example", "Basic eDp5", "pmm_callgoose=", "token=x&next=//e")
	f.Fuzz(func(t *testing.T, method, target, host, authorization, cookie, form string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Host != "" || !strings.HasPrefix(target, "/") {
			return
		}
		m, c := some(3), &hand{}
		cfg := Config{Source: m, Replayer: m, Carrier: c, Hosts: []string{"localhost", "::1"}, Token: func() string { return opsToken }}
		r := httptest.NewRequest(http.MethodGet, "/", strings.NewReader(form))
		r.Method, r.URL, r.RequestURI, r.Host = method, u, target, host
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Authorization", authorization)
		r.Header.Set("Cookie", cookie)
		ctx, gone := context.WithCancel(t.Context())
		gone() // the streams end at once
		w := httptest.NewRecorder()
		New(cfg).ServeHTTP(w, r.WithContext(ctx))
		body := w.Body.String()
		if w.Code < 200 || w.Code >= 500 && w.Code != http.StatusServiceUnavailable || strings.Contains(body, opsToken) {
			t.Fatalf("%s %s: %d %s", method, target, w.Code, body)
		}
		if strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") && !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%s %s: no JSON: %s", method, target, body)
		}
		if marker := "<zz"; strings.Contains(w.Header().Get("Content-Type"), "html") && strings.Contains(body, marker) {
			t.Fatalf("%s %s: the page holds what was asked: %s", method, target, body)
		}
		known := slices.Contains([]string{"localhost", "::1"}, strings.ToLower(strings.Trim(nameOf(host), "[]")))
		scheme, given, _ := strings.Cut(authorization, " ")
		_, password, basic := r.BasicAuth()
		allowed := known && (strings.EqualFold(scheme, "Bearer") && given == opsToken || basic && password == opsToken && u.Path == "/metrics")
		if !allowed && (len(m.replays)+len(m.drops)+len(c.lines) > 0 || strings.Contains(body, "mysql-1")) {
			t.Fatalf("%s %s, host %q, Authorization %q: done or shown without the token: %s", method, target, host, authorization, body)
		}
	})
}

// nameOf is the name in a Host header.
func nameOf(host string) string {
	if strings.HasPrefix(host, "[") {
		name, _, _ := strings.Cut(host[1:], "]")
		return name
	}
	name, _, _ := strings.Cut(host, ":")
	if strings.Count(host, ":") > 1 {
		return host
	}
	return name
}
