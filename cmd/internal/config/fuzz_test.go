package config

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// plainLine reports whether a text can stand in a line of a report.
func plainLine(text string) bool {
	return len(text) < 1<<10 && !strings.ContainsFunc(text, unicode.IsControl)
}

// FuzzSecretFile: what is read from a file is its text without the end of its
// line, can be sent in a header, and is never in an error.
func FuzzSecretFile(f *testing.F) {
	for _, s := range []string{"s3cr3t-of-callgoose\n", "user:pass:word\r\n", "user:", ":pass", "\n", "", "two\nlines", "tab\there", "\x00", "\xff\xfe", "é漢\u2028", "a\r", strings.Repeat("x", 64<<10), strings.Repeat("x", 64<<10+1)} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	path := filepath.Join(f.TempDir(), "secret")
	f.Fuzz(func(t *testing.T, data []byte, basic bool) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		o, _ := find("callgoose-token-file")
		if basic {
			o, _ = find("ingest-basic-auth-file")
		}
		s, err := readSecret(o, path)
		v := s.Reveal()
		if err != nil {
			if v != "" || !plainLine(err.Error()) || len(data) >= 10 && strings.Contains(err.Error(), string(data)) {
				t.Fatalf("%q is read as %q, %q", data, v, err)
			}
			return
		}
		if rest, ok := strings.CutPrefix(string(data), v); v == "" || len(v) > 64<<10 || !ok || rest != "" && rest != "\n" && rest != "\r\n" && rest != "\r" {
			t.Fatalf("%q is read as %q", data, v)
		}
		r, err := http.NewRequest(http.MethodGet, "http://x", nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.Header.Set("Authorization", "Bearer "+v); basic {
			user, password, _ := strings.Cut(v, ":")
			if r.SetBasicAuth(user, password); user == "" || password == "" {
				t.Fatalf("%q was taken for user:password", v)
			}
		}
		var wire strings.Builder
		if err := r.Write(&wire); err != nil || strings.Count(wire.String(), "\r\n") != 5 && strings.Count(wire.String(), "\r\n") != 4 {
			t.Fatalf("%q cannot be sent: %v: %q", v, err, wire.String())
		}
		for _, shown := range []string{fmt.Sprintf("%v %s %q %#v %d %x", s, s, s, s, s, s), slog.AnyValue(s).Resolve().String()} {
			if len(v) >= 12 && strings.Contains(shown, v) {
				t.Fatalf("the secret is shown: %s", shown)
			}
		}
	})
}

// FuzzValues: a value that is read is none below nothing, is read again as it
// was when it is written down, and an error about it is one short line.
func FuzzValues(f *testing.F) {
	for _, text := range []string{"90s", "30d", "1d12h", ".5d", "1.5.5d", "99999999999999999999d", "106751d23h47m16.854775807s", "-5s", "1d-5s", "2GiB", "1.5KiB", "8388608TiB", "4096B", "1e9", "pmm=30m,dr=2h", "pmm=", "pmm=1d,pmm=2d", "off", "NaN", "Inf", "127.0.0.1:4667", "[::1]:04667", ":99999", "\x00", strings.Repeat("9", 400)} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var errs []error
		note := func(err error) bool { errs = append(errs, err); return err == nil }
		if d, err := ParseDuration(text); note(err) {
			if again, err := ParseDuration(d.String()); d < 0 || err != nil || again != d {
				t.Fatalf("%q is %s, then %s, %v", text, d, again, err)
			}
		}
		if n, err := ParseSize(text); note(err) {
			again, err := ParseSize(strconv.FormatInt(n, 10))
			if n < 0 || err != nil || again != n && n < 1<<53 {
				t.Fatalf("%q is %d, then %d, %v", text, n, again, err)
			}
		}
		if e, err := ParseExpect(text); note(err) {
			for source, every := range e.Sources {
				if every <= 0 || !sourceName.MatchString(source) {
					t.Fatalf("%q expects %v", text, e)
				}
			}
			if e.Every < 0 || e.On() != (e.Every > 0 || len(e.Sources) > 0) {
				t.Fatalf("%q expects %v", text, e)
			}
		}
		if n, err := parseRate(text); note(err) && !(n >= 0 && n <= math.MaxFloat64) {
			t.Fatalf("%q is a rate of %f", text, n)
		}
		_, err := parseBool(text)
		note(err)
		note(checkAddress(text))
		for _, err := range errs {
			if err != nil && !plainLine(err.Error()) {
				t.Fatalf("not a short line: %q", err)
			}
		}
	})
}

var shownURL = regexp.MustCompile(`^(\[redacted\]|([a-zA-Z][a-zA-Z0-9+.-]*)?://(\[redacted\]@)?[^/?#@]+(/\[redacted\])?)$`)

// FuzzURL: of a URL that may hold secrets only scheme and host are shown, and
// of Callgoose's never the token.
func FuzzURL(f *testing.F) {
	for _, u := range []string{
		"https://cg.example/v1/process?from=PerconaPMM&token=s3cr3t-t0ken", "https://cg.example/?TOKEN=s3cr3t-t0ken&x=1", "https://cg.example/?tok%65n=s3cr3t-t0ken&a=b&;",
		"nats://user:pass@host:4222,nats://t0ken@other", "https://hooks.example/services/T0/B0/xyz", "https://u:p@h/", "//host", "https://[::1]:80/?token=a&token=b", "https://x/#token=s3cr3t-t0ken", "https://x/?token=%zz", "mailto:a@b", "https://h\\@evil/",
	} {
		f.Add(u)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if shown := hideURL(raw); raw != "" {
			for part := range strings.SplitSeq(shown, ",") {
				if !shownURL.MatchString(part) {
					t.Fatalf("%q is shown as %q", raw, shown)
				}
			}
		}
		c, warnings, err := Load(Input{Flags: map[string]string{"callgoose-url": raw, "data-dir": "/nowhere"}})
		said := fmt.Sprint(warnings, err)
		if c == nil {
			c = &Config{}
		}
		effective, jsonErr := json.Marshal(c.Effective())
		if jsonErr != nil {
			t.Fatal(jsonErr)
		}
		said += string(effective)
		if strings.ContainsFunc(fmt.Sprint(err), func(r rune) bool { return unicode.IsControl(r) && r != '\n' }) {
			t.Fatalf("%q: %q", raw, err)
		}
		u, err := url.Parse(c.CallgooseURL)
		if err != nil {
			t.Fatalf("%q was taken, and cannot be read: %v", raw, err)
		}
		for name := range u.Query() {
			if strings.EqualFold(name, "token") {
				t.Fatalf("%q became %q", raw, c.CallgooseURL)
			}
		}
		if token := c.CallgooseToken.Reveal(); len(token) >= 8 && strings.Contains(said, token) && strings.Count(raw, token) == 1 {
			t.Fatalf("the token %q of %q stands in %s", token, raw, said)
		}
	})
}

// FuzzRedactor: no spelling of a secret is left of a text.
func FuzzRedactor(f *testing.F) {
	for _, s := range []string{"s3cr3t+t/k=n&%2F\"<é>'!", "user:p4ss w0rd", "aaaa", "redacted", "\\\"\\", "\xff\xfe\xfd\xfc", "日本語のパスワード", "$1$2${x}", "abab"} {
		f.Add(s, "Authorization: Bearer ", " answered 401")
		f.Add(s, "", s)
	}
	f.Fuzz(func(t *testing.T, secret, before, after string) {
		c := &Config{CallgooseToken: NewSecret(secret)}
		r := c.Redactor()
		if len(secret) < 4 {
			return
		}
		quoted := strconv.Quote(secret)
		inJSON, err := json.Marshal(secret)
		if err != nil {
			t.Fatal(err)
		}
		for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret), html.EscapeString(secret), quoted[1 : len(quoted)-1], string(inJSON[1 : len(inJSON)-1])} {
			if len(form) < 4 {
				continue
			}
			out := strings.ReplaceAll(r.String(before+form+after), redacted, "\x00")
			if !strings.Contains(form, "\x00") && strings.Contains(out, form) {
				t.Fatalf("%q is left in %q", form, out)
			}
		}
		if len(secret) >= 12 {
			out := r.String(base64.StdEncoding.EncodeToString([]byte(before + secret + after)))
			if text, err := base64.StdEncoding.DecodeString(out); err == nil && strings.Contains(string(text), secret) {
				t.Fatalf("%q is left in the base64 %q", secret, out)
			}
		}
		var log strings.Builder
		l := slog.New(slog.NewTextHandler(r.Writer(&log), nil))
		l.With("a", secret).WithGroup("g").Error("x", before, secret, "err", errors.Join(errors.New(secret), io.EOF), "any", []string{secret}, "group", slog.GroupValue(slog.String("x", secret)))
		if out := strings.ReplaceAll(log.String(), redacted, "\x00"); !strings.Contains(secret, "\x00") && strings.Contains(out, secret) && !strings.Contains(before+strconv.Quote(before)+`time= level=ERROR msg=x " g.err=\nEOF g.any= g.group.x=`, secret) { // quoting alone can make it
			t.Fatalf("%q is left in %q", secret, out)
		}
	})
}
