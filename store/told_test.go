package store

import (
	"context"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// A note outlasts the next opening, in a ledger made before there were any too.
func TestNotesOfWhoWasToldSurvive(t *testing.T) {
	for name, before := range map[string]bool{"a new ledger": false, "a ledger of before": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			again := func() *Store {
				s, fresh, err := Open(Config{Dir: dir, NoSync: true})
				if err != nil || fresh {
					t.Fatal(err, fresh)
				}
				return s
			}
			s, _, err := Open(Config{Dir: dir, NoSync: true})
			if err != nil {
				t.Fatal(err)
			}
			if before {
				if err := s.db.Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketTold) }); err != nil {
					t.Fatal(err)
				}
				_ = s.Close()
				s = again()
			}
			want := Told{Key: "pmm-1", Episode: "e1", At: time.Now().UTC().Truncate(time.Second), Name: "a"}
			do := func(fn func(*Tx)) {
				t.Helper()
				if err := s.Do(context.Background(), fn); err != nil {
					t.Fatal(err)
				}
			}
			do(func(tx *Tx) { tx.DropTold("pmm-1") }) // of nobody
			do(func(tx *Tx) { tx.PutTold(&want) })
			_ = s.Close()
			s = again()
			defer func() { _ = s.Close() }()
			var got []Told
			list := func(tx *Tx) {
				got = nil
				for n := range tx.AllTold() {
					got = append(got, *n)
				}
			}
			if err := s.View(list); err != nil || len(got) != 1 || got[0] != want {
				t.Errorf("got %+v, %v", got, err)
			}
			do(func(tx *Tx) { tx.DropTold("pmm-1") })
			if err := s.View(list); err != nil || len(got) != 0 {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}
