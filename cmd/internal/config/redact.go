package config

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"log/slog"
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
				seen[f] = true
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
		quoted := v // %q of an error that itself says %q
		for range 2 {
			q := strconv.Quote(quoted)
			quoted = q[1 : len(q)-1]
			add(quoted)
		}
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
	out := make([]string, 0, len(seen))
	for f := range seen {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	return out
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

// Handler passes records on to h with every secret in message and attributes
// replaced, so that no line can hold one, whatever an error says.
func (r *Redactor) Handler(h slog.Handler) slog.Handler { return redacting{h, r} }

type redacting struct {
	slog.Handler
	r *Redactor
}

// Handle implements slog.Handler.
func (h redacting) Handle(ctx context.Context, rec slog.Record) error {
	m := h.r.replacer()
	clean := slog.NewRecord(rec.Time, rec.Level, m.Replace(rec.Message), rec.PC)
	for a := range rec.Attrs {
		clean.AddAttrs(m.attr(a))
	}
	return h.Handler.Handle(ctx, clean)
}

// WithAttrs implements slog.Handler.
func (h redacting) WithAttrs(attrs []slog.Attr) slog.Handler {
	return redacting{h.Handler.WithAttrs(h.r.replacer().attrs(attrs)), h.r}
}

// WithGroup implements slog.Handler.
func (h redacting) WithGroup(name string) slog.Handler {
	return redacting{h.Handler.WithGroup(h.r.String(name)), h.r}
}

func (m *replacer) attrs(list []slog.Attr) (clean []slog.Attr) {
	for _, a := range list {
		clean = append(clean, m.attr(a))
	}
	return clean
}

func (m *replacer) attr(a slog.Attr) slog.Attr {
	return slog.Attr{Key: m.Replace(a.Key), Value: m.value(a.Value.Resolve())}
}

func (m *replacer) value(v slog.Value) slog.Value {
	switch v.Kind() {
	case slog.KindString:
		return slog.StringValue(m.Replace(v.String()))
	case slog.KindGroup:
		return slog.GroupValue(m.attrs(v.Group())...)
	case slog.KindAny:
		return m.any(v)
	}
	return v // numbers and times
}

// any keeps a value that shows no secret however it is printed, and replaces the whole of
// any other one.
func (m *replacer) any(v slog.Value) slog.Value {
	switch x := v.Any().(type) {
	case nil:
		return v
	case error:
		return slog.StringValue(m.Replace(x.Error()))
	case []byte:
		return slog.StringValue(m.Replace(string(x)))
	case fmt.Stringer:
		return slog.StringValue(m.Replace(x.String()))
	default:
		j, _ := json.Marshal(x)
		for _, text := range []string{fmt.Sprintf("%+v", x), string(j)} {
			if m.Replace(text) != text {
				return slog.StringValue(redacted)
			}
		}
		return v
	}
}
