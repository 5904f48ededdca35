package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"pmm-callgoose/store/event"
)

// What operators and alarms ask for must not wait for a disk that hangs.
func TestTheSummaryWaitsForNobody(t *testing.T) {
	s, _ := open(t)
	if err := s.Do(t.Context(), func(tx *Tx) { tx.Count("x", 1) }); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	goOn, inside, done := make(chan struct{}), make(chan struct{}), make(chan error)
	defer once.Do(func() { close(goOn) })
	go func() {
		done <- s.Do(context.Background(), func(tx *Tx) { tx.Count("x", 1); close(inside); <-goOn })
	}()
	<-inside
	if n := s.Summary().Counts["x"]; n != 1 {
		t.Errorf("beside a write that hangs the count is %d, committed is 1", n)
	}
	once.Do(func() { close(goOn) })
	if err := <-done; err != nil || s.Summary().Counts["x"] != 2 {
		t.Errorf("%v, %v", err, s.Summary().Counts)
	}
}

// What the file says after a commit that failed is not known before it is opened again.
func TestAfterAFailedCommitNothingIsWritten(t *testing.T) {
	dir := t.TempDir()
	s, _, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	restore := unwritable(t, filepath.Join(dir, FileName))
	err = s.Do(t.Context(), func(tx *Tx) { tx.PutRecord(record(1, event.Queued)) })
	restore()
	if !errors.Is(err, ErrFailed) {
		t.Fatalf("the commit did not fail: %v", err)
	}
	if err := s.Do(t.Context(), func(tx *Tx) { tx.Count("x", 1) }); !errors.Is(err, ErrFailed) {
		t.Errorf("the next one: %v", err)
	}
}

// unwritable makes writes to an open file fail until restore is called.
func unwritable(t *testing.T, path string) (restore func()) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("there is no /proc here: ", err)
	}
	for _, e := range fds {
		if name, err := os.Readlink("/proc/self/fd/" + e.Name()); err != nil || name != path {
			continue
		}
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		keep, err := syscall.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		readOnly, err := syscall.Open(path, syscall.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Dup3(readOnly, fd, syscall.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := syscall.Dup3(keep, fd, syscall.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			_, _ = syscall.Close(keep), syscall.Close(readOnly)
		}
	}
	t.Fatalf("%s is not open", path)
	return nil
}

// Whoever deletes the ledger, or finds it damaged, lets no second process in.
func TestADirectoryHasOneOwner(t *testing.T) {
	dir := t.TempDir()
	held, err := LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := Open(Config{Dir: dir, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, FileName)); err != nil {
		t.Fatal(err)
	}
	if _, err := LockDir(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("a second owner is told %v", err)
	}
	_ = s.Close()
	held.Unlock()
	again, err := LockDir(dir)
	if err != nil {
		t.Fatal("after the first one is gone: ", err)
	}
	again.Unlock()
}

// An alert may lose its name with its recovery.
func TestAnEpisodeThatClosedUnderAnotherNameIsNotOpen(t *testing.T) {
	s, _ := open(t)
	open := func() (keys []string) {
		if err := s.Do(context.Background(), func(tx *Tx) {
			for ep := range tx.OpenEpisodes("pmm", "X") {
				keys = append(keys, ep.Key)
			}
		}); err != nil {
			t.Fatal(err)
		}
		return keys
	}
	put := func(name string, open bool) {
		if err := s.Do(context.Background(), func(tx *Tx) {
			tx.PutEpisode(&Episode{Key: "pmm-a", Source: "pmm", Alertname: name, Open: open})
		}); err != nil {
			t.Fatal(err)
		}
	}
	put("X", true)
	if got := open(); !slices.Equal(got, []string{"pmm-a"}) {
		t.Fatalf("open: %v", got)
	}
	put("", false)
	if got := open(); got != nil {
		t.Errorf("open: %v", got)
	}
}

// The ledger lists by day. An import, or a clock that was set back, puts an
// earlier day behind a later one.
func TestPagesShowEverythingWhateverTheDays(t *testing.T) {
	s, _ := open(t)
	today := time.Date(2026, 11, 26, 0, 1, 0, 0, time.UTC)
	if err := s.Do(context.Background(), func(tx *Tx) {
		for i := range 10 {
			r := record(i, event.Delivered)
			if r.ReceivedAt = today; i >= 5 {
				r.ReceivedAt = today.Add(-time.Hour)
			}
			tx.PutRecord(r)
		}
	}); err != nil {
		t.Fatal(err)
	}
	var shown []uint64
	var f event.Filter
	for range 10 {
		var page []*event.Record
		if err := s.Each(f, func(r *event.Record) bool { page = append(page, r); return len(page) < 3 }); err != nil {
			t.Fatal(err)
		}
		for _, r := range page {
			shown = append(shown, r.Pos.Seq)
			f.Before, f.BeforeDay = r.Pos, day(r.ReceivedAt)
		}
	}
	if want := []uint64{5, 4, 3, 2, 1, 10, 9, 8, 7, 6}; !slices.Equal(shown, want) {
		t.Errorf("the pages show %v, want %v", shown, want)
	}
}

// A clock that was ahead must not hide for a year that nothing is heard.
func TestASignOfLifeFromTheFutureIsReplaced(t *testing.T) {
	s, _ := open(t)
	now := time.Now().UTC()
	for _, at := range []time.Time{now.Add(-time.Minute), now.Add(365 * 24 * time.Hour), now.Add(-time.Second)} {
		if err := s.Do(t.Context(), func(tx *Tx) { tx.SetHeard("pmm", at) }); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Summary().Heard["pmm"]; !got.Equal(now.Add(-time.Second)) {
		t.Errorf("heard at %s", got)
	}
	if err := s.Do(t.Context(), func(tx *Tx) { tx.SetHeard("pmm", now.Add(-time.Hour)) }); err != nil {
		t.Fatal(err)
	}
	if got := s.Summary().Heard["pmm"]; !got.Equal(now.Add(-time.Second)) {
		t.Errorf("an older one moved it to %s", got)
	}
}

// Every incident key that was ever seen would be too many.
func TestClosedEpisodesGoWithTheirLastRecord(t *testing.T) {
	s, _ := open(t)
	old, young := at, at.Add(40*24*time.Hour)
	put := func(tx *Tx, ep Episode, received time.Time, seq uint64) {
		ep.Source = "pmm"
		if tx.PutEpisode(&ep); seq > 0 {
			tx.PutRecord(&event.Record{ID: ep.Key, Key: ep.Key, Outcome: event.Delivered, ReceivedAt: received, Pos: event.Position{Seq: seq}})
		}
	}
	if err := s.Do(context.Background(), func(tx *Tx) {
		put(tx, Episode{Key: "pmm-old"}, old, 1)
		put(tx, Episode{Key: "pmm-open", Open: true, FiringAt: old, Firing: event.Position{Seq: 2}}, old, 2)
		put(tx, Episode{Key: "pmm-young"}, young, 3)
		put(tx, Episode{Key: "pmm-adopted-old", Adopted: true, FiringAt: old}, old, 0)
		put(tx, Episode{Key: "pmm-adopted-young", Adopted: true, FiringAt: young}, young, 0)
	}); err != nil {
		t.Fatal(err)
	}
	var left []string
	if err := s.Do(context.Background(), func(tx *Tx) {
		tx.DropDays(young.Add(-24 * time.Hour))
		for _, key := range []string{"pmm-old", "pmm-open", "pmm-young", "pmm-adopted-old", "pmm-adopted-young"} {
			if tx.Episode(key) != nil {
				left = append(left, key)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"pmm-open", "pmm-young", "pmm-adopted-young"}; !slices.Equal(left, want) {
		t.Errorf("left are %v, want %v", left, want)
	}
}
