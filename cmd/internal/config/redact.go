package config

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"html"
	"io"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
)

// Redactor takes the configured secrets out of texts: their values of now and
// those from before a reload, as they are and in the spellings in which an
// error may quote them. It is the last line of defence: no code logs a secret on
// purpose. Safe concurrently.
type Redactor struct {
	secrets []guarded
	made    atomic.Pointer[replacer]
}

// guarded is a secret, and what of its values is a secret by itself.
type guarded struct {
	*Secret
	words func(value string) []string
}

// replacer is what was made of the secrets when they had these values.
type replacer struct {
	values []*string
	*strings.Replacer
}

// shortest is the length, in bytes, below which a value is not looked for: it
// would be found in every line.
const shortest = 4

// Redactor knows every secret of the configuration.
func (c *Config) Redactor() *Redactor {
	r := &Redactor{}
	for _, o := range table {
		if s, ok := o.field(c).(**Secret); ok && (*s).IsSet() {
			r.secrets = append(r.secrets, guarded{*s, o.words})
		}
	}
	return r
}

// String is text with every secret replaced.
func (r *Redactor) String(text string) string { return r.replacer().Replace(text) }

func (r *Redactor) replacer() *replacer {
	m := r.made.Load()
	if m != nil && slices.EqualFunc(r.secrets, m.values, func(s guarded, v *string) bool { return s.value.Load() == v }) {
		return m
	}
	m = &replacer{}
	var all []string
	for _, s := range r.secrets {
		v := s.value.Load()
		m.values = append(m.values, v)
		for _, value := range append(slices.Clone(s.former()), *v) {
			all = append(append(all, value), s.words(value)...)
		}
	}
	var pairs []string
	for _, form := range spellings(all) {
		pairs = append(pairs, form, redacted)
	}
	m.Replacer = strings.NewReplacer(pairs...)
	r.made.Store(m)
	return m
}

// spellings are the ways in which the values may stand in a text, longest first.
func spellings(values []string) []string {
	seen := map[string]bool{}
	add := func(forms ...string) {
		for _, f := range forms {
			if len(f) >= shortest {
				seen[f], seen[inQuotes(f)] = true, true // as the log has it
			}
		}
	}
	for _, v := range values {
		if len(v) < shortest {
			continue
		}
		add(v, html.EscapeString(v))
		for _, f := range []string{url.QueryEscape(v), url.PathEscape(v)} {
			add(f, lowerEscapes(f))
		}
		add(inQuotes(v), inQuotes(inQuotes(v))) // %q of an error that itself says %q
		if j, err := json.Marshal(v); err == nil {
			add(string(j[1 : len(j)-1]))
		}
		// Inside of base64 it looks different at each of three offsets, and its ends
		// share a letter with what stands beside it.
		for offset := range 3 {
			for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
				e := enc.EncodeToString([]byte("xxx"[:offset] + v))
				e = e[(offset*8+5)/6 : (offset+len(v))*8/6]
				if len(e) >= 2*shortest {
					add(e)
				}
			}
		}
	}
	return slices.SortedFunc(maps.Keys(seen), func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
}

// inQuotes is what stands between the quotes of %q.
func inQuotes(s string) string {
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}

// lowerEscapes writes %2F as %2f.
func lowerEscapes(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:i+3], strings.ToLower(string(b[i+1:i+3])))
		}
	}
	return string(b)
}

// Writer passes lines of a log on to w, each in one piece, with every secret replaced, so
// that none can hold one, whatever an error says and wherever in the line it stands.
func (r *Redactor) Writer(w io.Writer) io.Writer { return redacting{w, r} }

type redacting struct {
	io.Writer
	r *Redactor
}

func (w redacting) Write(line []byte) (int, error) {
	if _, err := io.WriteString(w.Writer, w.r.String(string(line))); err != nil {
		return 0, err
	}
	return len(line), nil
}
