package cli

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestFlagsMayFollowArguments(t *testing.T) {
	app := (&program{}).app()
	for line, want := range map[string]string{
		"events show ID --output json":                      "events show --output json ID",
		"events show --output json ID":                      "events show --output json ID",
		"replay a b --yes c --rate 5 --outcome=dead d":      "replay --yes --rate 5 --outcome=dead a b c d",
		"events import - --data-dir x":                      "events import --data-dir x -",
		"replay a -- --yes":                                 "replay a -- --yes",
		"status --output":                                   "status --output",
		"nonsense --x y":                                    "nonsense --x y",
		"dead-letters retry --all --yes --config f":         "dead-letters retry --all --yes --config f",
		"events list --match alertname=MySQL --unknown x y": "events list --match alertname=MySQL --unknown x y",
	} {
		got := flagsFirst(app.Commands, append([]string{"pmm-callgoose"}, strings.Fields(line)...))
		if line == "nonsense --x y" {
			want = "--x nonsense y"
		}
		if !slices.Equal(got[1:], strings.Fields(want)) {
			t.Errorf("%s became %v", line, got[1:])
		}
	}
}

func TestExitCodesOfMistakes(t *testing.T) {
	for line, want := range map[string]int{
		"":                                   exitOK,
		"version":                            exitOK,
		"nonsense":                           exitUsage,
		"events nonsense":                    exitUsage,
		"status --nonsense":                  exitUsage,
		"status extra":                       exitUsage,
		"events show":                        exitUsage,
		"events list --since yesterday":      exitUsage,
		"events list --output yaml":          exitUsage,
		"replay --data-dir /nonexistent":     exitUsage, // nothing was chosen
		"status --data-dir /nonexistent":     exitNoSuch,
		"events show x --data-dir /nonesuch": exitNoSuch,
		"serve --data-dir /nonexistent":      exitUsage, // no address, no token
	} {
		var out, err bytes.Buffer
		got := Main(append([]string{"pmm-callgoose"}, strings.Fields(line)...), nil, &out, &err)
		if got != want {
			t.Errorf("%q ended with %d, want %d: %s", line, got, want, err.String())
		}
		if want != exitOK && (err.Len() == 0 || strings.Contains(out.String(), "USAGE")) {
			t.Errorf("%q says nothing useful: %s%s", line, out.String(), err.String())
		}
	}
}
