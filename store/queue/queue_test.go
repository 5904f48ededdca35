package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pmm-callgoose/store/event"
)

func open(t testing.TB, cfg Config) *Queue {
	t.Helper()
	q, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	return q
}

func note(body string) event.Notification {
	return event.Notification{Source: "pmm", ReceivedAt: time.Now(), Body: []byte(body), Alerts: 1}
}

func someEvent(key string, n int) *event.Event {
	e := &event.Event{Key: key, Lane: key, Status: event.Firing, Episode: fmt.Sprint(n), Body: []byte(`{"n":` + fmt.Sprint(n) + `}`)}
	e.ID = event.ID(e.Key, e.Status, e.Episode)
	return e
}

// Callers that wait at the same time share commits, and every one of them can
// read back under its id exactly what it handed in.
func TestConcurrentNotificationsShareCommits(t *testing.T) {
	var commits atomic.Int64
	cfg := Config{Dir: t.TempDir(), Synced: func(time.Duration, int) { commits.Add(1) }}
	q := open(t, cfg)
	const callers, each = 64, 20
	var mu sync.Mutex
	stored := map[string]string{}
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				body := fmt.Sprintf("caller %d body %d", c, i)
				id, err := q.PublishNotification(t.Context(), note(body))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				stored[id] = body
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(stored) != callers*each {
		t.Fatalf("%d different ids for %d notifications", len(stored), callers*each)
	}
	if n := commits.Load(); n > callers*each/4 {
		t.Errorf("%d commits for %d notifications: nothing is shared", n, callers*each)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = open(t, cfg)
	for id, body := range stored {
		seq, n, err := event.ParseNotificationID(id)
		if err != nil {
			t.Fatal(err)
		}
		notes, err := q.Notifications(t.Context(), seq)
		if err != nil || string(notes[n].Body) != body {
			t.Fatalf("%s reads back as %q, want %q (%v)", id, notes[n].Body, body, err)
		}
	}
	if _, err := q.Notifications(t.Context(), 1<<40); !errors.Is(err, event.ErrGone) {
		t.Error(err)
	}
}

// Small groups are published plain, large ones as atomic batches: both in
// order, without a gap.
func TestEventsAreStoredInOrder(t *testing.T) {
	q := open(t, Config{Dir: t.TempDir()})
	want := uint64(1)
	n := 0
	for _, size := range []int{1, plainUpTo, plainUpTo + 1, 2500, 3} {
		var evs []*event.Event
		for range size {
			n++
			evs = append(evs, someEvent(fmt.Sprintf("pmm-%d", n%7), n))
		}
		first, err := q.PublishEvents(t.Context(), evs)
		if err != nil || first != want {
			t.Fatalf("%d events stored from %d, want %d (%v)", size, first, want, err)
		}
		want += uint64(size)
	}
	for _, seq := range []uint64{1, 7, 8, 1500, want - 1} {
		e, err := q.Event(t.Context(), seq)
		if err != nil || e.Episode != fmt.Sprint(seq) {
			t.Errorf("event %d: %+v %v", seq, e, err)
		}
	}
}

// What was handed out and not acknowledged comes first after a restart.
func TestRestartKeepsOrder(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	q := open(t, cfg)
	var evs []*event.Event
	for n := range 20 {
		evs = append(evs, someEvent("pmm-a", n+1))
	}
	if _, err := q.PublishEvents(t.Context(), evs); err != nil {
		t.Fatal(err)
	}
	read := func(count int, ack func(seq uint64) bool) (seqs []uint64) {
		floor, err := q.Position(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		d, err := q.Deliver(t.Context(), floor)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		for range count {
			m, err := d.Next()
			if err != nil {
				t.Fatal(err)
			}
			seqs = append(seqs, m.Seq)
			if ack(m.Seq) {
				d.Ack(m.Seq)
			}
		}
		_ = q.nc.Flush()
		return seqs
	}
	read(10, func(seq uint64) bool { return seq <= 3 || seq == 7 })
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	// A kill between the server's two files leaves the first of them alone.
	if err := os.Remove(filepath.Join(cfg.Dir, "jetstream/jetstream/$G/streams/EVENTS/obs/delivery/meta.sum")); err != nil {
		t.Fatal(err)
	}
	q = open(t, cfg)
	if at, err := q.Position(t.Context()); err != nil || at != 3 {
		t.Errorf("position %d, %v", at, err)
	}
	got := read(17, func(uint64) bool { return false })
	for i, seq := range got {
		if seq != uint64(i)+4 {
			t.Fatalf("handed out as %v", got)
		}
	}
	if _, err := os.Stat(filepath.Join(cfg.Dir, "jetstream/jetstream/$G/streams/EVENTS/obs/delivery/meta.sum")); err != nil {
		t.Errorf("the second file was not written again: %v", err)
	}
}

// A sequence is never used twice, also when the stream lost its end.
func TestAStreamThatLostItsEndGoesOnBehindIt(t *testing.T) {
	dir := t.TempDir()
	q := open(t, Config{Dir: dir, AfterNotification: 41, AfterEvent: 1000})
	id, err := q.PublishNotification(t.Context(), note("x"))
	if err != nil || id != "n42.0" {
		t.Errorf("stored as %s, %v", id, err)
	}
	if first, err := q.PublishEvents(t.Context(), []*event.Event{someEvent("pmm-a", 1)}); err != nil || first != 1001 {
		t.Errorf("stored at %d, %v", first, err)
	}
}

func TestAFullStoreRefuses(t *testing.T) {
	q := open(t, Config{Dir: t.TempDir(), MaxStore: 64 << 10})
	random := make([]byte, 3<<10) // nothing to compress
	for i := range random {
		random[i] = byte(rand.IntN(256))
	}
	body := string(random)
	for range 100 {
		if _, err := q.PublishNotification(t.Context(), note(body)); err != nil {
			if !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
			return
		}
	}
	t.Error("never full")
}

// Callers that come while the queue closes are answered.
func TestCloseAnswersEverybody(t *testing.T) {
	q := open(t, Config{Dir: t.TempDir()})
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for {
				if _, err := q.PublishNotification(context.Background(), note("x")); err != nil {
					return
				}
			}
		})
	}
	_ = q.Close()
	wg.Wait()
}

// One flipped bit is never taken for what was stored.
func TestADamagedEnvelopeIsNoticed(t *testing.T) {
	b, _ := encodeEnvelope(nil, nil, []*publishing{{note: note("one")}, {note: note("two")}})
	if got, err := decodeEnvelope(b); err != nil || len(got) != 2 || string(got[1].Body) != "two" {
		t.Fatal(got, err)
	}
	for i := 1; i < len(b); i++ {
		bad := bytes.Clone(b)
		bad[i] ^= 1 << rand.IntN(8)
		if _, err := decodeEnvelope(bad); !errors.Is(err, event.ErrDamaged) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
	}
	b[0] = envelopeVersion + 1
	if _, err := decodeEnvelope(b); !errors.Is(err, event.ErrNewer) {
		t.Error(err)
	}
}

func FuzzEnvelope(f *testing.F) {
	seed, _ := encodeEnvelope(nil, nil, []*publishing{{note: note("one")}, {note: note("two")}})
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		notes, err := decodeEnvelope(b)
		if err != nil {
			return
		}
		var again []*publishing
		for _, n := range notes {
			again = append(again, &publishing{note: n})
		}
		b, _ = encodeEnvelope(nil, nil, again)
		if got, err := decodeEnvelope(b); err != nil || len(got) != len(notes) {
			t.Fatal(got, err)
		}
	})
}

// Intake with and without shared commits, and the fsync of the same bytes in
// the same directory beside them: read the ratios, not the numbers.
func BenchmarkIntake(b *testing.B) {
	body, err := os.ReadFile(filepath.Join("..", "..", "testdata", "webhook", "grafana-firing-group-5.json"))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("fsync", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "probe"))
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		for b.Loop() {
			if _, err := f.Write(body); err != nil {
				b.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, callers := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("shared/callers=%d", callers), func(b *testing.B) {
			q := open(b, Config{Dir: b.TempDir(), MaxStore: 1 << 40})
			concurrently(b, callers, func() error {
				_, err := q.PublishNotification(context.Background(), event.Notification{Source: "pmm", Body: body})
				return err
			})
		})
		b.Run(fmt.Sprintf("alone/callers=%d", callers), func(b *testing.B) {
			q := open(b, Config{Dir: b.TempDir(), MaxStore: 1 << 40})
			concurrently(b, callers, func() error {
				_, err := q.js.Publish(context.Background(), noteSubject, body)
				return err
			})
		})
	}
}

func concurrently(b *testing.B, callers int, fn func() error) {
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ResetTimer()
	for range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := fn(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "webhooks/s")
}

// Whatever stands in the stream: an event or an error, never a panic, and never
// more memory than a message may need.
func FuzzUnpack(f *testing.F) {
	e := someEvent("pmm-1", 1)
	f.Add(pack(e))
	f.Add(e.Encode(nil))
	f.Add([]byte("\x03\xff\xff\xff\xff\x07"))
	f.Add([]byte("\x03"))
	f.Fuzz(func(t *testing.T, m []byte) {
		got, err := unpack(m, event.Decode)
		if err != nil {
			if got != nil || !errors.Is(err, event.ErrDamaged) && !errors.Is(err, event.ErrNewer) {
				t.Fatal(got, err)
			}
			return
		}
		again, err := unpack(pack(got), event.Decode)
		if err != nil || !bytes.Equal(again.Encode(nil), got.Encode(nil)) {
			t.Fatalf("%+v became %+v, %v", got, again, err)
		}
	})
}

// After a crash the server reads every block and keeps what it made of them. The
// second start must not: it begins with an index that is as new as the blocks.
func TestAfterACrashAnIndexIsMade(t *testing.T) {
	t.Parallel()
	const above = 4
	cfg := Config{Dir: t.TempDir(), NoSync: true, MaxStore: 1 << 30, Logger: slog.New(slog.DiscardHandler)}
	index := filepath.Join(cfg.Dir, streamDir(events), "msgs", "index.db")
	random := make([]byte, 4<<20) // what can be packed would not fill blocks
	_, _ = rand.NewChaCha8([32]byte{}).Read(random)
	var old []byte
	for range 2 {
		q := open(t, cfg)
		for n := range above {
			e := someEvent("pmm-1", n)
			e.Body = random
			if _, err := q.PublishEvents(t.Context(), []*event.Event{e}); err != nil {
				t.Fatal(err)
			}
		}
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		if old == nil {
			var err error
			if old, err = os.ReadFile(index); err != nil {
				t.Fatal(err)
			}
		}
	}
	behind := func() bool {
		t.Helper()
		behind, err := indexBehind(cfg.Dir, above)
		if err != nil {
			t.Fatal(err)
		}
		return behind
	}
	if behind() {
		t.Error("the index is old after an orderly stop")
	}
	then := time.Now().Add(-time.Hour)
	for name, crash := range map[string]func() error{
		"old":  func() error { return errors.Join(os.WriteFile(index, old, 0o600), os.Chtimes(index, then, then)) },
		"gone": func() error { return os.Remove(index) },
	} {
		if err := crash(); err != nil {
			t.Fatal(err)
		}
		if !behind() {
			t.Errorf("%s: not noticed", name)
		}
		srv, err := openServer(cfg, above)
		if err != nil {
			t.Fatal(err)
		}
		if behind() {
			t.Errorf("%s: the index is still behind", name)
		}
		stopServer(srv)
		q := open(t, cfg)
		for seq := range uint64(2 * above) {
			if e, err := q.Event(t.Context(), seq+1); err != nil || !bytes.Equal(e.Body, random) {
				t.Errorf("%s: event %d: %v", name, seq+1, err)
			}
		}
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
