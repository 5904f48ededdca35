// Package redact takes secrets out of texts that are kept, logged or shown, however a text
// spells them: whoever answers a request may quote it in JSON, in a page, in an address or
// in base64. It is the last line of defence: no code shows a secret on purpose.
package redact

import (
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"html"
	"slices"
	"strconv"
	"strings"
)

// Word stands in the place of a secret.
const Word = "[redacted]"

// shortest is the length, in bytes, below which a secret is not looked for: it would be
// found in every line.
const shortest = 4

// deepest is how many backslashes are followed before a character: each time that a text
// is quoted again doubles them.
const deepest = 64

// Redactor knows secrets. Safe concurrently; nil knows none.
type Redactor struct {
	all []string      // the longest first
	by  [256][]string // those that begin with a byte, folded
}

// New returns a Redactor of these secrets, of which those below four bytes are ignored.
func New(secrets ...string) *Redactor {
	r := &Redactor{}
	for _, s := range secrets {
		if len(s) < shortest {
			continue
		}
		r.all = append(r.all, s, string([]rune(s)), hex.EncodeToString([]byte(s))) // in JSON all is UTF-8
		// Inside of base64 it looks different at each of three offsets, and its ends share
		// a letter with what stands beside it.
		for offset := range 3 {
			for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
				e := enc.EncodeToString([]byte("xxx"[:offset] + s))
				if e = e[(offset*8+5)/6 : (offset+len(s))*8/6]; len(e) >= 2*shortest {
					r.all = append(r.all, e)
				}
			}
		}
	}
	slices.SortFunc(r.all, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	r.all = slices.Compact(r.all)
	for _, s := range r.all {
		r.by[fold(s[0])] = append(r.by[fold(s[0])], s)
	}
	return r
}

// String is text with every secret replaced.
func (r *Redactor) String(text string) string {
	if r == nil {
		return text
	}
	var out strings.Builder
	done := 0
	for i := 0; i < len(text); {
		n := r.find(text[i:])
		if n == 0 {
			i++
			continue
		}
		out.WriteString(text[done:i])
		out.WriteString(Word)
		i += n
		done = i
	}
	return out.String() + text[done:]
}

// find is the length of the secret that text begins with, 0 when it is none.
func (r *Redactor) find(text string) int {
	list := r.by[fold(text[0])]
	var plain string // what an escape that begins here stands for
	switch text[0] {
	case '%':
		if code, err := strconv.ParseUint(text[1:min(len(text), 3)], 16, 8); err == nil {
			plain = string([]byte{byte(code)})
		}
	case '&':
		plain, _ = entity(text[1:])
	case '\\':
		plain, _ = unquote(text)
	}
	switch plain {
	case "":
	case "%", "&": // which may begin another escape
		list = r.all
	default:
		list = slices.Concat(list, r.by[fold(plain[0])])
	}
	for _, s := range list {
		if n := spells(text, s); n > 0 {
			return n
		}
	}
	return 0
}

// spells is the length of what spells s where text begins with it, else 0: s as it is, or
// with characters escaped as in a JSON string, a page or an address, also more than once.
func spells(text, s string) int {
	same := 0
	for same < len(s) && same < len(text) && !escapes(text[same]) && fold(text[same]) == fold(s[same]) {
		same++
	}
	switch {
	case same == len(s):
		return same
	case same == len(text), !escapes(text[same]):
		return 0
	}
	ends := [][]int{{same}} // where text goes on behind so much more of s, in each way to read it
	for i := 0; i < len(ends) && same+i < len(s); i++ {
		for _, at := range ends[i] {
			readings(text, at, s[same+i:], func(end, spelled int) {
				for len(ends) <= i+spelled {
					ends = append(ends, nil)
				}
				if known := ends[i+spelled]; !slices.Contains(known, end) {
					ends[i+spelled] = append(known, end)
				}
			})
		}
	}
	if same+len(ends) <= len(s) {
		return 0
	}
	return slices.Max(ends[len(s)-same])
}

// escapes reports whether more than one character may begin with c.
func escapes(c byte) bool { return c == '\\' || c == '%' || c == '&' }

// readings yields the ways to read what s begins with in text from at on: where that ends,
// and how much of s it is.
func readings(text string, at int, s string, yield func(end, spelled int)) {
	if at < len(text) && text[at] == '\\' {
		if s[0] == '\\' {
			yield(at+1, 1)
		}
		for most := at + deepest; at < len(text) && at < most && text[at] == '\\'; {
			at++
		}
		if plain, n := unquote(text[at-1:]); plain != "" && strings.HasPrefix(s, plain) {
			yield(at-1+n, len(plain))
		}
	}
	if at == len(text) {
		return
	}
	if fold(text[at]) == fold(s[0]) {
		yield(at+1, 1)
	}
	switch text[at] {
	case '%':
		for more := true; more; more = strings.HasPrefix(text[at-1:], "25") {
			if code, err := strconv.ParseUint(text[at+1:min(len(text), at+3)], 16, 8); err == nil && fold(byte(code)) == fold(s[0]) {
				yield(at+3, 1)
			}
			at += len("25")
		}
	case '&':
		for more := true; more; more = strings.HasPrefix(text[at-3:], "amp;") {
			if plain, n := entity(text[at+1:]); plain != "" && strings.HasPrefix(s, plain) {
				yield(at+1+n, len(plain))
			}
			at += len("amp;")
		}
	}
}

// entity is the character that a page spells with an & and what text begins with, and how
// many bytes of text that takes; "" when none does.
func entity(text string) (plain string, n int) {
	code, _, closed := strings.Cut(text[:min(len(text), 11)], ";")
	if plain = html.UnescapeString("&" + code + ";"); !closed || len(plain) > len(code) {
		return "", 0
	}
	return plain, len(code) + 1
}

// unquote is the character that text begins with, as a string quotes it that a program
// writes, and how many bytes of text spell it; "" when none does.
func unquote(text string) (plain string, n int) {
	c, wide, tail, err := strconv.UnquoteChar(text, 0)
	switch n = len(text) - len(tail); {
	case err != nil:
		return "", 0
	case !wide:
		return string([]byte{byte(c)}), n
	}
	return string(c), n
}

// fold makes equal what is not told apart: letters of both cases, and the blank and the
// plus that stands for it in an address.
func fold(c byte) byte {
	switch {
	case c == '+':
		return ' '
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	}
	return c
}
