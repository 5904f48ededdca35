package doctor

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/ingest/pmm"
	"pmm-callgoose/ingest/pmm/pmmtest"
)

func TestPMMsContactPoint(t *testing.T) {
	const (
		auth   = `,"authorization_scheme":"Bearer","authorization_credentials":"x"`
		routed = `{"receiver":"grafana-default-email","routes":[{"receiver":"Callgoose SQIBS","continue":true},{"receiver":"grafana-default-email"}]}`
	)
	point := func(settings string, more ...string) string {
		if !strings.Contains(settings, `"url"`) {
			settings = `"url":"http://forwarder:4667/v1/webhook"` + settings
		}
		return fmt.Sprintf(`{"uid":"callgoose-sqibs","name":"Callgoose SQIBS","type":"webhook","settings":{%s}%s}`, settings, strings.Join(more, ""))
	}
	for _, tt := range []struct {
		name   string
		point  string
		tree   string
		asks   []string
		flags  map[string]string
		heard  bool
		listen string
		check  string
		want   Severity
		words  []string
	}{
		{name: "right", point: point(auth), asks: []string{"bearer"}, want: OK, words: []string{"forwarder:4667", "bearer"}},
		{name: "none at all", want: Fail, words: []string{"no contact point leads here", "setup pmm"}},
		{name: "of another type", point: `{"uid":"callgoose-sqibs","name":"Callgoose SQIBS","type":"email","settings":{}}`, want: Fail, words: []string{"type email"}},
		{name: "PMM's own loopback", point: point(`"url":"http://127.0.0.1:4667/v1/webhook"` + auth), want: Fail, words: []string{"PMM's own machine", "host.docker.internal"}},
		{name: "loopback, and it works", point: point(`"url":"http://127.0.0.1:4667/v1/webhook"` + auth), heard: true, want: Warn, words: []string{"arrives here anyway"}},
		{name: "another port", point: point(`"url":"http://forwarder:9999/v1/webhook"` + auth), want: Warn, words: []string{"9999", "4667"}},
		{name: "we listen on loopback only", point: point(auth), listen: "127.0.0.1", want: Fail, words: []string{"only this machine's own processes", "--listen"}},
		{name: "https to plain http", point: point(`"url":"https://forwarder:4667/v1/webhook"` + auth), want: Fail, words: []string{"http://"}},
		{name: "max alerts", point: point(`,"maxAlerts":"5"` + auth), want: Fail, words: []string{"after 5 alerts", "Max alerts to 0"}},
		{name: "no recoveries", point: point(auth, `,"disableResolveMessage":true`), want: Fail, words: []string{"recoveries", "Disable resolved message"}},
		{name: "a body of its own", point: point(`,"payload":{"template":"x"}` + auth), want: Fail, words: []string{"custom payload"}},
		{name: "no credentials", point: point(""), asks: []string{"bearer"}, want: Fail, words: []string{"no credentials", "bearer", "401"}},
		{name: "the wrong kind", point: point(`,"username":"u","password":"p"`), asks: []string{"bearer"}, want: Fail, words: []string{"basic", "bearer"}},
		{name: "either of two", point: point(`,"username":"u","password":"p"`), asks: []string{"bearer", "basic"}, want: OK},
		{name: "no signature", point: point(auth), asks: []string{"bearer", "hmac"}, want: Fail, words: []string{"does not sign"}},
		{name: "signed", point: point(`,"hmacConfig":{"secret":"s","timestampHeader":"X-Grafana-Alerting-Timestamp"}` + auth), asks: []string{"bearer", "hmac"}, want: OK, words: []string{"hmac"}},
		{name: "signed without the time", point: point(`,"hmacConfig":{"secret":"s"}` + auth), asks: []string{"bearer", "hmac"}, want: Warn, words: []string{"sent again"}},
		{
			name: "a short group interval", point: point(auth), check: "pmm policies",
			tree: `{"receiver":"grafana-default-email","routes":[{"receiver":"Callgoose SQIBS","continue":true,"group_interval":"10s"}]}`,
			want: Warn, words: []string{"group interval of 10s"},
		},
		{name: "another signature header", point: point(`,"hmacConfig":{"secret":"s","header":"X-Sig"}`), asks: []string{"hmac"}, want: Fail, words: []string{"X-Sig"}},
		{name: "another time header", point: point(`,"hmacConfig":{"secret":"s","timestampHeader":"X-At"}`), asks: []string{"hmac"}, want: Fail, words: []string{"X-At", "X-Grafana-Alerting-Timestamp"}},
		{
			name: "the time header agreed on", point: point(`,"hmacConfig":{"secret":"s","timestampHeader":"X-At"}`), asks: []string{"hmac"},
			flags: map[string]string{"ingest-hmac-timestamp-header": "X-At"}, want: OK,
		},
		{name: "no route", point: point(auth), tree: `{"receiver":"grafana-default-email"}`, want: Fail, words: []string{"no notification policy"}},
		{name: "the default one", point: point(auth), tree: `{"receiver":"Callgoose SQIBS"}`, want: OK},
		{
			name: "behind another", point: point(auth), check: "pmm policies",
			tree: `{"receiver":"grafana-default-email","routes":[{"receiver":"grafana-default-email","object_matchers":[["a","=","b"]]},{"receiver":"Callgoose SQIBS","continue":true}]}`,
			want: Warn, words: []string{"stands behind", "Continue matching"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fake := pmmtest.New(pmmtest.Config{})
			if tt.point != "" {
				fake.AddPoint(tt.point)
				if tt.tree == "" {
					tt.tree = routed
				}
				fake.SetTree(tt.tree)
			}
			s := httptest.NewServer(fake)
			defer s.Close()
			client, err := pmm.NewClient(pmm.ClientConfig{URL: s.URL, Token: pmmtest.Token})
			if err != nil {
				t.Fatal(err)
			}
			flags := tt.flags
			if flags != nil {
				flags["ingest-hmac-secret-file"] = secretFile(t, t.TempDir(), "hmac", "s")
			}
			service := side("up", nil, "", admin.Status{Version: "v", StartedAt: time.Now(), WebhookURL: "http://10.0.0.1:4667/v1/webhook"})
			service.Remote = true
			if tt.listen != "" {
				service.WebhookURL = "http://" + tt.listen + ":4667/v1/webhook"
			}
			if tt.heard {
				service.Sources = []admin.PMM{{Name: "pmm"}}
			}
			r := examine(t, Config{Settings: settings(t, nowhere(flags)), Service: &service, PMM: PMM{Clients: map[string]*pmm.Client{"pmm": client}, Asks: tt.asks}})
			demand(t, r, "pmm", OK, "3.8.0")
			if tt.check == "" {
				tt.check = "pmm contact point"
			}
			demand(t, r, tt.check, tt.want, tt.words...)
			for _, f := range r.Findings {
				if tt.want == OK && strings.HasPrefix(f.Check, "pmm") && f.Severity != OK {
					t.Errorf("%s %s: %s", f.Severity, f.Check, f.Text)
				}
			}
			if n := fake.Writes(); len(n) != 0 {
				t.Errorf("PMM was changed: %v", n)
			}
		})
	}
	s := httptest.NewServer(pmmtest.New(pmmtest.Config{}))
	defer s.Close()
	client, err := pmm.NewClient(pmm.ClientConfig{URL: s.URL, Token: "wrong"})
	if err != nil {
		t.Fatal(err)
	}
	demand(t, examine(t, Config{Settings: settings(t, nowhere(nil)), PMM: PMM{Clients: map[string]*pmm.Client{"pmm": client}}}), "pmm", Fail, "401", "Viewer or higher")
}

func TestWhatPMMSaysOfItsAttempts(t *testing.T) {
	fake := pmmtest.New(pmmtest.Config{})
	fake.AddPoint(`{"uid":"callgoose-sqibs","name":"Callgoose SQIBS","type":"webhook","settings":{"url":"http://forwarder:4667/v1/webhook"}}`)
	fake.AddPoint(`{"uid":"g","name":"By the guide","type":"webhook","settings":{"url":"https://in.callgoose.com/x"}}`)
	fake.SetTree(`{"receiver":"Callgoose SQIBS"}`)
	fake.World.AddRule(pmmtest.Rule{UID: "r1", Title: "Fires", Folder: "f", Interval: time.Minute, Series: map[string]bool{"db": true}})
	fake.World.AddRule(pmmtest.Rule{UID: "r2", Title: "Elsewhere", Folder: "f", Interval: time.Minute, Receiver: "By the guide"})
	for range 12 {
		fake.World.Step() // nobody listens
	}
	s := httptest.NewServer(fake)
	defer s.Close()
	client, err := pmm.NewClient(pmm.ClientConfig{URL: s.URL, Token: pmmtest.Token})
	if err != nil {
		t.Fatal(err)
	}
	r := examine(t, Config{Settings: settings(t, nowhere(nil)), PMM: PMM{Clients: map[string]*pmm.Client{"pmm": client}}})
	demand(t, r, "pmm deliveries", Fail, "connection refused", "2026-11-27")
	demand(t, r, "pmm contact point", Warn, "By the guide", "straight to Callgoose")
	demand(t, r, "pmm policies", Warn, "Elsewhere")
}

// What the service found when it compared with PMM is told without asking PMM.
func TestWhatTheServiceFoundInPMM(t *testing.T) {
	at := time.Now()
	of := func(r *admin.Reconcile) Config {
		s := &Service{Status: admin.Status{Sources: []admin.PMM{{Name: "dr", Reconcile: r, Drift: new(int64)}}}}
		return Config{Settings: settings(t, nowhere(nil)), Service: s}
	}
	for _, tt := range []struct {
		name  string
		cfg   Config
		want  Severity
		words []string
	}{
		{"agreed", of(&admin.Reconcile{LastPassAt: &at}), OK, []string{"agree"}},
		{"no pass yet", of(&admin.Reconcile{}), Skip, []string{"no pass"}},
		{"unreadable", of(&admin.Reconcile{LastPassAt: &at, Failures: 3, Skipped: "PMM cannot be read: 401"}), Fail, []string{"401", "Viewer"}},
	} {
		t.Run(tt.name, func(t *testing.T) { demand(t, examine(t, tt.cfg), "reconcile dr", tt.want, tt.words...) })
	}
}
