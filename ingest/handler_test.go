package ingest

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

const (
	token  = "tok-3f9c1d"
	basic  = "pmm:pass:w0rd-77aa"
	secret = "hmac-5e5e5e"
	body   = `{"status":"firing","alerts":[{"labels":{"a":"b"}},{"labels":{"a":"c"}}],"truncatedAlerts":3}`
)

// shelf is a Publisher and an Observer that remembers.
type shelf struct {
	mu        sync.Mutex
	stored    []Notification
	codes     []int
	truncated map[string]int64
	seen      []string
	publish   func(context.Context) error // nil: store it
}

func (s *shelf) Publish(ctx context.Context, n Notification) (string, error) {
	if s.publish != nil {
		if err := s.publish(ctx); err != nil {
			return "", err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n.Body = bytes.Clone(n.Body)
	s.stored = append(s.stored, n)
	return "n-" + strconv.Itoa(len(s.stored)), nil
}

func (s *shelf) Webhook(code int, _ time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.codes = append(s.codes, code)
}

func (s *shelf) Stored(source string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, source)
}

func (s *shelf) Truncated(source string, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.truncated == nil {
		s.truncated = map[string]int64{}
	}
	s.truncated[source] += n
}

func newHandler(tb testing.TB, s *shelf, c Config) *Handler {
	tb.Helper()
	c.Publisher, c.Observer = s, s
	h, err := New(c)
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

func is(s string) func() string { return func() string { return s } }

func post(path, body string, header ...string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

func do(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// reason returns the error an answer gives, and fails if it gives none.
func reason(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	var answer struct{ Error string }
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.Error == "" {
		t.Errorf("answer %d has no JSON error: %q", w.Code, w.Body)
	}
	if ct := w.Header().Get("Content-Type"); ct != "application/json" {
		t.Errorf("Content-Type %q", ct)
	}
	return answer.Error
}

func TestNewRefusesAnImpossibleConfig(t *testing.T) {
	for _, c := range []Config{{}, {Publisher: &shelf{}, MaxBody: -1}} {
		if _, err := New(c); err == nil {
			t.Errorf("New(%+v) is content", c)
		}
	}
}

func TestAcceptedWebhooksAreStoredAsTheyCame(t *testing.T) {
	s := &shelf{}
	h := newHandler(t, s, Config{MaxBody: int64(len(body))})
	put := post("/v1/webhook/pmm-eu-1", body)
	put.Method = http.MethodPut
	chunked := post("/v1/webhook/0123456789abcdef", body)
	chunked.ContentLength = -1
	for i, r := range []*http.Request{post("/v1/webhook", body), put, chunked, post("/v1/webhook/", body), post("/v1/webhook/dr/", body)} {
		w := do(h, r)
		if want := fmt.Sprintf(`{"id":"n-%d","alerts":2}`, i+1); w.Code != 202 || strings.TrimSpace(w.Body.String()) != want {
			t.Errorf("answer %d %s, want 202 %s", w.Code, w.Body, want)
		}
	}
	for i, source := range []string{"pmm", "pmm-eu-1", "0123456789abcdef", "pmm", "dr"} {
		n := s.stored[i]
		if n.Source != source || string(n.Body) != body || n.Alerts != 2 || time.Since(n.ReceivedAt) > time.Minute {
			t.Errorf("stored %+v", n)
		}
		if s.seen[i] != source {
			t.Errorf("observed source %s, want %s", s.seen[i], source)
		}
		if s.truncated[source]%3 != 0 || s.truncated[source] == 0 {
			t.Errorf("%d alerts counted as cut off, want 3 each", s.truncated[source])
		}
	}
	if fmt.Sprint(s.codes) != "[202 202 202 202 202]" {
		t.Errorf("observed %v", s.codes)
	}
}

// Where the wall clock is set back, what begins after another webhook was received is not
// taken for one that was under way then.
func TestNoWebhookBeganBeforeAnotherThatWasReceivedBeforeIt(t *testing.T) {
	s := &shelf{}
	h := newHandler(t, s, Config{})
	ahead := time.Now().Add(30 * time.Second).UTC()
	h.stamps.whole(ahead)
	do(h, post("/v1/webhook", body))
	if n := s.stored[0]; !n.BeganAt.Equal(ahead) || !n.ReceivedAt.Before(ahead) {
		t.Errorf("began %s and was received %s, after another that was received %s", n.BeganAt, n.ReceivedAt, ahead)
	}
	h.stamps.newest = time.Now().UTC()
	do(h, post("/v1/webhook", body))
	if n := s.stored[1]; n.BeganAt.After(n.ReceivedAt) || !h.stamps.newest.Equal(n.ReceivedAt) {
		t.Errorf("began %s and was received %s, the newest %s", n.BeganAt, n.ReceivedAt, h.stamps.newest)
	}
}

type full struct{ after time.Duration }

func (full) Error() string               { return "nats://user:" + token + "@host: full" }
func (f full) RetryAfter() time.Duration { return f.after }
func (s *shelf) failing(err error) *shelf {
	s.publish = func(context.Context) error { return err }
	return s
}
func header(name, value string) [2]string  { return [2]string{name, value} }
func method(m string) func(*http.Request)  { return func(r *http.Request) { r.Method = m } }
func length(n int64) func(r *http.Request) { return func(r *http.Request) { r.ContentLength = n } }

func TestEveryRefusal(t *testing.T) {
	for _, tt := range []struct {
		name   string
		shelf  *shelf
		path   string
		body   string
		edit   func(*http.Request)
		code   int
		reason string // part of it
		header [2]string
	}{
		{name: "another path", path: "/", code: 404, reason: "/v1/webhook"},
		{name: "another path with the same beginning", path: "/v1/webhooks", code: 404},
		{name: "two slashes at the end", path: "/v1/webhook//", code: 404},
		{name: "source in capitals", path: "/v1/webhook/PMM", code: 404},
		{name: "source too long", path: "/v1/webhook/0123456789abcdefg", code: 404},
		{name: "path below the source", path: "/v1/webhook/pmm/x", code: 404},
		{name: "GET", edit: method("GET"), code: 405, reason: "POST or PUT", header: header("Allow", "POST, PUT")},
		{name: "DELETE", edit: method("DELETE"), code: 405, header: header("Allow", "POST, PUT")},
		{name: "compressed", edit: func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }, code: 415},
		{name: "announced too large", edit: length(201), code: 413, reason: "200 bytes", header: header("Connection", "close")},
		{name: "too large", body: strings.Repeat(" ", 201), edit: length(-1), code: 413, reason: "200 bytes"},
		{name: "ends early", edit: func(r *http.Request) { r.Body = fails{errors.New("reset by peer")} }, code: 400, reason: "to its end"},
		{name: "too slow", edit: func(r *http.Request) { r.Body = fails{fmt.Errorf("read: %w", os.ErrDeadlineExceeded)} }, code: 408},
		{name: "not JSON", body: "MySQL is down", code: 400, reason: "not JSON: unexpected"},
		{name: "no alerts array", body: `{"status":"firing"}`, code: 400, reason: `no "alerts" array`},
		{name: "no alerts", body: `{"alerts":[]}`, code: 400, reason: "empty"},
		{name: "no usable alert", body: `{"alerts":[{"status":"firing"}]}`, code: 400, reason: `the first: no "labels" object`},
		{name: "store fails", shelf: (&shelf{}).failing(errors.New("disk")), code: 503, header: header("Retry-After", "10")},
		{name: "store full", shelf: (&shelf{}).failing(fmt.Errorf("publish: %w", full{90*time.Second + 1})), code: 503, header: header("Retry-After", "91")},
		{name: "store full for no time", shelf: (&shelf{}).failing(full{}), code: 503, header: header("Retry-After", "10")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := tt.shelf
			if s == nil {
				s = &shelf{}
			}
			if tt.path == "" {
				tt.path = "/v1/webhook"
			}
			if tt.body == "" {
				tt.body = body
			}
			r := post(tt.path, tt.body)
			if tt.edit != nil {
				tt.edit(r)
			}
			w := do(newHandler(t, s, Config{MaxBody: 200}), r)
			if w.Code != tt.code || !strings.Contains(reason(t, w), tt.reason) {
				t.Errorf("answer %d %s, want %d with %q", w.Code, w.Body, tt.code, tt.reason)
			}
			if strings.Contains(w.Body.String(), token) {
				t.Errorf("the answer repeats the store's words: %s", w.Body)
			}
			if name := tt.header[0]; name != "" && w.Header().Get(name) != tt.header[1] {
				t.Errorf("%s: %q, want %q", name, w.Header().Get(name), tt.header[1])
			}
			if len(s.stored) != 0 || len(s.truncated) != 0 {
				t.Error("something was stored or counted")
			}
			if fmt.Sprint(s.codes) != fmt.Sprintf("[%d]", tt.code) {
				t.Errorf("observed %v", s.codes)
			}
		})
	}
}

// fails is a body that cannot be read.
type fails struct{ err error }

func (f fails) Read(p []byte) (int, error) { return iotest.ErrReader(f.err).Read(p) }
func (fails) Close() error                 { return nil }

func TestStopRefusesWhatComesAfterAndFinishesWhatCameBefore(t *testing.T) {
	under, resume := make(chan bool), make(chan bool)
	s := &shelf{publish: func(context.Context) error { under <- true; <-resume; return nil }}
	h := newHandler(t, s, Config{})
	first := make(chan *httptest.ResponseRecorder)
	go func() { first <- do(h, post("/v1/webhook", body)) }()
	<-under
	h.Stop()
	h.Stop()
	w := do(h, post("/v1/webhook", body))
	if w.Code != 503 || reason(t, w) != "stopping" || w.Header().Get("Retry-After") == "" {
		t.Errorf("after Stop: %d %s %v", w.Code, w.Body, w.Header())
	}
	close(resume)
	if w := <-first; w.Code != 202 {
		t.Errorf("under way at Stop: %d %s", w.Code, w.Body)
	}
}

func TestPublishHasEightSecondsWhateverTheSenderDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cause error
		s := &shelf{publish: func(ctx context.Context) error { <-ctx.Done(); cause = context.Cause(ctx); return cause }}
		h := newHandler(t, s, Config{})
		ctx, hangUp := context.WithCancel(t.Context())
		hangUp()
		start := time.Now()
		w := do(h, post("/v1/webhook", body).WithContext(ctx))
		if took := time.Since(start); took != 8*time.Second || w.Code != 503 || errors.Is(cause, context.Canceled) {
			t.Errorf("answer %d after %s, cause %v", w.Code, took, cause)
		}
	})
}

func sign(secret, text string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil))
}

func bearer(s string) []string { return []string{"Authorization", "Bearer " + s} }
func user(s string) []string {
	return []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte(s))}
}

func signed(signature string) []string { return []string{"X-Grafana-Alerting-Signature", signature} }

func stamped(name string, at time.Time, signature string) []string {
	return append(signed(signature), name, strconv.FormatInt(at.Unix(), 10))
}

func join(parts ...[]string) (all []string) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func TestWhoMaySend(t *testing.T) {
	now := time.Now()
	at := func(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) + ":" + body }
	good, usual, own := sign(secret, body), "X-Grafana-Alerting-Timestamp", "X-Time"
	onlyToken, onlyBasic := Config{Token: is(token)}, Config{Basic: is(basic)}
	either, onlyHMAC := Config{Token: is(token), Basic: is(basic)}, Config{HMACSecret: is(secret)}
	timed := Config{HMACSecret: is(secret), HMACTimestampHeader: own}
	all := Config{Token: is(token), Basic: is(basic), HMACSecret: is(secret)}
	for _, tt := range []struct {
		name   string
		config Config
		header []string
		reason string // "": let in
	}{
		{"no methods, no credentials", Config{}, nil, ""},
		{"token", onlyToken, bearer(token), ""},
		{"token, scheme in capitals", onlyToken, []string{"Authorization", "BEARER  " + token}, ""},
		{"token, none sent", onlyToken, nil, "no Authorization header, expected scheme Bearer"},
		{"token, wrong", onlyToken, bearer("x"), "Bearer token is wrong"},
		{"token, only its beginning", onlyToken, bearer(token[:4]), "Bearer token is wrong"},
		{"token, empty", onlyToken, bearer(""), "Bearer token is wrong"},
		{"token, but user and password sent", onlyToken, user(basic), "has scheme Basic, expected Bearer"},
		{"token, sent without a scheme", onlyToken, []string{"Authorization", token}, "has no scheme that the service knows, expected Bearer"},
		{"token, sent as password", onlyToken, user("x:" + token), "has scheme Basic, expected Bearer"},
		{"token, lost on our side", Config{Token: is("")}, bearer(""), "nobody is let in"},
		{"user and password", onlyBasic, user(basic), ""},
		{"user and password, wrong", onlyBasic, user("pmm:x"), "user or password is wrong"},
		{"user and password, not base64", onlyBasic, []string{"Authorization", "Basic " + basic}, "not base64"},
		{"user and password, but token sent", onlyBasic, bearer(token), "has scheme Bearer, expected Basic"},
		{"user and password, lost on our side", Config{Basic: is("")}, user(""), "nobody is let in"},
		{"either, token sent", either, bearer(token), ""},
		{"either, user and password sent", either, user(basic), ""},
		{"either, another scheme sent", either, []string{"Authorization", "Digest x"}, "has scheme Digest, expected Bearer or Basic"},
		{"signature", onlyHMAC, signed(good), ""},
		{"signature in capitals", onlyHMAC, signed(strings.ToUpper(good)), ""},
		{"signature, none sent", onlyHMAC, bearer(token), "no X-Grafana-Alerting-Signature header"},
		{"signature, not hexadecimal", onlyHMAC, signed("sha256=" + good), "does not hold 64 hexadecimal digits"},
		{"signature, cut short", onlyHMAC, signed(good[:32]), "is not the right signature"},
		{"signature with another secret", onlyHMAC, signed(sign("x", body)), "is not the right signature"},
		{"signature of another body", onlyHMAC, signed(sign(secret, body+" ")), "is not the right signature"},
		{"signature, secret lost on our side", Config{HMACSecret: is("")}, signed(sign("", body)), "nobody is let in"},
		{"usual time", onlyHMAC, stamped(usual, now, sign(secret, at(now))), ""},
		{"usual time, taken off", onlyHMAC, signed(sign(secret, at(now))), "is not the right signature over the body"},
		{"usual time, put on", onlyHMAC, stamped(usual, now, good), "is not the right signature over timestamp and body"},
		{"usual time, too old", onlyHMAC, stamped(usual, now.Add(-6*time.Minute), sign(secret, at(now.Add(-6*time.Minute)))), "off the clock of the service, at most 5m0s is allowed"},
		{"own time", timed, stamped(own, now, sign(secret, at(now))), ""},
		{"own time, within the skew", timed, stamped(own, now.Add(-4*time.Minute), sign(secret, at(now.Add(-4*time.Minute)))), ""},
		{"own time, from the future", timed, stamped(own, now.Add(6*time.Minute), sign(secret, at(now.Add(6*time.Minute)))), "off the clock of the service"},
		{"own time, taken off", timed, signed(good), "no X-Time header"},
		{"own time, put on a captured signature", timed, stamped(own, now, good), "is not the right signature over timestamp and body"},
		{"own time, under the usual name", timed, stamped(usual, now, sign(secret, at(now))), "no X-Time header"},
		{"own time, refreshed", timed, stamped(own, now, sign(secret, at(now.Add(-time.Hour)))), "is not the right signature"},
		{"own time, no number", timed, join(signed(sign(secret, "+1:"+body)), []string{own, "+1"}), "does not hold Unix seconds"},
		{"own time, out of range", timed, join(signed(good), []string{own, strings.Repeat("9", 30)}), "does not hold Unix seconds"},
		{"all, token and signature", all, join(bearer(token), signed(good)), ""},
		{"all, user and signature", all, join(user(basic), signed(good)), ""},
		{"all, signature missing", all, bearer(token), "no X-Grafana-Alerting-Signature header"},
		{"all, signature alone", all, signed(good), "no Authorization header, expected scheme Bearer or Basic"},
		{"all, wrong token and signature", all, join(bearer("x"), signed(good)), "is wrong"},
		{"all, token and wrong signature", all, join(bearer(token), signed(sign("x", body))), "is not the right signature"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var logged bytes.Buffer
			tt.config.Logger = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
			s := &shelf{}
			// PMM shows URLs in clear, and people put tokens in them anyway.
			h := newHandler(t, s, tt.config)
			if w := do(h, post("/v1/webhook/x/y?token="+token, body)); w.Code != 404 {
				t.Fatalf("path: %d", w.Code)
			}
			w := do(h, post("/v1/webhook?token="+token, body, tt.header...))
			switch {
			case tt.reason == "" && w.Code != 202:
				t.Fatalf("refused: %d %s", w.Code, w.Body)
			case tt.reason != "" && (w.Code != 401 || !strings.Contains(reason(t, w), tt.reason)):
				t.Fatalf("answer %d %s, want 401 with %q", w.Code, w.Body, tt.reason)
			case tt.reason != "" && (len(s.stored) > 0 || w.Header().Get("WWW-Authenticate") == ""):
				t.Errorf("refused, stored %d, WWW-Authenticate %q", len(s.stored), w.Header().Get("WWW-Authenticate"))
			}
			public := fmt.Sprint(w.Body, w.Header(), logged.String())
			for _, private := range append([]string{token, "pass:w0rd", secret, good, base64.StdEncoding.EncodeToString([]byte(basic))}, credentials(tt.header)...) {
				if strings.Contains(public, private) {
					t.Errorf("%q shows in %s", private, public)
				}
			}
		})
	}
}

// credentials returns what of header must not show up anywhere.
func credentials(header []string) (private []string) {
	for i := 1; i < len(header); i += 2 {
		_, credential, ok := strings.Cut(header[i], " ")
		if !ok {
			credential = header[i] // a signature, a time, or a token without a scheme
		}
		if len(credential) > 4 {
			private = append(private, credential)
		}
	}
	return private
}

func TestSecretsAreReadForEachRequest(t *testing.T) {
	current := "old"
	h := newHandler(t, &shelf{}, Config{Token: func() string { return current }})
	current = "new"
	if w := do(h, post("/v1/webhook", body, bearer("new")...)); w.Code != 202 {
		t.Errorf("new token: %d", w.Code)
	}
	if w := do(h, post("/v1/webhook", body, bearer("old")...)); w.Code != 401 {
		t.Errorf("old token: %d", w.Code)
	}
}

func TestGrafanaSignatureVectors(t *testing.T) {
	// Made with openssl: printf … | openssl dgst -sha256 -hmac s3cr3t
	g := newGuard(Config{HMACSecret: is("s3cr3t"), HMACTimestampHeader: "T"})
	plain := newGuard(Config{HMACSecret: is("s3cr3t")})
	if _, r := plain.signature(http.Header{"X-Grafana-Alerting-Signature": {"d42927434049e0b8c73ce887062238cc1c6bb6644bfe66e66d8dd0f30b85679e"}}, []byte(`{"a":1}`)); r != "" {
		t.Error("body:", r)
	}
	if _, r := g.signature(http.Header{"X-Grafana-Alerting-Signature": {"c27bf53028b5a09eacad0cd5b2a1248a12e2d83c69373645dbfc5578fb7d3ae1"}, "T": {"1700000000"}}, []byte(`{"a":1}`)); r != "" {
		t.Error("time and body:", r)
	}
}

type noop struct{}

func (noop) Publish(context.Context, Notification) (string, error) { return "n-1", nil }

// reply is a ResponseWriter that costs nothing.
type reply struct {
	code   int
	header http.Header
}

func (r *reply) Header() http.Header         { return r.header }
func (r *reply) Write(p []byte) (int, error) { return len(p), nil }
func (r *reply) WriteHeader(code int)        { r.code = code }

func BenchmarkWebhook(b *testing.B) {
	sample, err := os.ReadFile("../testdata/webhook/grafana-firing-group-5.json")
	if err != nil {
		b.Fatal(err)
	}
	for name, c := range map[string]Config{
		"open":  {},
		"token": {Token: is(token)},
		"hmac":  {HMACSecret: is(secret)},
	} {
		b.Run(name, func(b *testing.B) {
			c.Publisher = noop{}
			h, err := New(c)
			if err != nil {
				b.Fatal(err)
			}
			r := post("/v1/webhook", "", join(bearer(token), signed(sign(secret, string(sample))))...)
			r.ContentLength = int64(len(sample))
			w := &reply{header: http.Header{}}
			b.SetBytes(r.ContentLength)
			b.ReportAllocs()
			for b.Loop() {
				r.Body = readCloser{bytes.NewReader(sample)}
				if h.ServeHTTP(w, r); w.code != 202 {
					b.Fatal(w.code)
				}
			}
		})
	}
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }
