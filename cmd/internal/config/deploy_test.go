package config

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const deployDir = "../../../deploy"

// Every variable that a file under deploy/ sets is one that serve knows.
func TestDeployFilesSetKnownVariables(t *testing.T) {
	known := []string{EnvName("config")}
	for _, o := range Options() {
		known = append(known, o.Env)
	}
	name, seen := regexp.MustCompile(`\bPMM_CALLGOOSE_[A-Z_]+`), 0
	err := filepath.WalkDir(deployDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) == ".md" { // the documents name those of other commands too
			return err
		}
		b, err := os.ReadFile(path)
		for _, v := range name.FindAllString(string(b), -1) {
			seen++
			if !slices.Contains(known, v) {
				t.Errorf("%s names %s, which is not known", path, v)
			}
		}
		return err
	})
	if err != nil || seen < 20 {
		t.Errorf("%d variables, %v", seen, err)
	}
}

// The packaged configuration is good as it comes, and with every setting in it
// switched on.
func TestPackagedConfiguration(t *testing.T) {
	path := filepath.Join(deployDir, "package", "config.yaml")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if settings, problems := parseFile(path, b); len(settings) != 0 || problems != nil {
		t.Errorf("as it comes: %v, %v", settings, problems)
	}
	on := filepath.Join(t.TempDir(), "config.yaml")
	text := regexp.MustCompile(`(?m)^#([a-z-]+: )`).ReplaceAllString(string(b), "$1")
	if n := strings.Count(text, "\n") - strings.Count(text, "\n#"); n < 9 || os.WriteFile(on, []byte(text), 0o600) != nil {
		t.Fatal("nothing to switch on")
	}
	cfg, _, err := Load(Input{ConfigPath: on, Environ: []string{"HOME=/", "PMM_CALLGOOSE_CALLGOOSE_TOKEN=t"}, Serve: true})
	if err != nil {
		t.Error(err)
	}
	for _, s := range cfg.Effective() { // what stands there as the default is the default
		o, _ := find(s.Name)
		if strings.HasPrefix(s.From, on) && o.Default != "" && s.Value != o.Default {
			t.Errorf("%s: the file says %s, the default is %s", s.Name, s.Value, o.Default)
		}
	}
}
