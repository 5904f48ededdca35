// Package parse reads what lies under deploy/ as its consumers do: compose files
// with Docker's own parser, manifests strictly into the types of Kubernetes. It
// is a module of its own so that the program does not depend on either.
package parse

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclwrite"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/zclconf/go-cty/cty"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

func compose(t *testing.T, file string, env ...string) (*types.Project, error) {
	t.Helper()
	opts, err := cli.NewProjectOptions([]string{filepath.Join("../../docker", file)}, cli.WithEnv(env), cli.WithName("test"))
	if err != nil {
		t.Fatal(err)
	}
	return opts.LoadProject(t.Context())
}

func TestComposeFilesLoad(t *testing.T) {
	if _, err := compose(t, "compose.yaml"); err == nil || !strings.Contains(err.Error(), "CALLGOOSE_URL") {
		t.Errorf("without CALLGOOSE_URL: %v", err)
	}
	for _, file := range []string{"compose.yaml", "compose.full.yaml"} {
		p, err := compose(t, file, "CALLGOOSE_URL=https://x.example/v1/process", "PMM_NETWORK=pmm-other")
		if err != nil {
			t.Fatal(file, err)
		}
		s, err := p.GetService("pmm-callgoose")
		if err != nil {
			t.Fatal(file, err)
		}
		if !s.ReadOnly || !slices.Contains(s.CapDrop, "ALL") || len(s.Secrets) != 2 || len(s.Ports) != 0 || s.Restart == "" {
			t.Errorf("%s: not locked up: %+v", file, s)
		}
		if s.MemLimit == 0 || s.PidsLimit == 0 || s.Logging == nil || s.Logging.Options["max-size"] == "" {
			t.Errorf("%s: memory, processes or log have no limit: %+v", file, s)
		}
		if _, err := os.Stat(filepath.Join(s.Build.Context, s.Build.Dockerfile)); err != nil {
			t.Errorf("%s: cannot be built: %v", file, err)
		}
		// The header says "in this directory": where the secrets are made is where they are looked for.
		for name, secret := range p.Secrets {
			if want, _ := filepath.Abs(filepath.Join("../../docker/secrets", name)); secret.File != want {
				t.Errorf("%s: secret %s is %s, want %s", file, name, secret.File, want)
			}
		}
		if len(s.Volumes) != 1 || s.Volumes[0].Target != "/data" || s.Volumes[0].Type != "volume" {
			t.Errorf("%s: volumes %+v", file, s.Volumes)
		}
		if n := p.Networks["pmm"]; n.Name != "pmm-other" || bool(n.External) != (file == "compose.yaml") {
			t.Errorf("%s: network %+v", file, n)
		}
		if file == "compose.full.yaml" {
			pmm, err := p.GetService("pmm-server")
			if err != nil || pmm.Networks["pmm"] == nil && len(pmm.Networks) != 1 {
				t.Errorf("PMM is not on the network: %v, %+v", err, pmm.Networks)
			}
		}
	}
}

// manifests decodes every document strictly; an unknown kind is an error too.
func manifests(t *testing.T, content []byte) (all []any) {
	t.Helper()
	for doc := range bytes.SplitSeq(content, []byte("\n---")) {
		var meta struct{ Kind string }
		if err := yaml.Unmarshal(doc, &meta); err != nil {
			t.Fatal(err)
		}
		if meta.Kind == "" {
			continue
		}
		kinds := map[string]any{
			"Secret": &corev1.Secret{}, "Service": &corev1.Service{}, "StatefulSet": &appsv1.StatefulSet{}, "Deployment": &appsv1.Deployment{},
			"NetworkPolicy": &networkingv1.NetworkPolicy{}, "PersistentVolumeClaim": &corev1.PersistentVolumeClaim{},
			"ConfigMap": &corev1.ConfigMap{}, "ServiceAccount": &corev1.ServiceAccount{},
			"ClusterRole": &rbacv1.ClusterRole{}, "ClusterRoleBinding": &rbacv1.ClusterRoleBinding{},
			"PodMonitor": &monitoringv1.PodMonitor{}, "PodDisruptionBudget": &policyv1.PodDisruptionBudget{},
		}
		into := kinds[meta.Kind]
		if into == nil {
			t.Fatalf("kind %q", meta.Kind)
		}
		if err := yaml.UnmarshalStrict(doc, into); err != nil {
			t.Errorf("%s: %v", meta.Kind, err)
		}
		all = append(all, into)
	}
	return all
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../kubernetes", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// locked checks what a restricted namespace demands of our container.
func locked(t *testing.T, c corev1.Container, volumes []string) {
	t.Helper()
	s := c.SecurityContext
	if c.Resources.Limits.Memory().IsZero() {
		t.Errorf("%s has no limit of memory", c.Name)
	}
	if s == nil || !*s.ReadOnlyRootFilesystem || *s.AllowPrivilegeEscalation || !slices.Contains(s.Capabilities.Drop, "ALL") {
		t.Errorf("%s is not locked up: %+v", c.Name, s)
	}
	if c.StartupProbe == nil || c.LivenessProbe == nil || !slices.Contains(c.LivenessProbe.Exec.Command, "--alive") {
		t.Errorf("%s: probes", c.Name)
	}
	for _, m := range c.VolumeMounts {
		if !slices.Contains(volumes, m.Name) {
			t.Errorf("%s mounts %s, which is not there", c.Name, m.Name)
		}
	}
}

func TestStandalone(t *testing.T) {
	all := manifests(t, read(t, "standalone.yaml"))
	if len(all) != 4 {
		t.Fatalf("%d documents", len(all))
	}
	set := all[2].(*appsv1.StatefulSet)
	pod := set.Spec.Template
	if *set.Spec.Replicas != 1 {
		t.Error("more than one replica")
	}
	locked(t, pod.Spec.Containers[0], []string{set.Spec.VolumeClaimTemplates[0].Name, pod.Spec.Volumes[0].Name})
	svc := all[1].(*corev1.Service)
	for k, v := range svc.Spec.Selector {
		if pod.Labels[k] != v {
			t.Errorf("the service does not select the pod: %s", k)
		}
	}
	if svc.Spec.Ports[0].TargetPort.StrVal != pod.Spec.Containers[0].Ports[0].Name {
		t.Error("the service leads to a port that is not there")
	}
	if all[0].(*corev1.Secret).Name != pod.Spec.Volumes[0].Secret.SecretName {
		t.Error("another secret is mounted")
	}
}

// Several instances stand on several nodes, keep nothing of their own, and one is always there.
func TestCluster(t *testing.T) {
	all := manifests(t, read(t, "cluster.yaml"))
	if len(all) != 5 {
		t.Fatalf("%d documents", len(all))
	}
	deployment := all[3].(*appsv1.Deployment)
	pod := deployment.Spec.Template
	locked(t, pod.Spec.Containers[0], []string{pod.Spec.Volumes[0].Name, pod.Spec.Volumes[1].Name})
	apart := pod.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0]
	budget := all[2].(*policyv1.PodDisruptionBudget).Spec
	if *deployment.Spec.Replicas < 2 || apart.TopologyKey != "kubernetes.io/hostname" || budget.MinAvailable.IntVal != 1 || pod.Spec.Volumes[0].EmptyDir == nil {
		t.Errorf("%d replicas, apart by %s, %s available, %+v", *deployment.Spec.Replicas, apart.TopologyKey, budget.MinAvailable, pod.Spec.Volumes[0])
	}
	for k, v := range pod.Labels {
		if all[1].(*corev1.Service).Spec.Selector[k] != v || apart.LabelSelector.MatchLabels[k] != v || budget.Selector.MatchLabels[k] != v {
			t.Errorf("the service, the budget or the affinity does not select the pod: %s", k)
		}
	}
	secret := all[0].(*corev1.Secret)
	if secret.Name != pod.Spec.Volumes[1].Secret.SecretName {
		t.Error("another secret is mounted")
	}
	for _, e := range pod.Spec.Containers[0].Env {
		if file, ok := strings.CutPrefix(e.Value, "/secrets/"); ok && secret.StringData[file] == "" {
			t.Errorf("%s is not in the secret", file)
		}
	}
}

// The monitor finds the pod of standalone.yaml, its port and its token, and the
// policies let Prometheus in there and nowhere else.
func TestPodMonitor(t *testing.T) {
	all := manifests(t, read(t, "podmonitor.yaml"))
	if len(all) != 2 {
		t.Fatalf("%d documents", len(all))
	}
	standalone := manifests(t, read(t, "standalone.yaml"))
	secret, pod := standalone[0].(*corev1.Secret), standalone[2].(*appsv1.StatefulSet).Spec.Template
	monitor, policy := all[0].(*monitoringv1.PodMonitor), all[1].(*networkingv1.NetworkPolicy)
	for _, selector := range []map[string]string{monitor.Spec.Selector.MatchLabels, policy.Spec.PodSelector.MatchLabels} {
		if len(selector) == 0 {
			t.Error("everything is selected")
		}
		for k, v := range selector {
			if pod.Labels[k] != v {
				t.Errorf("the pod is not selected: %s", k)
			}
		}
	}
	e := monitor.Spec.PodMetricsEndpoints[0]
	if e.Port == nil || e.Authorization == nil || e.Authorization.Credentials == nil {
		t.Fatalf("no port or no token: %+v", e)
	}
	i := slices.IndexFunc(pod.Spec.Containers[0].Ports, func(p corev1.ContainerPort) bool { return p.Name == *e.Port })
	if i < 0 || pod.Spec.Containers[0].Ports[i].ContainerPort != 4668 || policy.Spec.Ingress[0].Ports[0].Port.StrVal != *e.Port {
		t.Errorf("port %s is not that of operators, or not let in", *e.Port)
	}
	if c := e.Authorization.Credentials; c.Name != secret.Name || c.Key != "admin-token" || e.Path != "/metrics" {
		t.Errorf("scrapes %s with %+v", e.Path, c)
	}
	if monitor.Spec.JobLabel != "" && pod.Labels[monitor.Spec.JobLabel] == "" {
		t.Errorf("the pod has no label %s to name the job", monitor.Spec.JobLabel)
	}
	if len(policy.Spec.Ingress) != 1 || len(policy.Spec.Ingress[0].From) != 1 || policy.Spec.Egress != nil {
		t.Errorf("the policy lets in or out too much: %+v", policy.Spec)
	}
}

func TestSidecarValues(t *testing.T) {
	claim := manifests(t, read(t, "pvc.yaml"))[0].(*corev1.PersistentVolumeClaim)
	var values struct {
		InitContainers []corev1.Container `json:"initContainers"`
		ExtraVolumes   []corev1.Volume    `json:"extraVolumes"`
	}
	if err := yaml.UnmarshalStrict(read(t, "values-pmm-sidecar.yaml"), &values); err != nil {
		t.Fatal(err)
	}
	checkSidecar(t, values.InitContainers, values.ExtraVolumes, claim.Name)
}

func checkSidecar(t *testing.T, containers []corev1.Container, volumes []corev1.Volume, claim string) {
	t.Helper()
	if len(containers) != 1 {
		t.Fatalf("%d init containers", len(containers))
	}
	c := containers[0]
	if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways || c.ReadinessProbe != nil {
		t.Error("not a sidecar, or one that can take PMM out of its service")
	}
	// Grafana is in this pod too, and whoever edits its contact points can post to loopback.
	if !slices.Contains(c.Env, corev1.EnvVar{Name: "PMM_CALLGOOSE_ADMIN_LISTEN", Value: "off"}) {
		t.Error("the operators' port is open inside of PMM's pod")
	}
	var names []string
	bound := false
	for _, v := range volumes {
		names = append(names, v.Name)
		bound = bound || v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim
	}
	if !bound || !slices.Contains(names, "pmm-config") {
		t.Errorf("volumes %v, claim %s", names, claim)
	}
	locked(t, c, names)
}

// RENDERED is what helm template made of the chart percona/pmm with our values.
func TestRenderedChart(t *testing.T) {
	file := os.Getenv("RENDERED")
	if file == "" {
		t.Skip("RENDERED names no rendered chart")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b = regexp.MustCompile(`(?m)^# Source.*$`).ReplaceAll(b, nil)
	for _, m := range manifests(t, b) {
		if set, ok := m.(*appsv1.StatefulSet); ok {
			spec := set.Spec.Template.Spec
			checkSidecar(t, spec.InitContainers, spec.Volumes, "pmm-callgoose-data")
			return
		}
	}
	t.Error("no StatefulSet")
}

// The resources of Terraform's provider grafana that main.tf uses, with every
// attribute and block that its documents know and we could set. What is not here is
// an error.
type terraform struct {
	Terraform []struct {
		Required struct {
			Grafana map[string]string `hcl:"grafana"`
		} `hcl:"required_providers,block"`
	} `hcl:"terraform,block"`
	Variables []struct {
		Name        string         `hcl:"name,label"`
		Description string         `hcl:"description"`
		Type        hcl.Expression `hcl:"type"`
		Default     string         `hcl:"default,optional"`
		Sensitive   bool           `hcl:"sensitive,optional"`
	} `hcl:"variable,block"`
	Resources []struct {
		Type string   `hcl:"type,label"`
		Name string   `hcl:"name,label"`
		Body hcl.Body `hcl:",remain"`
	} `hcl:"resource,block"`
}

type contactPoint struct {
	Name              string `hcl:"name"`
	OrgID             string `hcl:"org_id,optional"`
	DisableProvenance bool   `hcl:"disable_provenance,optional"`
	Webhooks          []struct {
		URL         string `hcl:"url"`
		Method      string `hcl:"http_method,optional"`
		MaxAlerts   int    `hcl:"max_alerts,optional"`
		Scheme      string `hcl:"authorization_scheme,optional"`
		Credentials string `hcl:"authorization_credentials,optional"`
		User        string `hcl:"basic_auth_user,optional"`
		Password    string `hcl:"basic_auth_password,optional"`
		NoResolved  bool   `hcl:"disable_resolve_message,optional"`
	} `hcl:"webhook,block"`
}

type policy struct {
	Contact        string   `hcl:"contact_point"`
	GroupBy        []string `hcl:"group_by,optional"`
	GroupWait      string   `hcl:"group_wait,optional"`
	GroupInterval  string   `hcl:"group_interval,optional"`
	RepeatInterval string   `hcl:"repeat_interval,optional"`
	Continue       bool     `hcl:"continue,optional"`
	Policies       []policy `hcl:"policy,block"`
}

func TestTerraform(t *testing.T) {
	file, diags := hclparse.NewParser().ParseHCLFile("../../pmm/terraform/main.tf")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if b, err := os.ReadFile("../../pmm/terraform/main.tf"); err != nil || !bytes.Equal(hclwrite.Format(b), b) {
		t.Errorf("not as terraform fmt has it: %v", err)
	}
	var all terraform
	if diags := gohcl.DecodeBody(file.Body, nil, &all); diags.HasErrors() {
		t.Fatal(diags)
	}
	vars := map[string]cty.Value{}
	for _, v := range all.Variables {
		vars[v.Name] = cty.StringVal(v.Default)
		if secret := strings.Contains(v.Name, "token"); secret != v.Sensitive || secret && v.Default != "" {
			t.Errorf("variable %s: sensitive %t, default %q", v.Name, v.Sensitive, v.Default)
		}
	}
	ctx := &hcl.EvalContext{Variables: map[string]cty.Value{"var": cty.ObjectVal(vars), "grafana_contact_point": cty.EmptyObjectVal}}
	var point contactPoint
	var tree policy
	for _, r := range all.Resources {
		into := map[string]any{"grafana_contact_point": &point, "grafana_notification_policy": &tree}[r.Type]
		if into == nil {
			t.Fatalf("resource %s", r.Type)
		}
		if diags := gohcl.DecodeBody(r.Body, ctx, into); diags.HasErrors() {
			t.Fatal(diags)
		}
		if r.Type == "grafana_contact_point" {
			made := cty.ObjectVal(map[string]cty.Value{"name": cty.StringVal(point.Name)})
			ctx.Variables[r.Type] = cty.ObjectVal(map[string]cty.Value{r.Name: made})
		}
	}
	if len(point.Webhooks) != 1 || point.Webhooks[0].MaxAlerts != 0 || point.Webhooks[0].NoResolved {
		t.Errorf("the contact point loses alerts or recoveries: %+v", point)
	}
	if len(tree.Policies) != 2 || tree.Policies[0].Contact != point.Name || !tree.Policies[0].Continue || tree.Policies[1].Contact != tree.Contact {
		t.Errorf("not every alert comes to us and to whom it came before: %+v", tree)
	}
}
