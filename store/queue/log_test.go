package queue

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
)

// instance is a forwarder without its workers.
type instance struct {
	q      *Queue
	log    *Log
	ledger *store.Store
	stop   context.CancelFunc
	leads  chan time.Time // yields at each take-over
	done   chan error
}

func startInstance(t *testing.T, url, dir string) *instance {
	t.Helper()
	i := &instance{leads: make(chan time.Time, 10), done: make(chan error, 1)}
	i.q = start(t, Config{URL: url, TakeOverAfter: 2 * time.Second})
	var err error
	if i.log, err = i.q.OpenLog(t.Context()); err != nil {
		t.Fatal(err)
	}
	if i.ledger, _, err = store.Open(store.Config{Dir: dir, NoSync: true, Shared: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = i.ledger.Close() })
	var ctx context.Context
	ctx, i.stop = context.WithCancel(context.Background())
	t.Cleanup(i.stop)
	go func() {
		i.done <- i.log.Run(ctx, i.ledger, func(ctx context.Context, unsure time.Time) error {
			i.leads <- unsure
			<-ctx.Done()
			return nil
		})
	}()
	return i
}

func (i *instance) set(t *testing.T, seq uint64) error {
	return i.ledger.Do(t.Context(), func(tx *store.Tx) error { tx.SetProgress(event.Position{Seq: seq}); return nil })
}

// eventually waits for what comes by itself.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for until := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal(what)
		}
	}
}

// One leads; the other has what it commits, cannot write, and leads after it: at once when
// it stopped, and when it is not heard of any more.
func TestTheNextInstanceGoesOnWhereTheLastOneStopped(t *testing.T) {
	t.Parallel()
	srv := natsServer(t, server.Options{StoreDir: t.TempDir()})
	dirs := []string{t.TempDir(), t.TempDir(), t.TempDir()}
	a := startInstance(t, srv.ClientURL(), dirs[0])
	if unsure := <-a.leads; !unsure.IsZero() {
		t.Errorf("nobody led before, and %v is waited for", unsure)
	}
	b := startInstance(t, srv.ClientURL(), dirs[1])
	eventually(t, "the first does not lead", func() bool { return a.set(t, 1) == nil })
	eventually(t, "the second does not follow", func() bool { return b.ledger.Summary().Progress.Seq == 1 })
	if err := b.set(t, 2); !errors.Is(err, store.ErrFollowing) {
		t.Errorf("a follower wrote: %v", err)
	}
	a.stop()
	if err := <-a.done; err != nil {
		t.Error(err)
	}
	if unsure := <-b.leads; !unsure.IsZero() {
		t.Errorf("the last one stopped in good order, and %v is waited for", unsure)
	}
	if err := a.set(t, 3); !errors.Is(err, store.ErrFollowing) {
		t.Errorf("who stopped wrote: %v", err)
	}
	eventually(t, "the second does not lead", func() bool { return b.set(t, 4) == nil })
	c := startInstance(t, srv.ClientURL(), dirs[2])
	eventually(t, "the third does not follow", func() bool { return c.ledger.Summary().Progress.Seq == 4 })
	deposed := errors.New("deposed")
	request, done := b.log.Hold(t.Context(), deposed)
	defer done()
	b.q.nc.Close() // it goes on, and reaches nobody
	if unsure := <-c.leads; unsure.IsZero() {
		t.Error("what the last one began is not waited for")
	}
	if b.log.Holds() {
		t.Error("two hold")
	}
	if err := context.Cause(request); !errors.Is(err, deposed) {
		t.Errorf("a request of the one before is still under way: %v", err)
	}
	late, done := b.log.Hold(t.Context(), deposed)
	defer done()
	if err := context.Cause(late); !errors.Is(err, deposed) {
		t.Errorf("it begins another one: %v", err)
	}
	eventually(t, "the third does not lead", func() bool { return c.set(t, 5) == nil })
	if err := b.set(t, 6); !errors.Is(err, store.ErrFollowing) {
		t.Errorf("who was cut off wrote: %v", err)
	}
}

// Two processes that believe to lead at the same entry: the servers let one through.
func TestADeposedLeaderCannotAppend(t *testing.T) {
	t.Parallel()
	srv := natsServer(t, server.Options{StoreDir: t.TempDir()})
	a := startInstance(t, srv.ClientURL(), t.TempDir())
	<-a.leads
	eventually(t, "the first does not lead", func() bool { return a.set(t, 1) == nil })
	js := client(t, srv)
	other, err := js.Publish(t.Context(), logSubject, store.EncodeEntry(store.EntryTakeOver, nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.set(t, 2); !errors.Is(err, store.ErrFollowing) {
		t.Errorf("the old leader wrote: %v", err)
	}
	if info, err := a.log.stream.Info(t.Context()); err != nil || info.State.LastSeq != other.Sequence {
		t.Errorf("the log ends at %d, the other one took over at %d, %v", info.State.LastSeq, other.Sequence, err)
	}
	if a.log.Holds() || a.ledger.Summary().Progress.Seq != 1 {
		t.Errorf("it holds, or has %v", a.ledger.Summary().Progress)
	}
	<-a.leads // the other one says nothing
	eventually(t, "the first does not lead again", func() bool { return a.set(t, 3) == nil })
}

// An instance without a ledger, or with one that LEDGER begins behind, takes the snapshot.
func TestANewInstanceBeginsWithTheSnapshot(t *testing.T) {
	t.Parallel()
	srv := natsServer(t, server.Options{StoreDir: t.TempDir()})
	a := startInstance(t, srv.ClientURL(), t.TempDir())
	<-a.leads
	eventually(t, "the first does not lead", func() bool { return a.set(t, 1) == nil })
	for i := range uint64(keepEntries + 50) {
		if err := a.set(t, i+2); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	if err := a.log.Restore(t.Context(), dir); !errors.Is(err, ErrShort) {
		t.Errorf("without a snapshot: %v", err)
	}
	for range 2 { // the second takes the place of the first
		if err := a.log.Snapshot(t.Context(), a.ledger); err != nil {
			t.Fatal(err)
		}
	}
	if short, err := a.log.Short(t.Context(), 0); !short || err != nil {
		t.Errorf("the log holds all: %v, %v", short, err)
	}
	if info, err := a.log.snapshots.Info(t.Context()); err != nil || info.State.Msgs != 2 {
		t.Errorf("%+v, %v", info.State, err)
	}
	if err := a.log.Restore(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if err := a.set(t, 10_000); err != nil {
		t.Fatal(err)
	}
	b := startInstance(t, srv.ClientURL(), dir)
	if p := b.ledger.Summary().Progress; p.Seq != keepEntries+51 {
		t.Errorf("restored up to %v", p)
	}
	eventually(t, "the new one does not follow", func() bool { return b.ledger.Summary().Progress.Seq == 10_000 })
}
