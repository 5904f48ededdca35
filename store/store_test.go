package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"weak"

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
	if err := s.Do(ctx, func(tx *Tx) {
		for n := range 10 {
			tx.PutRecord(record(n, event.Queued))
		}
		tx.PutRecord(record(4, event.Dead))
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

// A PMM server that was silent for long is forgotten, unless something of it is open or
// queued.
func TestSourcesThatFellSilentAreForgotten(t *testing.T) {
	s, _ := open(t)
	now := time.Now().UTC()
	if err := s.Do(t.Context(), func(tx *Tx) {
		for _, source := range []string{"silent", "closed", "open", "queued"} {
			tx.SetHeard(source, now.Add(-31*24*time.Hour))
		}
		tx.SetHeard("young", now.Add(-29*24*time.Hour))
		at := event.Position{Seq: 1}
		tx.PutEpisode(&Episode{Key: "closed-a", Source: "closed"})
		tx.PutEpisode(&Episode{Key: "open-a", Source: "open", Open: true})
		tx.PutWaiting(&Waiting{At: at, Pos: at, Key: "queued-a", Source: "queued"})
		tx.PutStorm(&Storm{Source: "silent"})
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Do(t.Context(), func(tx *Tx) { tx.DropSources(now.Add(-30 * 24 * time.Hour)) }); err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(maps.Keys(s.Summary().Heard)); !slices.Equal(got, []string{"open", "queued", "young"}) {
		t.Errorf("%q are remembered", got)
	}
	if err := s.View(func(tx *Tx) {
		list := tx.Storms()
		if len(list) != 0 {
			t.Errorf("%+v is left", list)
		}
	}); err != nil {
		t.Error(err)
	}
}

// What the functions of earlier writes held is let go: they hold whole webhooks.
func TestWritesThatAreOverHoldNothing(t *testing.T) {
	s, _ := open(t)
	var held []weak.Pointer[[1 << 20]byte]
	for range 32 {
		large := new([1 << 20]byte)
		held = append(held, weak.Make(large))
		if err := s.Do(t.Context(), func(tx *Tx) { tx.Count("bytes", int64(large[0])) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Do(t.Context(), func(*Tx) {}); err != nil { // the committer came round
		t.Fatal(err)
	}
	runtime.GC()
	left := 0
	for _, p := range held {
		if p.Value() != nil {
			left++
		}
	}
	if left > 1 { // one may be on its way
		t.Errorf("%d of %d writes that are over are still held", left, len(held))
	}
}

func TestWhatWasCommittedIsThereAfterReopening(t *testing.T) {
	s, dir := open(t)
	ep := &Episode{Key: "pmm-a", Source: "pmm", Alertname: "A", Open: true}
	var wg sync.WaitGroup
	for n := range 64 {
		wg.Go(func() {
			if err := s.Do(t.Context(), func(tx *Tx) {
				tx.Count("alerts", 1)
				tx.PutEpisode(ep)
				tx.PutWaiting(&Waiting{At: event.Position{Seq: uint64(n + 1)}, Pos: event.Position{Seq: uint64(n + 1)}, Key: "pmm-a", Source: "pmm"})
			}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := s.Do(context.Background(), func(tx *Tx) {
		for seq := range uint64(60) {
			tx.DropWaiting(event.Position{Seq: seq + 1})
		}
	}); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("publish failed")
	if err := s.Do(context.Background(), func(tx *Tx) { tx.Count("alerts", 1000); tx.Fail(broken) }); !errors.Is(err, broken) {
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
	if err := s2.View(func(tx *Tx) {
		var waiting []uint64
		for w := range tx.Waiting(event.Position{Seq: 61}) {
			waiting = append(waiting, w.At.Seq)
		}
		if fmt.Sprint(waiting) != "[62 63 64]" {
			t.Errorf("behind 61 are waiting %v", waiting)
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

// Labels are written once for a key, and go with its last record unless its
// episode is open.
func TestLabelsStandUnderTheirKey(t *testing.T) {
	s, _ := open(t)
	old := func(n int, key string) *event.Record {
		r := record(n, event.Delivered)
		r.Key, r.Source, r.Alertname = key, "pmm", "A"
		r.Labels = map[string]string{"alertname": "A", "of": key}
		return r
	}
	other := old(3, "pmm-gone")
	other.Labels["of"] = "others" // the same key with other labels keeps its own
	tomorrow := old(2000, "pmm-again")
	if err := s.Do(context.Background(), func(tx *Tx) {
		for _, r := range []*event.Record{old(0, "pmm-gone"), old(1, "pmm-open"), old(2, "pmm-again"), other, tomorrow} {
			tx.PutRecord(r)
		}
		r := tx.Brief(other.ReceivedAt, other.Pos)
		if r.Brief || r.Labels["of"] != "others" {
			t.Errorf("labels of its own: %+v", r)
		}
		if r = tx.Brief(time.Time{}, event.Position{Seq: 2}); !r.Brief {
			t.Errorf("in brief, of a day not known: %+v", r)
		}
		r.Outcome = event.Dead
		tx.PutRecord(r)
		if r = tx.Record(r.ReceivedAt, r.Pos); r.Labels["of"] != "pmm-open" || r.Alertname != "A" {
			t.Errorf("put back in brief: %+v", r)
		}
		for name, at := range map[string]time.Time{"old": tomorrow.ReceivedAt.AddDate(0, 0, -2), "young": tomorrow.ReceivedAt} {
			tx.PutFirst("pmm", name, &First{ReceivedAt: at})
		}
		tx.PutEpisode(&Episode{Key: "pmm-open", Source: "pmm", Alertname: "A", Open: true})
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Do(context.Background(), func(tx *Tx) { tx.DropDays(tomorrow.ReceivedAt) }); err != nil {
		t.Fatal(err)
	}
	if err := s.View(func(tx *Tx) {
		for name, want := range map[string]bool{"old": false, "young": true} {
			if first := tx.First("pmm", name); (first != nil) != want {
				t.Errorf("the first of the alert name %s is kept: %t", name, first != nil)
			}
		}
		for key, want := range map[string]string{"pmm-gone": "", "pmm-open": "pmm-open", "pmm-again": "pmm-again"} {
			if labels := tx.Labels(key); labels["of"] != want {
				t.Errorf("under %s stands %v", key, labels)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// The view of the open episodes that writers share is what the bucket says,
// also after a write that was undone.
func TestTheOpenEpisodesAreThoseOfTheBucket(t *testing.T) {
	s, _ := open(t)
	keys := func(tx *Tx) (list []string) {
		for ep := range tx.OpenEpisodes("pmm", "A") {
			list = append(list, ep.Key)
		}
		return list
	}
	put := func(undo bool, open bool, list ...string) []string {
		var seen []string
		_ = s.Do(context.Background(), func(tx *Tx) {
			keys(tx) // makes the view
			for _, key := range list {
				tx.PutEpisode(&Episode{Key: key, Source: "pmm", Alertname: "A", Open: open})
			}
			if seen = keys(tx); undo {
				tx.Fail(errors.New("undone"))
				return
			}
		})
		return seen
	}
	for _, c := range []struct {
		undo, open       bool
		put, seen, after string
	}{
		{false, true, "a b c", "a b c", "a b c"},
		{true, true, "d", "a b c d", "a b c"},
		{false, false, "b", "a c", "a c"},
		{true, false, "a c", "", "a c"},
		{false, true, "b", "a b c", "a b c"},
	} {
		if seen := strings.Join(put(c.undo, c.open, strings.Fields(c.put)...), " "); seen != c.seen {
			t.Errorf("%+v: the writer sees %q", c, seen)
		}
		if err := s.View(func(tx *Tx) {
			if got := strings.Join(keys(tx), " "); got != c.after {
				t.Errorf("%+v: afterwards a reader sees %q", c, got)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
}
