package metrics

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// The files under deploy/ that name metrics live as long as they name them right.
const (
	rulesFile     = root + "deploy/prometheus/rules.yml"
	rulesTestFile = root + "deploy/prometheus/rules_test.yml"
	templatesFile = root + "deploy/pmm/alert-templates.yml"
	dashboardFile = root + "deploy/grafana/dashboard.json"
)

// promRule is a rule in Prometheus' file.
type promRule struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

// template is an alert template of Percona: PMM refuses a file with any other
// field.
type template struct {
	Name        string            `yaml:"name"`
	Version     int               `yaml:"version"`
	Summary     string            `yaml:"summary"`
	Expr        string            `yaml:"expr"`
	Params      []param           `yaml:"params"`
	For         string            `yaml:"for"`
	Severity    string            `yaml:"severity"`
	Annotations map[string]string `yaml:"annotations"`
}

type param struct {
	Name    string    `yaml:"name"`
	Summary string    `yaml:"summary"`
	Unit    string    `yaml:"unit"`
	Type    string    `yaml:"type"`
	Range   []float64 `yaml:"range"`
	Value   float64   `yaml:"value"`
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func rules(t *testing.T) []promRule {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string     `yaml:"name"`
			Rules []promRule `yaml:"rules"`
		} `yaml:"groups"`
	}
	readYAML(t, rulesFile, &file)
	if len(file.Groups) != 1 || len(file.Groups[0].Rules) < 10 {
		t.Fatalf("%d groups of rules", len(file.Groups))
	}
	return file.Groups[0].Rules
}

func templates(t *testing.T) []template {
	t.Helper()
	var file struct {
		Templates []template `yaml:"templates"`
	}
	readYAML(t, templatesFile, &file)
	return file.Templates
}

// panel is what is read of a panel of the dashboard.
type panel struct {
	ID      int    `json:"id"`
	Type    string `json:"type"`
	Title   string `json:"title"`
	GridPos struct{ X, Y, W, H int }
	Targets []struct {
		RefID string `json:"refId"`
		Expr  string `json:"expr"`
	} `json:"targets"`
}

type dashboard struct {
	SchemaVersion int     `json:"schemaVersion"`
	UID           string  `json:"uid"`
	ID            *int    `json:"id"`
	Panels        []panel `json:"panels"`
	Templating    struct {
		List []struct {
			Name       string `json:"name"`
			Type       string `json:"type"`
			Query      any    `json:"query"`
			Definition string `json:"definition"`
		} `json:"list"`
	} `json:"templating"`
}

func readDashboard(t *testing.T) (d dashboard, raw []byte) {
	t.Helper()
	raw, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	return d, raw
}

var (
	selector = regexp.MustCompile(`\b((?:pmm_callgoose|process|go)_[a-z_]+)(\{[^}]*\})?`)
	matcher  = regexp.MustCompile(`([a-z_]+)(=~|!=|!~|=)"([^"]*)"`)
)

// Every series in every expression is one that is really there, with its labels
// and, where a matcher asks for one value, with that value.
func TestWhatDeployNamesExists(t *testing.T) {
	series := map[string]map[string][]string{} // name -> label -> values
	all, err := busy().registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		names := []string{f.GetName()}
		extra := ""
		if f.GetType().String() == "HISTOGRAM" {
			names, extra = []string{f.GetName() + "_bucket", f.GetName() + "_sum", f.GetName() + "_count"}, "le"
		}
		for _, name := range names {
			labels := map[string][]string{"instance": nil}
			if extra != "" {
				labels[extra] = nil
			}
			for _, m := range f.Metric {
				for _, l := range m.Label {
					labels[l.GetName()] = append(labels[l.GetName()], l.GetValue())
				}
			}
			series[name] = labels
		}
	}
	exprs := map[string]string{}
	for _, r := range rules(t) {
		exprs[rulesFile+" "+r.Alert] = r.Expr
	}
	for _, tmpl := range templates(t) {
		exprs[templatesFile+" "+tmpl.Name] = tmpl.Expr
	}
	d, _ := readDashboard(t)
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			exprs[dashboardFile+" "+p.Title+" "+target.RefID] = target.Expr
		}
	}
	for _, v := range d.Templating.List {
		if v.Definition != "" {
			exprs[dashboardFile+" $"+v.Name] = v.Definition
		}
	}
	var file struct {
		RuleFiles []string `yaml:"rule_files"`
		Interval  string   `yaml:"evaluation_interval"`
		Tests     []struct {
			Name     string `yaml:"name"`
			Interval string `yaml:"interval"`
			Input    []struct {
				Series string `yaml:"series"`
				Values string `yaml:"values"`
			} `yaml:"input_series"`
			Alerts []any `yaml:"alert_rule_test"`
		} `yaml:"tests"`
	}
	readYAML(t, rulesTestFile, &file)
	for _, test := range file.Tests {
		for _, in := range test.Input {
			exprs[rulesTestFile+" "+test.Name+" "+in.Series] = in.Series
		}
	}
	if len(exprs) < 60 {
		t.Fatalf("only %d expressions were found", len(exprs))
	}
	for _, where := range slices.Sorted(maps.Keys(exprs)) {
		found := selector.FindAllStringSubmatch(exprs[where], -1)
		if len(found) == 0 {
			t.Errorf("%s names no metric: %s", where, exprs[where])
		}
		for _, m := range found {
			labels, ok := series[m[1]]
			if !ok {
				t.Errorf("%s: there is no %s", where, m[1])
				continue
			}
			for _, lm := range matcher.FindAllStringSubmatch(m[2], -1) {
				values, ok := labels[lm[1]]
				if !ok {
					t.Errorf("%s: %s has no label %s", where, m[1], lm[1])
				}
				if ok && lm[2] == "=" && values != nil && m[1] != build.Name && !slices.Contains(values, lm[3]) {
					t.Errorf("%s: %s never has %s=%q", where, m[1], lm[1], lm[3])
				}
			}
		}
	}
}

// bare is an expression as Prometheus has it, made of a template's.
func bare(tmpl template) string {
	expr := strings.TrimSpace(tmpl.Expr)
	for _, p := range tmpl.Params {
		expr = strings.ReplaceAll(expr, "[[ ."+p.Name+" ]]", fmt.Sprint(p.Value))
	}
	return expr
}

func TestTheTemplatesAreTheRules(t *testing.T) {
	snake := regexp.MustCompile(`([a-z])([A-Z])`)
	plain := strings.NewReplacer("bool ", "", "(", "", ")", "", " ", "")
	words := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	all := templates(t)
	if len(all) != len(rules(t)) {
		t.Fatalf("%d templates, %d rules", len(all), len(rules(t)))
	}
	for i, r := range rules(t) {
		tmpl := all[i]
		if want := strings.ToLower(snake.ReplaceAllString(r.Alert, "${1}_$2")); tmpl.Name != want {
			t.Errorf("template %d is %s, want %s", i, tmpl.Name, want)
		}
		// PMM keeps these for its own.
		if strings.HasPrefix(tmpl.Name, "pmm_") || strings.HasPrefix(tmpl.Name, "saas_") {
			t.Errorf("%s: PMM refuses the prefix", tmpl.Name)
		}
		if got, want := plain.Replace(bare(tmpl)), plain.Replace(r.Expr); got != want {
			t.Errorf("%s:\n got %s\nwant %s", tmpl.Name, got, want)
		}
		// A rule in Grafana fires on what is not zero: a bare "> 0" is right there,
		// "== 0" would never fire, and "> 300" would fire with any value it lets through.
		if !strings.Contains(tmpl.Expr, "bool ") && !strings.HasPrefix(tmpl.Expr, "absent(") {
			t.Errorf("%s: the comparison has no bool", tmpl.Name)
		}
		if strings.TrimSuffix(tmpl.For, "0s") != strings.TrimSuffix(r.For, "0s") || tmpl.Severity != r.Labels["severity"] || tmpl.Version != 1 {
			t.Errorf("%s: for %s, severity %s, version %d", tmpl.Name, tmpl.For, tmpl.Severity, tmpl.Version)
		}
		summary, _, _ := strings.Cut(tmpl.Annotations["summary"], " ({{")
		description := tmpl.Annotations["description"]
		for _, p := range tmpl.Params {
			description = strings.ReplaceAll(description, "[[ ."+p.Name+" ]]", fmt.Sprint(p.Value))
			if p.Type != "float" || p.Unit != "s" && p.Unit != "%" || len(p.Range) != 2 || p.Value < p.Range[0] || p.Value > p.Range[1] || p.Summary == "" {
				t.Errorf("%s: parameter %+v", tmpl.Name, p)
			}
		}
		if len(tmpl.Annotations) != 2 || tmpl.Summary != r.Annotations["summary"] || summary != r.Annotations["summary"] || words(description) != words(r.Annotations["description"]) {
			t.Errorf("%s says\n%q\nwant\n%q", tmpl.Name, tmpl.Annotations, r.Annotations)
		}
		if strings.Contains(bare(tmpl)+description, "[[") {
			t.Errorf("%s has a parameter that is not declared", tmpl.Name)
		}
	}
}

func TestTheDashboardCanBeImported(t *testing.T) {
	d, raw := readDashboard(t)
	if d.SchemaVersion < 36 || d.SchemaVersion > 41 || d.UID == "" || len(d.UID) > 40 || d.ID != nil {
		t.Errorf("schema %d, uid %q, id %v", d.SchemaVersion, d.UID, d.ID)
	}
	var whole any
	if err := json.Unmarshal(raw, &whole); err != nil {
		t.Fatal(err)
	}
	if n := datasources(t, whole); n < 2*len(d.Panels)-8 {
		t.Errorf("only %d places name the data source", n)
	}
	if v := d.Templating.List[0]; v.Name != "datasource" || v.Type != "datasource" || v.Query != "prometheus" {
		t.Errorf("the first variable is %+v", v)
	}
	ids := map[int]bool{}
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("panel %q: id %d", p.Title, p.ID)
		}
		ids[p.ID] = true
		if p.Type != "row" && len(p.Targets) == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q: %d targets at %+v", p.Title, len(p.Targets), p.GridPos)
		}
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other := taken[at]; other != "" {
					t.Fatalf("panels %q and %q overlap", p.Title, other)
				}
				taken[at] = p.Title
			}
		}
	}
}

// datasources counts the places of v that name a data source, and demands that
// it is the variable: PMM's has another uid than anybody else's.
func datasources(t *testing.T, v any) (n int) {
	switch v := v.(type) {
	case map[string]any:
		for k, inner := range v {
			if ds, ok := inner.(map[string]any); ok && k == "datasource" {
				n++
				if ds["type"] != "prometheus" || ds["uid"] != "${datasource}" {
					t.Errorf("a data source that is not the variable: %v", ds)
				}
			} else if k == "datasource" {
				t.Errorf("an old data source: %v", inner)
			}
			n += datasources(t, inner)
		}
	case []any:
		for _, inner := range v {
			n += datasources(t, inner)
		}
	}
	return n
}

// promtool runs Prometheus' own checker, of Debian's package prometheus.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed (Debian: prometheus)")
	}
	out, err := exec.CommandContext(t.Context(), tool, args...).CombinedOutput()
	if err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestTheRulesFireWhenTheyShould(t *testing.T) {
	promtool(t, "check", "rules", rulesFile)
	promtool(t, "test", "rules", rulesTestFile)
}

// The other expressions are no rules; as rules they can be parsed.
func TestPrometheusUnderstandsTheExpressions(t *testing.T) {
	type record struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	var records []record
	add := func(expr string) {
		expr = strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*").Replace(expr)
		records = append(records, record{fmt.Sprintf("test:%d", len(records)), expr})
	}
	for _, tmpl := range templates(t) {
		add(bare(tmpl))
	}
	d, _ := readDashboard(t)
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			add(target.Expr)
		}
	}
	b, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "test", "rules": records}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "expressions.yml")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", path)
}

// The table in the reference is ours, row by row; -update writes it.
func TestTheReferenceListsEveryMetric(t *testing.T) {
	const file = root + "deploy/docs/reference.md"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "| `"+prefix) {
			got = append(got, strings.TrimSpace(line))
		}
	}
	var want []string
	for _, m := range table {
		labels := ""
		if len(m.Labels) > 0 {
			labels = "`" + strings.Join(m.Labels, "`, `") + "`"
		}
		want = append(want, fmt.Sprintf("| `%s` | %s | %s | %s |", m.Name, m.Type, labels, m.Help))
	}
	if *update {
		text := strings.Replace(string(b), strings.Join(got, "\n"), strings.Join(want, "\n"), 1)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !slices.Equal(got, want) {
		t.Errorf("deploy/docs/reference.md should list:\n%s", strings.Join(want, "\n"))
	}
}
