package ingest

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/testdata/webhook"
)

// FuzzGuard holds the checks of credentials against a second opinion, written
// from what Grafana and RFC 7617 say, and looks for pieces of what was sent in
// the refusals.
func FuzzGuard(f *testing.F) {
	now := time.Unix(1_770_000_000, 0)
	stamp := strconv.FormatInt(now.Unix(), 10)
	pair := "Basic " + base64.StdEncoding.EncodeToString([]byte(basic))
	for methods := range uint8(16) {
		f.Add(methods, "Bearer "+token, stamp, sign(secret, stamp+":"+body), []byte(body))
		f.Add(methods, pair, "", sign(secret, body), []byte(body))
	}
	f.Add(uint8(7), "bEARER  "+token, "01770000000", strings.ToUpper(sign(secret, "01770000000:"+body)), []byte(body))
	f.Add(uint8(2), "Basic "+base64.RawStdEncoding.EncodeToString([]byte(basic)), "1e9", "zz", []byte("{}"))
	f.Add(uint8(4), "", "-1770000000", sign(secret, ""), []byte(""))
	f.Add(uint8(12), token, "1770000301", sign(secret, "1770000301:x"), []byte("x"))
	f.Add(uint8(1), "Bearer", "18446744073709551615", "", []byte(nil))
	f.Fuzz(func(t *testing.T, methods uint8, authorization, timestamp, signature string, body []byte) {
		c := Config{Publisher: &shelf{}}
		if methods&1 != 0 {
			c.Token = is(token)
		}
		if methods&2 != 0 {
			c.Basic = is(basic)
		}
		if methods&4 != 0 {
			c.HMACSecret = is(secret)
		}
		if methods&8 != 0 {
			c.HMACTimestampHeader = "X-Stamp"
		}
		g := newGuard(c.withDefaults())
		h := http.Header{}
		h.Set("Authorization", authorization)
		h.Set("X-Grafana-Alerting-Signature", signature)
		h.Set(g.timestampHeader, timestamp)
		refusal := g.header("pmm", h, now)
		if refusal == "" {
			_, refusal = g.signature(h, body)
		}
		if want := mayPass(methods, authorization, timestamp, signature, body, now); (refusal == "") != want {
			t.Fatalf("methods %04b, Authorization %q, timestamp %q, signature %q: refusal %q, but that it passes is %v", methods, authorization, timestamp, signature, refusal, want)
		}
		for word := range strings.FieldsSeq(authorization + " " + timestamp + " " + signature) {
			if len(word) > 8 && strings.Contains(refusal, word) && describe(word) == "no scheme that the service knows" {
				t.Fatalf("%q repeats %q", refusal, word)
			}
		}
		if len(refusal) > 300 || strings.ContainsAny(refusal, "\r\n\x00") {
			t.Fatalf("%q is no short line", refusal)
		}
	})
}

// mayPass is the second opinion.
func mayPass(methods uint8, authorization, timestamp, signature string, body []byte, now time.Time) bool {
	if methods&3 != 0 {
		scheme, rest, _ := strings.Cut(authorization, " ")
		rest = strings.TrimSpace(rest)
		pair, err := base64.StdEncoding.DecodeString(rest)
		bearer := methods&1 != 0 && strings.EqualFold(scheme, "bearer") && rest == token
		if !bearer && (methods&2 == 0 || !strings.EqualFold(scheme, "basic") || err != nil || string(pair) != basic) {
			return false
		}
	}
	if methods&4 == 0 {
		return true
	}
	signed := string(body)
	if timestamp != "" {
		seconds, err := strconv.ParseInt(timestamp, 10, 64)
		if err != nil || strings.Trim(timestamp, "0123456789") != "" || seconds < now.Unix()-300 || seconds > now.Unix()+300 {
			return false
		}
		signed = timestamp + ":" + signed
	} else if methods&8 != 0 {
		return false
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signed))
	got, err := hex.DecodeString(signature)
	return err == nil && bytes.Equal(got, mac.Sum(nil))
}

var validSource = regexp.MustCompile(`\A[a-z0-9-]{1,16}\z`)

// FuzzWebhook: every answer is one that the contract names, in JSON, and 202
// only for what was stored, as it came.
func FuzzWebhook(f *testing.F) {
	for b := range webhook.Bodies() {
		f.Add("POST", "/v1/webhook", "", "", int64(len(b)), b)
	}
	f.Add("PUT", "/v1/webhook/pmm-2", "", "identity", int64(-1), []byte(body))
	f.Add("GET", "/v1/webhook/pmm_2", "", "gzip", int64(0), []byte(body))
	f.Add("POST", "/v1/webhook/", "a=b", "", int64(1<<40), []byte(nil))
	f.Add("POST", "/v1/webhook/../webhook/%00", "", "", int64(5), []byte("{}"))
	f.Add("DELETE", "/", "", "", int64(0), []byte(`[1]`))
	f.Fuzz(func(t *testing.T, method, path, query, encoding string, length int64, sent []byte) {
		s := &shelf{}
		h := newHandler(t, s, Config{MaxBody: 64 << 10})
		if 0 <= length && length < int64(len(sent)) { // net/http ends the body there
			sent = sent[:length]
		}
		r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(sent))
		r.Method, r.URL, r.ContentLength = method, &url.URL{Path: path, RawQuery: query}, length
		if encoding != "" {
			r.Header.Set("Content-Encoding", encoding)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		switch w.Code {
		case http.StatusAccepted, http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed,
			http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
		default:
			t.Fatalf("answered %d", w.Code)
		}
		var answer struct {
			ID     string
			Alerts int
			Error  string
		}
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Body.Len() > 1<<10 {
			t.Fatalf("%d: %v: %q", w.Code, err, w.Body)
		}
		if w.Code != http.StatusAccepted {
			if len(s.stored) != 0 || answer.Error == "" {
				t.Fatalf("%d, %d stored: %s", w.Code, len(s.stored), w.Body)
			}
			return
		}
		source := strings.Trim(strings.TrimPrefix(path, "/v1/webhook"), "/")
		if source == "" {
			source = "pmm"
		}
		for _, made := range s.stored[1:] { // what ends an alert of the Test button
			if !made.Made || len(s.stored) > 2 {
				t.Fatalf("%d stored: %+v", len(s.stored), made)
			}
		}
		if s.stored[0].Made || !bytes.Equal(s.stored[0].Body, sent) || s.stored[0].Source != source || !validSource.MatchString(source) {
			t.Fatalf("accepted %s %q from %q, stored %q", method, sent, path, fmt.Sprint(s.stored))
		}
		if answer.ID == "" || answer.Alerts < 1 || answer.Alerts != s.stored[0].Alerts || len(sent) > 64<<10 || method != "POST" && method != "PUT" {
			t.Fatalf("%s, %d bytes: %s", method, len(sent), w.Body)
		}
	})
}
