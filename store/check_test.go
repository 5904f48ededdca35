package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"pmm-callgoose/store/event"
)

// sample is the file of a ledger with a bit of everything, what it says, and what
// it said before the last commit.
func sample(t *testing.T) (file []byte, says, said string) {
	t.Helper()
	dir := t.TempDir()
	s, _, err := Open(Config{Dir: dir, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 400 {
		if n == 399 {
			said = dump(t, s)
		}
		if err := s.Do(context.Background(), func(tx *Tx) {
			tx.SetProgress(event.Position{Seq: uint64(n)})
			if n%3 == 0 {
				tx.PutWaiting(&Waiting{At: event.Position{Seq: uint64(n + 1)}})
			}
			r := record(n*20, event.Delivered) // days of them
			if n == 100 {
				r.Labels["long"] = strings.Repeat("long ", 3000) // pages of its own
			}
			tx.PutEpisode(&Episode{Key: r.Key, Source: "pmm", Alertname: "A", Open: n%2 == 0})
			tx.PutRecord(r)
		}); err != nil {
			t.Fatal(err)
		}
	}
	says = dump(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file, err = os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	return file, says, said
}

func dump(t *testing.T, s *Store) string {
	t.Helper()
	var out strings.Builder
	if err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				fmt.Fprintf(&out, "%s %x %x\n", name, k, v)
				return nil
			})
		})
	}); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// A damaged file is never taken for a whole one, and never stops us: what is
// opened either says what was written, or is new and the old one is kept. When
// the page with the newest beginning is damaged, it cannot be told from one that
// a power cut tore: then the ledger is one commit behind, as after a power cut.
func TestADamagedLedgerIsMovedAside(t *testing.T) {
	file, says, said := sample(t)
	try := func(t *testing.T, what string, b []byte) (aside bool) {
		t.Helper()
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, FileName), b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, fresh, err := Open(Config{Dir: dir, NoSync: true})
		if err != nil {
			t.Errorf("%s: %v", what, err)
			return false
		}
		defer func() { _ = s.Close() }()
		kept, _ := filepath.Glob(filepath.Join(dir, FileName+".damaged-*"))
		switch {
		case len(b) == 0:
		case fresh != (len(kept) == 1):
			t.Errorf("%s: fresh %v, kept %v", what, fresh, kept)
		case !fresh && dump(t, s) != says && dump(t, s) != said:
			t.Errorf("%s: passed for whole", what)
		case fresh:
			if was, err := os.ReadFile(kept[0]); err != nil || !slices.Equal(was, b) {
				t.Errorf("%s: the old file is not kept: %v", what, err)
			}
		}
		return fresh
	}
	if try(t, "whole", file) {
		t.Error("a whole file was moved aside")
	}
	dice := rand.New(rand.NewPCG(7, 0))
	moved := 0
	const flips = 120
	for range flips {
		b, at, bit := slices.Clone(file), dice.IntN(len(file)), dice.IntN(8)
		b[at] ^= 1 << bit
		if try(t, fmt.Sprintf("bit %d of byte %d", bit, at), b) {
			moved++
		}
	}
	if moved == 0 {
		t.Error("no flipped bit was noticed")
	}
	t.Logf("%d of %d flipped bits were in use and noticed", moved, flips)
	for range 10 {
		size := dice.IntN(len(file))
		try(t, fmt.Sprintf("cut to %d bytes", size), file[:size])
		b, at := slices.Clone(file), dice.IntN(len(file)/4096)*4096
		clear(b[at : at+4096])
		try(t, fmt.Sprintf("zeros at %d", at), b)
		b = slices.Clone(file)
		other := dice.IntN(len(file)/4096) * 4096
		copy(b[at:at+4096], file[other:other+4096])
		try(t, fmt.Sprintf("page %d at %d", other, at), b)
	}
	try(t, "empty", nil)
	try(t, "text", []byte("this is no ledger"))
}

func FuzzLedgerFile(f *testing.F) {
	f.Add(0, []byte{1}, 0)
	f.Add(4096, []byte{0, 0, 0, 0}, 4096)
	dir := f.TempDir()
	s, _, err := Open(Config{Dir: dir, NoSync: true})
	if err != nil {
		f.Fatal(err)
	}
	if err := s.Do(context.Background(), func(tx *Tx) { tx.PutRecord(record(1, event.Queued)) }); err != nil {
		f.Fatal(err)
	}
	_ = s.Close()
	file, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, at int, with []byte, cut int) {
		b := slices.Clone(file)
		if at >= 0 && at < len(b) {
			copy(b[at:], with)
		}
		if cut > 0 && cut < len(b) {
			b = b[:cut]
		}
		name := filepath.Join(t.TempDir(), FileName)
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, _, err := Open(Config{Dir: filepath.Dir(name), NoSync: true})
		if err != nil {
			if !errors.Is(err, event.ErrNewer) {
				t.Fatal(err)
			}
			return
		}
		_ = s.Close()
	})
}
