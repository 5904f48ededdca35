package web

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store/event"
)

// The shape of a request of Grafana's webhook contact point: whoever may edit
// one can send it to the operators' port, from the same machine.
func webhook(path string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:4668"+path, strings.NewReader(`{"kind":"notification"}`))
	r.Header.Set("Content-Type", "application/json")
	return r
}

func TestAWebhookToTheOperatorsPortChangesNothing(t *testing.T) {
	for _, path := range []string{"/api/v1/dead-letters/drop?all=1", "/api/v1/replay?all=1&include_closed=true", "/api/v1/import", "/replay", "/dead-letters/drop"} {
		m, c := some(3), &hand{}
		h := New(Config{Source: m, Replayer: m, Carrier: c, Hosts: []string{"127.0.0.1"}})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, webhook(path))
		if w.Code != http.StatusForbidden || len(m.drops)+len(m.replays)+len(c.lines) > 0 {
			t.Errorf("%s: %d, and it was done", path, w.Code)
		}
	}
}

func TestWhoMeansItMayChangeSomething(t *testing.T) {
	const path = "/api/v1/dead-letters/drop?all=1"
	socket := func(r *http.Request) *http.Request {
		return r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, unixAddr{}))
	}
	header := func(name, value string) func(*http.Request) *http.Request {
		return func(r *http.Request) *http.Request { r.Header.Set(name, value); return r }
	}
	for name, c := range map[string]struct {
		token string
		with  func(*http.Request) *http.Request
		want  int
	}{
		"the client, by its header":      {"", header(admin.Intent, "1"), 200},
		"a page of this service":         {"", header("Sec-Fetch-Site", "same-origin"), 200},
		"the socket":                     {"", socket, 200},
		"the token":                      {opsToken, header("Authorization", "Bearer "+opsToken), 200},
		"the header in place of a token": {opsToken, header(admin.Intent, "1"), 401},
		"a page of another site":         {"", header("Sec-Fetch-Site", "cross-site"), 403},
	} {
		m := some(3)
		cfg := Config{Source: m, Replayer: m}
		if c.token != "" {
			cfg.Token = func() string { return c.token }
		}
		w := httptest.NewRecorder()
		New(cfg).ServeHTTP(w, c.with(webhook(path)))
		if w.Code != c.want || (len(m.drops) == 1) != (c.want == 200) {
			t.Errorf("%s: %d, %d drops", name, w.Code, len(m.drops))
		}
	}
}

type unixAddr struct{}

func (unixAddr) Network() string { return "unix" }
func (unixAddr) String() string  { return "admin.sock" }

func TestADropNamesWhatItDrops(t *testing.T) {
	for query, want := range map[string]int{"": 400, "?limit=5": 400, "?dry_run=true": 400, "?all=1": 200, "?since=1h": 200, "?id=id3": 200} {
		m := some(3)
		r := webhook("/api/v1/dead-letters/drop" + query)
		r.Header.Set(admin.Intent, "1")
		w := httptest.NewRecorder()
		New(Config{Source: m, Replayer: m}).ServeHTTP(w, r)
		if w.Code != want || want != 200 && len(m.drops) > 0 {
			t.Errorf("drop%s: %d %s", query, w.Code, w.Body)
		}
	}
}

func TestGuessesOfTheTokenAreFewAndLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		m := some(1)
		told := map[string]int{}
		h := New(Config{
			Source: m, Token: func() string { return opsToken }, Logger: slog.New(slog.NewTextHandler(&log, nil)),
			TokenRefused: func(reason string) { told[reason]++ },
		})
		ask := func(token, from, forwarded string) int {
			r := httptest.NewRequest(http.MethodGet, "/api/v1/status", nil)
			r.Header.Set("Authorization", "Bearer "+token)
			r.RemoteAddr = from
			if forwarded != "" {
				r.Header.Set("X-Forwarded-For", forwarded)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w.Code
		}
		codes := map[int]int{}
		for n := range 4000 {
			codes[ask(fmt.Sprint("guess", n), "192.0.2.1:1", "")]++
		}
		if codes[401] != guessAtOnce || codes[429] != 4000-guessAtOnce || told["wrong"] != guessAtOnce || told["limited"] != 4000-guessAtOnce {
			t.Errorf("4000 guesses are answered %v, counted %v", codes, told)
		}
		for what, c := range map[string]struct {
			from, forwarded string
			want            int
		}{
			"the right token where it is guessed":           {"192.0.2.1:2", "", 429},
			"the right token from elsewhere":                {"192.0.2.2:1", "", 200},
			"another client of a proxy at that address":     {"192.0.2.1:3", "198.51.100.7", 200},
			"a client that pretends to come from elsewhere": {"192.0.2.1:4", "198.51.100.7, ::1, 192.0.2.1", 200},
		} {
			if got := ask(opsToken, c.from, c.forwarded); got != c.want {
				t.Errorf("%s: %d, want %d", what, got, c.want)
			}
		}
		tried := 0
		for n := range 2 * maxGuessers { // a new name each time
			if ask("guess", "192.0.2.3:1", fmt.Sprintf("198.51.%d.%d", n/250, n%250)) == 401 {
				tried++
			}
		}
		if got := ask(opsToken, "192.0.2.3:1", "203.0.113.1"); got != 429 || tried != viaProxy*guessAtOnce {
			t.Errorf("whoever names himself anew guesses on: %d, after %d tries", got, tried)
		}
		time.Sleep(10 * guessEvery)
		if got := ask(opsToken, "192.0.2.1:2", ""); got != 200 {
			t.Errorf("after a pause: %d", got)
		}
		time.Sleep(2 * logEvery)
		synctest.Wait()
		if n := strings.Count(log.String(), "\n"); n != 2 || !strings.Contains(log.String(), "count=1 ") || strings.Contains(log.String(), "guess0") {
			t.Errorf("%d lines were logged: %s", n, &log)
		}
	})
}

func TestStreamsAreBounded(t *testing.T) {
	m := some(3)
	srv := httptest.NewServer(New(Config{Source: m}))
	defer srv.Close()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	tail := func() *http.Response {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/api/v1/events/tail?limit=1", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		return resp
	}
	for n := range maxStreams {
		if resp := tail(); resp.StatusCode != http.StatusOK {
			t.Fatalf("tail %d: %d", n, resp.StatusCode)
		}
	}
	for range 3 {
		if resp := tail(); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
			t.Errorf("one more: %d", resp.StatusCode)
		}
	}
}

// However many ask, so many streams there are.
func TestThreeThousandStreamsAreFew(t *testing.T) {
	for path, most := range map[string]int{"/api/v1/events/tail": maxStreams, "/api/v1/export?kind=event": maxStreams} {
		synctest.Test(t, func(t *testing.T) {
			m := some(3)
			h := New(Config{Source: m, Carrier: endless{&hand{}}})
			ctx, stop := context.WithCancel(t.Context())
			var refused, open atomic.Int64
			var wg sync.WaitGroup
			for range 3000 {
				wg.Go(func() {
					open.Add(1)
					defer open.Add(-1)
					w := httptest.NewRecorder()
					h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil))
					if w.Code == http.StatusServiceUnavailable {
						refused.Add(1)
					}
				})
			}
			synctest.Wait()
			if int(refused.Load()) != 3000-most || int(open.Load()) != most {
				t.Errorf("%s: %d of 3000 are open and %d refused, want %d open", path, open.Load(), refused.Load(), most)
			}
			stop()
			wg.Wait()
		})
	}
}

// Where no token is asked for, a page in a browser can have exports made without end. The
// log tells of all of them in few lines.
func TestExportsFillNoLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		h := New(Config{Source: some(1), Carrier: &hand{}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		for range 3000 {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/api/v1/export?kind=event", nil))
		}
		time.Sleep(time.Minute)
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/api/v1/export?kind=event", nil))
		if lines := strings.Count(log.String(), "\n"); lines != 11 || !strings.Contains(log.String(), "action=export count=2991 ") {
			t.Errorf("%d lines:\n%s", lines, &log)
		}
	})
}

// endless is a Carrier whose export has one line, and ends with its request.
type endless struct{ Carrier }

func (endless) Export(ctx context.Context, _ string, _ event.Filter, _ int, line func(admin.Carried) error) error {
	<-ctx.Done()
	return line(admin.Carried{})
}

// A reader that takes nothing is let go after stillFor, whatever it reads.
func TestASlowReaderIsLetGo(t *testing.T) {
	for _, path := range []string{"/api/v1/events/tail", "/api/v1/export?kind=event", "/api/v1/events"} {
		m := some(1)
		h := New(Config{Source: m, Carrier: endless{&hand{}}})
		w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
		h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil))
		stop()
		if in := time.Until(w.last); in <= 0 || in > stillFor {
			t.Errorf("%s: what is written may take until %s", path, w.last)
		}
	}
}

// deadlines notes the last deadline of its writes.
type deadlines struct {
	*httptest.ResponseRecorder
	last time.Time
}

func (d *deadlines) SetWriteDeadline(at time.Time) error { d.last = at; return nil }
func (d *deadlines) SetReadDeadline(time.Time) error     { return nil }

// counted is a Source that notes how much is read of it at once.
type counted struct {
	*memory
	mu    sync.Mutex
	most  int
	reads int
}

func (c *counted) Events(ctx context.Context, f event.Filter, limit int) ([]*event.Record, error) {
	list, err := c.memory.Events(ctx, f, limit)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.most, c.reads = max(c.most, len(list)), c.reads+1
	return list, err
}

func TestALongListIsReadInParts(t *testing.T) {
	for _, limit := range []int{1, perRead, perRead + 1, 2500, 5000} {
		m := &counted{memory: some(2*perRead + 500)}
		w := httptest.NewRecorder()
		New(Config{Source: m}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, fmt.Sprintf("/api/v1/events?limit=%d", limit), nil))
		var rows []struct{ ID string }
		if err := json.Unmarshal(w.Body.Bytes(), &rows); err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, r := range rows {
			seen[r.ID] = true
		}
		if want := min(limit, 2500); len(rows) != want || len(seen) != want || m.most > perRead {
			t.Errorf("limit %d: %d rows, %d events, %d read at once", limit, len(rows), len(seen), m.most)
		}
	}
	w := httptest.NewRecorder()
	New(Config{Source: some(0)}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v1/events", nil))
	if got := strings.TrimSpace(w.Body.String()); got != "[]" {
		t.Errorf("no events are %s", got)
	}
}

// All tails together read the newest events once for each change.
func TestTailsShareWhatTheyRead(t *testing.T) {
	m := &counted{memory: some(5)}
	h := newSite(Config{Source: m})
	for range 50 {
		if _, _, err := h.newest.read(t.Context(), h); err != nil {
			t.Fatal(err)
		}
	}
	m.changes++
	if _, _, err := h.newest.read(t.Context(), h); err != nil || m.reads != 2 {
		t.Errorf("read %d times, %v", m.reads, err)
	}
}

func TestTheCookieIsOfThisServiceAlone(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	plain := sessionCookie(r)
	r.Header.Set("X-Forwarded-Proto", "https")
	own := httptest.NewRequest(http.MethodGet, "https://forwarder.example/", nil) // which has TLS
	if c := sessionCookie(own); !strings.HasPrefix(c.Name, "__Host-") || !c.Secure {
		t.Errorf("%v with TLS of its own", c)
	}
	if c := sessionCookie(r); !strings.HasPrefix(c.Name, "__Host-") || !c.Secure || c.Path != "/" || c.Domain != "" || plain.Secure || strings.HasPrefix(plain.Name, "__") {
		t.Errorf("%v behind TLS, %v without", c, plain)
	}
	var names []string
	for range 2 {
		m := some(1)
		srv := httptest.NewServer(New(Config{Source: m, Token: func() string { return opsToken }}))
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+"/login", strings.NewReader(url.Values{"token": {opsToken}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", srv.URL)
		resp, err := http.DefaultTransport.RoundTrip(req)
		srv.Close()
		if err != nil || len(resp.Cookies()) != 1 {
			t.Fatal(resp, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		names = append(names, resp.Cookies()[0].Name)
	}
	if names[0] == names[1] {
		t.Errorf("two services on two ports share the cookie %s", names[0])
	}
}
