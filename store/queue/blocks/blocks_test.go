package blocks

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// mark stands at the front of each message: what has it can be salvaged.
var mark = []byte("the front of a message ")

func inDir(dir string) Stream {
	return Stream{DataDir: dir, Name: "TESTED", Subject: "tested.in", Salvage: func(m []byte) bool { return bytes.HasPrefix(m, mark) }}
}

// use opens the stream with a real server while fn runs.
func use(t testing.TB, s Stream, fn func(js jetstream.JetStream, stream jetstream.Stream)) {
	t.Helper()
	srv, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, NoLog: true, JetStream: true, JetStreamMaxStore: 1 << 40, StoreDir: filepath.Join(s.DataDir, "jetstream")})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	defer srv.WaitForShutdown()
	defer srv.Shutdown()
	if !srv.ReadyForConnections(30 * time.Second) {
		t.Fatal("the server does not start")
	}
	nc, err := nats.Connect("", nats.InProcessServer(srv))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: s.Name, Subjects: []string{s.Subject}, Storage: jetstream.FileStorage, MaxBytes: 120000}) // blocks of 32,000 bytes
	if err != nil {
		t.Fatal(err)
	}
	fn(js, stream)
}

// message is one that nothing compresses.
func message(seq int, size int) []byte {
	m := append(slices.Clone(mark), make([]byte, size)...)
	_, _ = rand.NewChaCha8([32]byte{byte(seq), byte(seq >> 8)}).Read(m[len(mark):])
	return m
}

// stored is a stream of n messages, as it stands on disk after a clean stop.
func stored(t testing.TB, n, size int) Stream {
	t.Helper()
	s := inDir(t.TempDir())
	use(t, s, func(js jetstream.JetStream, _ jetstream.Stream) {
		for seq := 1; seq <= n; seq++ {
			if _, err := js.Publish(t.Context(), s.Subject, message(seq, size)); err != nil {
				t.Fatal(err)
			}
		}
	})
	return s
}

// clone is a copy to damage.
func (s Stream) clone(t *testing.T) Stream {
	t.Helper()
	own := s
	own.DataDir = t.TempDir()
	if err := os.CopyFS(own.DataDir, os.DirFS(s.DataDir)); err != nil {
		t.Fatal(err)
	}
	return own
}

func (s Stream) change(t testing.TB, n int, change func(b []byte) []byte) {
	t.Helper()
	name := filepath.Join(s.Messages(), blockName(n))
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, change(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

// repaired repairs the stream and reads it with a real server: which messages are
// gone, and which are not what was stored.
func repaired(t *testing.T, s Stream, n, size int) (gone, changed []int) {
	t.Helper()
	if _, err := s.Repair(slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	use(t, s, func(_ jetstream.JetStream, stream jetstream.Stream) {
		for seq := 1; seq <= n; seq++ {
			switch m, err := stream.GetMsg(t.Context(), uint64(seq)); {
			case errors.Is(err, jetstream.ErrMsgNotFound):
				gone = append(gone, seq)
			case err != nil:
				t.Fatal(err)
			case !bytes.Equal(m.Data, message(seq, size)):
				changed = append(changed, seq)
			}
		}
	})
	return gone, changed
}

// This fails when nats-server's files are no longer what this package reads.
func TestTheServerWritesTheLayoutThatIsReadHere(t *testing.T) {
	const n, size = 50, 300
	s := stored(t, n, size)
	use(t, s, func(_ jetstream.JetStream, stream jetstream.Stream) {
		if err := stream.DeleteMsg(t.Context(), 7); err != nil {
			t.Fatal(err)
		}
		if err := stream.Purge(t.Context(), jetstream.WithPurgeSequence(4)); err != nil {
			t.Fatal(err)
		}
	})
	b, err := s.load(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	var seen []uint64
	for off := 0; off < len(b.buf); {
		seq, size1, ok := b.record(off)
		if !ok {
			t.Fatalf("no record at %d of %d", off, len(b.buf))
		}
		if seq&(erased|tombstone) == 0 {
			head, size2, plausible := b.head(off)
			if got := b.buf[off+recordHead+len(s.Subject) : off+size1-recordSum]; !plausible || head != seq || size1 != size2 || !bytes.Equal(got, message(int(seq), size)) {
				t.Errorf("record %d: head %d of %d bytes (%v)", seq, head, size2, plausible)
			}
			b.saw(seq)
			seen = append(seen, seq)
		}
		off += size1
	}
	if len(seen) < n-4 || seen[len(seen)-1] != n {
		t.Errorf("read %v", seen)
	}
	if found, err := s.Check(); err != nil || len(found) > 0 {
		t.Errorf("taken for damaged: %v, %v", found, err)
	}
}

// bits flips one of each sector.
func bits(b []byte) []byte {
	for i := 0; i < len(b); i += 512 {
		b[i] ^= 4
	}
	return b
}

// Three blocks; the second is damaged. A record is changed, not gone, when its
// front is whole.
func TestDamageCostsOnlyTheRecordsItHit(t *testing.T) {
	const n, size = 35, 2000
	whole := stored(t, n, size)
	second := func(b []byte) int { return bytes.Index(b[100:], []byte("tested.in")) + 100 - recordHead } // record
	for name, c := range map[string]struct {
		hurt          func(b []byte) []byte
		gone, changed int // at most; -1: what the whole block holds
	}{
		"a bit of a message":       {func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, 0, 1},
		"a bit of a length":        {func(b []byte) []byte { b[second(b)+2] ^= 0x10; return b }, 0, 0},
		"a head":                   {func(b []byte) []byte { clear(b[second(b):][:recordHead+9]); return b }, 0, 0},
		"a check sum":              {func(b []byte) []byte { b[second(b)-1] ^= 1; return b }, 0, 0},
		"the first record":         {func(b []byte) []byte { b[0] ^= 0x80; return b }, 0, 0},
		"the last record":          {func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, 0, 0},
		"a hole over a border":     {func(b []byte) []byte { clear(b[second(b)-200:][:400]); return b }, 1, 1},
		"a hole inside":            {func(b []byte) []byte { clear(b[second(b)+1024:][:512]); return b }, 0, 1},
		"two holes":                {func(b []byte) []byte { clear(b[512:1024]); clear(b[len(b)-1024:][:512]); return b }, 0, 2},
		"a bit of every sector":    {bits, -1, -1},
		"all zero":                 {func(b []byte) []byte { clear(b); return b }, -1, 0},
		"the end of the block cut": {func(b []byte) []byte { return b[:len(b)-1000] }, 1, 1},
	} {
		for _, index := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, index %v", name, index), func(t *testing.T) {
				own := whole.clone(t)
				own.change(t, 2, c.hurt)
				if !index {
					_ = os.Remove(filepath.Join(own.Messages(), "index.db"))
				}
				found, err := own.Check()
				if err != nil || len(found) == 0 {
					t.Errorf("found %v, %v", found, err)
				}
				lost := uint64(0)
				for _, d := range found {
					lost += d.Lost()
				}
				gone, changed := repaired(t, own, n, size)
				if c.gone >= 0 && len(gone) > c.gone || c.changed >= 0 && len(changed) > c.changed || len(gone)+len(changed) > 20 {
					t.Errorf("gone %v, changed %v", gone, changed)
				}
				if lost != uint64(len(gone)) {
					t.Errorf("said that %d are lost, and %v are: %v", lost, gone, found)
				}
				if again, _ := repaired(t, own, n, size); !slices.Equal(again, gone) {
					t.Errorf("gone %v, and after another start %v", gone, again)
				}
				if left, err := own.Check(); err != nil || len(left) > 0 {
					t.Errorf("after the repair: %v, %v", left, err)
				}
			})
		}
	}
	t.Run("the block is gone", func(t *testing.T) {
		own := whole.clone(t)
		if err := os.Remove(filepath.Join(own.Messages(), blockName(2))); err != nil {
			t.Fatal(err)
		}
		found, err := own.Check()
		gone, _ := repaired(t, own, n, size)
		if err != nil || len(found) != 1 || found[0].Lost() != uint64(len(gone)) || len(gone) == 0 || len(gone) > 20 {
			t.Errorf("found %v, gone %v, %v", found, gone, err)
		}
	})
}

// What a power cut leaves: any sectors of the last write are missing. Each record
// in front of it is read, and one behind a hole as well.
func TestHolesHideNoNeighbours(t *testing.T) {
	const n, size, sector = 14, 2000, 512
	whole := stored(t, n, size)
	b, err := os.ReadFile(filepath.Join(whole.Messages(), blockName(1)))
	if err != nil {
		t.Fatal(err)
	}
	record := len(b) / n // bytes; all have the same size
	for at := 0; at+sector <= len(b); at += 3 * sector {
		own := whole.clone(t)
		own.change(t, 1, func(b []byte) []byte { clear(b[at : at+sector]); return b })
		if at%2 == 0 {
			_ = os.Remove(filepath.Join(own.Messages(), "index.db"))
		}
		gone, changed := repaired(t, own, n, size)
		from, to := at/record+1, (at+sector-1)/record+1
		for _, seq := range slices.Concat(gone, changed) {
			if seq < from || seq > to {
				t.Errorf("a hole at %d, in records %d to %d, costs %d", at, from, to, seq)
			}
		}
	}
	for cut := 1; cut < 3*record; cut += 701 {
		own := whole.clone(t)
		own.change(t, 1, func(b []byte) []byte { return b[:len(b)-cut] })
		gone, changed := repaired(t, own, n, size)
		if want := (cut + record - 1) / record; len(gone) != want || len(changed) > 0 || gone[0] != n-want+1 {
			t.Errorf("without the last %d bytes: gone %v, changed %v", cut, gone, changed)
		}
	}
}

// A record that was not written whole and has nothing to salvage is a torn end.
func TestATornEndIsCutOff(t *testing.T) {
	const n, size = 10, 2000
	s := stored(t, n, size)
	s.change(t, 1, func(b []byte) []byte { clear(b[len(b)-1500:]); clear(b[len(b)-2039:][:60]); return b })
	found, err := s.Check()
	if err != nil || len(found) != 1 || !found[0].Torn || found[0].Lost() != 0 {
		t.Errorf("found %v, %v", found, err)
	}
	if gone, changed := repaired(t, s, n, size); !slices.Equal(gone, []int{n}) || len(changed) > 0 {
		t.Errorf("gone %v, changed %v", gone, changed)
	}
}

// A repair that was interrupted after any step is taken up again.
func TestARepairThatDiedIsRepeated(t *testing.T) {
	const n, size = 12, 2000
	whole := stored(t, n, size)
	whole.change(t, 1, func(b []byte) []byte {
		r := len(b) / n
		for _, k := range []int{2, 5, 8} {
			clear(b[k*r:][:60])    // head and front: nothing to salvage
			b[(k+1)*r+1000] ^= 1   // the next one can be salvaged
			clear(b[(k+1)*r:][:9]) // without its head
		}
		return b
	})
	found, err := whole.Check()
	if err != nil || len(found) != 3 {
		t.Fatal(found, err)
	}
	wantGone, wantChanged := repaired(t, whole.clone(t), n, size)
	for done := range 3 {
		own := whole.clone(t)
		for _, d := range found[:done] {
			if err := own.repair(d); err != nil {
				t.Fatal(err)
			}
		}
		half := found[done]
		half.pieces = half.pieces[:len(half.pieces)-1]
		if err := own.repair(half); err != nil {
			t.Fatal(err)
		}
		if gone, changed := repaired(t, own, n, size); !slices.Equal(gone, wantGone) || !slices.Equal(changed, wantChanged) {
			t.Errorf("after %d and a half: gone %v, changed %v, want %v and %v", done, gone, changed, wantGone, wantChanged)
		}
	}
}

// The messages of a stream whose description is damaged stay.
func TestADamagedDescriptionCostsNothing(t *testing.T) {
	const n, size = 5, 100
	s := stored(t, n, size)
	name := filepath.Join(s.DataDir, s.base(), "meta.inf")
	if err := os.WriteFile(name, make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	if gone, changed := repaired(t, s, n, size); len(gone)+len(changed) > 0 {
		t.Errorf("gone %v, changed %v", gone, changed)
	}
	copies, err := filepath.Glob(filepath.Join(s.DataDir, "damaged", "*-meta.inf"))
	if err != nil || len(copies) != 1 {
		t.Errorf("copies: %v, %v", copies, err)
	}
}

func TestAStreamThatCannotBeReadIsNotTakenForWhole(t *testing.T) {
	s := stored(t, 3, 100)
	if err := s.Readable(); err != nil {
		t.Error(err)
	}
	// A directory in place of a block: it opens and cannot be read, for root as well.
	name := filepath.Join(s.Messages(), blockName(1))
	if err := errors.Join(os.Remove(name), os.Mkdir(name, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := s.Readable(); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := (Stream{DataDir: t.TempDir(), Name: "TESTED"}).Readable(); err != nil {
		t.Errorf("of a stream that is not there yet: %v", err)
	}
}

// Whatever a block holds, the check ends, and what it repairs is whole.
func FuzzBlock(f *testing.F) {
	f.Add([]byte{}, 0, true)
	f.Add(bytes.Repeat([]byte{0, 0, 0, 1}, 50), 40, true)
	f.Add(bytes.Repeat([]byte{7}, 200), 100, false)
	f.Fuzz(func(t *testing.T, with []byte, at int, newest bool) {
		if len(with) > 4096 {
			return
		}
		s := inDir(t.TempDir())
		if err := os.MkdirAll(s.Messages(), 0o700); err != nil {
			t.Fatal(err)
		}
		var buf []byte
		for seq := range 4 {
			record := make([]byte, 100)
			copy(record[recordHead+len(s.Subject):], mark)
			s.block(1).write(record, uint64(seq+1), 1, s.Subject)
			buf = append(buf, record...)
		}
		if at >= 0 && at < len(buf) {
			copy(buf[at:], with)
			if newest {
				buf = slices.Insert(buf, at, with...)
			}
		}
		if err := os.WriteFile(filepath.Join(s.Messages(), blockName(1)), buf, 0o600); err != nil {
			t.Fatal(err)
		}
		if !newest {
			if err := os.WriteFile(filepath.Join(s.Messages(), blockName(2)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Repair(slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		left, err := s.Check()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range left {
			if !d.Torn && d.Repairable {
				t.Fatalf("after the repair: %+v", d)
			}
		}
	})
}
