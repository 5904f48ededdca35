package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pmm-callgoose/store/event"
)

// Several blocks of events, as they stand on disk.
func blocks(t *testing.T, n int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	q, err := Open(context.Background(), Config{Dir: dir, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		e := someEvent(fmt.Sprintf("pmm-%d", i), i+1)
		e.Body = make([]byte, 512<<10) // nothing to compress: 16 of them fill a block
		_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(e.Body)
		if _, err := q.PublishEvents(t.Context(), []*event.Event{e}); err != nil {
			t.Fatal(err)
		}
	}
	_ = q.Close()
	return dir
}

// readable opens the queue and reads every sequence up to last.
func readable(t *testing.T, dir string, last uint64) (lost []uint64) {
	t.Helper()
	q, err := Open(context.Background(), Config{Dir: dir, NoSync: true, AfterEvent: last})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = q.Close() }()
	for seq := uint64(1); seq <= last; seq++ {
		switch e, err := q.Event(t.Context(), seq); {
		case errors.Is(err, event.ErrGone), errors.Is(err, event.ErrDamaged):
			lost = append(lost, seq)
		case err != nil || e.Episode != fmt.Sprint(seq):
			t.Errorf("event %d: %+v, %v", seq, e, err)
		}
	}
	return lost
}

func blockFile(dir string, n int) string {
	return filepath.Join(dir, streamDir(events), "msgs", fmt.Sprintf("%d.blk", n))
}

// A damaged record costs that record, and a missing block that block.
func TestDamageCostsOnlyWhatIsDamaged(t *testing.T) {
	const n = 35
	dir := blocks(t, n)
	if found, err := Check(dir); err != nil || len(found) > 0 {
		t.Fatal(found, err)
	}
	for name, c := range map[string]struct {
		hurt func(dir string, b []byte) // of block 2
		want int                        // lost at most; 0 = all of the block
	}{
		"one bit of a body":      {func(_ string, b []byte) { b[len(b)/2] ^= 1 }, 1},
		"the length of a record": {func(_ string, b []byte) { b[bytes.Index(b[100:], []byte("events."))+100-22+2] ^= 0x10 }, 1},
		"the first record":       {func(_ string, b []byte) { b[0] ^= 0x80 }, 1},
		"the last record":        {func(_ string, b []byte) { b[len(b)-1] ^= 1 }, 1},
		"zeros over a border":    {func(_ string, b []byte) { i := bytes.LastIndex(b, []byte("events.")); clear(b[i-2000 : i+2000]) }, 2},
		"a bit of every other page": {func(_ string, b []byte) {
			for i := 0; i < len(b); i += 8192 {
				b[i] ^= 4
			}
		}, 0},
		"all zero":       {func(_ string, b []byte) { clear(b) }, 0},
		"the block gone": {func(dir string, _ []byte) { _ = os.Remove(blockFile(dir, 2)) }, 0},
	} {
		for _, index := range []bool{true, false} {
			if index && c.want != 1 {
				continue // like the others
			}
			t.Run(fmt.Sprintf("%s, index %v", name, index), func(t *testing.T) {
				own := t.TempDir()
				if err := os.CopyFS(own, os.DirFS(dir)); err != nil {
					t.Fatal(err)
				}
				b, err := os.ReadFile(blockFile(own, 2))
				if err != nil {
					t.Fatal(err)
				}
				b = slices.Clone(b)
				c.hurt(own, b)
				if !strings.Contains(name, "gone") {
					if err := os.WriteFile(blockFile(own, 2), b, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				if !index {
					_ = os.Remove(filepath.Join(own, streamDir(events), "msgs", "index.db"))
				}
				found, err := Check(own)
				if err != nil || len(found) == 0 {
					t.Errorf("found %v, %v", found, err)
				}
				told := uint64(0)
				for _, d := range found {
					told += d.Lost()
				}
				lost := readable(t, own, n)
				if most := max(c.want, 0); most > 0 && len(lost) > most || len(lost) > 20 || len(lost) == 0 {
					t.Errorf("lost %v", lost)
				}
				if told != uint64(len(lost)) {
					t.Errorf("said that %d are lost, and %v are: %v", told, lost, found)
				}
				if again := readable(t, own, n); !slices.Equal(again, lost) {
					t.Errorf("lost %v, and after another start %v", lost, again)
				}
			})
		}
	}
}

// Whatever a block holds, the check ends, and what it mends is whole.
func FuzzBlock(f *testing.F) {
	f.Add([]byte{}, 0, true)
	f.Add(bytes.Repeat([]byte{0, 0, 0, 1}, 50), 40, true)
	f.Fuzz(func(t *testing.T, with []byte, at int, newest bool) {
		if len(with) > 4096 {
			return
		}
		dir := t.TempDir()
		name := filepath.Join(dir, "1.blk")
		if err := os.WriteFile(name, make([]byte, 4*100), 0o600); err != nil {
			t.Fatal(err)
		}
		for i := range 4 { // four whole records
			if err := (Damage{Stream: events, First: uint64(i + 1), from: 100 * i, to: 100*i + 100}).erase(name); err != nil {
				t.Fatal(err)
			}
		}
		buf, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if at >= 0 && at < len(buf) {
			buf = slices.Insert(buf, at, with...)
		}
		if err := os.WriteFile(name, buf, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, d := range (&block{buf: buf, sum: blockSum(events, 1), newest: newest}).check() {
			if d.from < 0 || d.to <= d.from || d.to > len(buf) {
				t.Fatalf("%+v of %d", d, len(buf))
			}
			d.Stream = events
			if d.Mendable && d.Last != unknownEnd && d.to-d.from >= recordHead+recordSum {
				if err := d.erase(name); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
