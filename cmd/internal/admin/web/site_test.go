package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker"
)

// memory is a Source and a Replayer without a store.
type memory struct {
	Source
	mu      sync.Mutex
	status  admin.Status
	records []*event.Record // newest first
	detail  admin.Detail
	closed  error
	replays []admin.ReplayRequest
	drops   []event.Filter
	acts    []string
	changes uint64
	minutes []event.Minute
	outages []event.Outage
}

func (m *memory) Status(context.Context) (admin.Status, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status, nil
}
func (m *memory) Ready() error  { return nil }
func (m *memory) Settings() any { return nil }
func (m *memory) Events(_ context.Context, f event.Filter, limit int) (list []*event.Record, err error) {
	for _, r := range m.records {
		if f.Match(r) && len(list) < limit {
			list = append(list, r)
		}
	}
	return list, m.closed
}

func (m *memory) Event(_ context.Context, id string) (*admin.Detail, error) {
	for _, r := range m.records {
		if r.ID == id {
			d := m.detail
			d.Row = admin.NewRow(r)
			return &d, nil
		}
	}
	return nil, admin.ErrNotFound
}

func (m *memory) Replay(_ context.Context, r admin.ReplayRequest) (admin.Plan, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, rec := range m.records {
		if r.Filter.Match(rec) {
			n++
		}
	}
	if !r.DryRun {
		m.replays = append(m.replays, r)
		return admin.Plan{Events: n, Job: 7}, nil
	}
	return admin.Plan{Events: n, Choice: worker.Choice{Firing: n, Incidents: n}}, nil
}

func (m *memory) ReplayJob(id int) (admin.Job, error) {
	if id != 7 {
		return admin.Job{}, errors.New("no such replay in this run of the service")
	}
	return admin.Job{ID: 7, Total: 4, InLine: 4, Settled: 1, Outcomes: map[event.Outcome]int{event.Delivered: 1}}, nil
}

func (m *memory) did(what, by string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acts = append(m.acts, what+" by "+by)
	return nil
}

func (m *memory) ParkEvent(_ context.Context, id, by string) error {
	if _, err := m.Event(context.Background(), id); err != nil {
		return err
	}
	return m.did("park "+id, by)
}

func (m *memory) CloseIncident(_ context.Context, key, by string) error {
	if key != "pmm-1" {
		return admin.ErrNotFound
	}
	return m.did("close "+key, by)
}

func (m *memory) Pause(_ context.Context, p store.Pause) error {
	return m.did("pause "+p.Reason, p.By)
}
func (m *memory) Resume(_ context.Context, by string) error { return m.did("resume", by) }

func (m *memory) Incidents(_ context.Context, f event.Filter, limit int) (list []admin.Incident, err error) {
	for _, r := range m.records {
		if f.Match(r) && len(list) < limit {
			list = append(list, admin.Incident{Key: r.Key, Source: r.Source, Alertname: r.Alertname, Labels: r.Labels, Open: true, Outcome: r.Outcome})
		}
	}
	return list, m.closed
}

func (m *memory) Incident(_ context.Context, key string) (s admin.Story, err error) {
	for _, r := range m.records {
		if r.Key == key {
			s.Incident = admin.Incident{Key: r.Key, Source: r.Source, Alertname: r.Alertname, Labels: r.Labels, Open: true, Outcome: r.Outcome}
			s.Tell([]*event.Record{r})
			return s, nil
		}
	}
	return s, admin.ErrNotFound
}

func (m *memory) DropDeadLetters(_ context.Context, r admin.ReplayRequest) (p admin.Plan, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, rec := range m.records {
		if rec.Outcome == event.Dead && r.Filter.Match(rec) {
			p.Count(rec.Status)
		}
	}
	if !r.DryRun {
		m.drops = append(m.drops, r.Filter)
	}
	return p, nil
}

func (m *memory) Probe()                                    { _ = m.did("probe", "somebody") }
func (m *memory) Outages() ([]event.Outage, error)          { return m.outages, nil }
func (m *memory) History(time.Time) ([]event.Minute, error) { return m.minutes, nil }
func (m *memory) Changes() uint64                           { m.mu.Lock(); defer m.mu.Unlock(); return m.changes }

func some(n int) *memory {
	m := &memory{status: admin.Status{Version: "test", StartedAt: time.Now(), Callgoose: admin.Callgoose{State: event.Up}, Store: admin.Store{Accepting: true, MaxBytes: 100}}}
	now := time.Now().UTC()
	if now.Hour() == 0 { // all of one day: what is here lists by place, the ledger by day
		now = now.Truncate(24 * time.Hour).Add(-time.Minute)
	}
	for i := n; i > 0; i-- {
		outcome := event.Delivered
		if i%3 == 0 {
			outcome = event.Dead
		}
		m.records = append(m.records, &event.Record{
			ID: fmt.Sprintf("id%d", i), Key: fmt.Sprintf("pmm-%d", i), Source: "pmm", Status: event.Firing, Alertname: "MySQL down",
			Labels: map[string]string{"instance": fmt.Sprintf("mysql-%d", i)}, ReceivedAt: now.Add(time.Duration(i-n) * time.Second),
			Pos: event.Position{Seq: uint64(i)}, Outcome: outcome, At: event.Position{Seq: uint64(i)},
		})
	}
	return m
}

const opsToken = "operators-token-0f-the-test"

// visit asks the handler as a browser on this machine does.
type visit struct {
	t       *testing.T
	h       http.Handler
	cookies []*http.Cookie
	from    string
}

func visitor(t *testing.T, m *memory, token string) *visit {
	cfg := Config{Source: m, Replayer: m, Hosts: []string{"localhost"}}
	if token != "" {
		cfg.Token = func() string { return token }
	}
	return &visit{t: t, h: New(cfg), from: "192.0.2.1:1000"}
}

func (v *visit) do(method, path string, form url.Values, header ...string) *httptest.ResponseRecorder {
	v.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r := httptest.NewRequest(method, "http://localhost"+path, body)
	r.RemoteAddr = v.from
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
			continue
		}
		r.Header.Set(header[i], header[i+1])
	}
	for _, c := range v.cookies {
		r.AddCookie(c)
	}
	w := httptest.NewRecorder()
	v.h.ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		if v.cookies = []*http.Cookie{c}; c.MaxAge < 0 {
			v.cookies = nil
		}
	}
	return w
}

func (v *visit) get(path string) string {
	v.t.Helper()
	w := v.do(http.MethodGet, path, nil)
	if w.Code != http.StatusOK {
		v.t.Fatalf("GET %s: %d %s", path, w.Code, w.Body)
	}
	return w.Body.String()
}

var hidden = regexp.MustCompile(`<input type="hidden" name="(\w+)" value="([^"]*)">`)

// fields are the hidden fields of the forms of a page.
func fields(page string) url.Values {
	q := url.Values{}
	for _, m := range hidden.FindAllStringSubmatch(page[strings.Index(page, "<main"):], -1) {
		q.Set(m[1], html.UnescapeString(m[2]))
	}
	return q
}

func TestEveryPageIsShownUnderAStrictPolicy(t *testing.T) {
	m := some(5)
	m.detail = admin.Detail{Sent: json.RawMessage(`{"alerts":[{"labels":{},"generatorURL":"https://pmm.example/x"}]}`), Raw: json.RawMessage(`{"a":1}`)}
	v := visitor(t, m, "")
	for _, path := range []string{"/", "/?hours=168", "/events", "/events?status=firing", "/events/id1", "/dead-letters", "/replay?id=id1", "/replay/7", "/dead-letters/drop?all=true"} {
		w := v.do(http.MethodGet, path, nil)
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "</html>") {
			t.Errorf("%s: %d", path, w.Code)
		}
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
			"X-Content-Type-Options":  "nosniff", "Referrer-Policy": "same-origin", "Cache-Control": "no-store", "Content-Type": "text/html; charset=utf-8",
			"Cross-Origin-Opener-Policy": "same-origin",
			"Permissions-Policy":         "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
		} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
		if inline := regexp.MustCompile(`(?i)<script>|<style|\sstyle=|\son\w+=`).FindString(w.Body.String()); inline != "" {
			t.Errorf("%s has %q in it, which the policy forbids", path, inline)
		}
	}
	for path, code := range map[string]int{
		"/events/none": 404, "/events?since=x": 400, "/events?before=x": 400, "/replay": 400, "/replay/8": 404, "/dead-letters/drop": 400,
		"/static/x/layout.html": 404, "/static/x/none": 404, "/events/id1/other.json": 404, "/nothing": 404,
	} {
		if w := v.do(http.MethodGet, path, nil); w.Code != code {
			t.Errorf("%s: %d, want %d", path, w.Code, code)
		}
	}
}

func TestAPageOfEventsLeadsToTheNext(t *testing.T) {
	v := visitor(t, some(120), "")
	path, seen := "/events?status=firing", map[string]bool{}
	for n := 0; path != ""; n++ {
		page := v.get(path)
		rows := regexp.MustCompile(`id="e-(\w+)"`).FindAllStringSubmatch(page, -1)
		for _, r := range rows {
			seen[r[1]] = true
		}
		next := regexp.MustCompile(`rel="next" href="([^"]+)"`).FindStringSubmatch(page)
		if path = ""; next != nil {
			path = html.UnescapeString(next[1])
		}
		if n > 5 {
			t.Fatal("the pages have no end")
		}
	}
	if len(seen) != 120 {
		t.Errorf("%d of 120 events were shown", len(seen))
	}
	w := v.do(http.MethodGet, "/events?status=firing&since=&text=+&match=", nil)
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/events?status=firing" {
		t.Errorf("empty filters stay in the address: %d %s", w.Code, w.Header().Get("Location"))
	}
}

func TestNothingIsSentBeforeThePreviewIsConfirmed(t *testing.T) {
	m := some(9)
	v := visitor(t, m, "")
	page := v.get("/replay?outcome=dead&since=1h&rate=5")
	if !strings.Contains(page, "<strong>3 events</strong> of 3 incidents") || len(m.replays) > 0 {
		t.Fatalf("preview: %v %s", m.replays, page)
	}
	form := fields(page)
	changed := url.Values{"query": form["query"], "expect": {"2"}}
	if w := v.do(http.MethodPost, "/replay", changed); w.Code != http.StatusConflict || len(m.replays) > 0 {
		t.Errorf("another number than was shown: %d, %v", w.Code, m.replays)
	}
	w := v.do(http.MethodPost, "/replay", form)
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/replay/7" || len(m.replays) != 1 {
		t.Fatalf("confirmed: %d %s", w.Code, w.Body)
	}
	if got := m.replays[0]; got.Rate != 5 || got.Filter.Until.IsZero() || got.Filter.Outcomes[0] != event.Dead {
		t.Errorf("what came in since the preview would go too: %+v", got)
	}
	form = fields(v.get("/dead-letters/drop?id=id3&id=id6"))
	if form.Get("expect") != "2" || len(m.drops) > 0 {
		t.Fatalf("preview of a drop: %v", form)
	}
	if w := v.do(http.MethodPost, "/dead-letters/drop", form); w.Code != http.StatusSeeOther || len(m.drops) != 1 || len(m.drops[0].IDs) != 2 {
		t.Errorf("drop: %d %+v", w.Code, m.drops)
	}
}

func TestAFormOfAStrangersPageIsRefused(t *testing.T) {
	m := some(3)
	v := visitor(t, m, "")
	form := fields(v.get("/replay?all=true"))
	for name, header := range map[string][]string{
		"another site, by Sec-Fetch-Site":     {"Sec-Fetch-Site", "cross-site"},
		"another site, by Origin":             {"Sec-Fetch-Site", "", "Origin", "http://evil.example"},
		"an origin that is hidden":            {"Sec-Fetch-Site", "", "Origin", "null"},
		"a program, or a webhook":             {"Sec-Fetch-Site", ""},
		"a name that was made to lead to us":  {"Host", "evil.example"},
		"a form whose origin is another port": {"Sec-Fetch-Site", "", "Origin", "http://localhost:99"},
	} {
		if w := v.do(http.MethodPost, "/replay", form, header...); w.Code != http.StatusForbidden {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
	if len(m.replays) > 0 {
		t.Errorf("%d replays were begun", len(m.replays))
	}
	if w := v.do(http.MethodPost, "/replay", form, "Origin", "http://localhost", "Sec-Fetch-Site", ""); w.Code != http.StatusSeeOther {
		t.Errorf("a form of this service, by Origin alone: %d", w.Code)
	}
}

func TestTheTokenOpensASession(t *testing.T) {
	v := visitor(t, some(3), opsToken)
	if w := v.do(http.MethodGet, "/events?status=firing", nil); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/login?next=%2Fevents%3Fstatus%3Dfiring" {
		t.Fatalf("not logged in: %d %s", w.Code, w.Header().Get("Location"))
	}
	for _, path := range []string{"/api/v1/status", "/metrics"} {
		if w := v.do(http.MethodGet, path, nil); w.Code != http.StatusUnauthorized {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if w := v.do(http.MethodPost, "/replay", url.Values{}); w.Code != http.StatusUnauthorized {
		t.Errorf("a form of nobody: %d", w.Code)
	}
	page := v.get("/login?next=%2Fevents%3Fstatus%3Dfiring")
	if strings.Contains(page, "MySQL") || strings.Contains(page, "is up") {
		t.Error("the log-in shows something of the state")
	}
	form := fields(page)
	form.Set("token", "wrong")
	if w := v.do(http.MethodPost, "/login", form); w.Code != http.StatusUnauthorized || len(v.cookies) > 0 {
		t.Errorf("a wrong token: %d", w.Code)
	}
	form.Set("token", opsToken)
	w := v.do(http.MethodPost, "/login", form)
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/events?status=firing" {
		t.Fatalf("the right token: %d %s", w.Code, w.Header().Get("Location"))
	}
	c := v.cookies[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || strings.Contains(c.Value, opsToken) || len(c.Value) < 20 {
		t.Errorf("the cookie is %v", c)
	}
	if w := v.do(http.MethodGet, "/api/v1/status", nil); w.Code != http.StatusUnauthorized {
		t.Errorf("the API takes the cookie: %d", w.Code)
	}
	if w := v.do(http.MethodGet, "/api/v1/status", nil, "Authorization", "Bearer "+opsToken); w.Code != http.StatusOK {
		t.Errorf("the API with the token: %d", w.Code)
	}
	old := v.cookies
	if w := v.do(http.MethodPost, "/logout", url.Values{}); w.Code != http.StatusSeeOther || v.cookies != nil {
		t.Errorf("logout: %d", w.Code)
	}
	v.cookies = old
	if w := v.do(http.MethodGet, "/", nil); w.Code != http.StatusSeeOther {
		t.Errorf("the ended session still counts: %d", w.Code)
	}
}

func TestASessionEndsWithItsTokenAndItsTime(t *testing.T) {
	s := newSessions()
	now := time.Now()
	ask := func(id string) *http.Request {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.AddCookie(&http.Cookie{Name: sessionCookie(r).Name, Value: id})
		return r
	}
	id := s.open("a", now)
	if !s.find(ask(id), "a") || s.find(ask(id), "b") || s.find(ask(id+"x"), "a") {
		t.Error("a session counts for its own token only")
	}
	if old := s.open("a", now.Add(-sessionFor-time.Second)); s.find(ask(old), "a") {
		t.Error("a session has no end")
	}
	for range maxSessions + 10 {
		s.open("a", now)
	}
	if len(s.known) > maxSessions {
		t.Errorf("%d sessions are kept", len(s.known))
	}
}

func TestGuessingIsSlow(t *testing.T) {
	v := visitor(t, some(1), opsToken)
	form := fields(v.get("/login"))
	form.Set("token", "guess")
	codes := map[int]int{}
	for range 20 {
		codes[v.do(http.MethodPost, "/login", form).Code]++
	}
	if codes[http.StatusUnauthorized] != guessAtOnce || codes[http.StatusTooManyRequests] != 20-guessAtOnce {
		t.Errorf("20 consecutive guesses: %v", codes)
	}
	form.Set("token", opsToken)
	if w := v.do(http.MethodPost, "/login", form); w.Code != http.StatusTooManyRequests {
		t.Errorf("the right one among them: %d", w.Code)
	}
	v.from = "192.0.2.2:1000"
	if w := v.do(http.MethodPost, "/login", form); w.Code != http.StatusSeeOther {
		t.Errorf("from elsewhere: %d", w.Code)
	}
}

func TestLoginLeadsToOurPagesOnly(t *testing.T) {
	for next, want := range map[string]string{
		"/events?status=firing": "/events?status=firing", "/dead-letters": "/dead-letters", "": "/", "//evil.example": "/", "/\\evil.example": "/",
		"https://evil.example/events": "/", "javascript:alert(1)": "/", "/api/v1/status": "/", "events": "/", "/events\r\nX: y": "/", "/\tevil": "/",
	} {
		if got := ownPage(next); got != want {
			t.Errorf("ownPage(%q) is %q, want %q", next, got, want)
		}
	}
}

func TestHostileTextStaysText(t *testing.T) {
	m := some(1)
	r := m.records[0]
	r.Alertname, r.Outcome, r.Reason = `<script>alert(1)</script>`, event.Dead, "</bdi><img src=x onerror=alert(2)>"
	r.Labels = map[string]string{"instance": "a\u202egpj.exe", "severity": `"><svg onload=alert(3)>`, "<b>": strings.Repeat("x", 1<<20)}
	m.detail = admin.Detail{
		Sent: json.RawMessage(`{"alerts":[{"generatorURL":"javascript:alert(4)","silenceURL":"https://a@b.example/","dashboardURL":"https://ok.example/?a=1&b=2","annotations":{"x":"data:text/html,y","r":" https://c.example"}}]}`),
		Raw:  json.RawMessage(`"\u0000\u001b[31m</pre>"`),
	}
	v := visitor(t, m, "")
	for _, path := range []string{"/", "/events", "/events/id1", "/dead-letters", "/replay?id=id1", "/events?text=" + url.QueryEscape(`"><script>`)} {
		page := v.get(path)
		for _, bad := range []string{"<script>", "<img", "<svg onload", "\u202e", "\x00", "\x1b", "javascript:alert(4)\"", "href=\"data:", "a@b.example/\""} {
			if strings.Contains(page, bad) {
				t.Errorf("%s holds %q", path, bad)
			}
		}
		if len(page) > 300_000 {
			t.Errorf("%s has %d bytes", path, len(page))
		}
	}
	if page := v.get("/events/id1"); !strings.Contains(page, `href="https://ok.example/?a=1&amp;b=2" rel="noopener noreferrer"`) {
		t.Error("a harmless link is not shown")
	}
}

// What curl or jq shows in a terminal.
func TestHostileTextIsEscapedInJSON(t *testing.T) {
	const evil = "\u009b2J\x7f\u202egpj.exe"
	m := some(1)
	m.records[0].Alertname = evil
	m.detail = admin.Detail{Row: admin.NewRow(m.records[0]), Raw: json.RawMessage(`"` + evil + `"`)}
	h := New(Config{Source: m, Carrier: &hand{lines: []admin.Carried{{Record: m.records[0]}}}})
	for _, path := range []string{"/api/v1/events", "/api/v1/events/id1", "/api/v1/events/tail?limit=1", "/api/v1/export?kind=event"} {
		ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond) // a tail goes on
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil))
		stop()
		if got := w.Body.String(); !strings.Contains(got, `\u009b2J\u007f\u202egpj.exe`) || strings.ContainsAny(got, "\u009b\x7f\u202e") {
			t.Errorf("%s answers %q", path, got)
		}
	}
}

func TestThePlotShowsWhatHappenedWhen(t *testing.T) {
	now := time.Date(2026, 11, 24, 17, 42, 10, 0, time.UTC)
	at := func(h, m int) time.Time { return time.Date(2026, 11, 24, h, m, 0, 0, time.UTC) }
	p := newPlot([]event.Minute{
		{At: at(3, 0), In: 1000}, {At: at(11, 44), In: 1000}, // before it begins
		{At: at(12, 0), In: 10}, {At: at(12, 4), In: 30}, {At: at(17, 41), Out: 14, Discarded: 6, Dead: 20}, {At: at(17, 42), Suppressed: 5},
	}, []event.Outage{
		{From: at(3, 0), Until: at(11, 0), State: event.Down}, // before it begins
		{From: at(11, 0), Until: at(12, 15), State: event.Down},
		{From: at(17, 0), Until: at(17, 0).Add(time.Second), State: event.Held},
		{From: at(17, 40), State: event.Paused}, // it lasts
	}, 6, now)
	if len(p.Bars) != 72 || p.Total != (event.Minute{In: 40, Out: 14, Discarded: 6, Dead: 20, Suppressed: 5}) || p.Most != 40 {
		t.Fatalf("%d bars, %+v, most %d", len(p.Bars), p.Total, p.Most)
	}
	last := p.Bars[71]
	if !last.At.Equal(at(17, 40)) || last.Out != 14 || last.OutH == 0 || last.LostH == 0 || last.LostY != last.OutY+last.OutH || last.DeadY != last.LostY+last.LostH || last.DeadY+last.DeadH > plotHeight {
		t.Errorf("the last bar is %+v", last)
	}
	if b := p.Bars[3]; !b.At.Equal(at(12, 0)) || b.In != 40 || b.InH != plotHalf-2 {
		t.Errorf("the bar of 12:00 is %+v", b)
	}
	if len(p.Shades) != 3 || p.Shades[0].X != 0 || p.Shades[0].W != 60 || p.Shades[0].Lasted != 75*time.Minute ||
		p.Shades[1].W != 2 || p.Shades[2].X != 710 || p.Shades[2].Lasted != 130*time.Second {
		t.Errorf("the outages are %+v", p.Shades)
	}
	if len(p.Rows) != 2 || !p.Rows[0].At.Equal(at(17, 0)) || p.Rows[1].In != 40 {
		t.Errorf("the table is %+v", p.Rows)
	}
	for _, hours := range plotHours {
		if p := newPlot(nil, nil, hours, now); p.Every < time.Minute || p.Every%time.Minute != 0 {
			t.Errorf("%d hours: a bar is %s", hours, p.Every)
		}
	}
	steady := make([]event.Minute, 60)
	for i := range steady {
		steady[i] = event.Minute{At: now.Add(time.Duration(i-59) * time.Minute).Truncate(time.Minute), In: 10}
	}
	for i, b := range newPlot(steady, nil, 1, now).Bars {
		if b.In != 10 {
			t.Errorf("of ten a minute, steadily, bar %d of the last hour shows %d", i, b.In)
		}
	}
}

// A page that is open asks for itself again and again. It names the state that it shows.
func TestAPageIsSentAgainOnceSomethingChanged(t *testing.T) {
	m := some(1)
	v := visitor(t, m, "")
	again := func(has string) int { return v.do(http.MethodGet, "/", nil, "If-None-Match", has).Code }
	has := html.UnescapeString(regexp.MustCompile(`data-mark="([^"]+)"`).FindStringSubmatch(v.get("/"))[1])
	if code := again(has); code != http.StatusNotModified {
		t.Errorf("nothing changed: %d", code)
	}
	m.mu.Lock()
	m.changes++
	m.mu.Unlock()
	if code := again(has); code != http.StatusOK {
		t.Errorf("something changed: %d", code)
	}
	has = mark(m.status, m.Changes())
	if code := again(has); code != http.StatusNotModified {
		t.Errorf("it is that of now: %d", code)
	}
	if w := visitor(t, m, opsToken).do(http.MethodGet, "/login", nil, "If-None-Match", has); w.Code != http.StatusOK {
		t.Errorf("a stranger learns that nothing changed: %d", w.Code)
	}
}

func TestWhatAnOperatorDoesIsAskedForAndKeptWithWhoItWas(t *testing.T) {
	m := some(3)
	h := New(Config{Source: m, Replayer: m, Token: func() string { return opsToken }})
	call := func(method, path string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "http://127.0.0.1"+path, nil)
		r.Header.Set("Authorization", "Bearer "+opsToken)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	for _, c := range []struct {
		method, path string
		code         int
	}{
		{"POST", "/api/v1/events/id1/park", 200},
		{"POST", "/api/v1/events/nobody/park", 404},
		{"POST", "/api/v1/incidents/pmm-1/close", 200},
		{"POST", "/api/v1/incidents/pmm-9/close", 404},
		{"POST", "/api/v1/pause?reason=filters&until=1d12h", 200},
		{"POST", "/api/v1/pause?until=yesterday", 400},
		{"POST", "/api/v1/pause?until=2001-01-01T00:00:00Z", 400},
		{"POST", "/api/v1/resume", 200},
		{"POST", "/api/v1/probe", 200},
		{"GET", "/api/v1/incidents?severity=critical", 200},
		{"GET", "/api/v1/incidents?outcome=dead", 400},
		{"GET", "/api/v1/incidents/pmm-1", 200},
		{"GET", "/api/v1/incidents/pmm-9", 404},
		{"GET", "/incidents", 200},
		{"GET", "/incidents/pmm-1", 200},
		{"GET", "/incidents/pmm-9", 404},
	} {
		if w := call(c.method, c.path); w.Code != c.code {
			t.Errorf("%s %s: %d %s, want %d", c.method, c.path, w.Code, w.Body, c.code)
		}
	}
	want := []string{"park id1 by token from 192.0.2.1", "close pmm-1 by token from 192.0.2.1", "pause filters by token from 192.0.2.1", "resume by token from 192.0.2.1", "probe by somebody"}
	if !slices.Equal(m.acts, want) {
		t.Errorf("done: %q, want %q", m.acts, want)
	}
}

func TestThePageSaysWhatThePersonMustKnow(t *testing.T) {
	m := some(6)
	at := time.Now().Add(-time.Minute)
	m.status.Queued, m.status.Dead = 3, 2
	m.status.Callgoose = admin.Callgoose{State: event.Held, LastError: "callgoose answered 401"}
	m.status.StillFiring = []admin.Waiting{{Severity: "critical", Name: "MySQL down", Count: 3}}
	m.status.LastDelivered = &admin.LastDelivered{At: at, Title: "PG down on db-1", Effect: "created", Status: event.Firing, Key: "pmm-1"}
	m.status.Conclude()
	v := visit{t: t, h: New(Config{Source: m, Replayer: m})}
	w := httptest.NewRecorder()
	v.h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://127.0.0.1/", nil))
	page := w.Body.String()
	for _, want := range []string{
		"<title>(3) ! Overview", "icon-bad.svg", "Callgoose refuses the token or the address", "everything is held", "Put a valid API token",
		"2 events were given up", "PG down on db-1", "opened an incident", "MySQL down", "sev-0",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if strings.Contains(page, "by themselves") {
		t.Error("what is held does not go out by itself")
	}
}

// What stands in a page, and what must not.
func TestThePagesLeadOn(t *testing.T) {
	m := some(6)
	at := m.records[0].ReceivedAt
	m.minutes = []event.Minute{{At: at.Truncate(time.Minute), In: 3}}
	m.status.Sources = []admin.PMM{{Name: "pmm", LastHeardAt: &at, AlertsDay: 1234, ExpectEvery: 300}}
	m.detail = admin.Detail{
		Sent: json.RawMessage(`{"from":"PerconaPMM","alerts":[{"labels":{"alertname":"MySQL down"},"severity":"<b>"}]}`),
		Raw:  json.RawMessage(`{"alerts":[{"labels":{"alertname":"MySQL down"}}, {"labels":{"alertname":"another"}}]}`),
	}
	begun := at.Truncate(5 * time.Minute)
	bar := "/events?since=" + url.QueryEscape(begun.Format(time.RFC3339)) + "&amp;until=" + url.QueryEscape(begun.Add(5*time.Minute).Format(time.RFC3339))
	note := "/events?since=" + url.QueryEscape(at.Format(time.RFC3339Nano)) + "&amp;until=" + url.QueryEscape(at.Add(1).Format(time.RFC3339Nano))
	v := visitor(t, m, "")
	for _, c := range []struct{ name, path, has, hasNot string }{
		{"a bar of the chart leads to the events of its time", "/", `<a href="` + bar + `"`, ""},
		{"a row of its table does", "/", `<th scope="row"><a href="/events?since=`, ""},
		{"the axis has a middle", "/", "<span>4 in</span><span>2</span><span>0</span><span>2</span><span>4 gone</span>", ""},
		{"a watched PMM says how often it must be heard of", "/", "(expected every 5 min)", ""},
		{"a PMM says how much it sends", "/", "1\u202f234 alerts in 24 h", ""},
		{"a notification leads to all its alerts", "/events/id6", `<a href="` + note + `">`, ""},
		{"what we add to an alert is marked, as text", "/events/id6", "<mark>      &#34;severity&#34;: &#34;&lt;b&gt;&#34;\n</mark>", "<mark>{"},
		{"what PMM sent is not marked", "/events/id6", "&#34;alertname&#34;: &#34;MySQL down&#34;", "another&#34;\n</mark>"},
		{"nobody is offered to send everything again", "/events", "id6", "again…"},
		{"what was chosen can be sent again", "/events?status=firing", "Send these again…", ""},
		{"what waits goes out anyway", "/events?outcome=queued", "No event is like that", "again…"},
		{"all dead letters shown are chosen at once", "/dead-letters", `id="all"`, ""},
	} {
		page := v.get(c.path)
		if !strings.Contains(page, c.has) {
			t.Errorf("%s: %s does not have %q", c.name, c.path, c.has)
		}
		if c.hasNot != "" && strings.Contains(page, c.hasNot) {
			t.Errorf("%s: %s has %q", c.name, c.path, c.hasNot)
		}
	}
	if page := visitor(t, m, opsToken).get("/login"); !strings.Contains(page, `autocomplete="username"`) {
		t.Error("a password manager finds no user name")
	}
}

func TestAListSaysInAHeaderThatThereIsMore(t *testing.T) {
	for path, want := range map[string]string{
		"/api/v1/events?limit=3": "true", "/api/v1/events?limit=4": "", "/api/v1/events": "",
		"/api/v1/incidents?limit=3": "true", "/api/v1/incidents?limit=4": "",
	} {
		var list []any
		w := visitor(t, some(4), "").do(http.MethodGet, path, nil)
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || w.Header().Get("X-More") != want || want != "" && len(list) != 3 {
			t.Errorf("%s: X-More is %q, want %q, with %d in the list, %v", path, w.Header().Get("X-More"), want, len(list), err)
		}
	}
	m := some(perRead + 2)
	for limit, want := range map[int]int{perRead: perRead, perRead + 1: perRead + 1, perRead + 2: perRead + 2, 2 * perRead: perRead + 2} {
		var list []any
		w := visitor(t, m, "").do(http.MethodGet, fmt.Sprint("/api/v1/events?limit=", limit), nil)
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || len(list) != want || (w.Header().Get("X-More") != "") != (limit < perRead+2) {
			t.Errorf("limit %d: %d in the list, X-More is %q, %v", limit, len(list), w.Header().Get("X-More"), err)
		}
	}
}

func TestAnEmptyServiceLeadsToTheFirstIncident(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		change func(*admin.Status)
		done   int // steps, of three; -1 = nothing is said of them
	}{
		"nothing happened yet":          {func(s *admin.Status) { s.Callgoose.State = event.Unknown }, 0},
		"Callgoose answered":            {func(*admin.Status) {}, 1},
		"a webhook of PMM was refused":  {func(s *admin.Status) { s.Refused.LastAt = &now }, 2},
		"a webhook of PMM was accepted": {func(s *admin.Status) { s.Notifications = 1 }, 3},
		"an incident was opened":        {func(s *admin.Status) { s.Effects.Opened = 1 }, -1},
	} {
		m := some(0)
		c.change(&m.status)
		page := visitor(t, m, "").get("/")
		if done := strings.Count(page, "(done)"); strings.Contains(page, "To the first incident") != (c.done >= 0) || done != max(c.done, 0) {
			t.Errorf("%s: %d steps are done, want %d", name, done, c.done)
		}
	}
}
