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
	cfg, _, err := Load(Input{ConfigPath: on, Environ: []string{"HOME=/", "PMM_CALLGOOSE_CALLGOOSE_TOKEN=t", "PMM_CALLGOOSE_PMM_TOKEN=glsa_of-a-viewer"}, Serve: true})
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

// The unit's own word for a secret that is not there means just that.
func TestTheUnitsSecretsThatAreNotThereAreNotSet(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(deployDir, "systemd", "pmm-callgoose.service"))
	if err != nil {
		t.Fatal(err)
	}
	dir, in := t.TempDir(), Input{Environ: []string{"HOME=/", "PMM_CALLGOOSE_ADMIN_TOKEN=from-the-environment"}}
	in.Environ = append(in.Environ, "CREDENTIALS_DIRECTORY="+dir)
	optional := regexp.MustCompile(`(?m)^SetCredential=([a-z-]+):(.*)$`).FindAllStringSubmatch(string(b), -1)
	for _, m := range optional {
		if !strings.Contains(string(b), "\nLoadCredential="+m[1]+":/etc/pmm-callgoose/credentials/"+m[1]+"\n") {
			t.Errorf("%s is never loaded", m[1])
		}
		if !slices.ContainsFunc(Options(), func(o Option) bool { return o.Secret && o.Credential() == m[1] }) {
			t.Errorf("%s is no secret of ours", m[1])
		}
		if err := os.WriteFile(filepath.Join(dir, m[1]), []byte(m[2]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, _, err := Load(in)
	if err != nil || len(optional) < 5 {
		t.Fatalf("%d optional secrets, %v", len(optional), err)
	}
	if secrets := cfg.Secrets(); len(secrets) != 1 || cfg.AdminToken.Reveal() != "from-the-environment" {
		t.Errorf("%d secrets are set", len(secrets))
	}
}
