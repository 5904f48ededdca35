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
	"pmm-callgoose/store/event"
)

// Completions and man page name every command and every flag, whoever adds one.
func TestGeneratedTextsAreComplete(t *testing.T) {
	root := tree((&program{}).app())
	man := strings.ReplaceAll(manPage(root, build()), `\-`, "-")
	bash, zsh, fish := bashCompletion(root), zshCompletion(root), fishCompletion(root)
	seen := 0
	root.each(func(n *node) {
		path := strings.Join(n.path, " ")
		if path == "" {
			return
		}
		seen++
		for name, text := range map[string][2]string{
			"man":  {man, `.SS "` + path},
			"bash": {bash, "'" + path + "'"},
			"zsh":  {zsh, "_pmm-callgoose_" + strings.ReplaceAll(path, " ", "_") + "() {"},
			"fish": {fish, " -a " + n.name() + " -d "},
		} {
			if !strings.Contains(text[0], text[1]) {
				t.Errorf("%s has no command %q", name, path)
			}
		}
		for _, f := range n.flags {
			if !f.value && f.usage == "" {
				t.Errorf("%s --%s says nothing", path, f.name)
			}
			for name, text := range map[string][2]string{
				"man": {man, "--" + f.name}, "bash": {bash, "--" + f.name}, "zsh": {zsh, "--" + f.name},
				"fish": {fish, "'__pmm_callgoose_at " + path + "' -l " + f.name},
			} {
				if !strings.Contains(text[0], text[1]) {
					t.Errorf("%s has no flag --%s of %s", name, f.name, path)
				}
			}
		}
	})
	if seen < 10 {
		t.Errorf("only %d commands", seen)
	}
	for _, o := range config.Options() {
		if !strings.Contains(man, o.Env) || !strings.Contains(man, o.Usage) {
			t.Errorf("the man page does not explain %s", o.Name)
		}
	}
}

// free are the flags whose values nobody can list, with what they are.
var free = map[string]string{
	"admin-url": "address", "webhook-url": "address", "pmm-url": "address",
	"since": "time", "until": "time", "match": "label=value", "incident": "key", "source": "name", "contact-point": "name",
	"config": "file", "webhook-ca": "file", "connections": "numbers",
}

// A new flag is decided on: its values are completed, or it is free.
func TestEveryFixedSetOfValuesIsCompleted(t *testing.T) {
	root := tree((&program{}).app())
	text := map[string]bool{}
	var look func([]*cli.Command)
	look = func(commands []*cli.Command) {
		for _, c := range commands {
			for _, f := range c.Flags {
				switch f.(type) {
				case *cli.StringFlag, *cli.StringSliceFlag, *cli.GenericFlag:
					text[f.Names()[0]] = true
				}
			}
			look(c.Subcommands)
		}
	}
	look((&program{}).app().Commands)
	root.each(func(n *node) {
		for _, f := range n.flags {
			_, option := f.setting()
			decided := option || f.file || !f.value || !text[f.name] || len(f.offered()) > 0 || free[f.name] != ""
			if !decided {
				t.Errorf("%v --%s: say its values in flagValues, or that it is free", n.path, f.name)
			}
			if len(f.offered()) > 0 && free[f.name] != "" {
				t.Errorf("--%s is said to be free and has values", f.name)
			}
		}
	})
	for name := range free {
		if !text[name] {
			t.Errorf("there is no flag --%s", name)
		}
	}
	for _, o := range config.Options() {
		if o.Kind == config.KindEnum && len(o.Values) < 2 {
			t.Errorf("--%s has no values", o.Name)
		}
	}
}

// What is completed is taken, and where all values are named no other one is.
func TestCompletedValuesAreThoseTaken(t *testing.T) {
	refused := func(args ...string) bool {
		var out, err bytes.Buffer
		// Below a file there is nothing: a command that goes on fails otherwise.
		code := Main(append([]string{"pmm-callgoose"}, args...), []string{"PMM_CALLGOOSE_DATA_DIR=/dev/null/x", "HOME=/dev/null/x"}, &out, &err)
		return code == exitUsage && strings.Contains(err.String(), args[len(args)-2])
	}
	seen := map[string]int{}
	tree((&program{}).app()).each(func(n *node) {
		for _, f := range n.flags {
			// Settings only serve has to refuse: doctor makes a finding of them, and
			// replay reads them when it runs without a service.
			if _, option := f.setting(); len(f.values) == 0 || option && n.name() != "serve" {
				continue
			}
			seen[f.name]++
			if !refused(slices.Concat(n.path, []string{"--" + f.name, "no-such-word"})...) {
				t.Errorf("%v --%s no-such-word is not refused", n.path, f.name)
			}
		}
	})
	for _, name := range []string{"output", "status", "outcome", "kind", "incident-by", "log-level"} {
		if seen[name] == 0 {
			t.Errorf("no values of --%s", name)
		}
	}
	for _, f := range []string{"--status", "--outcome", "--output"} {
		for _, v := range flagValues(f[2:]) {
			if refused("events", "list", f, v) {
				t.Errorf("%s %s is refused", f, v)
			}
		}
	}
	for _, f := range describeAll(t, "serve") {
		for _, v := range f.usual {
			if refused("serve", "--"+f.name, v) {
				t.Errorf("--%s %s is refused", f.name, v)
			}
		}
	}
}

func describeAll(t *testing.T, command string) (flags []flagNode) {
	t.Helper()
	tree((&program{}).app()).each(func(n *node) {
		if len(n.path) == 1 && n.path[0] == command {
			flags = n.flags
		}
	})
	if len(flags) == 0 {
		t.Fatalf("no flags of %s", command)
	}
	return flags
}

// The script is run by the bash that is here; words as bash itself breaks them.
func TestBashCompletes(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash")
	}
	file := filepath.Join(t.TempDir(), "completion")
	if err := os.WriteFile(file, []byte(bashCompletion(tree((&program{}).app()))), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"sta":                                 "status",
		"events ":                             "export import list show tail --help",
		"events list --out":                   "--outcome --output",
		"events list --outcome de":            "delivered dead",
		"events list --outcome queued,dis":    "queued,discarded",
		"events list --output ":               "table json",
		"serve --callgoose-auth = q":          "query",
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
		words := strings.Split(line, " ")
		if slices.Contains(words, "=") && words[len(words)-1] == "" {
			words = words[:len(words)-1]
		}
		script := `source "$1"; shift; compopt() { :; }; COMP_WORDS=(pmm-callgoose "$@"); COMP_CWORD=$#; _pmm_callgoose; echo "${COMPREPLY[*]}"`
		out, err := exec.Command(bash, append([]string{"-c", script, "bash", file}, words...)...).CombinedOutput()
		got := strings.Fields(string(out))
		exp := strings.Fields(want)
		slices.Sort(got)
		slices.Sort(exp)
		if err != nil || !slices.Equal(got, exp) {
			t.Errorf("%q completes to %q (%v), want %q", line, got, err, exp)
		}
	}
	for _, o := range event.Outcomes { // the values follow the code
		if !strings.Contains(bashCompletion(tree((&program{}).app())), string(o)) {
			t.Errorf("no outcome %s", o)
		}
	}
}

func TestHealthOfNoServiceIsOne(t *testing.T) {
	var out, err bytes.Buffer
	if code := Main([]string{"pmm-callgoose", "health", "--data-dir", t.TempDir()}, nil, &out, &err); code != exitFailed || err.Len() == 0 {
		t.Errorf("ended with %d: %s%s", code, &out, &err)
	}
}
