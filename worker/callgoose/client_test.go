package callgoose

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pmm-callgoose/worker/callgoose/callgoosetest"
)

// hostile is a token of which almost every character is written differently in
// a URL, in JSON or in HTML.
const hostile = `s3cr3t+t/k=n&%2F"<é>'!`

const eventBody = `{"status":"firing","incident_key":"pmm-1","event_id":"e1","title":"MySQL Down","description":"it is down","severity":"critical"}`

// newClient makes a client that gives up on hangs soon.
func newClient(t testing.TB, cfg Config) *Client {
	t.Helper()
	if cfg.From == "" {
		cfg.From = "Percona PMM&1"
	}
	if cfg.Token == nil {
		cfg.Token = func() string { return hostile }
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Renew)
	return c
}

// send posts the event and takes the error apart.
func send(t testing.TB, c *Client) (Reply, *Error) {
	t.Helper()
	return sendCtx(t.Context(), t, c)
}

func sendCtx(ctx context.Context, t testing.TB, c *Client) (Reply, *Error) {
	t.Helper()
	r, err := c.Send(ctx, []byte(eventBody))
	if err == nil {
		return r, nil
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("the error is a %T: %v", err, err)
	}
	return r, e
}

func serve(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL + "/v1/process"
}

// raw serves connections with the bare hands.
func raw(t testing.TB, handle func(n int, conn net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn // guarded by mu
	wg.Go(func() {
		for n := 1; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			wg.Go(func() { handle(n, conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return "http://" + l.Addr().String() + "/v1/process"
}

func TestRequestIsWhatCallgooseDocuments(t *testing.T) {
	for _, query := range []bool{false, true} {
		t.Run(fmt.Sprintf("query=%v", query), func(t *testing.T) {
			var got *http.Request
			var body []byte
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				got = r
				body, _ = io.ReadAll(r.Body)
				w.WriteHeader(http.StatusCreated)
			})
			if _, err := send(t, newClient(t, Config{URL: url + "?tenant=a%2Fb&from=old", Query: query})); err != nil {
				t.Fatal(err)
			}
			q := got.URL.Query()
			if got.Method != http.MethodPost || got.URL.Path != "/v1/process" || q.Get("tenant") != "a/b" || string(body) != eventBody {
				t.Errorf("%s %s %s", got.Method, got.URL, body)
			}
			if from := q["from"]; len(from) != 1 || from[0] != "Percona PMM&1" {
				t.Errorf("from = %q", from)
			}
			auth, token := got.Header["Authorization"], q["token"]
			if query {
				if len(auth) != 0 || len(token) != 1 || token[0] != hostile {
					t.Errorf("Authorization %q, token %q", auth, token)
				}
			} else if len(token) != 0 || len(auth) != 1 || auth[0] != "Bearer "+hostile {
				t.Errorf("Authorization %q, token %q", auth, token)
			}
			for name, want := range map[string]string{
				"Content-Type": "application/json", "User-Agent": "pmm-callgoose", "Content-Length": strconv.Itoa(len(eventBody)),
				"Accept-Encoding": "", "Content-Encoding": "", "Idempotency-Key": "", "X-Idempotency-Key": "", "Referer": "", "Cookie": "",
			} {
				if h := got.Header.Get(name); h != want {
					t.Errorf("%s: %q, want %q", name, h, want)
				}
			}
		})
	}
}

func TestUserInURLIsNotASecondFormOfCredentials(t *testing.T) {
	var auth []string
	url := serve(t, func(_ http.ResponseWriter, r *http.Request) { auth = r.Header["Authorization"] })
	url = strings.Replace(url, "http://", "http://user:pass@", 1)
	if _, err := send(t, newClient(t, Config{URL: url, Query: true})); err != nil {
		t.Fatal(err)
	}
	if len(auth) != 0 {
		t.Errorf("Authorization %q besides the token in the query", auth)
	}
}

func TestFakeCallgooseAcceptsBothForms(t *testing.T) {
	fake := callgoosetest.New(callgoosetest.Config{Tokens: []string{hostile}, Strict: true, KeepBodies: true})
	server, err := fake.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	for _, query := range []bool{false, true} {
		r, err := send(t, newClient(t, Config{URL: server.URL(), Query: query}))
		if err != nil {
			t.Fatal(err)
		}
		if r.Effect == "unknown" || r.ID == "" {
			t.Errorf("query=%v: %+v", query, r)
		}
	}
	got := fake.Received()
	if len(got) != 2 || got[0].Auth != "bearer" || got[1].Auth != "query" || !bytes.Equal(got[0].Body, got[1].Body) {
		t.Errorf("received %+v", got)
	}
}

func TestTokenIsAskedBeforeEveryRequest(t *testing.T) {
	var got []string
	url := serve(t, func(_ http.ResponseWriter, r *http.Request) { got = append(got, r.Header.Get("Authorization")) })
	n := 0
	c := newClient(t, Config{URL: url, Token: func() string { n++; return fmt.Sprintf("token-%d", n) }})
	for range 3 {
		if _, err := send(t, c); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"Bearer token-1", "Bearer token-2", "Bearer token-3"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("sent %q", got)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	for _, status := range []int{300, 301, 302, 303, 304, 307, 308} {
		for _, location := range []string{"/elsewhere", "https://127.0.0.1:1/x", "", "http://[::1", "%zz?token=" + hostile} {
			t.Run(fmt.Sprintf("%d to %q", status, location), func(t *testing.T) {
				var posts, others atomic.Int32
				url := serve(t, func(w http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodPost && r.URL.Path == "/v1/process" {
						posts.Add(1)
					} else {
						others.Add(1)
					}
					if location != "" {
						w.Header().Set("Location", location)
					}
					w.WriteHeader(status)
				})
				_, err := send(t, newClient(t, Config{URL: url}))
				if err == nil || err.Status != status || !err.Sent || err.Step != "" || err.Unreachable() {
					t.Errorf("got %+v", err)
				}
				if posts.Load() != 1 || others.Load() != 0 {
					t.Errorf("%d posts, %d other requests", posts.Load(), others.Load())
				}
				noSecret(t, err)
			})
		}
	}
}

func TestAnswers(t *testing.T) {
	const none = `"triggered":{"created":false,"duplicate":false},"resolved":{"resolved":false,"duplicate":false}`
	for _, c := range []struct {
		name   string
		status int
		body   string
		want   Reply
	}{
		{"created", 201, `{"id":"c1","triggered":{"created":true}}`, Reply{ID: "c1", Effect: "created"}},
		{"created and resolved", 201, `{"id":"c1","triggered":{"created":true},"resolved":{"resolved":true}}`, Reply{ID: "c1", Effect: "created"}},
		{"resolved", 200, `{"id":"c1","resolved":{"resolved":true}}`, Reply{ID: "c1", Effect: "resolved"}},
		{"resolved and a duplicate trigger", 200, `{"triggered":{"duplicate":true},"resolved":{"resolved":true}}`, Reply{Effect: "resolved"}},
		{"all flags false", 200, `{"id":"c1",` + none + `}`, Reply{ID: "c1", Effect: "none"}},
		{"all flags false with 201", 201, `{` + none + `}`, Reply{Effect: "none"}},
		{"duplicate trigger", 200, `{"triggered":{"duplicate":true}}`, Reply{Effect: "duplicate"}},
		{"duplicate resolve", 200, `{"resolved":{"duplicate":true}}`, Reply{Effect: "duplicate"}},
		{"duplicate at the top", 200, `{"duplicate":true}`, Reply{Effect: "duplicate"}},
		{"duplicate wins over 202", 202, `{"triggered":{"duplicate":true}}`, Reply{Effect: "duplicate"}},
		{"no filter matched", 202, `{"id":"c1",` + none + `}`, Reply{ID: "c1", Effect: "discarded"}},
		{"202 without a body", 202, "", Reply{Effect: "discarded"}},
		{"200 without a body", 200, "", Reply{Effect: "unknown"}},
		{"201 without a body", 201, "", Reply{Effect: "unknown"}},
		{"204", 204, "", Reply{Effect: "unknown"}},
		{"another 2xx", 299, `{"id":"c1"}`, Reply{ID: "c1", Effect: "none"}},
		{"an object that says nothing", 200, `{}`, Reply{Effect: "unknown"}},
		{"not JSON", 200, "OK", Reply{Effect: "unknown"}},
		{"an error in JSON", 200, `{"status":"error"}`, Reply{Effect: "unknown"}},
		{"an error in JSON with 202", 202, `{"status":"error"}`, Reply{Effect: "discarded"}},
		{"a string in JSON", 200, `"created"`, Reply{Effect: "unknown"}},
		{"null", 201, "null", Reply{Effect: "unknown"}},
		{"an array that speaks of duplicates", 200, `[{"duplicate":true}]`, Reply{Effect: "unknown"}},
		{"JSON behind a byte order mark", 201, "\ufeff{\"triggered\":{\"created\":true}}", Reply{Effect: "created"}},
		{"a duplicate beside a flag of another type", 202, `{"resolved":"no","triggered":{"duplicate":true}}`, Reply{Effect: "duplicate"}},
		{"a duplicate of another type", 202, `{"duplicate":"true"}`, Reply{Effect: "discarded"}},
		{"a page in a string", 200, `"<html>"`, Reply{Effect: "unknown"}},
		{"documented with comments", 200, "{\"id\":1 // of the call\n}", Reply{Effect: "unknown"}},
		{"flags of another type", 201, `{"triggered":{"created":"yes"}}`, Reply{Effect: "unknown"}},
		{"an array", 201, `[]`, Reply{Effect: "unknown"}},
		{"null members", 201, `{"id":null,"triggered":null,"resolved":null}`, Reply{ID: "null", Effect: "none"}},
		{"id is a number", 200, `{"id":1042}`, Reply{ID: "1042", Effect: "none"}},
		{"id is endless", 200, `{"id":"` + strings.Repeat("x", 5000) + `"}`, Reply{ID: strings.Repeat("x", 199) + "…", Effect: "none"}},
		{"id is the token", 200, `{"id":` + string(appendQuote(nil, hostile)) + `}`, Reply{ID: "[redacted]", Effect: "none"}},
		{"1 MiB of JSON", 201, `{"triggered":{"created":true},"x":"` + strings.Repeat("x", 1<<20) + `"}`, Reply{Effect: "unknown"}},
		{"64 KiB of white space after the JSON", 201, `{"triggered":{"created":true}}` + strings.Repeat(" ", 1<<16), Reply{Effect: "created"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			fake := callgoosetest.New(callgoosetest.Config{Tokens: []string{hostile}})
			fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Hook, Hook: func(*http.Request, []byte) *callgoosetest.Response {
				return &callgoosetest.Response{Status: c.status, Body: []byte(c.body)}
			}})
			server, err := fake.Start("127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = server.Close() }()
			r, failed := send(t, newClient(t, Config{URL: server.URL()}))
			if failed != nil {
				t.Fatal(failed)
			}
			c.want.Status = c.status
			if r != c.want {
				t.Errorf("got  %+v\nwant %+v", r, c.want)
			}
		})
	}
}

// Whoever sends a page is not Callgoose: where Callgoose's answer would settle the
// event, it must not be believed.
func TestAPageIsNotCallgoosesAnswer(t *testing.T) {
	const page, object = "<html>\r\n<title>Welcome</title>", `{"triggered":{"created":true}}`
	for _, c := range []struct {
		name, kind, body string
		page             bool
	}{
		{"HTML that says so", "text/html; charset=utf-8", page, true},
		{"HTML in other letters", " Text/HTML", page, true},
		{"HTML that calls itself JSON", "application/json", page, true},
		{"HTML without a type", "", page, true},
		{"XML behind white space and a byte order mark", "text/xml", " \r\n\t\ufeff<?xml?>", true},
		{"the type of a page with nothing in it", "text/html", "", true},
		{"an object under the type of a page", "text/html", object, true},
		{"an object", "application/json", object, false},
		{"an object without a type", "", object, false},
		{"text", "text/plain", "x < y", false},
		{"nothing", "", "", false},
		{"another text type", "text/html5", object, false},
	} {
		for _, status := range []int{200, 201, 202, 203, 299, 400, 413, 415, 422, 300, 401, 403, 404, 405, 407, 408, 418, 429, 500, 503} {
			t.Run(fmt.Sprintf("%s, %d", c.name, status), func(t *testing.T) {
				fake := callgoosetest.New(callgoosetest.Config{})
				fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Hook, Hook: func(*http.Request, []byte) *callgoosetest.Response {
					return &callgoosetest.Response{Status: status, Header: http.Header{"Content-Type": {c.kind}, "Retry-After": {"7"}}, Body: []byte(c.body)}
				}})
				r, err := send(t, newClient(t, Config{URL: "https://callgoose.test/v1/process", Transport: fake.RoundTripper()}))
				settles := status < 300 || status == 400 || status == 413 || status == 415 || status == 422
				switch {
				case c.page && settles:
					want := fmt.Sprintf("a proxy or login page answered %d, not callgoose", status)
					if err == nil || !err.Foreign || err.Status != status || !err.Sent || err.Unreachable() || err.RetryAfter != 7*time.Second || !strings.HasPrefix(err.Error(), want) {
						t.Errorf("got %+v, %+v", r, err)
					}
				case status < 300:
					if err != nil {
						t.Errorf("got %+v", err)
					}
				case err == nil || err.Foreign || err.Status != status || !strings.HasPrefix(err.Error(), fmt.Sprintf("callgoose answered %d", status)):
					t.Errorf("got %+v", err)
				}
			})
		}
	}
}

// A page that breaks off is a page anyway.
func TestAPageThatBreaksOffIsAPage(t *testing.T) {
	for _, status := range []string{"200 OK", "202 Accepted"} {
		url := raw(t, func(_ int, conn net.Conn) {
			readRequest(conn)
			_, _ = io.WriteString(conn, "HTTP/1.1 "+status+"\r\nContent-Length: 100\r\n\r\n<html>")
			_ = conn.Close()
		})
		if r, err := send(t, newClient(t, Config{URL: url})); err == nil || !err.Foreign {
			t.Errorf("%s: got %+v, %+v", status, r, err)
		}
	}
}

func TestStatusesThatAreErrors(t *testing.T) {
	for _, status := range []int{400, 401, 403, 404, 405, 407, 408, 413, 415, 418, 422, 425, 429, 500, 502, 503, 504, 599} {
		url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "first line\r\n\tsecond\x1b[31m line\u009b\u202e")
		})
		_, err := send(t, newClient(t, Config{URL: url}))
		if err == nil || err.Status != status || !err.Sent || err.Step != "" || err.Unreachable() || err.RetryAfter != 7*time.Second {
			t.Errorf("%d: %+v", status, err)
			continue
		}
		text := strings.Replace(fmt.Sprintf("callgoose answered %d %s: first line second [31m line (Retry-After 7s)", status, http.StatusText(status)), " :", ":", 1)
		if got := strings.Replace(err.Error(), " :", ":", 1); got != text {
			t.Errorf("%d: %q, want %q", status, got, text)
		}
	}
}

// After a 200 or 201 the event is delivered, whatever becomes of the rest: to
// send it again could open a second incident. A 202 may hide a duplicate.
func TestStatusDecidesWhenTheBodyBreaksOff(t *testing.T) {
	for status, delivered := range map[string]bool{"200 OK": true, "201 Created": true, "202 Accepted": false} {
		for _, hang := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s hang=%v", status, hang), func(t *testing.T) {
				url := raw(t, func(_ int, conn net.Conn) {
					readRequest(conn)
					_, _ = io.WriteString(conn, "HTTP/1.1 "+status+"\r\nContent-Length: 100\r\n\r\n{\"id\":")
					if !hang {
						_ = conn.Close()
					}
				})
				c := newClient(t, Config{URL: url})
				if hang {
					c.cfg.Timeout = 300 * time.Millisecond
				}
				r, err := send(t, c)
				if delivered {
					if err != nil || r.Effect != "unknown" {
						t.Errorf("got %+v, %v; want delivered, effect unknown", r, err)
					}
					return
				}
				step := "reset"
				if hang {
					step = "timeout"
				}
				if err == nil || err.Step != step || !err.Sent {
					t.Errorf("got %+v, %+v; want %s", r, err, step)
				}
			})
		}
	}
}

// Whoever answers in Callgoose's place fills our memory with as many answers as there are
// requests under way.
func TestLittleIsReadOfTheHeadOfAnAnswer(t *testing.T) {
	long := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for i := range 1000 {
			w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", 100))
		}
		w.WriteHeader(http.StatusCreated)
	})
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewUnstartedServer(long)
			s.EnableHTTP2 = h2
			s.StartTLS()
			defer s.Close()
			r, err := send(t, newClient(t, Config{URL: s.URL, CAFile: caFile(t, s.Certificate().Raw)}))
			if err == nil || err.Step != "reset" || !err.Sent {
				t.Errorf("got %+v, %+v", r, err)
			}
		})
	}
}

func readRequest(conn net.Conn) {
	var got []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(got, []byte(eventBody)) {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		got = append(got, buf[:n]...)
	}
}

// A switched protocol hands the bare connection over, which no context ends:
// reading its body would hold the lane, and the stop of the service, for ever.
func TestSwitchingProtocolsDoesNotHang(t *testing.T) {
	url := raw(t, func(_ int, conn net.Conn) {
		readRequest(conn)
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
	})
	if _, err := send(t, newClient(t, Config{URL: url})); err == nil || err.Status != 101 {
		t.Errorf("got %+v", err)
	}
}

// A connection the server closes while our POST is under way: Go would repeat a
// request it takes for idempotent, silently. We must be told instead.
func TestBrokenKeepAliveNeverPostsTwice(t *testing.T) {
	newServer := func(t *testing.T, posts *atomic.Int32, second func(conn net.Conn)) string {
		return raw(t, func(n int, conn net.Conn) {
			buf := make([]byte, 1<<16)
			for i := 1; ; i++ {
				if _, err := conn.Read(buf); err != nil {
					return
				}
				posts.Add(1)
				if n == 1 && i == 2 {
					second(conn)
					return
				}
				_, _ = io.WriteString(conn, "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}")
			}
		})
	}
	for name, second := range map[string]func(net.Conn){
		"closed": func(conn net.Conn) { _ = conn.Close() },
		"reset":  func(conn net.Conn) { _ = conn.(*net.TCPConn).SetLinger(0); _ = conn.Close() },
	} {
		t.Run(name+" on the second request", func(t *testing.T) {
			var posts atomic.Int32
			c := newClient(t, Config{URL: newServer(t, &posts, second)})
			if _, err := send(t, c); err != nil {
				t.Fatal(err)
			}
			_, err := send(t, c)
			if err == nil || err.Step != "reset" || !err.Sent || err.Unreachable() {
				t.Errorf("got %+v, want reset", err)
			}
			if n := posts.Load(); n != 2 {
				t.Errorf("the server saw %d requests for 2 sends", n)
			}
			if _, err := send(t, c); err != nil {
				t.Errorf("the next one: %v", err)
			}
		})
		t.Run(name+", and a GET would have been repeated", func(t *testing.T) {
			var requests atomic.Int32
			url := newServer(t, &requests, second)
			c := newClient(t, Config{URL: url})
			for range 2 {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
				if err != nil {
					t.Fatal(err)
				}
				resp, err := c.cfg.Transport.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
			if n := requests.Load(); n != 3 {
				t.Errorf("%d requests: this test no longer shows what it should", n)
			}
		})
	}

	t.Run("closed while idle", func(t *testing.T) {
		var posts, failed, sent atomic.Int32
		url := raw(t, func(_ int, conn net.Conn) {
			buf := make([]byte, 1<<16)
			if _, err := conn.Read(buf); err == nil {
				posts.Add(1)
				_, _ = io.WriteString(conn, "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}")
			}
			_ = conn.Close() // without having said so
		})
		c := newClient(t, Config{URL: url})
		for range 50 {
			sent.Add(1)
			if _, err := send(t, c); err != nil {
				failed.Add(1)
				if err.Step != "reset" {
					t.Errorf("got %+v", err)
				}
			}
		}
		if p := posts.Load(); p > sent.Load() || p < sent.Load()-failed.Load() {
			t.Errorf("%d sends, %d failed, %d arrived", sent.Load(), failed.Load(), p)
		}
	})
}

func TestConnectionsAreReused(t *testing.T) {
	var mu sync.Mutex
	conns, requests := map[string]bool{}, 0
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		conns[r.RemoteAddr] = true
		requests++
		w.WriteHeader(map[bool]int{true: 201, false: 503}[requests%2 == 0]) // refusals too
		mu.Unlock()
		_, _ = io.WriteString(w, `{"id":"x"}`)
	})
	c := newClient(t, Config{URL: url, Concurrency: 4})
	for range 20 {
		_, _ = send(t, c)
	}
	if len(conns) != 1 {
		t.Errorf("%d connections for requests one after the other", len(conns))
	}
}

func TestSendConcurrently(t *testing.T) {
	fake := callgoosetest.New(callgoosetest.Config{})
	fake.FailNext(20, callgoosetest.Failure{Mode: callgoosetest.Reset})
	server, err := fake.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	var rotations atomic.Int64
	c := newClient(t, Config{URL: server.URL(), Concurrency: 4, Token: func() string { return fmt.Sprint("token-", rotations.Add(1)) }})
	var wg sync.WaitGroup
	var failed atomic.Int32
	for range 16 {
		wg.Go(func() {
			for range 10 {
				if _, err := c.Send(t.Context(), []byte(eventBody)); err != nil {
					failed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := len(fake.Received()); n != 160 || failed.Load() != 20 {
		t.Errorf("%d requests, %d failed; want 160 and 20", n, failed.Load())
	}
}

func TestHTTP2(t *testing.T) {
	var proto string
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proto = r.Proto
		w.WriteHeader(http.StatusCreated)
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	if _, err := send(t, newClient(t, Config{URL: s.URL, CAFile: caFile(t, s.Certificate().Raw)})); err != nil {
		t.Fatal(err)
	}
	if proto != "HTTP/2.0" {
		t.Errorf("spoke %s", proto)
	}
}

// valley is a way to target on which connections can be forgotten, as a firewall
// forgets them: their bytes vanish, nobody is told, and new ones work.
type valley struct {
	l      net.Listener
	target string
	wg     sync.WaitGroup

	mu    sync.Mutex // guards the rest
	age   int        // connections of an earlier age are forgotten
	count int
	conns []net.Conn
}

func newValley(t *testing.T, target string) *valley {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v := &valley{l: l, target: target}
	v.wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target)
			if err != nil {
				_ = in.Close()
				continue
			}
			v.mu.Lock()
			age := v.age
			v.count++
			v.conns = append(v.conns, in, out)
			v.mu.Unlock()
			v.wg.Go(func() { v.carry(age, out, in) })
			v.wg.Go(func() { v.carry(age, in, out) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		v.mu.Lock()
		for _, c := range v.conns {
			_ = c.Close()
		}
		v.mu.Unlock()
		v.wg.Wait()
	})
	return v
}

func (v *valley) carry(age int, to io.Writer, from io.Reader) {
	buf := make([]byte, 1<<15)
	for {
		n, err := from.Read(buf)
		v.mu.Lock()
		forgotten := age != v.age
		v.mu.Unlock()
		if !forgotten {
			_, _ = to.Write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

func (v *valley) forget() { v.mu.Lock(); v.age++; v.mu.Unlock() }

func (v *valley) made() int { v.mu.Lock(); defer v.mu.Unlock(); return v.count }

func TestAConnectionThatWasForgottenIsNotUsedAgain(t *testing.T) {
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(proto, func(t *testing.T) {
			var spoken atomic.Value
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				spoken.Store(r.Proto)
				w.WriteHeader(http.StatusCreated)
			}))
			s.EnableHTTP2 = proto == "HTTP/2.0"
			s.StartTLS()
			defer s.Close()
			v := newValley(t, s.Listener.Addr().String())
			c := newClient(t, Config{URL: "https://" + v.l.Addr().String(), CAFile: caFile(t, s.Certificate().Raw)})
			for range 2 {
				if _, err := send(t, c); err != nil {
					t.Fatal(err)
				}
			}
			if v.made() != 1 || spoken.Load() != proto {
				t.Fatalf("%d connections, %v", v.made(), spoken.Load())
			}
			v.forget()
			c.cfg.Timeout = 300 * time.Millisecond
			if _, err := send(t, c); err == nil || err.Step != "timeout" || !err.Sent {
				t.Fatalf("got %+v, want a timeout", err)
			}
			c.cfg.Timeout = time.Minute
			if _, err := send(t, c); err != nil {
				t.Errorf("after the timeout: %v", err)
			}
			if v.made() != 2 {
				t.Errorf("%d connections, want 2", v.made())
			}
		})
	}
}

// A name that moves is not noticed by a connection that still works.
func TestRenewDialsAnewAndLeavesWhatIsUnderWay(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2=%v", h2), func(t *testing.T) {
			arrived, release := make(chan string, 10), make(chan struct{})
			handler := func(name string, slow bool) *httptest.Server {
				s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					body, _ := io.ReadAll(r.Body)
					arrived <- name
					if slow && string(body) == "slow" {
						<-release
					}
					w.WriteHeader(http.StatusCreated)
				}))
				s.EnableHTTP2 = h2
				s.StartTLS()
				t.Cleanup(s.Close)
				return s
			}
			old, moved := handler("old", true), handler("moved", false)
			c := newClient(t, Config{URL: "https://127.0.0.1/", CAFile: caFile(t, old.Certificate().Raw)})
			var target atomic.Pointer[httptest.Server]
			target.Store(old)
			c.cfg.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "tcp", target.Load().Listener.Addr().String())
			}
			expect := func(name string) {
				t.Helper()
				if _, err := send(t, c); err != nil {
					t.Fatal(err)
				}
				if got := <-arrived; got != name {
					t.Errorf("the request arrived at %s, want %s", got, name)
				}
			}
			expect("old")
			done := make(chan error, 1)
			go func() { _, err := c.Send(t.Context(), []byte("slow")); done <- err }()
			<-arrived
			expect("old") // HTTP/1 has two connections now, HTTP/2 one
			target.Store(moved)
			expect("old")
			c.Renew()
			expect("moved")
			expect("moved")
			close(release)
			if err := <-done; err != nil {
				t.Errorf("what was under way: %v", err)
			}
			expect("moved")
		})
	}
}

func caFile(t testing.TB, der []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]Config{
		"no URL":                     {},
		"no host":                    {URL: "/v1/process?token=" + hostile},
		"control character":          {URL: "https://x\x7f/?token=" + hostile},
		"port is no number":          {URL: "https://x:" + hostile + "/"},
		"CA file is missing":         {URL: "https://x/", CAFile: filepath.Join(dir, "none.pem")},
		"CA file has no certificate": {URL: "https://x/", CAFile: empty},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "s3cr3t") || strings.Contains(err.Error(), "token=") {
			t.Errorf("%s: the error holds the token: %v", name, err)
		}
	}
}

func TestDefaults(t *testing.T) {
	c := newClient(t, Config{URL: "https://sqibs.callgoose.com/sqibs-api/v1/process"})
	tr := c.cfg.Transport.(*http.Transport)
	if tr.TLSClientConfig.MinVersion != tls.VersionTLS12 || tr.TLSClientConfig.InsecureSkipVerify || !tr.DisableCompression || tr.Proxy == nil {
		t.Errorf("%+v", tr)
	}
	d, err := New(Config{URL: "https://x/"})
	if err != nil || d.cfg.Timeout != 15*time.Second || d.cfg.Concurrency != 16 {
		t.Errorf("%+v, %v", d, err)
	}
	if tr.HTTP2 == nil || tr.HTTP2.SendPingTimeout == 0 {
		t.Error("idle HTTP/2 connections are not checked")
	}
	if tr == http.DefaultTransport || d.cfg.Transport == c.cfg.Transport {
		t.Error("the transport is shared")
	}
}

// The environment of proxies is read once per process, so another one is asked.
// Go never uses a proxy for loopback targets.
func TestProxyOfTheEnvironment(t *testing.T) {
	if url := os.Getenv("PMM_CALLGOOSE_TEST_SEND_TO"); url != "" {
		_, err := send(t, newClient(t, Config{URL: url, Timeout: 5 * time.Second}))
		_, _ = fmt.Fprintf(os.Stdout, "outcome=%v\n", err)
		return
	}
	var mu sync.Mutex
	var seen []string
	proxy := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, r.Method+" "+r.URL.Host)
		mu.Unlock()
		w.WriteHeader(http.StatusCreated)
	})
	direct := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) })
	for _, c := range []struct{ name, url, env, want string }{
		{"HTTP_PROXY", "http://callgoose.invalid/v1/process", "HTTP_PROXY=" + proxy, "[POST callgoose.invalid]"},
		{"HTTPS_PROXY is asked to connect", "https://callgoose.invalid/v1/process", "HTTPS_PROXY=" + proxy, "[CONNECT callgoose.invalid:443]"},
		{"loopback goes direct", direct, "HTTP_PROXY=" + proxy, "[]"},
		{"NO_PROXY", strings.Replace(direct, "127.0.0.1", "127.0.0.1.invalid", 1), "HTTP_PROXY=" + proxy + " NO_PROXY=.invalid", "[]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			mu.Lock()
			seen = nil
			mu.Unlock()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProxyOfTheEnvironment$")
			cmd.Env = append(strings.Fields(c.env), "PMM_CALLGOOSE_TEST_SEND_TO="+c.url)
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "outcome=") {
				t.Fatalf("%v: %s", err, out)
			}
			mu.Lock()
			defer mu.Unlock()
			if got := fmt.Sprint(seen); got != c.want {
				t.Errorf("the proxy saw %s, want %s\n%s", got, c.want, out)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2025, 11, 26, 9, 12, 0, 0, time.UTC)
	for _, c := range []struct {
		name, header string
		want         time.Duration
	}{
		{"absent", "", 0},
		{"seconds", "7", 7 * time.Second},
		{"white space around", " 7\t", 7 * time.Second},
		{"zero", "0", 0},
		{"the bound", "3600", time.Hour},
		{"beyond the bound", "3601", time.Hour},
		{"a day", "86400", time.Hour},
		{"the largest of 32 bits", "4294967295", time.Hour},
		{"more than 32 bits", "4294967296", time.Hour},
		{"more than 64 bits", "99999999999999999999999999", time.Hour},
		{"negative", "-5", 0},
		{"signed", "+5", 0},
		{"fraction", "1.5", 0},
		{"garbage", "soon", 0},
		{"two values", "5, 7", 0},
		{"hexadecimal", "0x10", 0},
		{"a date", now.Add(90 * time.Second).Format(http.TimeFormat), 90 * time.Second},
		{"a date that has passed", now.Add(-time.Hour).Format(http.TimeFormat), 0},
		{"a date far ahead", now.AddDate(50, 0, 0).Format(http.TimeFormat), time.Hour},
		{"RFC 850", now.Add(time.Minute).Format("Monday, 02-Jan-06 15:04:05 GMT"), time.Minute},
		{"asctime", now.Add(time.Minute).Format(time.ANSIC), time.Minute},
		{"a date of another kind", now.Format(time.RFC3339), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := retryAfter(c.header, now); got != c.want {
				t.Errorf("%q: %s, want %s", c.header, got, c.want)
			}
		})
	}
}

// A date in Retry-After is by the clock of who sent it, and ours may be wrong.
func TestARetryAfterDateIsByTheClockOfTheAnswer(t *testing.T) {
	for _, off := range []time.Duration{0, -24 * time.Hour, 24 * time.Hour} {
		sent := time.Now().Add(off).UTC()
		r := &http.Response{StatusCode: 503, Header: http.Header{
			"Date": {sent.Format(http.TimeFormat)}, "Retry-After": {sent.Add(time.Minute).Format(http.TimeFormat)},
		}}
		if got := statusError(r, "", hostile).RetryAfter; got != time.Minute {
			t.Errorf("their clock %s ahead: %s, want 1m", off, got)
		}
	}
}

func BenchmarkSend(b *testing.B) {
	fake := callgoosetest.New(callgoosetest.Config{})
	c, err := New(Config{URL: "https://callgoose.test/v1/process", Token: func() string { return hostile }, Transport: fake.RoundTripper()})
	if err != nil {
		b.Fatal(err)
	}
	if !json.Valid([]byte(eventBody)) {
		b.Fatal("the body is not JSON")
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Send(b.Context(), []byte(eventBody)); err != nil {
			b.Fatal(err)
		}
	}
}
