package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/config"
)

// TestMain ends at once where a command started its own binary again, which is
// the one of these tests: they would start themselves without end.
func TestMain(m *testing.M) {
	if os.Args[0] == "pmm-callgoose" {
		os.Exit(exitFailed)
	}
	m.Run()
}

// The man page names every command and every flag, whoever adds one.
func TestTheManPageIsComplete(t *testing.T) {
	app := (&program{}).app()
	var page strings.Builder
	if err := manPage(&page, app, build()); err != nil {
		t.Fatal(err)
	}
	man := strings.NewReplacer(`\-`, "-", `\(dq`, `"`).Replace(page.String())
	seen := 0
	each(app.Commands, "", func(path string, c *cli.Command) {
		if c.Hidden {
			return
		}
		seen++
		if !strings.Contains(man, `.SS "`+path) {
			t.Errorf("no command %q", path)
		}
		for _, f := range c.Flags {
			if !strings.Contains(man, "--"+f.Names()[0]) {
				t.Errorf("no flag --%s of %s", f.Names()[0], path)
			}
			if f.(cli.DocGenerationFlag).GetUsage() == "" {
				t.Errorf("%s --%s says nothing", path, f.Names()[0])
			}
		}
	})
	if seen < 10 {
		t.Errorf("only %d commands", seen)
	}
	for _, o := range config.Options() {
		if !strings.Contains(man, o.Env) || !strings.Contains(man, o.Usage) {
			t.Errorf("it does not explain %s", o.Name)
		}
	}
}

// Where all values are named, no other one is taken, and each of them is.
func TestCompletedValuesAreThoseTaken(t *testing.T) {
	refused := func(args ...string) bool {
		var out, err bytes.Buffer
		// Below a file there is nothing: a command that goes on fails otherwise.
		code := Main(append([]string{"pmm-callgoose"}, args...), []string{"PMM_CALLGOOSE_DATA_DIR=/dev/null/x", "HOME=/dev/null/x"}, &out, &err)
		return code == exitUsage && strings.Contains(err.String(), args[len(args)-2])
	}
	seen := map[string]bool{}
	each((&program{}).app().Commands, "", func(path string, c *cli.Command) {
		for _, f := range c.Flags {
			name := f.Names()[0]
			option := slices.ContainsFunc(config.Options(), func(o config.Option) bool { return o.Name == name })
			// Settings only serve has to refuse: doctor makes a finding of them, and
			// replay reads them when it runs without a service.
			if len(values(f)) == 0 || name == "severity" || option && path != "serve" {
				continue
			}
			seen[name] = true
			if len(values(f)) > 1 && !refused(append(strings.Fields(path), "--"+name, "no-such-word")...) {
				t.Errorf("%s --%s no-such-word is not refused", path, name)
			}
			for _, v := range values(f) {
				if path == "events list" && refused("events", "list", "--"+name, v) {
					t.Errorf("%s --%s %s is refused", path, name, v)
				}
			}
		}
	})
	for _, name := range []string{"output", "status", "outcome", "kind", "incident-by", "log-level"} {
		if !seen[name] {
			t.Errorf("no values of --%s", name)
		}
	}
}

// The lines are broken into words as bash does it.
func TestWhatIsCompleted(t *testing.T) {
	for line, want := range map[string]string{
		"sta":                                 "status",
		"events ":                             "close export import list park show tail --help",
		"events list --out":                   "--outcome --output",
		"events list --outcome de":            "delivered dead",
		"events list --outcome queued,dis":    "queued,discarded",
		"events list --output ":               "table json",
		"serve --callgoose-auth = q":          "query",
		"serve --callgoose-auth=q":            "--callgoose-auth=query",
		"serve --incident-by = ":              "alert alertname",
		"serve --listen ":                     "",
		"serve --admin-listen ":               "off",
		"send-test --severity cr":             "critical",
		"send-test --severity w":              "warning",
		"doctor --output ":                    "table json",
		"setup pmm --output j":                "json",
		"events export --kind ":               "notification event",
		"replay --rate ":                      "",
		"completion ":                         "bash zsh fish --help",
		"dead-letters list --limit 5 --statu": "--status",
	} {
		got := complete((&program{}).app(), strings.Split(line, " "))
		exp := strings.Fields(want)
		slices.Sort(got)
		slices.Sort(exp)
		if !slices.Equal(got, exp) {
			t.Errorf("%q completes to %q, want %q", line, got, exp)
		}
	}
}

// The script is run by the bash that is here, with a program that answers.
func TestBashAsksTheProgram(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash")
	}
	dir := t.TempDir()
	program, script := filepath.Join(dir, "pmm-callgoose"), filepath.Join(dir, "completion")
	for file, text := range map[string]string{program: "#!/bin/sh\nprintf '%s\\n' \"$@\"\n", script: shells["bash"]} {
		if err := os.WriteFile(file, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(bash, "-c", `source "$1"; COMP_WORDS=("$2" events list --out); COMP_CWORD=3; _pmm_callgoose "$2"; echo "${COMPREPLY[*]}"`, "bash", script, program).CombinedOutput()
	if got := strings.TrimSpace(string(out)); err != nil || got != "completion words -- events list --out" {
		t.Errorf("the program is asked %q, %v", got, err)
	}
}

func TestHealthOfNoServiceIsOne(t *testing.T) {
	var out, err bytes.Buffer
	if code := Main([]string{"pmm-callgoose", "health", "--data-dir", t.TempDir()}, nil, &out, &err); code != exitFailed || err.Len() == 0 {
		t.Errorf("ended with %d: %s%s", code, &out, &err)
	}
}
