package text

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestTextFromOutsideIsMadeHarmless(t *testing.T) {
	for in, want := range map[string]string{
		"MySQL down": "MySQL down", "Größe 数据 🦆": "Größe 数据 🦆", "a\u202eb": "a‹U+202E›b", "a\u200bb": "a‹U+200B›b",
		"\x00\x1b[31m": "‹U+0000›‹U+001B›[31m", "\u009b2J": "‹U+009B›2J", "a\xffb": "a‹FF›b", "two\nlines\tx": "two\nlines\tx",
	} {
		if got := Clean(in); got != want {
			t.Errorf("Clean(%q) is %q, want %q", in, got, want)
		}
	}
	if got := Line("two\r\nlines\tand\u2028\u202e"); got != "two lines and‹U+2028›‹U+202E›" {
		t.Errorf("Line: %q", got)
	}
	if got := Short(5, "a  b\nc d e f"); got != "a b …" {
		t.Errorf("Short: %q", got)
	}
	if got := Short(3, strings.Repeat("数", 1000)); got != "数数…" {
		t.Errorf("Short: %q", got)
	}
}

// FuzzLine: whatever comes in, a line holds nothing that a terminal obeys or
// that hides, and JSON means the same after its characters were escaped.
func FuzzLine(f *testing.F) {
	f.Add("a\u202e\u009b\x1b[2J\r\n\xff")
	f.Add("\U000e0041\U000f0000 tag")
	f.Fuzz(func(t *testing.T, s string) {
		for _, shown := range []string{Line(s), Short(40, s)} {
			if !utf8.ValidString(shown) || strings.ContainsFunc(shown, func(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Cf) }) {
				t.Fatalf("%q is shown as %q", s, shown)
			}
		}
		if n := utf8.RuneCountInString(Short(40, s)); n > 40 {
			t.Fatalf("%d characters", n)
		}
		encoded, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var before, after string
		escaped := JSON(encoded)
		if json.Unmarshal(encoded, &before) != nil || json.Unmarshal(escaped, &after) != nil || before != after {
			t.Fatalf("%q became %q", encoded, escaped)
		}
		if strings.ContainsFunc(string(escaped), func(r rune) bool { return unicode.In(r, unicode.Cf) || r >= 0x7f && unicode.IsControl(r) }) {
			t.Fatalf("%q holds what deceives", escaped)
		}
	})
}

func TestTimesSizesAndCountsAreShownInWords(t *testing.T) {
	now := time.Date(2026, 11, 24, 17, 42, 10, 0, time.UTC)
	for _, c := range []struct{ got, want string }{
		{Stamp(now), "2026-11-24 17:42:10Z"},
		{Stamp(time.Time{}), "-"},
		{Clock(now.Add(-time.Hour), now), "16:42:10Z"},
		{Clock(now.AddDate(0, 0, -1), now), "Nov 23 17:42:10Z"},
		{Clock(now.AddDate(-1, 0, 0), now), "2025-11-24 17:42:10Z"},
		{Clock(time.Time{}, now), "never"},
		{Span(1500 * time.Microsecond), "1 ms"},
		{Span(59 * time.Second), "59 s"},
		{Span(61 * time.Second), "1 min 1 s"},
		{Span(601 * time.Second), "10 min"},
		{Span(-90 * time.Minute), "1 h 30 min"},
		{Span(50 * time.Hour), "2 d 2 h"},
		{Ago(now.Add(-time.Minute), now), "1 min ago"},
		{Ago(now.Add(time.Minute), now), "just now"},
		{Until(now.Add(time.Minute), now), "in 1 min"},
		{Until(now, now), "now"},
		{Size(1023), "1023 B"},
		{Size(1536), "1.5 KiB"},
		{Size(2 << 30), "2.0 GiB"},
		{Size(500 << 20), "500 MiB"},
		{Plural(1, "event is", "events are"), "1 event is"},
		{Plural(int64(0), "event is", "events are"), "0 events are"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}
