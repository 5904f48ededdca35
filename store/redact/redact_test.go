package redact

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

// hostile has all that some way of quoting changes.
const hostile = `aB3/x+y=z&q<w>"e'r%T7!k~\Zp9`

// inside is s as it stands between the quotation marks of v.
func inside(quoted string) string { return quoted[1 : len(quoted)-1] }

// each makes every character that is neither letter nor digit with format.
func each(format, s string) string {
	var b strings.Builder
	for _, c := range s {
		if strings.ContainsRune("aB3xyzqwerT7kZp9", c) {
			b.WriteRune(c)
		} else {
			fmt.Fprintf(&b, format, c)
		}
	}
	return b.String()
}

// spellings are the ways in which those who answer quote what they were sent.
func spellings(s string) map[string]string {
	inJSON, _ := json.Marshal(s)
	percent := ""
	for _, c := range []byte(s) {
		percent += fmt.Sprintf("%%%02x", c)
	}
	return map[string]string{
		"as it is": s, "in capitals": strings.ToUpper(s), "in JSON": inside(string(inJSON)), "in JSON in JSON": inside(strconv.Quote(inside(string(inJSON)))),
		"in JSON of PHP": strings.ReplaceAll(inside(string(inJSON)), "/", `\/`), "as JSON codes": each(`\u%04x`, s),
		"with %q": inside(strconv.Quote(s)), "with %q twice": inside(strconv.Quote(strconv.Quote(s))),
		"in a page": html.EscapeString(s), "in a page of others": strings.ReplaceAll(strings.ReplaceAll(html.EscapeString(s), "/", "&#x2F;"), "&#39;", "&apos;"),
		"in a page in a page": html.EscapeString(html.EscapeString(s)), "as decimal codes": each("&#%d;", s), "as hexadecimal codes": each("&#x%X;", s),
		"in a query": url.QueryEscape(s), "in a path": url.PathEscape(s), "in a query, lower": strings.ToLower(url.QueryEscape(s)),
		"in a query in a query": url.QueryEscape(url.QueryEscape(s)), "every byte of a query": percent,
		"in hexadecimal": hex.EncodeToString([]byte(s)), "in base64": base64.StdEncoding.EncodeToString([]byte(s)), "in base64 of an address": base64.RawURLEncoding.EncodeToString([]byte(s)),
		"with a user in base64": base64.StdEncoding.EncodeToString([]byte("user:" + s)), "behind a scheme in base64": base64.StdEncoding.EncodeToString([]byte("Bearer " + s)),
		"base64 in a query": url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(s))),
	}
}

// Nothing of the secret is left, and nothing else is taken.
func TestASecretIsTakenOutHoweverItIsSpelled(t *testing.T) {
	for _, s := range []string{hostile, "tok-1234", "glsa_AbCdEf012345", "pass w0rd:x", "the end%", `the end\`, `\the start`, "50%41b-1", "a&amp;b%2525"} {
		r := New("another secret", s)
		for name, spelled := range spellings(s) {
			for _, text := range []string{spelled, "before " + spelled + `" behind`, `{"error":"` + spelled + `"}`, "a 100 % \\ & <" + spelled + ">"} {
				got := r.String(text)
				before, behind, _ := strings.Cut(text, spelled)
				if left := strings.Trim(strings.TrimSuffix(strings.TrimPrefix(got, before), behind), "="); !strings.Contains(left, Word) || len(left) > len(Word)+12 {
					t.Errorf("%q %s: %q became %q", s, name, text, got)
				}
			}
		}
	}
}

func TestWhatIsNoSecretStays(t *testing.T) {
	for _, r := range []*Redactor{nil, New(), New("", "up", "abc"), New(hostile, "tok-1234")} {
		for _, text := range []string{"", "up", `callgoose is up: 100 % \ & %2 %zz &# &; \u00 \`, "62aa110960031c02cbcd MySQL Down", "tok-123", "\xff\xfe"} {
			if got := r.String(text); got != text {
				t.Errorf("%q became %q", text, got)
			}
		}
	}
}

// A token and an answer that are made for it take no time, either.
func TestNoTextTakesLong(t *testing.T) {
	for _, part := range []string{`\`, "%25", "%", "&amp;", "&", `\u005c`, "25", `a\`} {
		s := strings.Repeat(part, 30) + "x"
		if got := New(s).String(strings.Repeat(part, 100) + " " + s); !strings.Contains(got, Word) {
			t.Errorf("%q is left in %q", s, got)
		}
	}
}

func BenchmarkString(b *testing.B) {
	r := New(hostile, "tok-1234", "glsa_AbCdEf012345", "pmm:password", "password")
	line := strings.Repeat(`time=2026-11-28T13:57:56.093Z level=WARN msg=attempt err="callgoose answered 500: {\"error\":\"no\"}" `, 4)
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		_ = r.String(line)
	}
}
