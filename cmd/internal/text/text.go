// Package text writes what people read on terminals and pages: texts from
// outside made harmless, and times, spans, sizes and counts in words.
//
// All but JSONWriter are pure functions, safe for concurrent use. Times are shown in UTC.
package text

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Deceives reports whether r controls a terminal, is invisible, or reorders
// the characters beside it. Line breaks and tabs count too.
func Deceives(r rune) bool {
	switch r {
	case '\u00ad', '\u034f', '\u115f', '\u1160', '\u3164', '\uffa0':
		return true
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co)
}

// Clean shows characters that deceive, and bytes that are not UTF-8, as their
// codes: ‹U+202E›, ‹FF›. Line breaks and tabs stay.
func Clean(s string) string {
	hidden := func(r rune) bool { return r != '\n' && r != '\t' && Deceives(r) }
	if utf8.ValidString(s) && !strings.ContainsFunc(s, hidden) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		_, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, "‹%02X›", s[i])
		case hidden(r):
			fmt.Fprintf(&b, "‹U+%04X›", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

var breaks = strings.NewReplacer("\r\n", " ", "\n", " ", "\t", " ", "\r", " ")

// Line is Clean for one line: line breaks and tabs become spaces.
func Line(s string) string { return Clean(breaks.Replace(s)) }

// Short is Line with runs of spaces folded, cut to at most n characters.
func Short(n int, s string) string {
	if len(s) > 8*n { // a long text is not read to its end
		s = strings.ToValidUTF8(s[:8*n], "")
	}
	s = strings.Join(strings.Fields(Line(s)), " ")
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// JSON escapes, in encoded JSON, the characters that deceive: they can only
// stand inside strings.
func JSON(encoded []byte) []byte {
	out := make([]byte, 0, len(encoded))
	for len(encoded) > 0 {
		r, n := utf8.DecodeRune(encoded)
		switch {
		case r < 0x7f || !Deceives(r):
			out = append(out, encoded[:n]...)
		case r > 0xffff:
			high, low := (r-0x10000)>>10+0xd800, (r-0x10000)&0x3ff+0xdc00
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		encoded = encoded[n:]
	}
	return out
}

// JSONWriter writes to w what JSON makes of each write, which must be of whole values. Use it
// as w: one at a time.
func JSONWriter(w io.Writer) io.Writer { return jsonWriter{w} }

type jsonWriter struct{ io.Writer }

// Write implements io.Writer.
func (w jsonWriter) Write(encoded []byte) (int, error) {
	if _, err := w.Writer.Write(JSON(encoded)); err != nil {
		return 0, err
	}
	return len(encoded), nil
}

// Stamp is a time in full, "-" for none.
func Stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// Clock is a time without the parts that it shares with now, "never" for none. It says
// that it is UTC: a script may show it in the zone of the reader.
func Clock(t, now time.Time) string {
	t, now = t.UTC(), now.UTC()
	switch {
	case t.IsZero():
		return "never"
	case t.Format(time.DateOnly) == now.Format(time.DateOnly):
		return t.Format("15:04:05Z")
	case t.Year() == now.Year():
		return t.Format("Jan 2 15:04:05Z")
	}
	return Stamp(t)
}

// Span is a duration in at most two units; its sign is left out.
func Span(d time.Duration) string {
	d = d.Abs()
	h, m, s := int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", s)
	case d < 10*time.Minute && s > 0:
		return fmt.Sprintf("%d min %d s", m, s)
	case d < time.Hour:
		return fmt.Sprintf("%d min", m)
	case d < 24*time.Hour && m > 0:
		return fmt.Sprintf("%d h %d min", h, m)
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h", h)
	case h%24 > 0:
		return fmt.Sprintf("%d d %d h", h/24, h%24)
	}
	return fmt.Sprintf("%d d", h/24)
}

// Ago is how long before now t was.
func Ago(t, now time.Time) string {
	if d := now.Sub(t); d >= time.Second {
		return Span(d) + " ago"
	}
	return "just now"
}

// Until is how long after now t will be.
func Until(t, now time.Time) string {
	if d := t.Sub(now); d >= time.Second {
		return "in " + Span(d)
	}
	return "now"
}

// Size is a number of bytes.
func Size(n int64) string {
	f, unit := float64(n), "B"
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if f < 1024 {
			break
		}
		f, unit = f/1024, u
	}
	if unit == "B" || f >= 100 {
		return fmt.Sprintf("%.0f %s", f, unit)
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}

// Plural is a number with its words: those for one, or those for many.
func Plural[N ~int | ~int64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
