package queue

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
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
	return startInstanceOf(t, Config{URL: url}, dir)
}

func startInstanceOf(t *testing.T, cfg Config, dir string) *instance {
	t.Helper()
	i := &instance{leads: make(chan time.Time, 10), done: make(chan error, 1)}
	cfg.TakeOverAfter = 2 * time.Second
	i.q = start(t, cfg)
	var err error
	if i.log, err = i.q.OpenLog(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := i.log.begin(t.Context(), 0); err != nil {
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
	return i.ledger.Do(t.Context(), func(tx *store.Tx) { tx.SetProgress(event.Position{Seq: seq}) })
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

// Who steps down lets the others go first: it leads again only when none of them did for
// as long as after a failure.
func TestWhoStepsDownWaits(t *testing.T) {
	t.Parallel()
	srv := natsServer(t, server.Options{StoreDir: t.TempDir()})
	a := startInstance(t, srv.ClientURL(), t.TempDir())
	<-a.leads
	if _, err := a.log.StepDown(); err == nil {
		t.Error("the only instance steps down")
	}
	a.log.hear(Member{Name: "other", Run: "other", SeenAt: time.Now()})
	eventually(t, "it cannot step down", func() bool { term, err := a.log.StepDown(); return err == nil && term > 0 })
	if unsure := <-a.leads; unsure.IsZero() {
		t.Error("it did not wait for the others")
	}
	eventually(t, "it does not lead again", func() bool { return a.set(t, 1) == nil })
}

// A follower knows from the take-over itself which settings the leader has otherwise: also
// where it hears no announcement, and not of those that only one of the versions has.
func TestATakeOverSaysWithWhichSettings(t *testing.T) {
	t.Parallel()
	srv := natsServer(t, server.Options{StoreDir: t.TempDir()})
	a := startInstanceOf(t, Config{URL: srv.ClientURL(), Instance: "a", Settings: map[string]string{"rate": "0a", "storm": "0b", "new": "0c"}}, t.TempDir())
	<-a.leads
	b := startInstanceOf(t, Config{URL: srv.ClientURL(), Instance: "b", Settings: map[string]string{"rate": "0a", "storm": "1b", "old": "0d"}}, t.TempDir())
	eventually(t, "the follower does not know", func() bool { return slices.Equal(b.log.Differs(), []string{"storm"}) })
	b.log.hear(Member{Name: "c", Run: "c", Settings: map[string]string{"rate": "1a"}}) // which follows, too
	if got := b.log.Differs(); !slices.Equal(got, []string{"storm"}) {
		t.Errorf("%q differ", got)
	}
	if got := a.log.Differs(); got != nil {
		t.Errorf("the leader differs from itself: %q", got)
	}
}

// The later of two instances of one name takes another, whoever hears whom first.
func TestTheLaterOfTwoNamesIsChanged(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 27, 3, 0, 0, 0, time.UTC)
	first, second := Member{Name: "a", Run: "RunOfTheFirst", Began: at}, Member{Name: "a", Run: "RunOfTheSecond", Began: at.Add(time.Second)}
	log := func(m Member) *Log { return &Log{me: m, log: slog.New(slog.DiscardHandler)} }
	one, other := log(first), log(second)
	one.hear(first) // its own
	one.hear(second)
	other.hear(first)
	other.hear(first)
	if one.Name() != "a" || other.Name() != "a-RunO" {
		t.Errorf("%s and %s", one.Name(), other.Name())
	}
}

// An instance that stopped, and the earlier run of one that was restarted, are not waited
// for; one that died is known for a while.
func TestInstancesAreForgotten(t *testing.T) {
	t.Parallel()
	l := &Log{me: Member{Name: "me", Run: "me"}, log: slog.New(slog.DiscardHandler)}
	now, before := time.Now(), time.Now().Add(-2*liveFor)
	for _, m := range []Member{
		{Name: "stopped", Run: "1", SeenAt: now},
		{Name: "restarted", Run: "2", SeenAt: before},
		{Name: "dead", Run: "3", SeenAt: before},
		{Name: "long dead", Run: "4", SeenAt: now.Add(-forgetAfter)},
		{Name: "restarted", Run: "5", SeenAt: now},
		{Name: "stopped", Run: "1", SeenAt: now, Leaves: true},
	} {
		l.hear(m)
	}
	var runs []string
	for _, m := range l.Members() {
		runs = append(runs, m.Run)
	}
	if !slices.Equal(runs, []string{"3", "5"}) {
		t.Errorf("known are %q", runs)
	}
}

func TestTheSkewOfTwoClocksIsWhatNoDelayExplains(t *testing.T) {
	t.Parallel()
	began := time.Date(2026, 11, 27, 3, 0, 0, 0, time.UTC)
	ended := began.Add(3 * time.Second)
	for at, want := range map[time.Time]time.Duration{
		began: 0, began.Add(time.Second): 0, ended: 0, began.Add(-time.Minute): -time.Minute, ended.Add(time.Hour): time.Hour,
	} {
		if got := skewOf(at, began, ended); got != want {
			t.Errorf("%v after the beginning: %v", at.Sub(began), got)
		}
	}
}

// What others change in the configuration of the streams is repaired.
func TestTheStreamsAreRepaired(t *testing.T) {
	t.Parallel()
	srv := natsServer(t, server.Options{StoreDir: t.TempDir()})
	l, err := start(t, Config{URL: srv.ClientURL()}).OpenLog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	js := client(t, srv)
	for _, want := range l.q.cfg.streams() {
		s, err := js.Stream(t.Context(), want.Name)
		if err != nil {
			t.Fatal(err)
		}
		cfg := s.CachedInfo().Config
		cfg.AllowDirect = true
		if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		l.q.declareAgain(t.Context(), want)
		if info, err := s.Info(t.Context()); err != nil || info.Config.AllowDirect {
			t.Errorf("%s: %+v, %v", want.Name, info, err)
		}
	}
}

// An instance that nobody answers says so, and what to do.
func TestNobodyLeadsIsSaid(t *testing.T) {
	t.Parallel()
	q := start(t, Config{URL: natsServer(t, server.Options{StoreDir: t.TempDir()}).ClientURL()})
	l, err := q.OpenLog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Ask(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "no instance leads at the moment") {
		t.Error(err)
	}
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
	if err := a.log.restore(t.Context(), dir); !errors.Is(err, ErrShort) {
		t.Errorf("without a snapshot: %v", err)
	}
	for range 2 { // the second takes the place of the first
		if _, err := a.log.Snapshot(t.Context(), a.ledger); err != nil {
			t.Fatal(err)
		}
	}
	if restore, err := a.log.begin(t.Context(), 0); !restore || err != nil {
		t.Errorf("the snapshot is not needed: %v, %v", restore, err)
	}
	if info, err := a.log.snapshots.Info(t.Context()); err != nil || info.State.Msgs != 2 {
		t.Errorf("%+v, %v", info.State, err)
	}
	if err := a.log.restore(t.Context(), dir); err != nil {
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
