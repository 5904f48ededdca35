package callgoose

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// FuzzRetryAfter: whatever the header says, we wait for no longer than the
// bound, and for as long as a plain number or date below it says.
func FuzzRetryAfter(f *testing.F) {
	for _, v := range []string{"", "0", "7", " 120\t", "3600", "3601", "4294967296", "99999999999999999999999999", "-1", "1.5", "١", "+7", "1_0", "0x10", "Sun, 06 Nov 1994 08:49:37 GMT", "Mon, 01 Jan 0001 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"} {
		f.Add(v, int64(784111777))
	}
	f.Fuzz(func(t *testing.T, v string, unix int64) {
		now := time.Unix(unix, 0).UTC()
		got := retryAfter(v, now)
		want := time.Duration(0)
		text := strings.TrimSpace(v)
		if n, ok := new(big.Int).SetString(text, 10); ok && strings.Trim(text, "0123456789") == "" {
			want = time.Hour
			if n.Cmp(big.NewInt(3600)) < 0 {
				want = time.Duration(n.Int64()) * time.Second
			}
		} else if at, err := http.ParseTime(text); err == nil && at.After(now) {
			want = time.Hour
			if at.Before(now.Add(time.Hour)) {
				want = at.Sub(now)
			}
		}
		if got != want {
			t.Fatalf("%q at %s: %s, want %s", v, now, got, want)
		}
	})
}

// answering is a network that answers with these bytes.
type answering []byte

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	return http.ReadResponse(bufio.NewReader(bytes.NewReader(a)), r)
}

// FuzzAnswer: whatever bytes come back, the answer is one that the contract
// knows, its texts fit into a line, and no part of the token is in them.
func FuzzAnswer(f *testing.F) {
	const token = "s3cr3t0ken-1234567890abcdef"
	ok := `{"id":12,"triggered":{"created":true},"resolved":{"duplicate":false}}`
	for _, text := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 67\r\n\r\n" + ok, "HTTP/1.1 202 Accepted\r\nContent-Length: 18\r\n\r\n" + `{"duplicate":true}`,
		"HTTP/1.1 202 Accepted\r\nContent-Length: 900\r\n\r\n{}", "HTTP/1.0 429 \r\nRetry-After: 7\r\n\r\nslow down " + token,
		"HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n1a\r\nwrong token=" + token[:14] + "\r\n0\r\n\r\n",
		"HTTP/1.1 301 Moved\r\nLocation: http://evil/?token=" + token + "\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
		"HTTP/1.1 200 OK\r\n\r\n" + `{"id":"` + strings.Repeat("x", 190) + token + `"}`, "HTTP/1.1 500 X\r\n\r\n" + strings.Repeat("y", 195) + token,
		"HTTP/1.1 200 OK\r\n\r\n<html>", "HTTP/1.1 413 X\r\nContent-Type: text/html\r\n\r\nno <b>", "HTTP/1.1 999 \r\n\r\n\x1b[31m\u202e", "SSH-2.0-x\r\n", "",
	} {
		f.Add([]byte(text), false)
		f.Add([]byte(text), true)
	}
	f.Fuzz(func(t *testing.T, answer []byte, query bool) {
		c, err := New(Config{URL: "https://callgoose.test/v1/process", From: "x", Token: func() string { return token }, Query: query, Transport: answering(answer)})
		if err != nil {
			t.Fatal(err)
		}
		reply, err := c.Send(t.Context(), []byte("{}"))
		said := fmt.Sprintf("%s %s", reply.ID, reply.Effect)
		if err == nil && (reply.Status < 200 || reply.Status > 299) {
			t.Fatalf("taken for a success: %+v", reply)
		}
		if err != nil {
			var e *Error
			switch said = err.Error(); {
			case !errors.As(err, &e), e.Status == 0 && e.Step == "", e.Status >= 200 && e.Status < 300 && !e.Foreign, e.RetryAfter < 0, e.RetryAfter > time.Hour, !e.Sent && !e.Unreachable():
				t.Fatalf("%+v", err)
			}
		}
		if len(said) > 500 || !utf8.ValidString(said) || strings.ContainsFunc(said, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("no short line: %q", said)
		}
		// A piece of the token may only come from an answer that holds just that piece.
		lower := strings.ToLower(string(answer))
		piece := token[:8]
		if strings.Contains(strings.ToLower(said), piece) && !strings.Contains(strings.ReplaceAll(lower, token, ""), piece) {
			t.Fatalf("the token stands in %q", said)
		}
	})
}

// FuzzWhoAnswered: whatever a 2xx carries, it is Callgoose's answer only when it is
// a JSON object, unknown when it is something else, and never a success when it is
// a page.
func FuzzWhoAnswered(f *testing.F) {
	for _, kind := range []string{"application/json", "text/html", "TEXT/HTML;charset=x", "text/plain", "", "\x00"} {
		for _, body := range []string{`{}`, " {\"id\":1}\n", `[]`, `null`, `"<html>"`, "<html>", "\ufeff \u200b<", "", "OK", `{"id":`, "\xff\xfe<\x00"} {
			f.Add(kind, []byte(body), 200)
			f.Add(kind, []byte(body), 202)
		}
	}
	f.Fuzz(func(t *testing.T, kind string, body []byte, status int) {
		if status < 200 || status > 299 {
			status = 200
		}
		c, err := New(Config{URL: "https://callgoose.test/", Token: func() string { return "" }, Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {kind}}, Body: io.NopCloser(bytes.NewReader(body)), Request: r}, nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		reply, err := c.Send(t.Context(), []byte("{}"))
		text := bytes.TrimLeft(body, " \t\r\n\v\f")
		page := bytes.HasPrefix(text, []byte("<")) || strings.HasPrefix(strings.ToLower(kind), "text/html;") || strings.ToLower(kind) == "text/html"
		if page && err == nil {
			t.Fatalf("a page counts as an answer: %+v", reply)
		}
		if e, ok := errors.AsType[*Error](err); err != nil && (!ok || !e.Foreign || e.Status != status) {
			t.Fatalf("%+v", err)
		}
		var object map[string]json.RawMessage
		isObject := json.Unmarshal(bytes.TrimLeftFunc(body, invisible), &object) == nil && object != nil
		if err == nil && !isObject && status != http.StatusAccepted && reply.Effect != "unknown" {
			t.Fatalf("no object, and yet %s", reply.Effect)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
