package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
)

// embedded is a queue with a ledger, as a stopped service leaves them.
func embedded(t *testing.T) (*Queue, *store.Store) {
	t.Helper()
	ledger, _, err := store.Open(store.Config{Dir: t.TempDir(), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ledger.Close() })
	q := start(t, Config{Dir: t.TempDir(), NoSync: true})
	for i := range 600 {
		publish(t, q, fmt.Sprint("body ", i))
	}
	if err := q.Purge(t.Context(), 30); err != nil {
		t.Fatal(err)
	}
	if err := ledger.Do(t.Context(), func(tx *store.Tx) { tx.SetProgress(event.Position{Seq: 500}) }); err != nil {
		t.Fatal(err)
	}
	return q, ledger
}

func openLog(t *testing.T, cfg Config) *Log {
	t.Helper()
	l, err := start(t, cfg).OpenLog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func quiet(int, int) {}

// Messages keep their sequences on the servers and back, also behind those that were
// removed, and the ledger is there; what is interrupted goes on.
func TestAStoreMovesToServersAndBack(t *testing.T) {
	t.Parallel()
	from, ledger := embedded(t)
	cfg := Config{URL: natsServer(t, server.Options{StoreDir: t.TempDir()}).ClientURL(), TakeOverAfter: 2 * time.Second, ShortFor: time.Second}
	cut := errors.New("cut")
	adopt := func(stopAt int, markErr error) (err error, marked bool) {
		l := openLog(t, cfg)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		err = l.Adopt(ctx, from, ledger, func(done, of int) {
			if of != 570 {
				t.Errorf("%d of %d", done, of)
			}
			if done == stopAt {
				cancel()
			}
		}, func(adopted bool) error { marked = adopted; return markErr })
		return err, marked
	}
	for _, step := range []struct {
		what    string
		stopAt  int
		markErr error
	}{{"in the copy", 300, nil}, {"at the mark", 0, cut}} {
		if err, _ := adopt(step.stopAt, step.markErr); err == nil {
			t.Errorf("cut %s, it says nothing", step.what)
		}
		if _, err := openLog(t, cfg).begin(t.Context(), 0); lostStream(err) != logName || !strings.Contains(err.Error(), "run cluster adopt again") {
			t.Errorf("an instance begins with a half that was cut %s: %v", step.what, err)
		}
	}
	for range 2 { // also when it is done already
		if err, marked := adopt(0, nil); err != nil || !marked {
			t.Fatalf("%v, marked %v", err, marked)
		}
	}
	other, otherLedger := embedded(t)
	if err := openLog(t, cfg).Adopt(t.Context(), other, otherLedger, quiet, nil); !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), "nats stream rm") {
		t.Errorf("another directory is adopted where one is: %v", err)
	}

	l := openLog(t, cfg)
	dir := t.TempDir()
	if restore, err := l.begin(t.Context(), 0); err != nil || !restore {
		t.Fatalf("%v, %v", restore, err)
	}
	if err := l.restore(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	i := startInstance(t, cfg.URL, dir)
	if unsure := <-i.leads; !unsure.IsZero() {
		t.Error("the first instance waits for a leader that never was")
	}
	eventually(t, "it does not lead", func() bool { return i.set(t, 501) == nil })
	i.stop()
	if err := <-i.done; err != nil {
		t.Fatal(err)
	}

	back := start(t, Config{Dir: t.TempDir(), NoSync: true})
	if err := back.Copy(t.Context(), l.q, "", quiet); err != nil {
		t.Fatal(err)
	}
	_ = back.Close()
	if damage, err := files(back.cfg.Dir).Check(); len(damage) > 0 || err != nil {
		t.Errorf("%v, %v", damage, err)
	}
	again := start(t, Config{Dir: back.cfg.Dir, NoSync: true})
	for seq := uint64(31); seq <= 600; seq++ {
		want, err1 := from.Read(t.Context(), seq)
		got, err2 := again.Read(t.Context(), seq)
		if err := errors.Join(err1, err2); err != nil || string(want[0].Body) != string(got[0].Body) || !want[0].ReceivedAt.Equal(got[0].ReceivedAt) {
			t.Fatalf("%d: %v, %v, %v", seq, want, got, err)
		}
	}
	if first, _ := again.First(t.Context()); first != 31 || again.Last() != 600 {
		t.Errorf("%d to %d", first, again.Last())
	}
}

// What is not stored any more is a message that cannot be read, in its place: it is told
// as lost, and not passed over as if nothing had been there.
func TestAMessageThatIsLostStaysLost(t *testing.T) {
	t.Parallel()
	srv := natsServer(t, server.Options{StoreDir: t.TempDir()})
	from := start(t, Config{Dir: t.TempDir(), NoSync: true})
	w := &writer{q: from}
	for _, data := range [][]byte{new(encoder).encode(*from.mark.Load(), nil), nil} {
		if err := w.put(t.Context(), data, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = from.Close()
	from = start(t, Config{Dir: from.cfg.Dir, NoSync: true})
	to := start(t, Config{URL: srv.ClientURL()})
	if err := to.Copy(t.Context(), from, "x", quiet); err != nil {
		t.Fatal(err)
	}
	if notes, err := to.Read(t.Context(), 1); err != nil || len(notes) > 0 {
		t.Errorf("%v, %v", notes, err)
	}
	if _, err := to.Read(t.Context(), 2); !event.Unreadable(err) {
		t.Error(err)
	}
}

// A message that the servers do not take stops the copy with the way out, and it goes on
// when they take it.
func TestAMessageThatIsTooLargeSaysWhatToDo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	from := start(t, Config{Dir: t.TempDir(), NoSync: true})
	publish(t, from, "small")
	publish(t, from, random(1, 100_000))
	small := natsServer(t, server.Options{StoreDir: dir, MaxPayload: 64 << 10})
	err := start(t, Config{URL: small.ClientURL()}).Copy(t.Context(), from, "x", quiet)
	if !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), "max_payload") {
		t.Error(err)
	}
	stopServer(small)
	if err := start(t, Config{URL: natsServer(t, server.Options{StoreDir: dir}).ClientURL()}).Copy(t.Context(), from, "x", quiet); err != nil {
		t.Error(err)
	}
}

// What was left is led by nobody, also not by an instance that was there before; whoever
// leaves again may.
func TestWhatWasLeftIsLedByNobody(t *testing.T) {
	t.Parallel()
	cfg := Config{URL: natsServer(t, server.Options{StoreDir: t.TempDir()}).ClientURL(), TakeOverAfter: 2 * time.Second}
	before := t.TempDir()
	a := startInstance(t, cfg.URL, before)
	<-a.leads
	eventually(t, "it does not lead", func() bool { return a.set(t, 1) == nil })
	a.stop()
	if err := <-a.done; err != nil {
		t.Error(err)
	}
	for range 2 {
		l := openLog(t, cfg)
		l.leaving = true
		ledger, _, err := store.Open(store.Config{Dir: t.TempDir(), NoSync: true, Shared: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.begin(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if err := l.Run(t.Context(), ledger, func(context.Context, time.Time) error { return ErrLeft }); !errors.Is(err, ErrLeft) {
			t.Error(err)
		}
		if p := ledger.Summary().Progress; p.Seq != 1 {
			t.Errorf("it left with progress %v", p)
		}
		_ = ledger.Close()
	}
	l := openLog(t, cfg)
	if _, err := l.begin(t.Context(), 0); !errors.Is(err, ErrLeft) {
		t.Error(err)
	}
	_ = a.ledger.Close()
	ledger, _, err := store.Open(store.Config{Dir: before, NoSync: true, Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ledger.Close() }()
	if err := l.Run(t.Context(), ledger, nil); !errors.Is(err, ErrLeft) {
		t.Error(err)
	}
}
