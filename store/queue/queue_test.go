package queue

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pmm-callgoose/store/event"
)

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "16") // those of servers wait more than they compute
	os.Exit(m.Run())
}

func start(t testing.TB, cfg Config) *Queue {
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

func publish(t testing.TB, q *Queue, body string) event.Position {
	t.Helper()
	pos, err := q.Publish(t.Context(), note(body))
	if err != nil {
		t.Fatal(err)
	}
	return pos
}

// random is a body that cannot be compressed.
func random(seed byte, size int) string {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return string(b)
}

// counted counts commits.
type counted struct {
	nobody
	atomic.Int64
}

func (c *counted) IntakeCommit(time.Duration, int) { c.Add(1) }

// Callers that wait at the same time share commits, and every one of them can
// read back at its position exactly what it handed in.
func TestConcurrentNotificationsShareCommits(t *testing.T) {
	var commits counted
	cfg := Config{Dir: t.TempDir(), Observer: &commits}
	q := start(t, cfg)
	const callers, each = 64, 20
	var mu sync.Mutex
	stored := map[event.Position]string{}
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				body := fmt.Sprintf("caller %d body %d", c, i)
				pos, err := q.Publish(t.Context(), note(body))
				if err != nil {
					t.Error(err)
					return
				}
				if i%7 == 0 {
					if _, err := q.PublishMark(t.Context()); err != nil {
						t.Error(err)
					}
				}
				mu.Lock()
				stored[pos] = body
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(stored) != callers*each {
		t.Fatalf("%d different positions for %d notifications", len(stored), callers*each)
	}
	if n := commits.Load(); n > callers*each/4 {
		t.Errorf("%d commits for %d notifications: nothing is shared", n, callers*each)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = start(t, cfg)
	for pos, body := range stored {
		notes, err := q.Read(t.Context(), pos.Seq)
		if err != nil || int(pos.Note) >= len(notes) || string(notes[pos.Note].Body) != body {
			t.Fatalf("%v reads back as %v, want %q (%v)", pos, notes, body, err)
		}
	}
}

func TestEverythingOfANotificationIsKept(t *testing.T) {
	q := start(t, Config{Dir: t.TempDir()})
	for _, n := range []event.Notification{
		{Source: "pmm", BeganAt: time.Unix(1, 1).UTC(), ReceivedAt: time.Unix(1, 999999999).UTC(), Alerts: 7, Body: []byte("{}")},
		{Source: "other-pmm", Origin: event.Imported, ReceivedAt: time.Date(1, 2, 3, 4, 5, 6, 7, time.UTC), Body: []byte{0}},
		{Origin: event.Requeue, ReceivedAt: time.Date(9999, 12, 31, 23, 59, 59, 1, time.UTC), Body: []byte{}},
	} {
		pos, err := q.Publish(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		got, err := q.Read(t.Context(), pos.Seq)
		if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], n) {
			t.Errorf("got %+v, %v, want %+v", got, err, n)
		}
	}
}

// The mark is what it was set to last, also after a restart, also when the newest
// envelope cannot be read, and nothing published in between says less.
func TestTheNewestMarkIsFound(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	q := start(t, cfg)
	newest := func(want event.Mark) {
		t.Helper()
		if got, err := q.NewestMark(t.Context()); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("mark %+v, %v, want %+v", got, err, want)
		}
	}
	newest(event.Mark{})
	publish(t, q, "before any mark")
	newest(event.Mark{})
	want := event.Mark{UpTo: event.Position{Seq: 7, Note: 2, Item: 1}, Waiting: []event.Position{{Seq: 3}, {Seq: 3, Item: 4}, {Seq: 3, Note: 1}, {Seq: 5, Note: 8, Item: 9}}}
	q.SetMark(want)
	publish(t, q, "with a mark")
	newest(want)
	want.UpTo.Seq++
	q.SetMark(want)
	if _, err := q.PublishMark(t.Context()); err != nil {
		t.Fatal(err)
	}
	newest(want)
	if notes, err := q.Read(t.Context(), q.Last()); err != nil || len(notes) != 0 {
		t.Errorf("an envelope of a mark alone holds %v, %v", notes, err)
	}
	_ = q.Close()
	q = start(t, cfg)
	newest(want)
	publish(t, q, "the mark is known from the stream")
	newest(want)
	if _, err := q.js.Publish(t.Context(), subject, []byte{0, 0}); err != nil {
		t.Fatal(err)
	}
	_ = q.Close()
	q = start(t, cfg)
	newest(want)
}

// Below the first sequence a message is gone without a look at the disk, and
// behind the last as well. In between the disk is asked once a second.
func TestWhatIsGoneIsKnownWithoutTheDisk(t *testing.T) {
	q := start(t, Config{Dir: t.TempDir()})
	for i := range 10 {
		publish(t, q, fmt.Sprint(i))
	}
	if err := q.Purge(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	if first, err := q.First(t.Context()); err != nil || first != 6 {
		t.Errorf("first %d, %v", first, err)
	}
	for _, seq := range []uint64{0, 1, 5, 11, 1 << 40} {
		if _, err := q.Read(t.Context(), seq); !errors.Is(err, event.ErrGone) {
			t.Errorf("%d: %v", seq, err)
		}
	}
	if !q.disk.at.IsZero() {
		t.Error("the disk was read for messages below the first sequence or behind the last")
	}
	var reads atomic.Int64
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if err := q.disk.readable(t.Context(), func() error { reads.Add(1); return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := reads.Load(); n != 1 {
		t.Errorf("50 questions at once read the disk %d times", n)
	}
	if err := q.Purge(t.Context(), 1<<40); err != nil {
		t.Fatal(err)
	}
	if first, err := q.First(t.Context()); err != nil || first != 11 {
		t.Errorf("first of an empty stream %d, %v", first, err)
	}
	if pos := publish(t, q, "next"); pos.Seq != 11 {
		t.Errorf("stored as %v", pos)
	}
}

// A sequence is never used twice, also when the stream lost its end or was
// replaced, and the mark that is left is not hidden.
func TestAStreamThatLostItsEndGoesOnBehindIt(t *testing.T) {
	q := start(t, Config{Dir: t.TempDir(), After: 41})
	if pos := publish(t, q, "x"); pos != (event.Position{Seq: 42}) {
		t.Errorf("an empty stream goes on at %v", pos)
	}
	cfg := Config{Dir: t.TempDir()}
	q = start(t, cfg)
	mark := event.Mark{UpTo: event.Position{Seq: 1}}
	q.SetMark(mark)
	publish(t, q, "x")
	_ = q.Close()
	cfg.After = 20
	q = start(t, cfg)
	if got, err := q.NewestMark(t.Context()); err != nil || !reflect.DeepEqual(got, mark) {
		t.Errorf("mark %v, %v", got, err)
	}
	if pos := publish(t, q, "y"); pos.Seq != 21 {
		t.Errorf("goes on at %v", pos)
	}
	if notes, err := q.Read(t.Context(), 10); err != nil || len(notes) > 0 {
		t.Errorf("in the gap: %v, %v", notes, err)
	}
	if notes, err := q.Read(t.Context(), 1); err != nil || string(notes[0].Body) != "x" {
		t.Errorf("what was left: %v, %v", notes, err)
	}
}

func TestDataOfANewerVersionIsRefusedAtTheStart(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	q := start(t, cfg)
	if _, err := q.js.Publish(t.Context(), subject, []byte{format + 1}); err != nil {
		t.Fatal(err)
	}
	_ = q.Close()
	if _, err := Open(t.Context(), cfg); !errors.Is(err, event.ErrNewer) {
		t.Error(err)
	}
}

// A full store refuses, asks for room, and goes on when there is some.
func TestAFullStoreRefuses(t *testing.T) {
	q := start(t, Config{Dir: t.TempDir(), MaxStore: 64 << 10})
	body := random(1, 3<<10)
	for range 100 {
		_, err := q.Publish(t.Context(), note(body))
		if err == nil {
			if used, _, _ := q.Room(); used > 64<<10 {
				t.Fatalf("%d bytes are used", used)
			}
			continue
		}
		if !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
		select {
		case <-q.Refused():
		default:
			t.Error("nobody was asked to make room")
		}
		if used, _, _ := q.Room(); used < 56<<10 {
			t.Errorf("refused with %d bytes used", used)
		}
		if err := q.Purge(t.Context(), q.Last()-1); err != nil {
			t.Fatal(err)
		}
		publish(t, q, body)
		return
	}
	t.Error("never full")
}

// A body that no message can hold is its own fault: the store goes on.
func TestATooLargeBodyIsNoFailureOfTheStore(t *testing.T) {
	q := start(t, Config{Dir: t.TempDir()})
	if _, err := q.Publish(t.Context(), note(random(1, 31<<20))); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	select {
	case err := <-q.Failed():
		t.Errorf("the store failed: %v", err)
	default:
	}
	large := random(2, q.largest-3) // with its source
	pos := publish(t, q, large)
	publish(t, q, "small")
	if notes, err := q.Read(t.Context(), pos.Seq); err != nil || string(notes[0].Body) != large {
		t.Errorf("the largest body that fits: %v", err)
	}
}

// Callers that come while the queue closes are answered.
func TestCloseAnswersEverybody(t *testing.T) {
	q := start(t, Config{Dir: t.TempDir()})
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for {
				if _, err := q.Publish(context.Background(), note("x")); err != nil {
					return
				}
			}
		})
	}
	_ = q.Close()
	wg.Wait()
}

// The directory is fsynced when a block appeared: until its time is old enough to
// tell a further change, each commit does.
func TestANewBlockIsSyncedWithItsDirectory(t *testing.T) {
	q := start(t, Config{Dir: t.TempDir()})
	blockFiles := func() int {
		names, _ := filepath.Glob(filepath.Join(files(q.cfg.Dir).Messages(), "*.blk"))
		return len(names)
	}
	for i := 0; blockFiles() < 2; i++ {
		publish(t, q, random(byte(i), 1<<20))
	}
	for {
		publish(t, q, "x")
		info, err := os.Stat(q.dirs.msgs)
		if err != nil {
			t.Fatal(err)
		}
		if info.ModTime().Equal(q.dirs.at) {
			break // and else for ever
		}
	}
	if err := os.WriteFile(filepath.Join(q.dirs.msgs, "new"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	old := q.dirs.at.Add(-time.Hour)
	if err := os.Chtimes(q.dirs.msgs, old, old); err != nil {
		t.Fatal(err)
	}
	if publish(t, q, "x"); !q.dirs.at.Equal(old) {
		t.Errorf("synced as of %v, changed at %v", q.dirs.at, old)
	}
	q.dirs.msgs += "/not-there"
	if err := q.dirs.sync(); err == nil {
		t.Error("a directory that cannot be looked at is not taken for synced")
	}
}

// With one sector of the file missing anywhere, each notification outside it is
// read, also those in the same envelope.
func TestAHoleCostsTheNotificationsItHit(t *testing.T) {
	const envelopes, each, size, sector = 6, 5, 2000, 512
	whole := t.TempDir()
	q := start(t, Config{Dir: whole, NoSync: true})
	bodies := map[event.Position]string{}
	for i := range envelopes {
		var batch []*publishing
		for j := range each {
			body := random(byte(10*i+j), size)
			bodies[event.Position{Seq: uint64(i + 1), Note: uint32(j)}] = body
			batch = append(batch, &publishing{note: note(body)})
		}
		if _, err := q.storeEmbedded(new(encoder).encode(*q.mark.Load(), batch), time.NewTimer(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	_ = q.Close()
	block := filepath.Join("jetstream/jetstream/$G/streams/NOTIFICATIONS/msgs", "1.blk")
	image, err := os.ReadFile(filepath.Join(whole, block))
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at+sector <= len(image); at += 5 * sector {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
			t.Fatal(err)
		}
		hurt := bytes.Clone(image)
		clear(hurt[at : at+sector])
		if err := os.WriteFile(filepath.Join(dir, block), hurt, 0o600); err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(filepath.Join(dir, filepath.Dir(block), "index.db"))
		q := start(t, Config{Dir: dir, NoSync: true})
		for pos, body := range bodies {
			where := bytes.Index(image, []byte(body))
			notes, err := q.Read(t.Context(), pos.Seq)
			switch hit := where < at+sector && at < where+size; {
			case err != nil:
				if start := bytes.Index(image, []byte(bodies[event.Position{Seq: pos.Seq}])); at > start || at+sector < start-100 {
					t.Errorf("a hole at %d costs envelope %d: %v", at, pos.Seq, err)
				}
			case hit && !errors.Is(notes[pos.Note].Err, event.ErrDamaged):
				t.Errorf("a hole at %d is not seen in %v", at, pos)
			case !hit && string(notes[pos.Note].Body) != body:
				if at+sector <= where-100 || at >= where+size+8 { // its fields and sum
					t.Errorf("a hole at %d costs %v: %v", at, pos, notes[pos.Note].Err)
				}
			}
		}
		if found, err := files(dir).Check(); err != nil || len(found) > 0 {
			t.Errorf("after the repair of a hole at %d: %v, %v", at, found, err)
		}
		_ = q.Close()
	}
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
			q := start(b, Config{Dir: b.TempDir(), MaxStore: 1 << 40})
			concurrently(b, callers, func() error {
				_, err := q.Publish(context.Background(), event.Notification{Source: "pmm", Body: body})
				return err
			})
		})
		b.Run(fmt.Sprintf("alone/callers=%d", callers), func(b *testing.B) {
			q := start(b, Config{Dir: b.TempDir(), MaxStore: 1 << 40})
			concurrently(b, callers, func() error {
				_, err := q.js.Publish(context.Background(), subject, body)
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
