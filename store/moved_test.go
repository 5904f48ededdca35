package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pmm-callgoose/store/event"
)

// A directory whose contents are elsewhere, or not all there, is told from one to serve,
// with the way out.
func TestAMovedDirectoryIsNotServed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, want := range map[string]string{Adopted: "--nats-url", Leaving: "run it again"} {
		if err := Moved(dir); err != nil {
			t.Fatal(err)
		}
		if err := Mark(dir, name, true); err != nil {
			t.Fatal(err)
		}
		if err := Moved(dir); !errors.Is(err, ErrMoved) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
		for range 2 {
			if err := Mark(dir, name, false); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Only what an interrupted move left is removed.
func TestADirectoryInUseIsNotCleared(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	lock, err := LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	if err := ClearLeaving(dir); err != nil {
		t.Errorf("an empty one: %v", err)
	}
	file := filepath.Join(dir, FileName)
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ClearLeaving(dir); !errors.Is(err, ErrMoved) {
		t.Errorf("one that holds a ledger: %v", err)
	}
	if err := errors.Join(Mark(dir, Leaving, true), ClearLeaving(dir)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the half ledger: %v", err)
	}
	if Moved(dir) == nil {
		t.Error("it may be served before it is complete")
	}
}

// A ledger that was a copy is one of its own once it is detached, and not before.
func TestADetachedLedgerIsNoCopy(t *testing.T) {
	t.Parallel()
	cfg := Config{Dir: t.TempDir(), NoSync: true, Shared: true}
	s := shared(t, cfg.Dir)
	set := func(tx *Tx) { tx.SetProgress(event.Position{Seq: 1}) }
	if err := errors.Join(s.Lead(t.Context(), &memory{}), s.Do(t.Context(), set), s.Close()); err != nil {
		t.Fatal(err)
	}
	cfg.Shared = false
	if _, _, err := Open(cfg); !errors.Is(err, ErrOther) {
		t.Errorf("before: %v", err)
	}
	if err := Detach(cfg.Dir); err != nil {
		t.Fatal(err)
	}
	s, _, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if p := s.Summary().Progress; p.Seq != 1 {
		t.Errorf("progress %v", p)
	}
}
