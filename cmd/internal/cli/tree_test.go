package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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
