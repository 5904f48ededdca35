package outbound

import (
	"strings"
	"testing"
)

func TestNoSecretRedactsNothing(t *testing.T) {
	for _, secrets := range [][]string{nil, {""}, {"", ""}} {
		if got := Line("callgoose answered 401", 200, secrets...); got != "callgoose answered 401" {
			t.Errorf("%q: %q", secrets, got)
		}
	}
}

func TestLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                                  "",
		" \t\r\n":                           "",
		"a\n\tb  c":                         "a b c",
		"red \x1b[31m\u009b1m \u202etxt":    "red [31m 1m txt",
		"\xff\xfebad":                       "bad",
		"Größe <b>":                         "Größe <b>",
		strings.Repeat("é", 101):            strings.Repeat("é", 100) + "…",
		"x" + strings.Repeat("é", 100):      "x" + strings.Repeat("é", 99) + "…",
		strings.Repeat(" ", 900) + "beyond": "",
	} {
		if got := Line(in, 200); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := Line(strings.Repeat("x", 1<<20), 200); len(got) != 203 {
		t.Errorf("%d bytes", len(got))
	}
}
