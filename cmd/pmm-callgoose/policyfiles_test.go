package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"pmm-callgoose/cmd/internal/cli"
	"pmm-callgoose/ingest/pmm/pmmtest"
)

// planned asks setup pmm what it would make in a PMM where nothing is made yet:
// by object, what each field would be.
func planned(t *testing.T) map[string]map[string]string {
	t.Helper()
	server := httptest.NewServer(pmmtest.New(pmmtest.Config{}))
	t.Cleanup(server.Close)
	dir := t.TempDir()
	for name, secret := range map[string]string{"pmm-token": pmmtest.Token, "ingest-token": "a-secret-of-the-intake"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out, errs bytes.Buffer
	code := cli.Main([]string{
		"pmm-callgoose", "setup", "pmm", "--dry-run", "--output", "json", "--pmm-url", server.URL, "--pmm-token-file", filepath.Join(dir, "pmm-token"),
		"--ingest-token-file", filepath.Join(dir, "ingest-token"), "--webhook-url", "http://pmm-callgoose:4667/v1/webhook",
	}, nil, &out, &errs)
	var plan struct {
		Steps []struct {
			Object string
			Fields []struct{ Name, To string }
		}
	}
	if err := json.Unmarshal(out.Bytes(), &plan); code != 0 || err != nil || len(plan.Steps) < 2 {
		t.Fatalf("setup pmm ends with %d, %v: %s%s", code, err, &out, &errs)
	}
	all := map[string]map[string]string{}
	for _, step := range plan.Steps {
		fields := map[string]string{}
		for _, f := range step.Fields {
			names, values := strings.Split(f.Name, ", "), []string{f.To}
			if len(names) > 1 { // "group_wait, group_interval": "10s, 1m"
				values = strings.Split(f.To, ", ")
			}
			for i, name := range names {
				fields[name] = values[i]
			}
		}
		all[step.Object] = fields
	}
	return all
}

// Who keeps PMM's policies in files gets there what setup pmm makes.
func TestTheFilesForPMMAreWhatSetupMakes(t *testing.T) {
	var points struct {
		ContactPoints []struct{ Receivers []map[string]any } `yaml:"contactPoints"`
	}
	var trees struct {
		Policies []struct{ Routes []map[string]any }
	}
	for file, into := range map[string]any{"contact-point.yaml": &points, "policies.yaml": &trees} {
		b, err := os.ReadFile(filepath.Join(top, "deploy/pmm/provisioning", file))
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(b, into); err != nil {
			t.Fatal(file, err)
		}
	}
	receiver := points.ContactPoints[0].Receivers[0]
	settings, _ := receiver["settings"].(map[string]any)
	route := trees.Policies[0].Routes[0]
	b, err := os.ReadFile(filepath.Join(top, "deploy/pmm/terraform/main.tf"))
	if err != nil {
		t.Fatal(err)
	}
	terraform := strings.ReplaceAll(string(b), `"`, "")
	plan, seen := planned(t), 0
	for object, provisioned := range map[string][]map[string]any{"contact point": {receiver, settings}, "route": {route}} {
		for name, want := range plan[object] {
			if name == "matches" && want == "all alerts" || name == "authorization_credentials" {
				continue // said by leaving it out; a secret
			}
			seen++
			if name == "group_by" {
				want = "[" + want + "]"
			}
			got := ""
			for _, part := range provisioned {
				if v, ok := part[name]; ok {
					got = strings.ReplaceAll(fmt.Sprint(v), " ", ", ")
				}
			}
			if got != want {
				t.Errorf("provisioning: %s %s is %q, setup pmm makes %q", object, name, got, want)
			}
			// Terraform has other names for the same: max_alerts, not maxAlerts.
			snake := strings.ToLower(regexp.MustCompile(`[A-Z]`).ReplaceAllString(name, "_$0"))
			if name == "url" {
				snake = "default"
			}
			if !regexp.MustCompile(`(?m)^ *` + snake + ` += ` + regexp.QuoteMeta(want)).MatchString(terraform) {
				t.Errorf("terraform: no %s = %s", snake, want)
			}
		}
	}
	if seen < 9 {
		t.Errorf("only %d fields were compared: %v", seen, plan)
	}
}
