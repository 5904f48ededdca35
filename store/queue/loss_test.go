package queue

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
)

// Whoever led with less than what was decided would deliver again, or pass over what
// comes in: it is told which stream is short, and what to do.
func TestNobodyBeginsWithAStreamThatIsShort(t *testing.T) {
	t.Parallel()
	remove := func(names ...string) func(*testing.T, jetstream.JetStream) {
		return func(t *testing.T, js jetstream.JetStream) {
			t.Helper()
			for _, name := range names {
				if err := js.DeleteStream(t.Context(), name); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	cut := func(t *testing.T, js jetstream.JetStream) {
		t.Helper()
		s, err := js.Stream(t.Context(), logName)
		if err == nil {
			err = s.Purge(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name     string
		snapshot bool
		happens  func(*testing.T, jetstream.JetStream)
		at       bool // with a copy that has all of the log, else with none
		want     string
		restore  bool
	}{
		{name: "nothing is lost", at: true},
		{name: "nothing is lost, and it has no copy"},
		{name: "nothing is lost, it has no copy, and there is a snapshot", snapshot: true, restore: true},
		{name: "LEDGER is gone", happens: remove(logName), want: logName},
		{name: "LEDGER is gone, and it has a copy", happens: remove(logName), at: true, want: logName},
		{name: "LEDGER is gone, and there is a snapshot", snapshot: true, happens: remove(logName), want: logName},
		{name: "LEDGER and NOTIFICATIONS are gone, and it has a copy", happens: remove(logName, streamName), at: true, want: logName},
		{name: "LEDGER begins behind all that is known", happens: cut, want: snapshotName},
		{name: "LEDGER begins behind the snapshot", snapshot: true, happens: cut, want: snapshotName},
		{name: "LEDGER was cut, and it has a copy", happens: cut, at: true},
		{name: "SNAPSHOTS is gone, and it has a copy", snapshot: true, happens: remove(snapshotName), at: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			srv := natsServer(t, server.Options{StoreDir: t.TempDir()})
			cfg := Config{URL: srv.ClientURL(), TakeOverAfter: 2 * time.Second, ShortFor: 2 * time.Second}
			a := startInstance(t, cfg.URL, t.TempDir())
			<-a.leads
			eventually(t, "it does not lead", func() bool { return a.set(t, 1) == nil })
			publish(t, a.q, "x")
			if c.snapshot {
				if _, err := a.log.Snapshot(t.Context(), a.ledger); err != nil {
					t.Fatal(err)
				}
			}
			if err := a.set(t, 2); err != nil {
				t.Fatal(err)
			}
			a.stop()
			if err := <-a.done; err != nil {
				t.Fatal(err)
			}
			at := uint64(0)
			if c.at {
				at = a.log.seen.Load()
			}
			_ = a.q.Close()
			if c.happens != nil {
				c.happens(t, client(t, srv))
			}
			restore, err := openLog(t, cfg).begin(t.Context(), at)
			if lostStream(err) != c.want || c.want == "" && err != nil || c.want != "" && !errors.Is(err, ErrShort) || restore != c.restore {
				t.Errorf("restore %v, %v", restore, err)
			}
		})
	}
}

// Whoever leads when LEDGER is deleted does not go on, and says what is gone.
func TestALeaderWhoseLogIsGoneStops(t *testing.T) {
	t.Parallel()
	srv := natsServer(t, server.Options{StoreDir: t.TempDir()})
	a := startInstance(t, srv.ClientURL(), t.TempDir())
	<-a.leads
	if err := client(t, srv).DeleteStream(t.Context(), logName); err != nil {
		t.Fatal(err)
	}
	if err := <-a.done; lostStream(err) != logName {
		t.Error(err)
	}
	if err := a.set(t, 1); !errors.Is(err, store.ErrFollowing) {
		t.Errorf("it wrote: %v", err)
	}
}

// A log that was lost goes on with a ledger, far ahead, so that every other copy sees that
// it lacks something and takes the snapshot.
func TestALostLogGoesOnWithALedger(t *testing.T) {
	t.Parallel()
	srv := natsServer(t, server.Options{StoreDir: t.TempDir()})
	cfg := Config{URL: srv.ClientURL(), TakeOverAfter: 2 * time.Second, ShortFor: time.Second}
	dir := t.TempDir()
	a := startInstance(t, cfg.URL, dir)
	<-a.leads
	eventually(t, "it does not lead", func() bool { return a.set(t, 7) == nil })
	a.stop()
	if err := <-a.done; err != nil {
		t.Error(err)
	}
	old := a.log.seen.Load()
	_ = a.q.Close()
	if err := client(t, srv).DeleteStream(t.Context(), logName); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it was interrupted before
		l := openLog(t, cfg)
		if _, err := l.begin(t.Context(), old); lostStream(err) != logName {
			t.Fatal(err)
		}
		if err := l.goOnWith(t.Context(), a.ledger); err != nil {
			t.Fatal(err)
		}
		for _, at := range []uint64{0, old, old + 100} {
			if restore, err := l.begin(t.Context(), at); !restore || err != nil {
				t.Errorf("a copy at %d: %v, %v", at, restore, err)
			}
		}
		b := t.TempDir()
		if err := l.restore(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		i := startInstance(t, cfg.URL, b)
		<-i.leads
		eventually(t, "nobody leads", func() bool { return i.set(t, 8) == nil })
		i.stop()
		if err := <-i.done; err != nil {
			t.Error(err)
		}
		s, err := client(t, srv).Stream(t.Context(), logName)
		if err == nil {
			err = s.Purge(t.Context(), jetstream.WithPurgeKeep(0))
		}
		if err := errors.Join(err, client(t, srv).DeleteStream(t.Context(), logName)); err != nil {
			t.Fatal(err)
		}
		old = i.log.seen.Load()
	}
}

// With the loss accepted the stream goes on behind what the ledger knows: what is left of
// it stays, what is lost cannot be read, and what comes in gets a new sequence.
func TestAShortStreamGoesOnWhenThatIsAccepted(t *testing.T) {
	t.Parallel()
	for _, left := range []int{0, 3} {
		t.Run(fmt.Sprint(left, " are left"), func(t *testing.T) {
			t.Parallel()
			srv := natsServer(t, server.Options{StoreDir: t.TempDir()})
			q := start(t, Config{URL: srv.ClientURL()})
			for range left {
				publish(t, q, "x")
			}
			_ = q.Close()
			cfg := Config{URL: srv.ClientURL(), After: 700, AcceptLoss: streamName, ShortFor: time.Second}
			q = start(t, cfg)
			if q.Lost() != streamName {
				t.Errorf("the loss of %q is told", q.Lost())
			}
			if pos := publish(t, q, "y"); pos.Seq != 701 {
				t.Errorf("stored as %v", pos)
			}
			for seq := range uint64(left) {
				if _, err := q.Read(t.Context(), seq+1); err != nil {
					t.Error(err)
				}
			}
			if _, err := q.Read(t.Context(), 699); !event.Unreadable(err) {
				t.Error(err)
			}
			cfg.After = 701
			if start(t, cfg).Lost() != "" {
				t.Error("a loss is told where there is none")
			}
		})
	}
}

// What is stored below what the ledger knows would never be looked at: it is refused, and
// who leads finds out before it does.
func TestAWebhookIsNotTakenBelowWhatIsSplit(t *testing.T) {
	t.Parallel()
	q := start(t, Config{URL: natsServer(t, server.Options{StoreDir: t.TempDir()}).ClientURL(), ShortFor: time.Second})
	q.SetMark(event.Mark{UpTo: event.Position{Seq: 50}})
	if _, err := q.Publish(t.Context(), note("x")); !errors.Is(err, ErrShort) {
		t.Error(err)
	}
	if err := q.Reaches(t.Context(), 50); lostStream(err) != streamName {
		t.Error(err)
	}
}

// A newer version writes what this one does not know: it stands still, takes webhooks, and
// does not lead when the other one is gone.
func TestAnInstanceStandsStillBesideANewerOne(t *testing.T) {
	t.Parallel()
	srv := natsServer(t, server.Options{StoreDir: t.TempDir()})
	newer := openLog(t, Config{URL: srv.ClientURL(), TakeOverAfter: 2 * time.Second})
	if _, err := newer.begin(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	for seq, entry := range [][]byte{
		store.EncodeEntry(store.EntryTakeOver, nil),
		store.EncodeEntry(store.EntryCommit, append([]byte{2, 6}, "future"...)), // makes a bucket
		store.EncodeEntry(store.EntryRelease, nil),
	} {
		if _, err := client(t, srv).Publish(t.Context(), logSubject, entry, jetstream.WithExpectLastSequence(uint64(seq+1))); err != nil {
			t.Fatal(err)
		}
	}
	i := startInstance(t, srv.ClientURL(), t.TempDir())
	eventually(t, "it does not say that it is outdated", i.log.Outdated)
	publish(t, i.q, "x")
	if seq, err := i.ledger.LogSeq(); seq > 2 || err != nil {
		t.Errorf("it applied up to %d, %v", seq, err)
	}
	select {
	case <-i.leads:
		t.Error("it leads")
	case err := <-i.done:
		t.Errorf("it ended: %v", err)
	default: // who stands still looks at no clock
	}
}

// lostStream is the stream that an ErrShort is about, "" for another error.
func lostStream(err error) string {
	if l, ok := errors.AsType[*lost](err); ok {
		return l.stream
	}
	return ""
}
