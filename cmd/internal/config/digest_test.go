package config

import (
	"maps"
	"slices"
	"testing"
)

// Instances on one NATS compare what decides, and nothing that is each one's own.
func TestTheDigestsDifferWhereADecisionWould(t *testing.T) {
	digests := func(change map[string]string) map[string]string {
		t.Helper()
		set := map[string]string{"callgoose-url": "https://cg.example/v1/process", "data-dir": t.TempDir(), "nats-url": "nats://n1:4222"}
		maps.Copy(set, change)
		c, _, err := Load(Input{Flags: set})
		if err != nil {
			t.Fatal(err)
		}
		return c.Digests()
	}
	base := digests(nil)
	for _, c := range []struct {
		name, value string
		compared    bool
	}{
		{"incident-by", "alertname", true},
		{"retry-for", "1h", true},
		{"max-store", "3GiB", true},
		{"rate", "5", true},
		{"storm", "30/1m", true},
		{"expect-every", "pmm=30m,dr=2h", true},
		{"urgency-high", "critical", true},
		{"callgoose-url", "https://other.example/v1/process", true},
		{"callgoose-url", "https://cg.example/v1/process?token=s3cret-word", false},
		{"nats-url", "nats://n2:4222", false},
		{"instance", "b", false},
		{"log-level", "debug", false},
		{"admin-listen", "127.0.0.1:1", false},
		{"callgoose-ca", "/etc/ca.pem", false},
		{"retry-max", "60s", false}, // the default in other words
	} {
		got := digests(map[string]string{c.name: c.value})
		var differ []string
		for _, name := range slices.Sorted(maps.Keys(base)) {
			if got[name] != base[name] && name != "callgoose-auth" { // which token= in the URL sets
				differ = append(differ, name)
			}
		}
		if want := []string{c.name}; c.compared && !slices.Equal(differ, want) || !c.compared && len(differ) > 0 {
			t.Errorf("--%s %s: %q differ", c.name, c.value, differ)
		}
	}
}
