package cli

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/urfave/cli/v2"
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

// What a restart would not heal must be a failed unit, and each has its way out.
func TestWhatStopsAStartNamesTheWayOut(t *testing.T) {
	listen := func(errno syscall.Errno) error {
		return &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", errno)}
	}
	for name, tt := range map[string]struct {
		err  error
		code int
		hint string
	}{
		"a file of another user": {&fs.PathError{Op: "open", Path: "ledger.db", Err: syscall.EACCES}, exitUsage, "chown -R"},
		"a port of root's":       {listen(syscall.EACCES), exitUsage, "choose another"},
		"a port that is taken":   {listen(syscall.EADDRINUSE), exitFailed, "ss -ltnp"},
		"a read-only place":      {&fs.PathError{Op: "open", Path: "lock", Err: syscall.EROFS}, exitFailed, "ReadWritePaths="},
		"a foreign address":      {listen(syscall.EADDRNOTAVAIL), exitFailed, "ip addr"},
	} {
		var said bytes.Buffer
		p := &program{err: &said}
		if code := p.report(fmt.Errorf("start: %w", tt.err)); code != tt.code || !strings.Contains(said.String(), tt.hint) {
			t.Errorf("%s: exit %d, %q; want %d and %q", name, code, said.String(), tt.code, tt.hint)
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
		"events show ..":                     exitUsage, // no ID, and another path
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

func TestAServiceThatNamesNoPMMIsNotCompared(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "[]") }))
	defer srv.Close()
	var out, err bytes.Buffer
	if got := Main([]string{"pmm-callgoose", "reconcile", "--admin-url", srv.URL}, nil, &out, &err); got != exitFailed || !strings.Contains(err.String(), "nothing was compared") {
		t.Errorf("exit %d, %s", got, err.String())
	}
}

// What a help shows is typed as it stands there.
func TestEveryCommandThatTakesFlagsHasExamplesThatAreRight(t *testing.T) {
	word := regexp.MustCompile(`"[^"]*"|\S+`)
	seen := 0
	each((&program{}).app().Commands, "", func(path string, c *cli.Command) {
		if len(c.Flags) == 0 {
			return
		}
		seen++
		if len(examples[path]) == 0 || !strings.Contains(c.Description, examples[path][0]) {
			t.Errorf("%s has no example in its help", path)
		}
		for _, e := range examples[path] {
			args := []string{"pmm-callgoose"}
			for _, w := range word.FindAllString(e, -1) {
				args = append(args, strings.Trim(w, `"`))
			}
			ran, app := "", (&program{err: io.Discard, out: io.Discard}).app()
			each(app.Commands, "", func(path string, c *cli.Command) {
				c.Action = func(c *cli.Context) error {
					ran = path
					if !strings.HasPrefix(path, "events") {
						return nil
					}
					_, err := filters(c)
					return err
				}
			})
			if err := app.Run(flagsFirst(app.Commands, args)); err != nil || ran != path {
				t.Errorf("%s: %v, it is an example of %q", e, err, ran)
			}
		}
	})
	if seen != len(examples) {
		t.Errorf("%d commands take flags, %d have examples", seen, len(examples))
	}
}
