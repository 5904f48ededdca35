package config

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestWhichPMMIsAsked(t *testing.T) {
	for text, want := range map[string]PMMs{
		"https://pmm.example.net":                      {{"pmm", "https://pmm.example.net"}},
		"https://pmm.example.net/graph":                {{"pmm", "https://pmm.example.net/graph"}},
		"dr=https://dr.example.net:8443":               {{"dr", "https://dr.example.net:8443"}},
		"pmm=https://a, dr=http://127.0.0.1:8080":      {{"pmm", "https://a"}, {"dr", "http://127.0.0.1:8080"}},
		"https://a,pmm=https://b":                      nil,
		"dr=https://a,dr=https://b":                    nil,
		"Not A Name=https://a":                         nil,
		"pmm.example.net":                              nil,
		"https://admin:s3cr3t-w0rd@pmm.example.net":    nil,
		"https://pmm.example.net/?api_key=s3cr3t-w0rd": nil,
		"": nil,
	} {
		got, err := ParsePMMs(text)
		if !reflect.DeepEqual(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%q is %v, %v", text, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%q: the error tells a secret: %v", text, err)
		}
	}
}

func TestSettingsOfWhatPMMSays(t *testing.T) {
	dir := t.TempDir()
	token := filepath.Join(dir, "pmm-token")
	if err := os.WriteFile(token, []byte("pmm glsa_one-t0ken\ndr glsa_other-t0ken\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	base := map[string]string{"data-dir": dir}
	asked := map[string]string{"pmm-url": "https://a,dr=https://b", "pmm-token-file": token}
	for _, tt := range []struct {
		name  string
		flags map[string]string
		wrong string // "" = nothing is
	}{
		{"nothing", nil, ""},
		{"two PMMs with a token each", asked, ""},
		{"no token", map[string]string{"pmm-url": "https://a"}, "pmm-url: needs pmm-token-file"},
		{"a file of tokens is no password", map[string]string{"pmm-url": "https://a", "pmm-basic-auth-file": token}, "pmm-basic-auth-file: the secret"},
		{"plain http", map[string]string{"pmm-url": "http://a.example.net", "pmm-token-file": token}, "plain http"},
		{"nobody to ask", map[string]string{"reconcile": "close"}, "reconcile: needs pmm-url"},
		{"off needs nobody", map[string]string{"reconcile": "off"}, ""},
		{"a share is no number", map[string]string{"reconcile-limit": "0.2"}, "share such as 20%"},
		{"a share of nothing", map[string]string{"reconcile-limit": "0%"}, "at most 100%"},
		{"labels without a use", map[string]string{"hollow-match": "team=db"}, "needs hollow-recovery hold"},
		{"labels with one", map[string]string{"hollow-match": "team=db,env=prod", "hollow-recovery": "hold"}, ""},
		{"no label", map[string]string{"hollow-match": "team", "hollow-recovery": "hold"}, "label=value"},
		{"a text too short", map[string]string{"short-length": "3"}, "between 20 and 255"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			flags := map[string]string{"callgoose-url": "https://c/v1/process", "callgoose-token-file": token}
			for _, more := range []map[string]string{base, tt.flags} {
				maps.Copy(flags, more)
			}
			flags["callgoose-token-file"] = filepath.Join(dir, "callgoose-token")
			if err := os.WriteFile(flags["callgoose-token-file"], []byte("a-l0ng-random-token"), 0o600); err != nil {
				t.Fatal(err)
			}
			c, _, err := Load(Input{Flags: flags, Serve: true})
			if tt.wrong == "" && err != nil || tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong)) {
				t.Fatalf("wrong is %v, want %q", err, tt.wrong)
			}
			if want := map[bool]string{true: "report", false: "off"}[len(c.PMMURL) > 0]; tt.wrong == "" && c.Reconcile != want {
				t.Errorf("reconcile is %q, want %q", c.Reconcile, want)
			}
			if shown := c.Redactor().String("tokens glsa_one-t0ken, glsa_other-t0ken"); len(c.PMMURL) == 2 && strings.Contains(shown, "glsa_") {
				t.Errorf("a token is shown: %s", shown)
			}
		})
	}
}
