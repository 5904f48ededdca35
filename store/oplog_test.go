package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"pmm-callgoose/store/event"
)

// memory is a log in memory; off refuses.
type memory struct {
	entries []LogEntry
	off     error
}

func (m *memory) Append(entries ...[]byte) (uint64, error) {
	if m.off != nil {
		return 0, m.off
	}
	for _, e := range entries {
		m.entries = append(m.entries, LogEntry{uint64(len(m.entries) + 1), bytes.Clone(e)})
	}
	return uint64(len(m.entries)), nil
}

func shared(t *testing.T, dir string) *Store {
	t.Helper()
	s, _, err := Open(Config{Dir: dir, NoSync: true, Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// contents is all that a ledger holds, but for how far the log is applied.
func contents(t *testing.T, s *Store) string {
	t.Helper()
	var b bytes.Buffer
	if err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, bucket *bbolt.Bucket) error {
			fmt.Fprintf(&b, "[%s]\n", name)
			return bucket.ForEach(func(k, v []byte) error {
				if !bytes.Equal(k, keyLog) {
					fmt.Fprintf(&b, "%x %x\n", k, v)
				}
				return nil
			})
		})
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// change does something that the service does.
func change(r *rand.Rand, tx *Tx, now time.Time) {
	key := fmt.Sprint("key-", r.IntN(20))
	at := event.Position{Seq: uint64(r.IntN(300) + 1), Item: uint32(r.IntN(3))}
	received := now.AddDate(0, 0, -r.IntN(6))
	rec := &event.Record{
		ID: at.RecordID('s'), Pos: at, Key: key, Source: "pmm", Status: event.Firing, ReceivedAt: received, Alertname: "down",
		Labels: map[string]string{"alertname": "down", "n": fmt.Sprint(r.IntN(2))}, Notification: at.NotificationID(),
		Outcome: []event.Outcome{event.Queued, event.Delivered, event.Dead, event.Suppressed}[r.IntN(4)], SettledAt: now,
	}
	switch r.IntN(9) {
	case 0:
		tx.PutEpisode(&Episode{Key: key, ID: "x", Source: "pmm", Alertname: "down", Open: r.IntN(2) == 0, StartsAt: now, FiringAt: received, Firing: at})
	case 1:
		tx.PutWaiting(&Waiting{At: at, Pos: at, Key: key, Source: "pmm", Status: event.Firing, ReceivedAt: received, QueuedAt: now})
	case 2:
		tx.DropWaiting(at)
	case 3:
		tx.AddAct(Act{At: now, By: "socket", What: "drop", Keys: []string{key}})
	case 4:
		tx.PutTold(&Told{Key: key, Episode: "x", At: now, Name: "down"})
	case 5:
		tx.DropTold(key)
	case 6:
		tx.SetProgress(at)
		tx.SetHeard("pmm", now)
	case 7:
		tx.DropDays(now.AddDate(0, 0, -r.IntN(4)))
	default:
		if r.IntN(5) != 0 {
			tx.PutRecord(rec)
		} else if old := tx.Record(rec.ReceivedAt, rec.Pos); old != nil {
			tx.DropRecord(old)
		}
	}
}

// Whoever applies the log has an equal ledger after each of its entries, from the
// beginning or from a snapshot, with what leads and beats in between.
func TestACopyEqualsTheLedger(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 1))
			log := &memory{}
			source := shared(t, t.TempDir())
			if err := source.Lead(t.Context(), log); err != nil {
				t.Fatal(err)
			}
			now := time.Now().UTC()
			after := map[uint64]string{} // what the source held after an entry
			var snapshot [][]byte
			var from uint64
			for i := range 300 {
				if r.IntN(8) == 0 {
					_, _ = log.Append(EncodeEntry([]byte{EntryBeat, EntryTakeOver, EntryRelease}[r.IntN(3)], []byte("{}")))
				}
				if err := source.Do(t.Context(), func(tx *Tx) {
					for range 1 + r.IntN(5) {
						change(r, tx, now)
					}
				}); err != nil {
					t.Fatal(err)
				}
				after[uint64(len(log.entries))] = contents(t, source)
				if i == 150 {
					var err error
					if from, err = source.Snapshot(0, func(e []byte) error { snapshot = append(snapshot, e); return nil }); err != nil {
						t.Fatal(err)
					}
				}
			}
			follow(t, r, shared(t, t.TempDir()), log.entries, after)

			dir := t.TempDir()
			if err := Restore(dir, from, func() (e []byte, err error) {
				if len(snapshot) == 0 {
					return nil, io.EOF
				}
				e, snapshot = snapshot[0], snapshot[1:]
				return e, nil
			}); err != nil {
				t.Fatal(err)
			}
			follow(t, r, shared(t, dir), log.entries[from:], after)
		})
	}
}

// follow applies entries in groups of any size, and compares after each.
func follow(t *testing.T, r *rand.Rand, s *Store, entries []LogEntry, after map[uint64]string) {
	t.Helper()
	compared := 0
	for len(entries) > 0 {
		n := min(len(entries), 1+r.IntN(20))
		if err := s.Apply(t.Context(), entries[:n]); err != nil {
			t.Fatal(err)
		}
		at := entries[n-1].Seq
		if want, ok := after[at]; ok {
			compared++
			if got := contents(t, s); got != want {
				t.Fatalf("after entry %d:\n%s\nwant:\n%s", at, got, want)
			}
		}
		if seq, err := s.LogSeq(); seq != at || err != nil {
			t.Fatalf("%d is applied, not %d: %v", seq, at, err)
		}
		entries = entries[n:]
	}
	if compared == 0 {
		t.Error("nothing was compared")
	}
}

// An entry that comes twice, or is missing, is refused, and so is one that is damaged or
// of a newer program; nothing of its group happens.
func TestALogWithAGapIsRefused(t *testing.T) {
	t.Parallel()
	log := &memory{}
	source, follower := shared(t, t.TempDir()), shared(t, t.TempDir())
	if err := source.Lead(t.Context(), log); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(3) {
		if err := source.Do(t.Context(), func(tx *Tx) { tx.SetProgress(event.Position{Seq: i + 1}) }); err != nil {
			t.Fatal(err)
		}
	}
	flipped, newer := bytes.Clone(log.entries[1].Data), bytes.Clone(log.entries[1].Data)
	flipped[3] ^= 1
	newer[0]++
	var made, put ops
	made.add(opMake, []byte("future"))
	put.add(opPut, []byte("future"), []byte("k"), []byte("v"))
	for name, c := range map[string]struct {
		entries []LogEntry
		want    error
	}{
		"doubled":                              {[]LogEntry{log.entries[0], log.entries[0]}, event.ErrGone},
		"missing":                              {[]LogEntry{log.entries[0], log.entries[2]}, event.ErrGone},
		"damaged":                              {[]LogEntry{log.entries[0], {2, flipped}}, event.ErrDamaged},
		"newer":                                {[]LogEntry{log.entries[0], {2, newer}}, event.ErrNewer},
		"makes a bucket that is not known":     {[]LogEntry{log.entries[0], {2, EncodeEntry(EntryCommit, made.b)}}, event.ErrNewer},
		"writes to a bucket that is not known": {[]LogEntry{log.entries[0], {2, EncodeEntry(EntryCommit, put.b)}}, event.ErrNewer},
		"does something else than put, delete, make": {[]LogEntry{log.entries[0], {2, EncodeEntry(EntryCommit, []byte{opDrop + 1, 0})}}, event.ErrNewer},
	} {
		if err := follower.Apply(t.Context(), c.entries); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if seq, _ := follower.LogSeq(); seq != 0 || !follower.Summary().Progress.IsZero() {
			t.Errorf("%s: %d is applied", name, seq)
		}
	}
	if err := follower.Apply(t.Context(), log.entries); err != nil || follower.Summary().Progress.Seq != 3 {
		t.Errorf("%v, %v", follower.Summary().Progress, err)
	}
}

// Who does not lead changes nothing, and who cannot append any more does not lead.
func TestOnlyTheLeaderWrites(t *testing.T) {
	t.Parallel()
	log, s := &memory{}, shared(t, t.TempDir())
	set := func(seq uint64) error {
		return s.Do(t.Context(), func(tx *Tx) { tx.SetProgress(event.Position{Seq: seq}) })
	}
	if err := set(1); !errors.Is(err, ErrFollowing) {
		t.Errorf("before it leads: %v", err)
	}
	if err := s.Lead(t.Context(), log); err != nil {
		t.Fatal(err)
	}
	if err := set(2); err != nil {
		t.Fatal(err)
	}
	log.off = errors.New("somebody else leads")
	if err := set(3); !errors.Is(err, ErrFollowing) {
		t.Errorf("deposed: %v", err)
	}
	log.off = nil
	if err := set(4); !errors.Is(err, ErrFollowing) {
		t.Errorf("after it was deposed: %v", err)
	}
	if p := s.Summary().Progress; p.Seq != 2 || len(log.entries) != 1 || len(s.Failed()) > 0 {
		t.Errorf("progress %v, %d entries, failed %d", p, len(log.entries), len(s.Failed()))
	}
}

// A transaction that is too large for one message is applied whole or not at all.
func TestALargeTransactionIsWhole(t *testing.T) {
	t.Parallel()
	log, source, follower := &memory{}, shared(t, t.TempDir()), shared(t, t.TempDir())
	if err := source.Lead(t.Context(), log); err != nil {
		t.Fatal(err)
	}
	if err := source.Do(t.Context(), func(tx *Tx) {
		for i := range 30_000 {
			tx.PutTold(&Told{Key: fmt.Sprint(i), Name: "down"})
		}
	}); err != nil {
		t.Fatal(err)
	}
	if len(log.entries) < 2 || slices.ContainsFunc(log.entries, func(e LogEntry) bool { return len(e.Data) > 1<<20 }) {
		t.Fatalf("%d entries", len(log.entries))
	}
	half := shared(t, t.TempDir())
	for i, e := range log.entries {
		if err := follower.Apply(t.Context(), log.entries[i:i+1]); err != nil {
			t.Fatal(err)
		}
		if i < len(log.entries)-1 {
			if err := half.Apply(t.Context(), []LogEntry{e}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if contents(t, follower) != contents(t, source) {
		t.Error("the copy differs")
	}
	last := log.entries[len(log.entries)-1].Seq
	if err := half.Apply(t.Context(), []LogEntry{{last, EncodeEntry(EntryTakeOver, nil)}}); err != nil {
		t.Fatal(err)
	}
	if seq, _ := half.LogSeq(); contents(t, half) != contents(t, shared(t, t.TempDir())) || seq != last {
		t.Errorf("something of half a transaction is there, or %d is applied", seq)
	}
}

// A directory is used with other instances or without, not by turns: what waits there
// would go out twice, or be changed where nobody else sees it.
func TestADirectoryIsNotUsedTheOtherWay(t *testing.T) {
	t.Parallel()
	for _, first := range []bool{false, true} {
		cfg := Config{Dir: t.TempDir(), NoSync: true, Shared: first}
		s, _, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if first {
			err = s.Lead(t.Context(), &memory{})
		}
		if err := errors.Join(err, s.Do(t.Context(), func(tx *Tx) { tx.SetProgress(event.Position{Seq: 1}) }), s.Close()); err != nil {
			t.Fatal(err)
		}
		cfg.Shared = !first
		if _, _, err := Open(cfg); !errors.Is(err, ErrOther) {
			t.Errorf("shared %v, then %v: %v", first, !first, err)
		}
	}
}

// What is written beside the recorder is missing in every copy.
func TestEveryWriteIsRecorded(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") || name == "oplog.go" {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for n, line := range strings.Split(string(text), "\n") {
			made := strings.Contains(line, "tx.CreateBucketIfNotExists(name)") || strings.Contains(line, ".Put(keyFormat,") // of every file, by init
			if beside.MatchString(line) && !made {
				t.Errorf("%s:%d writes beside the recorder: %s", name, n+1, strings.TrimSpace(line))
			}
		}
	}
}

var beside = regexp.MustCompile(`\.(Put|Delete|DeleteBucket|CreateBucket|CreateBucketIfNotExists|NextSequence|SetSequence)\(`)
