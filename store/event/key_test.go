package event

import (
	"fmt"
	"testing"
	"time"
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

func TestPartitionsStayAsTheyAreInSubjects(t *testing.T) {
	if Partitions != 64 {
		t.Errorf("Partitions = %d: subjects on disk have 64", Partitions)
	}
	for key, want := range map[string]uint32{
		"": 5, "pmm-18e04dbe104bb755": 55, "pmm-040c9efda0595288": 33, "eu-west-1-18e04dbe104bb755": 13, "pmm-é": 52,
	} {
		if got := Partition(key); got != want {
			t.Errorf("Partition(%q) = %d, want %d", key, got, want)
		}
	}
}

func TestPartitionsSpreadKeysOfOneSource(t *testing.T) {
	var hits [Partitions]int
	const keys = 64 * 200
	for i := range keys {
		hits[Partition(Key("pmm", fmt.Sprintf("%016x", uint64(i)*0x9e3779b97f4a7c15)))]++
	}
	for p, n := range hits {
		if n < 100 || n > 400 { // 200 expected
			t.Errorf("partition %d holds %d of %d keys", p, n, keys)
		}
	}
}

func TestEpisodeIDs(t *testing.T) {
	berlin := time.FixedZone("CET", 3600)
	for _, c := range []struct {
		name  string
		start time.Time
		count uint64
		want  string
	}{
		{"by its start", time.Date(2025, 11, 26, 9, 12, 0, 0, time.UTC), 7, "2025-11-26T09:12:00Z"},
		{"the same instant in another zone", time.Date(2025, 11, 26, 10, 12, 0, 0, berlin), 1, "2025-11-26T09:12:00Z"},
		{"fractions count and have no trailing zeros", time.Date(2025, 11, 26, 9, 12, 0, 120_000_000, time.UTC), 1, "2025-11-26T09:12:00.12Z"},
		{"by counting where PMM gave no start", time.Time{}, 3, "#3"},
		{"the largest count", time.Time{}, 1<<64 - 1, "#18446744073709551615"},
		{"the zero time of another zone is no start either", time.Time{}.In(berlin), 1, "#1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := EpisodeID(c.start, c.count); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}
