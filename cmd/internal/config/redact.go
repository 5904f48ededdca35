package config

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"

	"pmm-callgoose/store/redact"
)

// Redactor takes the configured secrets out of texts: their values of now and
// those from before a reload, see package redact. Safe concurrently.
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
	*redact.Redactor
}

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
func (r *Redactor) String(text string) string { return r.replacer().Redactor.String(text) }

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
	m.Redactor = redact.New(all...)
	r.made.Store(m)
	return m
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
	clean := slog.NewRecord(rec.Time, rec.Level, m.String(rec.Message), rec.PC)
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
	return slog.Attr{Key: m.String(a.Key), Value: m.value(a.Value.Resolve())}
}

func (m *replacer) value(v slog.Value) slog.Value {
	switch v.Kind() {
	case slog.KindString:
		return slog.StringValue(m.String(v.String()))
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
		return slog.StringValue(m.String(x.Error()))
	case []byte:
		return slog.StringValue(m.String(string(x)))
	case fmt.Stringer:
		return slog.StringValue(m.String(x.String()))
	default:
		j, _ := json.Marshal(x)
		for _, text := range []string{fmt.Sprintf("%+v", x), string(j)} {
			if m.String(text) != text {
				return slog.StringValue(redacted)
			}
		}
		return v
	}
}
