package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

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

// In a store of our own the server must not keep an index of every key that it
// wrote or read. Who listens still hears the key, and an external server has it.
func TestSubjectsOfEvents(t *testing.T) {
	t.Parallel()
	const keys = 300
	external, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, JetStream: true, StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	external.Start()
	t.Cleanup(func() { stopServer(external) })
	if !external.ReadyForConnections(10 * time.Second) {
		t.Fatal("the external server does not start")
	}
	for name, cfg := range map[string]Config{
		"embedded": {Dir: t.TempDir(), NoSync: true},
		"external": {URL: external.ClientURL()},
	} {
		q := open(t, cfg)
		heard, err := q.nc.SubscribeSync("events.>")
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]uint64{} // messages by subject
		var evs []*event.Event
		for n := range keys {
			e := someEvent(fmt.Sprintf("pmm-%016x", n), n)
			subject := fmt.Sprintf("events.%d", event.Partition(e.Key))
			if cfg.URL != "" {
				subject += "." + e.Key
			}
			want[subject]++
			evs = append(evs, e)
		}
		for _, some := range [][]*event.Event{evs[:1], evs[1:]} { // plain and by batch
			if _, err := q.PublishEvents(t.Context(), some); err != nil {
				t.Fatal(err)
			}
		}
		for _, e := range evs {
			m, err := heard.NextMsg(5 * time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf("events.%d.%s", event.Partition(e.Key), e.Key); m.Subject != want {
				t.Errorf("%s: published on %s, want %s", name, m.Subject, want)
			}
		}
		info, err := q.evs.Info(t.Context(), jetstream.WithSubjectFilter(">"))
		if err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(info.State.Subjects, want) {
			t.Errorf("%s: %d subjects are stored, want %d: %v", name, len(info.State.Subjects), len(want), info.State.Subjects)
		}
	}
}

// Before, the key was in the stored subject: such a store goes on.
func TestAStoreWithKeysInItsSubjects(t *testing.T) {
	t.Parallel()
	cfg := Config{Dir: t.TempDir(), NoSync: true}
	publish := func(q *Queue, n int) {
		t.Helper()
		if _, err := q.PublishEvents(t.Context(), []*event.Event{someEvent(fmt.Sprintf("pmm-%d", n), n)}); err != nil {
			t.Fatal(err)
		}
	}
	q := open(t, cfg)
	old := q.evs.CachedInfo().Config
	old.SubjectTransform = nil
	if _, err := q.js.UpdateStream(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	publish(q, 1)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = open(t, cfg)
	publish(q, 2)
	for seq, subject := range map[uint64]string{
		1: fmt.Sprintf("events.%d.pmm-1", event.Partition("pmm-1")),
		2: fmt.Sprintf("events.%d", event.Partition("pmm-2")),
	} {
		m, err := q.evs.GetMsg(t.Context(), seq)
		if err != nil || m.Subject != subject {
			t.Errorf("message %d: %v, %v, want the subject %s", seq, m, err, subject)
		}
		if e, err := q.Event(t.Context(), seq); err != nil || e.Key != fmt.Sprintf("pmm-%d", seq) {
			t.Errorf("event %d: %v, %v", seq, e, err)
		}
	}
}
