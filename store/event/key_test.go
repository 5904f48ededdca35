package event

import (
	"fmt"
	"strings"
	"testing"
)

// The ids, keys and partitions below stand in data directories and at
// Callgoose. Changing one is a migration, never an update of this test: every
// open incident would be orphaned and every alert sent again. The values come
// from an independent implementation (Python's hashlib).

func TestEventIDsStayAsTheyAreOnDisk(t *testing.T) {
	for _, c := range []struct {
		name, key string
		status    Status
		episode   string
		want      string
	}{
		{"firing sample of the guide", "pmm-18e04dbe104bb755", Firing, "2025-11-26T09:12:00Z", "62aa110960031c02cbcd"},
		{"its recovery differs", "pmm-18e04dbe104bb755", Resolved, "2025-11-26T09:12:00Z", "515a77a4cdb8dd2a5117"},
		{"first episode without a start", "pmm-18e04dbe104bb755", Firing, "#1", "3465be63a3b3a41ae7fa"},
		{"second episode without a start", "pmm-18e04dbe104bb755", Firing, "#2", "8f8322777af81db7b8dd"},
		{"another source", "eu-west-1-18e04dbe104bb755", Firing, "2025-11-26T09:12:00Z", "0404bde50cae6e0359ee"},
		{"a start one nanosecond later", "pmm-18e04dbe104bb755", Firing, "2025-11-26T09:12:00.000000001Z", "32d9e8eba4395b9fe823"},
		{"nothing at all", "", "", "", "256e51adcbc7da43b4ae"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := ID(c.key, c.status, c.episode); got != c.want {
				t.Errorf("ID(%q, %q, %q) = %s, want %s", c.key, c.status, c.episode, got, c.want)
			}
		})
	}
}

func TestEventIDKeepsItsPartsApart(t *testing.T) {
	seen := map[string]string{}
	for _, key := range []string{"a", "ab", "abfiring", "a-firing"} {
		for _, s := range []Status{"", Firing, Resolved} {
			for _, episode := range []string{"", "b", "firing", "#1"} {
				id, what := ID(key, s, episode), fmt.Sprintf("%q %q %q", key, s, episode)
				if other, ok := seen[id]; ok {
					t.Errorf("%s and %s share the id %s", what, other, id)
				}
				seen[id] = what
			}
		}
	}
}

func TestIncidentKeyIsSourceAndFingerprint(t *testing.T) {
	if got, want := Key("pmm", "18e04dbe104bb755"), "pmm-18e04dbe104bb755"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestKeysAreInjective(t *testing.T) {
	seen := map[string]string{}
	for _, source := range []string{"a", "a-b", "a-b-c", "b"} {
		for _, fingerprint := range []string{"c", "b-c", "b", "b%2dc", "-", "--c", "%", "c-", ""} {
			key, what := Key(source, fingerprint), source+" "+fingerprint
			if other, ok := seen[key]; ok {
				t.Errorf("%s and %s share the key %s", what, other, key)
			}
			seen[key] = what
			if got := Fingerprint(key); got != fingerprint {
				t.Errorf("key %s is said to be of fingerprint %q, it is of %q", key, got, fingerprint)
			}
		}
	}
}

// FuzzKeys: no two pairs of a source and a fingerprint share a key, and each key
// gives its fingerprint back.
func FuzzKeys(f *testing.F) {
	f.Add("a-b", "c", "a", "b-c")
	f.Add("a", "%2d", "a", "-")
	f.Add("pmm", "%252d", "pmm", "%2d")
	f.Fuzz(func(t *testing.T, source1, fingerprint1, source2, fingerprint2 string) {
		for _, source := range []string{source1, source2} {
			if source == "" || strings.Trim(source, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
				t.Skip("no source is called so")
			}
		}
		key := Key(source1, fingerprint1)
		if other := Key(source2, fingerprint2); (key == other) != (source1 == source2 && fingerprint1 == fingerprint2) {
			t.Errorf("%q %q has the key %q, %q %q the key %q", source1, fingerprint1, key, source2, fingerprint2, other)
		}
		if got := Fingerprint(key); got != fingerprint1 {
			t.Errorf("the key %q of the fingerprint %q gives %q", key, fingerprint1, got)
		}
	})
}
