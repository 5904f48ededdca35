package ingest

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// held posts a webhook whose last byte comes when the returned function is called,
// which waits for the answer.
func held(h http.Handler, body string, length int64, header ...string) func() *httptest.ResponseRecorder {
	pr, pw := io.Pipe()
	r := httptest.NewRequest(http.MethodPost, "/v1/webhook", pr)
	r.ContentLength = length
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer := make(chan *httptest.ResponseRecorder, 1)
	go func() { answer <- do(h, r); _ = pr.Close() }()
	written := make(chan bool)
	go func() { _, _ = io.WriteString(pw, body[:len(body)-1]); close(written) }()
	return func() *httptest.ResponseRecorder {
		<-written
		_, _ = io.WriteString(pw, body[len(body)-1:])
		_ = pw.Close()
		return <-answer
	}
}

func padded(size int) string {
	return body[:len(body)-1] + strings.Repeat(" ", size-len(body)) + body[len(body)-1:]
}

func TestBodiesInFlightAreBounded(t *testing.T) {
	const large, all = 200 << 10, 801 << 10 // three quarters of it for large ones
	for _, tt := range []struct {
		name   string
		header []string // of the bodies that are held
		length int64
		config Config
	}{
		{"without credentials", nil, large, Config{}},
		{"after authentication", bearer(token), large, Config{Token: is(token)}},
		{"signed, before the signature can be checked", signed(strings.Repeat("0", 64)), large, Config{HMACSecret: is(secret)}},
		{"of unknown length", nil, -1, Config{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tt.config.MaxBody = large
				s := &shelf{}
				h := newHandler(t, s, tt.config)
				h.budget = newBudget(all, large+1)
				var release []func() *httptest.ResponseRecorder
				for range 3 {
					release = append(release, held(h, padded(large), tt.length, tt.header...))
					synctest.Wait()
				}
				w := held(h, padded(large), tt.length, tt.header...)()
				if w.Code != 503 || w.Header().Get("Retry-After") != "5" || !strings.Contains(reason(t, w), "in flight") {
					t.Errorf("a fourth large body: %d %s", w.Code, w.Body)
				}
				small := post("/v1/webhook", body, join(tt.header, signed(sign(secret, body)))...)
				if w := do(h, small); w.Code != 202 {
					t.Errorf("a small body beside large ones: %d %s", w.Code, w.Body)
				}
				for _, r := range release {
					r()
				}
				if h.budget.used != 0 {
					t.Errorf("%d bytes are still taken", h.budget.used)
				}
				if w := held(h, padded(large), tt.length, tt.header...)(); w.Code == 503 {
					t.Errorf("afterwards: %d %s", w.Code, w.Body)
				}
			})
		})
	}
}

func TestOneBodyFitsWhateverTheBudget(t *testing.T) {
	const size = 300 << 10
	for _, length := range []int64{size, -1} {
		s := &shelf{}
		r := post("/v1/webhook", padded(size))
		r.ContentLength = length
		h := newHandler(t, s, Config{MaxBody: 600 << 10})
		h.budget = newBudget(1, h.config.MaxBody+1)
		if w := do(h, r); w.Code != 202 || len(s.stored[0].Body) != size {
			t.Errorf("length %d: %d %s", length, w.Code, w.Body)
		}
	}
}

// unread fails the test when somebody reads the body.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) { u.t.Error("the body was read"); return 0, io.EOF }
func (unread) Close() error               { return nil }

func TestTheBodyIsNotReadForAnImpossibleSignature(t *testing.T) {
	old := time.Now().Add(-time.Hour)
	for name, header := range map[string][]string{
		"none":       nil,
		"two digits": signed("aa"),
		"too long":   signed(strings.Repeat("a", 65)),
		"no digits":  signed(strings.Repeat("z", 64)),
		"an old one": stamped("X-Grafana-Alerting-Timestamp", old, strings.Repeat("a", 64)),
	} {
		r := post("/v1/webhook", body, header...)
		r.Body = unread{t}
		if w := do(newHandler(t, &shelf{}, Config{HMACSecret: is(secret)}), r); w.Code != 401 {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

const ended = `{"status":"resolved","alerts":[{"status":"resolved","labels":{"a":"b"},"startsAt":"2026-11-01T10:00:00Z","endsAt":"2026-11-01T11:00:00Z"}]}`

func TestASignedWebhookCannotBeUsedTwice(t *testing.T) {
	other := strings.Replace(body, `"b"`, `"d"`, 1)
	open := strings.Replace(ended, "2026-11-01T11", "0001-01-01T00", 1)
	type step struct {
		wait time.Duration
		body string
		path string // "" = /v1/webhook
		code int
		id   string
	}
	for _, tt := range []struct {
		name  string
		timed bool
		steps []step
	}{
		{"sent again because the answer was lost", true, []step{{0, body, "", 202, "n-1"}, {time.Second, body, "", 202, "n-1"}}},
		{"captured, until its time is too old", true, []step{
			{0, ended, "", 202, "n-1"},
			{time.Minute, other, "", 202, "n-2"},
			{4 * time.Minute, ended, "", 202, "n-1"},
			{time.Second, ended, "", 401, ""},
		}},
		{"captured, sent as another PMM", true, []step{{0, ended, "", 202, "n-1"}, {0, ended, "/v1/webhook/dr", 401, ""}}},
		{"without a time, sent again because the answer was lost", false, []step{{0, body, "", 202, "n-1"}, {59 * time.Second, body, "", 202, "n-1"}}},
		{"without a time, PMM's own repeat", false, []step{{0, body, "", 202, "n-1"}, {time.Minute, body, "", 202, "n-2"}}},
		{"without a time, a captured recovery", false, []step{
			{0, ended, "", 202, "n-1"}, {time.Second, body, "", 202, "n-2"}, {time.Second, ended, "", 202, "n-1"},
		}},
		{"without a time, an alert that fires again after a false recovery", false, []step{
			{0, body, "", 202, "n-1"}, {time.Second, ended, "", 202, "n-2"}, {10 * time.Second, body, "", 202, "n-3"},
		}},
		{"without a time, a recovery that does not say when", false, []step{
			{0, open, "", 202, "n-1"}, {time.Second, body, "", 202, "n-2"}, {time.Second, open, "", 202, "n-3"},
		}},
		{"another body", true, []step{{0, body, "", 202, "n-1"}, {0, other, "", 202, "n-2"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHandler(t, &shelf{}, Config{HMACSecret: is(secret)})
				began := time.Now()
				for i, s := range tt.steps {
					time.Sleep(s.wait)
					header := signed(sign(secret, s.body))
					if tt.timed {
						header = stamped("X-Grafana-Alerting-Timestamp", began, sign(secret, fmt.Sprintf("%d:%s", began.Unix(), s.body)))
					}
					path := s.path
					if path == "" {
						path = "/v1/webhook"
					}
					w := do(h, post(path, s.body, header...))
					if w.Code != s.code || !strings.Contains(w.Body.String(), s.id) {
						t.Errorf("step %d: %d %s, want %d %s", i, w.Code, w.Body, s.code, s.id)
					}
				}
			})
		})
	}
}

// A wall clock that is set forward and back makes no signature forgotten.
func TestASignatureIsRememberedWhateverTheClockSays(t *testing.T) {
	for _, off := range []time.Duration{-maxSkew, 0, maxSkew} {
		h, now := newHandler(t, &shelf{}, Config{HMACSecret: is(secret)}), time.Now()
		header := http.Header{"X-Grafana-Alerting-Timestamp": {strconv.FormatInt(now.Add(off).Unix(), 10)}}
		until, timed := h.guard.until(header, now)
		if !timed || !strings.Contains(until.String(), " m=") || until.Sub(now) <= 2*maxSkew {
			t.Errorf("signed %s ahead, remembered for %s, until %s", off, until.Sub(now), until)
		}
	}
}

func TestOfTwoEqualSignedWebhooksAtOnceOneIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		resume, fail := make(chan bool), true
		s := &shelf{publish: func(context.Context) error {
			<-resume
			if fail {
				fail = false
				return errors.New("disk")
			}
			return nil
		}}
		h := newHandler(t, s, Config{HMACSecret: is(secret)})
		codes := map[int]int{}
		var mu sync.Mutex
		for range 5 {
			go func() {
				w := do(h, post("/v1/webhook", body, signed(sign(secret, body))...))
				mu.Lock()
				defer mu.Unlock()
				codes[w.Code]++
			}()
		}
		synctest.Wait()
		close(resume)
		synctest.Wait()
		if fmt.Sprint(codes) != "map[202:4 503:1]" || len(s.stored) != 1 {
			t.Errorf("answered %v, stored %d", codes, len(s.stored))
		}
	})
}

func TestSignaturesRememberedAreBounded(t *testing.T) {
	u, now := newUsed(100), time.Now()
	for i := range 1000 {
		s := signature{byte(i), byte(i >> 8)}
		mine := u.of(s, now.Add(time.Hour), now)
		if mine.id != "" {
			t.Fatal("used already")
		}
		u.stored(mine, "n", "pmm", now.Add(time.Hour))
	}
	if len(u.by) > 100 || len(u.order) > 100 {
		t.Errorf("%d and %d are kept of 1000", len(u.by), len(u.order))
	}
	if last := (signature{byte(999 & 255), byte(999 >> 8)}); u.of(last, now, now).id != "n" {
		t.Error("the newest was forgotten first")
	}
}

func TestSourcesAreBounded(t *testing.T) {
	h := newHandler(t, &shelf{}, Config{})
	h.sources.most = 3
	h.Know("dr")
	for path, code := range map[string]int{"/v1/webhook/a": 202, "/v1/webhook": 202} {
		if w := do(h, post(path, body)); w.Code != code {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	h.Know("late") // the store was opened only now
	for _, tt := range []struct {
		path string
		code int
	}{{"/v1/webhook/b", 403}, {"/v1/webhook/a", 202}, {"/v1/webhook/dr", 202}, {"/v1/webhook/late", 202}, {"/v1/webhook/c", 403}} {
		if w := do(h, post(tt.path, body)); w.Code != tt.code {
			t.Errorf("%s: %d %s, want %d", tt.path, w.Code, w.Body, tt.code)
		}
	}
	s := &shelf{}
	h, codes := newHandler(t, s, Config{}), map[int]int{}
	for i := range 20_000 {
		codes[do(h, post(fmt.Sprintf("/v1/webhook/s%d", i), body)).Code]++
	}
	if codes[202] != 255 || codes[403] != 20_000-255 || len(s.stored) != 255 || len(h.sources.names) != 256 {
		t.Errorf("20,000 sources are answered %v, %d stored, %d remembered", codes, len(s.stored), len(h.sources.names))
	}
	if w := do(h, post("/v1/webhook", body)); w.Code != 202 {
		t.Errorf("the PMM without a name was kept out: %d", w.Code)
	}
}

// A source that the ledger does not know any more gives its place to a new one; one that
// it knows, or that was here within the hour, keeps it.
func TestSourcesThatFellSilentGiveTheirPlaces(t *testing.T) {
	now, asked := time.Now(), 0
	known := map[string]bool{"kept": true}
	s := sources{most: 3, known: func() map[string]bool { asked++; return known }, names: map[string]time.Time{}}
	for _, source := range []string{"kept", "silent"} {
		s.names[source] = time.Time{}
	}
	for _, source := range []string{"young", "new", "kept", "young"} {
		if !s.admit(source, now) {
			t.Errorf("%s is kept out", source)
		}
	}
	for range 1000 {
		if s.admit("stranger", now) {
			t.Error("a fourth has a place")
		}
	}
	if known = nil; s.admit("stranger", now.Add(2*time.Hour)) {
		t.Error("a place is given up while the ledger is not open")
	}
	if asked > 3 {
		t.Errorf("the ledger was asked %d times within a minute", asked)
	}
	if known = map[string]bool{"kept": true}; !s.admit("stranger", now.Add(3*time.Hour)) || !s.admit("kept", now.Add(3*time.Hour)) {
		t.Error("a place is not given up, or the wrong one")
	}
}

func TestNoBrowserSendsForAnotherSite(t *testing.T) {
	const evil = "https://evil.example"
	for _, tt := range []struct {
		name   string
		config Config
		host   string
		header []string
		code   int
	}{
		{"PMM", Config{Loopback: true}, "127.0.0.1:4667", nil, 202},
		{"PMM by name", Config{Loopback: true}, "LocalHost:4667", nil, 202},
		{"PMM over IPv6", Config{Loopback: true}, "[::1]:4667", nil, 202},
		{"PMM without a port", Config{Loopback: true}, "[::1]", nil, 202},
		{"a name that leads here", Config{Loopback: true}, "rebind.evil.example:4667", nil, 403},
		{"a name that leads here, with a token", Config{Loopback: true, Token: is(token)}, "pmm.example", bearer(token), 202},
		{"any name, reachable from elsewhere", Config{}, "forwarder.example:4667", nil, 202},
		{"another site's form", Config{}, "127.0.0.1", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"another site, as old browsers say it", Config{}, "127.0.0.1", []string{"Origin", evil}, 403},
		{"another site, with a token", Config{Token: is(token)}, "127.0.0.1", join(bearer(token), []string{"Origin", evil}), 202},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &shelf{}
			r := post("/v1/webhook", body, tt.header...)
			r.Host = tt.host
			if w := do(newHandler(t, s, tt.config), r); w.Code != tt.code || (len(s.stored) == 1) != (tt.code == 202) {
				t.Errorf("%d %s, want %d", w.Code, w.Body, tt.code)
			}
		})
	}
}

func TestATokenOfANameIsGoodForThatSourceOnly(t *testing.T) {
	const lines = "pmm one\ndr two\ndr three\n"
	for _, tt := range []struct {
		path, token string
		code        int
	}{
		{"/v1/webhook", "one", 202},
		{"/v1/webhook/pmm", "one", 202},
		{"/v1/webhook/dr", "two", 202},
		{"/v1/webhook/dr", "three", 202},
		{"/v1/webhook/dr", "one", 401},
		{"/v1/webhook", "two", 401},
		{"/v1/webhook/x", "one", 401},
		{"/v1/webhook", "pmm one", 401},
		{"/v1/webhook", lines, 401},
		{"/v1/webhook", "", 401},
	} {
		if w := do(newHandler(t, &shelf{}, Config{Token: is(lines)}), post(tt.path, body, bearer(tt.token)...)); w.Code != tt.code {
			t.Errorf("%s with %q: %d %s, want %d", tt.path, tt.token, w.Code, w.Body, tt.code)
		}
	}
}

func TestTheTestButtonsRecoveryIsStoredBesideIt(t *testing.T) {
	const button = `{"groupKey":"cp-ab12-1795426435","alerts":[{"status":"firing","labels":{"alertname":"TestAlert"},"fingerprint":"ab12"}]}`
	s := &shelf{}
	h := newHandler(t, s, Config{})
	if w := do(h, post("/v1/webhook/dr", button)); w.Code != 202 || !strings.Contains(w.Body.String(), `"n-1"`) {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if len(s.stored) != 2 || s.stored[0].Made || !s.stored[1].Made || s.stored[1].Source != "dr" || s.stored[1].Alerts != 1 ||
		!strings.Contains(string(s.stored[1].Body), `"resolved"`) || string(s.stored[0].Body) != button {
		t.Errorf("stored %+v", s.stored)
	}
	if len(s.seen) != 1 {
		t.Errorf("%d notifications counted", len(s.seen))
	}
	n := 0
	s.publish = func(context.Context) error {
		if n++; n == 2 {
			return errors.New("disk")
		}
		return nil
	}
	if w := do(h, post("/v1/webhook", button)); w.Code != 503 {
		t.Errorf("its recovery was not stored: %d %s", w.Code, w.Body)
	}
}

func TestANotificationSaysWhenItBeganAndWhenItWasWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{}
		start := time.Now()
		release := held(newHandler(t, s, Config{}), body, int64(len(body)))
		time.Sleep(7 * time.Second)
		release()
		if n := s.stored[0]; !n.BeganAt.Equal(start) || n.ReceivedAt.Sub(n.BeganAt) != 7*time.Second {
			t.Errorf("began %s, whole %s", n.BeganAt, n.ReceivedAt)
		}
	})
}

func TestRefusedWebhooksAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, &shelf{}, Config{Token: is(token)})
		if got := h.Refused(); got != (Refusals{}) {
			t.Errorf("at first %+v", got)
		}
		from := func(remote string, r *http.Request) *http.Request { r.RemoteAddr = remote; return r }
		do(h, from("192.0.2.7:1234", post("/v1/webhook", body)))
		time.Sleep(50 * time.Minute)
		do(h, from("[2001:db8::1]:99", post("/v1/webhook", body, bearer("x")...)))
		last := time.Now().UTC()
		get := post("/", "")
		get.Method = http.MethodGet
		do(h, get)
		do(h, post("/v1/webhook", body, bearer(token)...))
		want := Refusals{2, &last, 401, "the Bearer token is wrong", "2001:db8::1"}
		if got := h.Refused(); !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		time.Sleep(11 * time.Minute)
		if got := h.Refused(); got.LastHour != 1 || *got.LastAt != last {
			t.Errorf("an hour after the first: %+v", got)
		}
		time.Sleep(5 * time.Hour)
		if got := h.Refused(); got.LastHour != 0 || got.LastCode != 401 {
			t.Errorf("hours later: %+v", got)
		}
	})
}

func TestOneLogLineForEachReasonAndAddressInAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		s := &shelf{}
		h := newHandler(t, s, Config{Token: is(token), Logger: slog.New(slog.NewTextHandler(&logged, nil))})
		flood := func(n int, remote, sent string, header ...string) {
			for i := range n {
				r := post("/v1/webhook", fmt.Sprintf(sent, i), header...)
				r.RemoteAddr = fmt.Sprintf("%s:%d", remote, 1000+i)
				do(h, r)
			}
		}
		lines := func() (n int) { defer logged.Reset(); return strings.Count(logged.String(), "\n") }
		flood(100, "192.0.2.1", body)
		flood(100, "192.0.2.2", body)
		flood(100, "192.0.2.1", body, bearer("x")...)
		flood(100, "192.0.2.1", "%d", bearer(token)...)
		if n := lines(); n != 4 {
			t.Errorf("%d lines, want one for each of 4 kinds", n)
		}
		time.Sleep(time.Minute)
		flood(1, "192.0.2.1", body)
		if text := logged.String(); lines() != 1 || !strings.Contains(text, "count=100") {
			t.Errorf("a minute later: %s", text)
		}
		time.Sleep(2 * time.Minute)
		flood(1, "192.0.2.9", body)
		if text := logged.String(); strings.Count(text, "held back") != 3 || strings.Count(text, "count=99") != 3 {
			t.Errorf("of those that went silent: %s", text)
		}
		logged.Reset()
		for i := range 5000 {
			flood(1, fmt.Sprintf("2001:db8::%x", i), body)
		}
		if n := lines(); n > maxLines+1 || len(h.lines.kinds) > maxLines+1 {
			t.Errorf("%d lines for 5000 addresses, %d remembered", n, len(h.lines.kinds))
		}
		for range 100 {
			Server(h, nil).ErrorLog.Printf("http: TLS handshake error from 192.0.2.1:%d: EOF", 7)
		}
		flood(100, "192.0.2.1", strings.ReplaceAll(body, "%", "%%"), bearer(token)...)
		if n := lines(); n > 2 {
			t.Errorf("%d lines for handshakes and cut off alerts", n)
		}
	})
}

// At most so many connections are open: a further one takes the place of the one that
// is worth least, and waits while all of them are being answered.
func TestConnectionsAreBounded(t *testing.T) {
	synctest.Test(t, testConnectionsAreBounded)
}

func testConnectionsAreBounded(t *testing.T) {
	l := &pipes{conns: make(chan net.Conn, 10)}
	limited := LimitListener(l, 3).(*limited)
	accept := func() (net.Conn, context.Context) {
		client, server := net.Pipe()
		t.Cleanup(func() { _ = client.Close() })
		l.conns <- server
		c, err := limited.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return c, ConnContext(t.Context(), tls.Server(c, nil))
	}
	closed := func(c net.Conn) bool {
		_ = c.SetReadDeadline(time.Now())
		_, err := c.Read(make([]byte, 1))
		return !errors.Is(err, os.ErrDeadlineExceeded)
	}
	answered, ofAnswered := accept()
	worth(ofAnswered, worthAll)
	shown, ofShown := accept()
	worth(ofShown, worthSome)
	first, _ := accept()
	second, ofSecond := accept()
	if !closed(first) || closed(second) || closed(shown) || closed(answered) {
		t.Error("not the one that sent nothing gave its place")
	}
	worth(ofSecond, worthAll)
	third, ofThird := accept()
	if !closed(shown) || closed(second) || closed(third) || closed(answered) {
		t.Error("not the one whose body is on the way gave its place")
	}
	worth(ofThird, worthAll)

	accepted := make(chan net.Conn)
	go func() {
		c, _ := accept()
		accepted <- c
	}()
	synctest.Wait()
	select {
	case <-accepted:
		t.Error("a fourth beside three that are being answered")
	default:
	}
	worth(ofSecond, worthNothing) // idle
	fourth := <-accepted
	if !closed(second) || len(limited.open) != 3 {
		t.Error("the idle one did not give its place")
	}
	for range 2 { // frees one place, not two
		_ = fourth.Close()
	}
	_ = third.Close()
	_ = answered.Close()
	if len(limited.open) != 0 {
		t.Errorf("%d places stay taken", len(limited.open))
	}
	_ = limited.Close()
	if _, err := limited.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// Of connections that are worth the same the oldest gives way.
func TestTheOldestConnectionGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &pipes{conns: make(chan net.Conn, 10)}
		limited := LimitListener(l, 3)
		var ends []net.Conn
		for range 5 {
			client, server := net.Pipe()
			ends = append(ends, client)
			l.conns <- server
			if _, err := limited.Accept(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		for i, end := range ends {
			_ = end.SetReadDeadline(time.Now())
			if _, err := end.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) != (i > 1) {
				t.Errorf("connection %d: %v", i, err)
			}
			_ = end.Close()
		}
	})
}

// However many heads never end, a webhook comes in at once.
func TestHalfSentHeadsGiveUpTheirPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const places = 8
		srv, l := Server(newHandler(t, &shelf{}, Config{}), nil), &pipes{conns: make(chan net.Conn, 10*places)}
		var wg sync.WaitGroup
		limited := LimitListener(l, places).(*limited)
		wg.Go(func() { _ = srv.Serve(limited) })
		dial := func(send string) net.Conn {
			client, server := net.Pipe()
			l.conns <- server
			wg.Go(func() { _, _ = io.WriteString(client, send) })
			return client
		}
		for range 4 * places {
			defer dial(head + "X: ").Close()
		}
		synctest.Wait()
		limited.mu.Lock()
		if len(limited.open) != places {
			t.Errorf("%d of %d places are taken", len(limited.open), places)
		}
		limited.mu.Unlock()
		began := time.Now()
		last := dial(fmt.Sprintf("%sConnection: close\r\nContent-Length: %d\r\n\r\n%s", head, len(body), body))
		answer, err := io.ReadAll(last)
		if !strings.HasPrefix(string(answer), "HTTP/1.1 202 ") || time.Since(began) >= srv.ReadHeaderTimeout {
			t.Errorf("after %s: %q, %v", time.Since(began), answer, err)
		}
		_ = last.Close()
		_ = srv.Close()
		wg.Wait()
		time.Sleep(time.Second)
	})
}

func TestConnectionsLeaveDescriptorsFree(t *testing.T) {
	if n := Connections(1<<40, 2); n >= 1<<40 || n < 1 {
		t.Errorf("%d connections", n)
	}
	if Connections(3, 2) != 3 || Connections(1, 1<<60) != 1 {
		t.Error("not what was wanted, or none at all")
	}
}

// Bodies whose senders do not say how long they are keep out others of their kind alone.
func TestFewBodiesOfUnknownLengthAreReadAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, &shelf{}, Config{})
		var ends []func() *httptest.ResponseRecorder
		for range maxUnsized {
			ends = append(ends, held(h, body, -1))
		}
		synctest.Wait()
		for length, want := range map[int64]int{-1: 503, int64(len(body)): 202} {
			r := post("/v1/webhook", body)
			r.ContentLength = length
			if w := do(h, r); w.Code != want || want == 503 && w.Header().Get("Retry-After") == "" {
				t.Errorf("a body of length %d beside them: %d %s", length, w.Code, w.Body)
			}
		}
		for _, end := range ends {
			if w := end(); w.Code != 202 {
				t.Errorf("held: %d %s", w.Code, w.Body)
			}
		}
		r := post("/v1/webhook", body)
		r.ContentLength = -1
		if w := do(h, r); w.Code != 202 {
			t.Errorf("after them: %d %s", w.Code, w.Body)
		}
	})
}
