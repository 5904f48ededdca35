package store

import (
	"fmt"
	"testing"

	"go.etcd.io/bbolt"

	"pmm-callgoose/store/event"
)

// A ledger that was read through and through does not stay resident, and reads
// the same afterwards, beside a writer too.
func TestALedgerThatWasReadDoesNotStayResident(t *testing.T) {
	s, _ := open(t)
	const records = 60_000
	if err := s.Alone(func(tx event.Tx) error {
		for n := range records {
			r := record(n%1000, event.Dead)
			r.Pos.Seq, r.Reason = uint64(n+1), fmt.Sprintf("%0500d", n)
			if err := tx.PutRecord(r); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	count := func() (n int) {
		if err := s.Each(event.Filter{}, func(*event.Record) bool { n++; return true }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	s.letGo()
	before := residentFiles()
	var read int64
	if err := s.db.View(func(btx *bbolt.Tx) error { // not through Each, which lets go of what it has passed
		sum := 0
		err := btx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(_, v []byte) error {
				sum += int(v[0])
				return nil
			})
		})
		read = residentFiles()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if before == 0 || read < before+20<<20 {
		t.Fatalf("%d bytes of files are resident before reading, %d after: this shows nothing", before, read)
	}
	writing := make(chan error, 1)
	go func() {
		for n := range 50 {
			if err := s.Do(t.Context(), func(tx event.Tx) error { return tx.PutRecord(record(n, event.Dead)) }); err != nil {
				writing <- err
				return
			}
			s.letGo()
		}
		writing <- nil
	}()
	for range 3 {
		if n := count(); n < records {
			t.Errorf("%d records", n)
		}
	}
	if err := <-writing; err != nil {
		t.Fatal(err)
	}
	s.letGo()
	if after := residentFiles(); after > before+10<<20 {
		t.Errorf("%d bytes of files are resident, %d before reading", after, before)
	}
}
