package pmm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pmm-callgoose/ingest/pmm/pmmtest"
)

const ingestToken = "1ngest-t0ken-of-the-test"

func start(t *testing.T, cfg pmmtest.Config) (*pmmtest.Fake, *Client) {
	t.Helper()
	f := pmmtest.New(cfg)
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	c, err := NewClient(ClientConfig{URL: s.URL, Token: pmmtest.Token})
	if err != nil {
		t.Fatal(err)
	}
	return f, c
}

func want() Want { return Want{URL: "http://forwarder:4667/v1/webhook", Token: ingestToken} }

func setup(t *testing.T, c *Client, w Want) *Plan {
	t.Helper()
	p, err := c.Plan(t.Context(), w)
	if err != nil {
		t.Fatalf("plan: %v", err)
	}
	if err := c.Apply(t.Context(), p); err != nil {
		t.Fatalf("apply: %v", err)
	}
	return p
}

func remove(t *testing.T, c *Client, name string) {
	t.Helper()
	p, err := c.Plan(t.Context(), Want{Name: name, Remove: true})
	if err != nil {
		t.Fatalf("plan the removal: %v", err)
	}
	if err := c.Apply(t.Context(), p); err != nil {
		t.Fatalf("remove: %v", err)
	}
}

// actions is a plan in short: "contact point create, route create, …".
func actions(p *Plan) string {
	var parts []string
	for _, s := range p.Steps {
		if s.Why != "not ours" && !strings.HasPrefix(s.Why, "made here too") {
			parts = append(parts, s.Object+" "+string(s.Action))
		}
	}
	return strings.Join(parts, ", ")
}

func TestSetupMakesAContactPointThatLosesNothing(t *testing.T) {
	f, c := start(t, pmmtest.Config{})
	p := setup(t, c, want())
	if got := actions(p); got != "contact point create, route create, default route create" {
		t.Errorf("the plan was %s", got)
	}
	var points []struct {
		UID, Name, Type, Provenance string
		DisableResolveMessage       bool
		Settings                    map[string]any
	}
	if err := json.Unmarshal([]byte(f.Points()), &points); err != nil {
		t.Fatal(err)
	}
	got := points[0] // sorted by name
	if got.UID != "callgoose-sqibs" || got.Name != "Callgoose SQIBS" || got.Type != "webhook" || got.DisableResolveMessage || got.Provenance != "" {
		t.Errorf("the contact point is %+v", got)
	}
	for k, v := range map[string]any{
		"url": "http://forwarder:4667/v1/webhook", "httpMethod": "POST", "maxAlerts": "0",
		"authorization_scheme": "Bearer", "authorization_credentials": "[REDACTED]",
	} {
		if got.Settings[k] != v {
			t.Errorf("%s is %v, want %v", k, got.Settings[k], v)
		}
	}
	if s := f.Secret("callgoose-sqibs", "authorization_credentials"); s != ingestToken {
		t.Errorf("the credentials stored are %q", s)
	}
	wantTree := `{"group_by":["grafana_folder","alertname"],"receiver":"grafana-default-email","routes":[` +
		`{"continue":true,"group_by":["grafana_folder","alertname"],"group_interval":"1m","group_wait":"10s","receiver":"Callgoose SQIBS","repeat_interval":"15m"},` +
		`{"continue":true,"object_matchers":[["pmm_callgoose_route","!=","default"]]}]}`
	if f.Tree() != wantTree {
		t.Errorf("the policies are\n%s, want\n%s", f.Tree(), wantTree)
	}
	if got := fmt.Sprint(f.Writes()); got != "[POST /graph/api/v1/provisioning/contact-points PUT /graph/api/v1/provisioning/policies]" {
		t.Errorf("written was %s", got)
	}
}

func TestASecondRunChangesNothing(t *testing.T) {
	for _, cfg := range []pmmtest.Config{
		{}, {PMM: "2.31.0", Grafana: "9.1.8"}, {PMM: "2.44.1", Grafana: "9.2.20"}, {PMM: "3.0.0", Grafana: "11.1.8"}, {PMM: "3.7.0", Grafana: "11.6.13"}, {PMM: "4.0.0", Grafana: "13.1.0"},
	} {
		t.Run(cfg.PMM, func(t *testing.T) {
			f, c := start(t, cfg)
			for name, w := range map[string]Want{
				"bearer": want(),
				"basic":  {URL: want().URL, Basic: "pmm:pa55word"},
				"none":   {URL: want().URL, Bare: true},
			} {
				w.Name = "Callgoose " + name
				setup(t, c, w)
				writes, tree := len(f.Writes()), f.Tree()
				p := setup(t, c, w)
				if !p.Empty() || len(f.Writes()) != writes || f.Tree() != tree {
					t.Errorf("%s: the second run planned %s and wrote %v", name, actions(p), f.Writes()[writes:])
				}
			}
		})
	}
}

func TestChangesAreShownFieldByField(t *testing.T) {
	f, c := start(t, pmmtest.Config{})
	f.AddPoint(`{"uid":"callgoose-sqibs","name":"Callgoose SQIBS","type":"webhook","disableResolveMessage":true,"settings":{
		"url":"http://127.0.0.1:4667/v1/webhook","httpMethod":"PUT","maxAlerts":10,"username":"pmm","password":"old","payload":{"template":"x"},
		"title":"<b>kept</b>","headers":{"X-Kept":"1"},"a_newer_setting":[1.50,null]}}`)
	f.SetTree(`{"receiver":"grafana-default-email","routes":[
		{"receiver":"grafana-default-email","object_matchers":[["team","=","a"]]},
		{"receiver":"Callgoose SQIBS","group_interval":"2m","match":{"severity":"critical"},"mute_time_intervals":["nights"]}]}`)
	w := want()
	w.Matchers = []Matcher{{"severity", "=~", "critical|error"}}
	w.HMACSecret = "hm4c-secret"
	p := setup(t, c, w)
	var got []string
	for _, s := range p.Steps {
		for _, f := range s.Fields {
			got = append(got, fmt.Sprintf("%s: %s -> %s", f.Name, f.From, f.To))
		}
	}
	wanted := []string{
		"url: http://127.0.0.1:4667/v1/webhook -> http://forwarder:4667/v1/webhook",
		"httpMethod: PUT -> POST",
		"maxAlerts: 10 -> 0",
		"disableResolveMessage: true -> false",
		"authorization_scheme: (none) -> Bearer",
		"authorization_credentials: (none) -> (hidden)",
		"username: pmm -> (none)",
		"password: (hidden) -> (none)",
		"hmacConfig: (none) -> secret (hidden), header X-Grafana-Alerting-Signature, timestamp header X-Grafana-Alerting-Timestamp",
		"payload: a template of its own -> (none)",
		`matches: severity="critical" -> severity=~"critical|error"`,
		"continue: false -> true",
		`position: after the route to "grafana-default-email" (team="a"), which keeps its alerts from this one -> first`,
		`matches:  -> pmm_callgoose_route!="default" (pmm_callgoose_route marks what setup made, and is true of every alert)`,
	}
	if !slices.Equal(got, wanted) {
		t.Errorf("the plan shows\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(wanted, "\n"))
	}
	for _, kept := range []string{`"title":"\u003cb\u003ekept\u003c/b\u003e"`, `"headers":{"X-Kept":"1"}`, `"a_newer_setting":[1.5,null]`} {
		if !strings.Contains(f.Points(), kept) {
			t.Errorf("%s was lost: %s", kept, f.Points())
		}
	}
	if !strings.Contains(f.Tree(), `"mute_time_intervals":["nights"]`) || !strings.Contains(f.Tree(), `"group_interval":"2m"`) {
		t.Errorf("settings of the route were lost: %s", f.Tree())
	}
	if s := f.Secret("callgoose-sqibs", "hmacConfig.secret"); s != "hm4c-secret" {
		t.Errorf("the HMAC secret stored is %q", s)
	}
	if _, err := c.Plan(t.Context(), Want{Remove: true}); err == nil || !strings.Contains(err.Error(), "mute_time_intervals") {
		t.Errorf("a route that somebody extended would be removed: %v", err)
	}
}

func TestCredentialsAreWrittenAgainOnlyWhenAskedFor(t *testing.T) {
	f, c := start(t, pmmtest.Config{})
	setup(t, c, want())
	w := want()
	w.Token = "an0ther-t0ken"
	if p := setup(t, c, w); !p.Empty() || !strings.Contains(p.Steps[0].Why, "--rotate-credentials") {
		t.Errorf("a secret that cannot be seen was compared: %+v", p.Steps)
	}
	w.Rotate = true
	setup(t, c, w)
	if s := f.Secret("callgoose-sqibs", "authorization_credentials"); s != w.Token {
		t.Errorf("the credentials stored are %q", s)
	}
	if strings.Contains(f.Points(), redacted+redacted) || len(f.Writes()) != 3 {
		t.Errorf("written was %v", f.Writes())
	}
	// Forgetting to name them must not take them away.
	w = Want{URL: want().URL}
	if _, err := c.Plan(t.Context(), w); err == nil || !strings.Contains(err.Error(), "--ingest-token-file") {
		t.Errorf("credentials would be taken away: %v", err)
	}
	w.Bare = true
	setup(t, c, w)
	if s := f.Secret("callgoose-sqibs", "authorization_credentials"); s != "" {
		t.Errorf("the credentials stored are %q", s)
	}
}

func TestWhatOthersMadeIsInTheWayAndStays(t *testing.T) {
	const webhook = `"type":"webhook","settings":{"url":"http://x/v1/webhook"}`
	for name, c := range map[string]struct {
		point, tree, want string
		cfg               pmmtest.Config
		removal           bool
	}{
		"the name is taken":        {point: `{"uid":"abc","name":"Callgoose SQIBS",` + webhook + `}`, want: "was not made here"},
		"the name is taken, 2":     {point: `{"uid":"abc","name":"Callgoose SQIBS",` + webhook + `}`, want: "was not made here", removal: true},
		"it was renamed":           {point: `{"uid":"callgoose-sqibs","name":"Other",` + webhook + `}`, want: `is called "Other"`},
		"it is e-mail now":         {point: `{"uid":"callgoose-sqibs","name":"Callgoose SQIBS","type":"email","settings":{}}`, want: "type email"},
		"it comes from a file":     {point: `{"uid":"callgoose-sqibs","name":"Callgoose SQIBS","provenance":"file",` + webhook + `}`, want: "provisioning file"},
		"it has secrets of others": {point: `{"uid":"callgoose-sqibs","name":"Callgoose SQIBS","type":"webhook","settings":{"url":"http://x","tlsConfig":{"clientKey":"k"}}}`, want: "tlsConfig"},
		"policies from a file":     {tree: `{"receiver":"grafana-default-email","provenance":"file"}`, want: "provisioning file"},
		"policies from a file, PMM 2": {
			tree: `{"receiver":"grafana-default-email","provenance":"file"}`, want: "provisioning file",
			cfg: pmmtest.Config{PMM: "2.44.0", Grafana: "9.2.20"},
		},
		"two routes": {
			point: `{"uid":"callgoose-sqibs","name":"Callgoose SQIBS",` + webhook + `}`,
			tree:  `{"receiver":"grafana-default-email","routes":[{"receiver":"Callgoose SQIBS","continue":true},{"receiver":"Callgoose SQIBS"}]}`, want: "several routes",
		},
		"used below another route": {
			point:   `{"uid":"callgoose-sqibs","name":"Callgoose SQIBS",` + webhook + `}`,
			tree:    `{"receiver":"grafana-default-email","routes":[{"receiver":"grafana-default-email","object_matchers":[["a","=","b"]],"routes":[{"receiver":"Callgoose SQIBS"}]}]}`,
			removal: true, want: "was not made here",
		},
		"it is the default": {
			point: `{"uid":"callgoose-sqibs","name":"Callgoose SQIBS",` + webhook + `}`,
			tree:  `{"receiver":"Callgoose SQIBS"}`, removal: true, want: "default contact point",
		},
		"an unreadable route that continues": {
			tree: `{"receiver":"grafana-default-email","routes":[{"receiver":"grafana-default-email","continue":true,"object_matchers":[["a","~","b"]]}]}`, want: "object_matchers cannot be read",
		},
		"a default route that somebody changed": {
			tree: `{"receiver":"grafana-default-email","routes":[{"continue":true,"object_matchers":[["pmm_callgoose_route","!=","default"]],"routes":[{"receiver":"grafana-default-email"}]}]}`, want: "default route that setup made was changed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, client := start(t, c.cfg)
			if c.point != "" {
				f.AddPoint(c.point)
			}
			if c.tree != "" {
				f.SetTree(c.tree)
			}
			before := f.Points() + f.Tree()
			p, err := client.Plan(t.Context(), want())
			if c.removal {
				p, err = client.Plan(t.Context(), Want{Remove: true})
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v, want one with %q (plan %+v)", err, c.want, p)
			}
			if len(f.Writes()) > 0 || f.Points()+f.Tree() != before {
				t.Errorf("it was changed: %v", f.Writes())
			}
		})
	}
}

func TestLocksOfOthersStay(t *testing.T) {
	for _, grafana := range []string{"9.2.20", "11.6.3", "12.4.1"} {
		f, c := start(t, pmmtest.Config{Grafana: grafana})
		f.SetTree(`{"receiver":"grafana-default-email","provenance":"api"}`)
		f.AddPoint(`{"uid":"callgoose-sqibs","name":"Callgoose SQIBS","type":"webhook","provenance":"api","settings":{"url":"http://x"}}`)
		setup(t, c, want())
		if !strings.Contains(f.Tree(), `"provenance":"api"`) || !strings.Contains(f.Points(), `"provenance":"api"`) {
			t.Errorf("Grafana %s: a lock was taken off: %s %s", grafana, f.Tree(), f.Points())
		}
	}
}

func TestChangesOfOthersInBetweenAreNotUndone(t *testing.T) {
	f, c := start(t, pmmtest.Config{})
	p, err := c.Plan(t.Context(), want())
	if err != nil {
		t.Fatal(err)
	}
	const theirs = `{"receiver":"grafana-default-email","routes":[{"object_matchers":[["team","=","new"]],"receiver":"grafana-default-email"}]}`
	f.SetTree(theirs)
	if err := c.Apply(t.Context(), p); !errors.Is(err, ErrChanged) {
		t.Errorf("applying a plan of yesterday: %v", err)
	}
	if f.Tree() != theirs || len(f.Writes()) > 0 {
		t.Errorf("written was %v: %s", f.Writes(), f.Tree())
	}
}

// failing answers requests of that method to paths that end so.
func failing(method, suffix string, status int) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		fails := r.Method == method && strings.HasSuffix(r.URL.Path, suffix)
		if fails {
			http.Error(w, `{"message":"Internal Server Error","traceID":""}`, status)
		}
		return fails
	}
}

// unconfigured makes PMM a new organisation, which refuses that many requests
// (grafana/grafana:pkg/services/ngalert/notifier/legacy_storage/errors.go).
func unconfigured(requests int) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/provisioning/") || requests == 0 {
			return false
		}
		requests--
		http.Error(w, `{"messageId":"alerting.notification.configMissing","message":"No alertmanager configuration present in this organization"}`, http.StatusInternalServerError)
		return true
	}
}

func TestAHalfDoneRunSaysSoAndTheNextOneEndsIt(t *testing.T) {
	f, c := start(t, pmmtest.Config{})
	f.Before(failing(http.MethodPut, "/policies", 500))
	p, err := c.Plan(t.Context(), want())
	if err != nil {
		t.Fatal(err)
	}
	err = c.Apply(t.Context(), p)
	if !errors.Is(err, ErrHalfDone) || !strings.Contains(err.Error(), "done so far: create the contact point") {
		t.Fatalf("the error is %v", err)
	}
	f.Before(nil)
	if got := actions(setup(t, c, want())); got != "contact point keep, route create, default route create" {
		t.Errorf("the next run did %s", got)
	}
	// The other way round: the route is gone and the contact point is still there.
	f.Before(failing(http.MethodDelete, "/callgoose-sqibs", 502))
	p, err = c.Plan(t.Context(), Want{Remove: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(t.Context(), p); err == nil || !strings.Contains(err.Error(), "done so far: write the notification policies") {
		t.Errorf("the error is %v", err)
	}
}

func TestAcceptedIsNotBelieved(t *testing.T) {
	f, c := start(t, pmmtest.Config{})
	p, err := c.Plan(t.Context(), want())
	if err != nil {
		t.Fatal(err)
	}
	written := false
	f.Before(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			written = true
		} else if written { // a PMM of several nodes, one of which did not get it
			f.SetTree(`{"receiver":"grafana-default-email"}`)
		}
		return false
	})
	if err := c.Apply(t.Context(), p); err == nil || !strings.Contains(err.Error(), "accepted everything, yet") {
		t.Errorf("the error is %v", err)
	}
}

func TestOldAndNewVersions(t *testing.T) {
	_, c := start(t, pmmtest.Config{PMM: "2.30.0"})
	if _, err := c.Plan(t.Context(), want()); !errors.Is(err, ErrTooOld) || !strings.Contains(err.Error(), "PMM 2.30.0") {
		t.Errorf("PMM 2.30: %v", err)
	}
	signed := want()
	signed.HMACSecret = "hm4c"
	for _, cfg := range []pmmtest.Config{{PMM: "3.1.0", Grafana: "11.1.8"}, {PMM: "2.44.0", Grafana: "9.2.20", HideGrafana: true}} {
		f, c := start(t, cfg)
		if _, err := c.Plan(t.Context(), signed); err == nil || !strings.Contains(err.Error(), "cannot sign") {
			t.Errorf("PMM %s would store the HMAC secret in the clear: %v", cfg.PMM, err)
		}
		if len(f.Writes()) > 0 {
			t.Errorf("PMM %s: written was %v", cfg.PMM, f.Writes())
		}
	}
	_, c = start(t, pmmtest.Config{PMM: "3.2.0", Grafana: "11.6.3", HideGrafana: true})
	if _, err := c.Plan(t.Context(), signed); err != nil {
		t.Errorf("PMM 3.2: %v", err)
	}
	_, c = start(t, pmmtest.Config{PMM: "4.0.0", Grafana: "13.0.1"})
	p, err := c.Plan(t.Context(), signed)
	if err != nil || !slices.ContainsFunc(p.Notes, func(n string) bool { return strings.Contains(n, "deprecated since 2026-05-12") }) {
		t.Errorf("Grafana 13: %v", err)
	}
}

func TestPMM2WithAPassword(t *testing.T) {
	f := pmmtest.New(pmmtest.Config{PMM: "2.44.0", Grafana: "9.2.20", Basic: "admin:adm1n-pw"})
	s := httptest.NewServer(f)
	defer s.Close()
	c, err := NewClient(ClientConfig{URL: s.URL + "/graph/", Basic: "admin:adm1n-pw"})
	if err != nil {
		t.Fatal(err)
	}
	setup(t, c, want())
	if v, err := c.Version(t.Context()); err != nil || v.String() != "PMM 2.44.0, Grafana 9.2.20" {
		t.Errorf("the version is %v, %v", v, err)
	}
}

// TestNothingIsTakenFromOthers makes trees at random. What everybody else gets is
// compared before and after, route by route with grouping and timing; and the
// removal gives the tree back as it was.
func TestNothingIsTakenFromOthers(t *testing.T) {
	seed := rand.Uint64()
	if s := os.Getenv("SEED"); s != "" {
		_, _ = fmt.Sscan(s, &seed)
	}
	rnd := rand.New(rand.NewPCG(seed, 1))
	planned, refused := 0, 0
	for range 150 {
		f := pmmtest.New(pmmtest.Config{})
		c, err := NewClient(ClientConfig{URL: "http://pmm", Token: pmmtest.Token, Transport: f})
		if err != nil {
			t.Fatal(err)
		}
		f.AddPoint(`{"uid":"a","name":"A","type":"slack","settings":{}}`)
		f.AddPoint(`{"uid":"b","name":"B","type":"slack","settings":{}}`)
		tree := randomTree(rnd)
		f.SetTree(tree)
		tree = f.Tree()
		before := map[string][]pmmtest.Match{}
		everyAlert(func(labels map[string]string) { before[fmt.Sprint(labels)] = f.Route(labels) })

		w := want()
		if rnd.IntN(2) == 0 {
			w.Matchers = randomMatchers(rnd)
		}
		p, err := c.Plan(t.Context(), w)
		if err != nil {
			refused++
			continue
		}
		planned++
		if err := c.Apply(t.Context(), p); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, tree)
		}
		everyAlert(func(labels map[string]string) {
			var others []pmmtest.Match
			ours := 0
			for _, m := range f.Route(labels) {
				if m.Receiver == DefaultName {
					ours++
				} else {
					others = append(others, m)
				}
			}
			if !slices.Equal(others, before[fmt.Sprint(labels)]) {
				t.Fatalf("seed %d: of %v others get %v, before it was %v\n%s\n%s", seed, labels, others, before[fmt.Sprint(labels)], tree, f.Tree())
			}
			wanted := 1
			for _, m := range w.Matchers {
				if !holds(m, labels[m.Name]) {
					wanted = 0
				}
			}
			if ours != wanted {
				t.Fatalf("seed %d: of %v we get %d, want %d, with %v\n%s", seed, labels, ours, wanted, w.Matchers, f.Tree())
			}
		})
		remove(t, c, "")
		if f.Tree() != tree {
			t.Fatalf("seed %d: after the removal the policies are\n%s, before\n%s", seed, f.Tree(), tree)
		}
	}
	t.Logf("seed %d: %d trees, %d refused", seed, planned, refused)
	if planned < 100 {
		t.Errorf("only %d of 150 trees could be used", planned)
	}
}

func holds(m Matcher, v string) bool {
	switch m.Op {
	case "=":
		return v == m.Value
	case "!=":
		return v != m.Value
	case "=~":
		return slices.Contains(strings.Split(m.Value, "|"), v)
	}
	return !slices.Contains(strings.Split(m.Value, "|"), v)
}

func everyAlert(do func(map[string]string)) {
	for _, team := range []string{"", "x", "y"} {
		for _, severity := range []string{"", "critical", "warning"} {
			for _, env := range []string{"", "prod"} {
				do(map[string]string{"team": team, "severity": severity, "env": env, "alertname": "A"})
			}
		}
	}
}

func randomMatchers(rnd *rand.Rand) []Matcher {
	pool := []Matcher{
		{"team", "=", "x"},
		{"team", "!=", "y"},
		{"team", "=~", "x|y"},
		{"severity", "=", "critical"},
		{"severity", "!~", "critical|warning"},
		{"severity", "=~", "warning|critical"},
		{"env", "=", "prod"},
		{"env", "!=", ""},
	}
	var out []Matcher
	for range 1 + rnd.IntN(2) {
		out = append(out, pool[rnd.IntN(len(pool))])
	}
	return out
}

func randomTree(rnd *rand.Rand) string {
	root := map[string]any{"receiver": "grafana-default-email", "group_by": []string{"grafana_folder"}, "a_newer_member": map[string]any{"x": 1}}
	if routes := randomRoutes(rnd, 0); len(routes) > 0 {
		root["routes"] = routes
	}
	b, _ := json.Marshal(root)
	return string(b)
}

func randomRoutes(rnd *rand.Rand, depth int) []any {
	var out []any
	for range rnd.IntN(5 - 2*depth) {
		r := map[string]any{"receiver": []string{"A", "B"}[rnd.IntN(2)]}
		if rnd.IntN(2) == 0 {
			r["continue"] = true
		}
		if rnd.IntN(12) > 0 {
			ms := randomMatchers(rnd)
			switch rnd.IntN(6) {
			case 0:
				r["match_re"] = map[string]string{"team": "x|y"}
			case 1:
				r["matchers"] = []string{ms[0].String()}
			default:
				r["object_matchers"] = ms
			}
		}
		if rnd.IntN(3) == 0 {
			r["group_wait"] = "7s"
			r["active_time_intervals"] = []string{"days"}
		}
		if depth < 2 && rnd.IntN(3) == 0 {
			if deeper := randomRoutes(rnd, depth+1); len(deeper) > 0 {
				r["routes"] = deeper
			}
		}
		out = append(out, r)
	}
	return out
}

// TestTheWalkIsAlertmanagers compares the fake's walk with that of a real
// Alertmanager, so that the test above proves something.
func TestTheWalkIsAlertmanagers(t *testing.T) {
	amtool, err := exec.LookPath("amtool")
	if err != nil {
		t.Skip("amtool is not installed (Debian: prometheus-alertmanager)")
	}
	rnd := rand.New(rand.NewPCG(7, 7))
	file := filepath.Join(t.TempDir(), "am.yml")
	for range 12 {
		f := pmmtest.New(pmmtest.Config{})
		tree := randomTree(rnd)
		f.SetTree(tree)
		var route map[string]any
		if err := json.Unmarshal([]byte(tree), &route); err != nil {
			t.Fatal(err)
		}
		delete(route, "a_newer_member")
		forAlertmanager(route)
		config, _ := json.Marshal(map[string]any{ // JSON is YAML
			"route": route, "time_intervals": []any{map[string]any{"name": "days"}},
			"receivers": []any{map[string]any{"name": "grafana-default-email"}, map[string]any{"name": "A"}, map[string]any{"name": "B"}},
		})
		if err := os.WriteFile(file, config, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, labels := range []map[string]string{{"team": "x", "severity": "critical"}, {"team": "y", "env": "prod"}, {"severity": "warning"}} {
			args := []string{"config", "routes", "test", "--config.file", file}
			for k, v := range labels {
				args = append(args, k+"="+v)
			}
			out, err := exec.CommandContext(t.Context(), amtool, args...).Output() // warnings go elsewhere
			if err != nil {
				t.Fatalf("%v: %s\n%s", err, out, config)
			}
			var got []string
			for _, m := range f.Route(labels) {
				got = append(got, m.Receiver)
			}
			if strings.TrimSpace(string(out)) != strings.Join(got, ",") {
				t.Errorf("Alertmanager sends %v to %s, the fake to %v\n%s", labels, out, got, config)
			}
		}
	}
}

// forAlertmanager writes object matchers, which are Grafana's own, as matchers.
func forAlertmanager(r map[string]any) {
	if list, ok := r["object_matchers"].([]any); ok {
		var texts []string
		for _, item := range list {
			m := item.([]any)
			texts = append(texts, Matcher{m[0].(string), m[1].(string), m[2].(string)}.String())
		}
		r["matchers"] = texts
		delete(r, "object_matchers")
	}
	routes, _ := r["routes"].([]any)
	for _, c := range routes {
		forAlertmanager(c.(map[string]any))
	}
}

// What we do not know is written back as it was, byte for byte.
func TestUnknownMembersAreWrittenBackAsTheyWere(t *testing.T) {
	const theirs = `{ "receiver":"X", "matchers":["a=b"],  "n":1.50, "s":"<&\u00e9>", "active_time_intervals" : null}`
	f := pmmtest.New(pmmtest.Config{})
	f.AddPoint(`{"uid":"d","name":"D","type":"email","settings":{}}`)
	var put []byte
	c, err := NewClient(ClientConfig{URL: "http://pmm", Token: pmmtest.Token, Transport: roundTrip(func(r *http.Request) *http.Response {
		w := httptest.NewRecorder()
		switch {
		case !strings.HasSuffix(r.URL.Path, "/policies"):
			f.ServeHTTP(w, r)
		case r.Method == http.MethodPut:
			put, _ = io.ReadAll(r.Body)
			w.WriteHeader(http.StatusAccepted)
		case put != nil:
			_, _ = w.Write(put)
		default:
			fmt.Fprintf(w, `{"z":{"a": 1e3},"receiver":"D","routes":[%s],"group_by":["..."]}`, theirs)
		}
		return w.Result()
	})})
	if err != nil {
		t.Fatal(err)
	}
	setup(t, c, want())
	for _, kept := range []string{`"z":{"a":1e3}`, `"group_by":["..."]`, `"receiver":"D"`, `"n":1.50`, `"s":"<&\u00e9>"`, `"active_time_intervals":null`} {
		if !strings.Contains(string(put), kept) {
			t.Errorf("written was %s, without %s", put, kept)
		}
	}
}

// PMM's newest code adds a route that takes every alert and continues, at the end
// (percona/pmm:managed/services/grafana/alerting_provisioning.go).
func TestPMMsOwnRouteForAnnotations(t *testing.T) {
	const annotations = `{"receiver":"pmm-alert-annotations","continue":true,"object_matchers":[]}`
	alert := map[string]string{"alertname": "A"}
	receivers := func(f *pmmtest.Fake) string {
		var out []string
		for _, m := range f.Route(alert) {
			out = append(out, m.Receiver)
		}
		return strings.Join(out, ", ")
	}
	f, c := start(t, pmmtest.Config{})
	f.AddPoint(`{"uid":"p","name":"pmm-alert-annotations","type":"webhook","settings":{"url":"http://127.0.0.1:7772/x"}}`)
	f.SetTree(`{"receiver":"grafana-default-email","routes":[` + annotations + `]}`)
	p := setup(t, c, want())
	if got := actions(p); got != "contact point create, route create, default route keep" || receivers(f) != "Callgoose SQIBS, pmm-alert-annotations" {
		t.Errorf("beside PMM's route: %s; an alert goes to %s", got, receivers(f))
	}
	// PMM adds it after us: nobody may lose the alert, neither now nor with our next run.
	f, c = start(t, pmmtest.Config{})
	f.AddPoint(`{"uid":"p","name":"pmm-alert-annotations","type":"webhook","settings":{"url":"http://127.0.0.1:7772/x"}}`)
	setup(t, c, want())
	f.SetTree(strings.TrimSuffix(f.Tree(), "]}") + "," + annotations + "]}")
	for range 2 {
		if got := receivers(f); got != "Callgoose SQIBS, grafana-default-email, pmm-alert-annotations" {
			t.Errorf("an alert goes to %s", got)
		}
		if p := setup(t, c, want()); !p.Empty() {
			t.Errorf("the next run did %s", actions(p))
		}
	}
	remove(t, c, "")
	if f.Tree() != `{"group_by":["grafana_folder","alertname"],"receiver":"grafana-default-email","routes":[{"continue":true,"receiver":"pmm-alert-annotations"}]}` {
		t.Errorf("after the removal the policies are %s", f.Tree())
	}
}

func TestOurContactPointIsTheDefaultOne(t *testing.T) {
	f, c := start(t, pmmtest.Config{})
	f.AddPoint(`{"uid":"callgoose-sqibs","name":"Callgoose SQIBS","type":"webhook","settings":{"url":"http://forwarder:4667/v1/webhook","authorization_credentials":"x"}}`)
	f.AddPoint(`{"uid":"a","name":"A","type":"slack","settings":{}}`)
	f.SetTree(`{"receiver":"Callgoose SQIBS","routes":[{"receiver":"A","object_matchers":[["team","=","x"]]}]}`)
	if got := actions(setup(t, c, want())); got != "contact point keep, route create, default route keep" {
		t.Errorf("the plan was %s", got)
	}
	for team, wanted := range map[string]int{"x": 2, "y": 1} {
		if got := f.Route(map[string]string{"team": team}); len(got) != wanted || got[0].Receiver != DefaultName {
			t.Errorf("an alert of team %s goes to %v", team, got)
		}
	}
}

func TestTwoContactPointsOfOurs(t *testing.T) {
	f, c := start(t, pmmtest.Config{})
	tree, points := f.Tree(), f.Points()
	w := want()
	w.Name = "Callgoose Team B"
	setup(t, c, want())
	if got := actions(setup(t, c, w)); got != "contact point create, route create, default route keep" {
		t.Errorf("the second contact point: %s", got)
	}
	for _, m := range []string{DefaultName, "Callgoose Team B"} {
		if !slices.ContainsFunc(f.Route(nil), func(x pmmtest.Match) bool { return x.Receiver == m }) {
			t.Errorf("%s gets nothing", m)
		}
	}
	if p, err := c.Plan(t.Context(), want()); err != nil || !p.Empty() {
		t.Errorf("the first one would be changed: %v", err)
	}
	// Somebody removes the default route: our own routes do not count as theirs.
	with := f.Tree()
	f.SetTree(strings.Replace(with, `,{"continue":true,"object_matchers":[["pmm_callgoose_route","!=","default"]]}`, "", 1))
	if got := actions(setup(t, c, w)); got != "contact point keep, route keep, default route create" || f.Tree() != with {
		t.Errorf("without the default route: %s, %s", got, f.Tree())
	}
	remove(t, c, "")
	if got := fmt.Sprint(f.Route(nil)); !strings.Contains(got, "grafana-default-email") || !strings.Contains(got, "Callgoose Team B") {
		t.Errorf("after the removal of the first an alert goes to %s", got)
	}
	remove(t, c, w.Name)
	if f.Tree() != tree || f.Points() != points {
		t.Errorf("left over: %s %s", f.Tree(), f.Points())
	}
	if p, err := c.Plan(t.Context(), Want{Remove: true}); err != nil || !p.Empty() {
		t.Errorf("removing what is not there: %v", err)
	}
}

func TestInspect(t *testing.T) {
	f, c := start(t, pmmtest.Config{})
	f.AddPoint(`{"uid":"hand","name":"By hand","type":"webhook","disableResolveMessage":true,"settings":{"url":"http://user:geheim@localhost:4667/v1/webhook/pmm-1?token=geheim","maxAlerts":5,
		"username":"u","password":"geheim","payload":{"template":"{{ . }}"},"hmacConfig":{"secret":"geheim"}}}`)
	f.AddPoint(`{"uid":"other","name":"Other","type":"webhook","settings":{"url":"https://elsewhere/hook"}}`)
	f.SetTree(`{"receiver":"grafana-default-email","routes":[{"receiver":"Other","object_matchers":[["team","=","x"]]},
		{"object_matchers":[["severity","=","critical"]],"receiver":"Other","routes":[{"receiver":"By hand","continue":true,"mute_time_intervals":["n"]}]}]}`)
	inspect := func() (said []string) {
		t.Helper()
		v, findings, err := c.Inspect(t.Context(), Intake{Asks: []string{"bearer"}})
		if err != nil || v != (Version{"3.8.0", "12.4.1"}) {
			t.Fatalf("of %s: %v", v, err)
		}
		for _, f := range findings {
			how := "warn "
			switch {
			case f.Fix == "":
				how = "ok "
			case f.Lost:
				how = "lost "
			}
			said = append(said, how+f.Part+" "+f.Text)
		}
		if strings.Contains(fmt.Sprint(findings), "geheim") {
			t.Errorf("a secret is told: %+v", findings)
		}
		return said
	}
	wanted := []string{
		`lost contact point "By hand" posts to http://localhost:4667/v1/webhook/pmm-1, which means PMM's own machine or container`,
		`lost contact point "By hand" cuts a notification off after 5 alerts, and the rest is lost`,
		`lost contact point "By hand" sends no recoveries: incidents stay open`,
		`lost contact point "By hand" sends a body of its own making, which the service cannot read`,
		`lost contact point "By hand" sends basic, hmac, and the service asks for bearer: PMM gets 401`,
		`warn policies "By hand": its route for severity="critical" stands behind "Other" (team="x"), which keeps what it takes`,
		`warn policies "By hand": its route for severity="critical" is muted at times`,
	}
	if got := inspect(); !slices.Equal(got, wanted) {
		t.Errorf("inspected:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(wanted, "\n"))
	}
	setup(t, c, want())
	wanted = append(wanted, `ok policies "Callgoose SQIBS" gets all alerts`, `ok contact point "Callgoose SQIBS" posts to http://forwarder:4667/v1/webhook, with bearer`)
	if got := inspect(); !slices.Equal(got, wanted) {
		t.Errorf("after setup:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(wanted, "\n"))
	}
	f.SetTree(`{"receiver":"grafana-default-email","routes":[{"receiver":"Callgoose SQIBS","continue":true}]}`)
	if said := inspect(); !slices.Contains(said, `warn policies the route to here takes alerts from the default contact point "grafana-default-email", and no route gives them back`) {
		t.Errorf("a route takes all from the default contact point: %s", strings.Join(said, "\n"))
	}
}

func TestUIDs(t *testing.T) {
	for name, wanted := range map[string]string{
		DefaultName: "callgoose-sqibs", "Callgoose": "callgoose", "Team B!": "callgoose-team-b", "日本": "callgoose",
	} {
		if got := UID(name); got != wanted {
			t.Errorf("%s has the identifier %s, want %s", name, got, wanted)
		}
	}
	if a, b := UID(strings.Repeat("n", 90)), UID(strings.Repeat("n", 91)); a == b || len(a) > 40 {
		t.Errorf("long names: %s, %s", a, b)
	}
}

func TestMatchers(t *testing.T) {
	for text, wanted := range map[string]string{
		"severity=critical":       `severity="critical"`,
		`severity =~ "a|b"`:       `severity=~"a|b"`,
		"a!=":                     `a!=""`,
		"a!~x.*":                  `a!~"x.*"`,
		`"a b"="\"x\""`:           `a b="\"x\""`,
		"service_name=mysql 1=2":  `service_name="mysql 1=2"`,
		"no operator":             "",
		"=x":                      "",
		"a=~(":                    "",
		`a="x`:                    "",
		"pmm_callgoose_x==double": `pmm_callgoose_x="=double"`,
	} {
		m, err := ParseMatcher(text)
		if err == nil && m.String() != wanted || err != nil && wanted != "" {
			t.Errorf("%s is %s (%v), want %s", text, m, err, wanted)
		}
	}
}

// A fresh Grafana 12.4 has "empty" as default contact point, which tells nobody.
func TestNothingIsGivenBackToADefaultContactPointThatTellsNobody(t *testing.T) {
	f, c := start(t, pmmtest.Config{})
	f.SetTree(`{"receiver":"empty","group_by":["grafana_folder","alertname"]}`)
	if got := actions(setup(t, c, want())); got != "contact point create, route create, default route keep" {
		t.Errorf("the plan was %s", got)
	}
	if _, findings, err := c.Inspect(t.Context(), Intake{}); err != nil || strings.Contains(fmt.Sprint(findings), "no route gives them back") {
		t.Errorf("it counts as silenced: %v, %v", findings, err)
	}
	// Once it is a real one, it gets what it had.
	f.AddPoint(`{"uid":"e","name":"empty","type":"email","settings":{}}`)
	if got := actions(setup(t, c, want())); got != "contact point keep, route keep, default route create" {
		t.Errorf("the plan was %s", got)
	}
}

func TestARemovalThatARuleForbidsChangesNothing(t *testing.T) {
	f, c := start(t, pmmtest.Config{})
	setup(t, c, want())
	f.World.AddRule(pmmtest.Rule{UID: "r1", Title: "Own way", Folder: "f", Interval: time.Minute, Receiver: DefaultName})
	before := len(f.Writes())
	_, err := c.Plan(t.Context(), Want{Remove: true})
	if err == nil || !strings.Contains(err.Error(), "Own way") || len(f.Writes()) != before {
		t.Errorf("the removal said %v", err)
	}
}

func TestThePlanNotesWhatPassesUsByAndWhatComesTwice(t *testing.T) {
	f, c := start(t, pmmtest.Config{})
	f.World.AddRule(pmmtest.Rule{UID: "r1", Title: "Elsewhere", Folder: "f", Interval: time.Minute, Receiver: "grafana-default-email"})
	f.AddPoint(`{"uid":"g","name":"By the guide","type":"webhook","settings":{"url":"https://in.callgoose.com/v1/process?token=x"}}`)
	f.AddPoint(`{"uid":"callgoose-sqibs","name":"Callgoose SQIBS","type":"webhook","settings":{"url":"http://x/v1/webhook"}}`)
	f.AddPoint(`{"uid":"callgoose-b","name":"Callgoose B","type":"webhook","settings":{"url":"http://x/v1/webhook"}}`)
	f.SetTree(`{"receiver":"grafana-default-email","repeat_interval":"4h","routes":[{"receiver":"Callgoose SQIBS","continue":true,"group_interval":"10s"},{"receiver":"Callgoose B","continue":true}]}`)
	p, err := c.Plan(t.Context(), want())
	if err != nil {
		t.Fatal(err)
	}
	notes := strings.Join(p.Notes, "\n")
	for _, word := range []string{"1 alert rule names", "Elsewhere", `"By the guide" posts straight to Callgoose`, "group interval of 10s", "repeat interval of 4h"} {
		if !strings.Contains(notes, word) {
			t.Errorf("the notes do not say %q:\n%s", word, notes)
		}
	}
	if strings.Contains(notes, "token=") {
		t.Errorf("the notes hold a secret: %s", notes)
	}
	if !slices.ContainsFunc(p.Steps, func(s Step) bool { return strings.HasPrefix(s.Why, "made here too") }) {
		t.Errorf("a second contact point of ours is not known: %+v", p.Steps)
	}
}

func TestWhoMayDoWhat(t *testing.T) {
	cfg := pmmtest.Config{Editor: "glsa_ed1tor", Viewer: "glsa_v1ewer", None: "glsa_n0body"}
	as := func(f *pmmtest.Fake, token string) *Client {
		c, err := NewClient(ClientConfig{URL: "http://pmm", Token: token, Transport: f})
		must(t, err)
		return c
	}
	f := pmmtest.New(cfg)
	plan, err := as(f, cfg.Viewer).Plan(t.Context(), want())
	must(t, err) // a Viewer may look
	err = as(f, cfg.Viewer).Apply(t.Context(), plan)
	if err == nil || !strings.Contains(err.Error(), "setup pmm needs Editor") || strings.Contains(err.Error(), "made from a file") {
		t.Errorf("a Viewer that writes is told %v", err)
	}
	plan, err = as(f, cfg.Editor).Plan(t.Context(), want())
	must(t, err)
	must(t, as(f, cfg.Editor).Apply(t.Context(), plan))
	if _, err := as(f, cfg.None).Plan(t.Context(), want()); err == nil || !strings.Contains(err.Error(), "Viewer is enough for --dry-run") {
		t.Errorf("who has no role is told %v", err)
	}
	f.Before(unconfigured(1))
	if _, err := as(f, cfg.Editor).Plan(t.Context(), want()); err == nil || !strings.Contains(err.Error(), "new organisation within a minute; try again") {
		t.Errorf("a new organisation says %v", err)
	}
}

// Grafana makes the configuration of a new organisation in its own time.
func TestSetupWaitsAMinuteForANewOrganisation(t *testing.T) {
	for requests, planned := range map[int]bool{0: true, 20: true, 1000: false} {
		synctest.Test(t, func(t *testing.T) {
			f, told, began := pmmtest.New(pmmtest.Config{}), 0, time.Now()
			f.Before(unconfigured(requests))
			c, err := NewClient(ClientConfig{URL: "http://pmm.example.net", Token: pmmtest.Token, Transport: f, Waiting: func(error) { told++ }})
			must(t, err)
			if _, err := c.Plan(t.Context(), want()); (err == nil) != planned {
				t.Errorf("after %d refusals: %v", requests, err)
			}
			if waited := time.Since(began); waited > time.Minute || (requests == 0) != (waited == 0) || (told == 1) != (requests > 0) {
				t.Errorf("after %d refusals it waited %s and told it %d times", requests, waited, told)
			}
		})
	}
}
