package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"pmm-callgoose/store/event"
)

// open makes a ledger, and checks the file's invariants when the test ends.
func open(t *testing.T) (*Store, string) {
	t.Helper()
	dir := t.TempDir()
	s, fresh, err := Open(Config{Dir: dir})
	if err != nil || !fresh {
		t.Fatal(fresh, err)
	}
	t.Cleanup(func() {
		_ = s.Close()
		db, err := bbolt.Open(filepath.Join(dir, FileName), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		_ = db.View(func(tx *bbolt.Tx) error {
			for err := range tx.Check() {
				t.Error(err)
			}
			return nil
		})
	})
	return s, dir
}

var at = time.Date(2026, 11, 23, 23, 59, 0, 0, time.UTC)

func record(n int, outcome event.Outcome) *event.Record {
	return &event.Record{
		ID: fmt.Sprintf("e%d", n), Key: fmt.Sprintf("pmm-%d", n%3), Outcome: outcome, Status: event.Firing,
		Labels: map[string]string{"service_name": fmt.Sprintf("mysql-%d", n)}, ReceivedAt: at.Add(time.Duration(n) * time.Minute),
		Pos: event.Position{Seq: uint64(n + 1)},
	}
}

func TestRecordsAreListedNewestFirstAcrossDays(t *testing.T) {
	s, _ := open(t)
	ctx := context.Background()
	if err := s.Do(ctx, func(tx event.Tx) error {
		for n := range 10 {
			if err := tx.PutRecord(record(n, event.Queued)); err != nil {
				return err
			}
		}
		return tx.PutRecord(record(4, event.Dead))
	}); err != nil {
		t.Fatal(err)
	}
	list := func(f event.Filter) (ids []string) {
		if err := s.Each(f, func(r *event.Record) bool { ids = append(ids, r.ID); return true }); err != nil {
			t.Fatal(err)
		}
		return ids
	}
	for name, c := range map[string]struct {
		filter event.Filter
		want   string
	}{
		"all":      {event.Filter{}, "[e9 e8 e7 e6 e5 e4 e3 e2 e1 e0]"},
		"oldest":   {event.Filter{OldestFirst: true, After: event.Position{Seq: 8}}, "[e8 e9]"},
		"outcome":  {event.Filter{Outcomes: []event.Outcome{event.Dead}}, "[e4]"},
		"incident": {event.Filter{Incident: "pmm-1"}, "[e7 e4 e1]"},
		"label":    {event.Filter{Labels: map[string]string{"service_name": "mysql-3"}}, "[e3]"},
		"times":    {event.Filter{Since: at.Add(2 * time.Minute), Until: at.Add(4 * time.Minute)}, "[e3 e2]"},
		"ids":      {event.Filter{IDs: []string{"e2", "e9"}}, "[e9 e2]"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := fmt.Sprint(list(c.filter)); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	if n := s.Summary().Counts; n["queued"] != 9 || n["dead"] != 1 {
		t.Errorf("counts %v", n)
	}
	if _, err := s.Find("e0"); err != nil {
		t.Error(err)
	}
	if _, err := s.Find("nothing"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestWhatWasCommittedIsThereAfterReopening(t *testing.T) {
	s, dir := open(t)
	ep := &event.Episode{Key: "pmm-a", Source: "pmm", Alertname: "A", Open: true}
	var wg sync.WaitGroup
	for n := range 64 {
		wg.Go(func() {
			if err := s.Do(t.Context(), func(tx event.Tx) error {
				tx.Count("alerts", 1)
				if err := tx.PutEpisode(ep); err != nil {
					return err
				}
				return tx.Settle(uint64(n + 1))
			}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := s.Alone(func(tx event.Tx) error { return tx.SetFloor(60) }); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("publish failed")
	if err := s.Alone(func(tx event.Tx) error { tx.Count("alerts", 1000); return broken }); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if _, _, err := Open(Config{Dir: dir}); !errors.Is(err, ErrLocked) {
		t.Errorf("a second owner is told %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s2, fresh, err := Open(Config{Dir: dir})
	if err != nil || fresh {
		t.Fatal(fresh, err)
	}
	defer func() { _ = s2.Close() }()
	if err := s2.View(func(tx event.Tx) error {
		var above []uint64
		for seq := range tx.Settled() {
			above = append(above, seq)
		}
		if fmt.Sprint(above) != "[61 62 63 64]" || tx.Floor() != 60 {
			t.Errorf("settled %v above %d", above, tx.Floor())
		}
		n := 0
		for range tx.OpenEpisodes("pmm", "A") {
			n++
		}
		for range tx.OpenEpisodes("pmm", "B") {
			n += 100
		}
		if n != 1 {
			t.Errorf("%d open episodes", n)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got := s2.Summary().Counts["alerts"]; got != 64 {
		t.Errorf("counted %d", got)
	}
}

func TestANewerFileIsRefused(t *testing.T) {
	s, dir := open(t)
	if err := s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyFormat, []byte{format + 1}) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(Config{Dir: dir}); !errors.Is(err, event.ErrNewer) {
		t.Errorf("got %v", err)
	}
}

// The shortcut must find what the decoder finds, whatever the alert says.
func TestOutcomeOf(t *testing.T) {
	for _, o := range event.Outcomes {
		r := record(1, o)
		r.Labels = map[string]string{"outcome": "dead", `a"outcome":"delivered`: `"outcome":"queued"`}
		r.Reason, r.LastError = `"outcome":"collapsed"`, `{"outcome":"queued"}`
		r.AddAttempt(event.Attempt{Result: "delivered", Error: `"outcome":"dead"`, Effect: "outcome"})
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := outcomeOf(b); err != nil || got != o {
			t.Errorf("%s is read as %q (%v)", b, got, err)
		}
	}
	if got, err := outcomeOf([]byte(`{"labels":{"outcome":"strange"},"outcome":"later"}`)); err != nil || got != "later" {
		t.Errorf("an outcome of another version is read as %q (%v)", got, err)
	}
	if _, err := outcomeOf([]byte(`{"outcome`)); err == nil {
		t.Error("a damaged record has an outcome")
	}
}
