package pmm

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// FuzzRefusals: whatever PMM, or something in front of it, answers, the error is
// a line for people, and no part of the token is in it.
func FuzzRefusals(f *testing.F) {
	const token = "glsa_s3cr3t0ken1234567890abcdef"
	f.Add(401, "", `{"message":"invalid API key","messageId":"x"}`, true)
	f.Add(403, "", `{"title":"Access denied","message":"you need x"}`, true)
	f.Add(500, "", `{"error":"`+strings.Repeat(" ", 2380)+token+`"}`, true)
	f.Add(502, "", "<html><head><title>502 Bad Gateway "+token+"</title></head></html>", false)
	f.Add(302, "https://u:p@sso.example/login?t="+token, "", false)
	f.Add(301, "/"+strings.Repeat("y", 520)+token, "", false)
	f.Add(200, "", "<!doctype html><title>log in</title>", false)
	f.Add(200, "", `{"version":"3.8.0\u001b[31m"}`, false)
	f.Add(200, "", `{"version":"2.30.0`+token+`"}`, false)
	f.Add(307, "%zz", "\x1b]0;x\x07", false)
	f.Fuzz(func(t *testing.T, status int, location, answer string, basic bool) {
		cfg := ClientConfig{URL: "http://pmm", Token: token, Transport: roundTrip(func(*http.Request) *http.Response {
			return &http.Response{StatusCode: status, Header: http.Header{"Location": {location}}, Body: io.NopCloser(strings.NewReader(answer))}
		})}
		if basic {
			cfg.Token, cfg.Basic = "", "admin:"+token
		}
		c, err := NewClient(cfg)
		if err != nil {
			t.Fatal(err)
		}
		v, err := c.Version(t.Context())
		said := v.String()
		if err != nil {
			said = err.Error()
			if e, ok := errors.AsType[*APIError](err); ok && e.Status != status || !ok && !errors.Is(err, ErrTooOld) {
				t.Fatalf("%d: %+v", status, err)
			}
		}
		if len(said) > 1500 || !utf8.ValidString(said) || strings.ContainsFunc(said, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("no line for people: %q", said)
		}
		// A piece of the token may only come from an answer that holds just that piece.
		piece := token[:12]
		if strings.Contains(said, piece) && !strings.Contains(strings.ReplaceAll(location+"\x00"+answer, token, ""), piece) {
			t.Fatalf("the token stands in %q", said)
		}
	})
}
