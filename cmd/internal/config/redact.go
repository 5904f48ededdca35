package config

import (
	"io"
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
