package store

import (
	"context"
	"maps"
	"testing"
	"testing/synctest"
	"time"
)

func TestTheAlertsOfADayAreCountedByPMMServer(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s, _, err := Open(Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		count := func(source string, at time.Time, n int) {
			err := s.Do(context.Background(), func(tx *Tx) {
				for range n {
					tx.CountSent(source, at)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		want := func(what string, want map[string]int64) {
			t.Helper()
			var got map[string]int64
			if err := s.View(func(tx *Tx) { got = tx.AlertsOfDay() }); err != nil || !maps.Equal(got, want) {
				t.Errorf("%s: %v, %v, want %v", what, got, err, want)
			}
		}
		count("pmm", time.Now(), 3)
		count("pmm-eu", time.Now(), 2)
		count("pmm", time.Now().Add(-48*time.Hour), 7) // an import
		want("what was imported is older", map[string]int64{"pmm": 3, "pmm-eu": 2})
		time.Sleep(20 * time.Hour)
		count("pmm", time.Now(), 1)
		want("all within a day", map[string]int64{"pmm": 4, "pmm-eu": 2})
		time.Sleep(6 * time.Hour)
		want("the first are older than a day", map[string]int64{"pmm": 1})
	})
}
