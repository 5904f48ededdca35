package queue

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"pmm-callgoose/store/event"
	"pmm-callgoose/store/queue/queuetest"
)

// natsServer runs a server as operators do, on a port of its own.
func natsServer(t *testing.T, opts server.Options) *server.Server {
	t.Helper()
	opts.Host, opts.NoSigs, opts.NoLog, opts.JetStream = "127.0.0.1", true, true, true
	if opts.Port == 0 {
		opts.Port = server.RANDOM_PORT
	}
	srv, err := server.NewServer(&opts)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { stopServer(srv) })
	if !srv.ReadyForConnections(30 * time.Second) {
		t.Fatal("the server does not start")
	}
	return srv
}

// client is somebody else who uses the server.
func client(t *testing.T, srv *server.Server) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(srv.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// createStream creates a stream as soon as the server can: it may still be removing
// the files of the one before, or electing.
func createStream(t *testing.T, js jetstream.JetStream, cfg jetstream.StreamConfig) {
	t.Helper()
	for until := time.Now().Add(time.Minute); ; {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		_, err := js.CreateStream(ctx, cfg)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(until) {
			t.Fatal(err)
		}
	}
}

func TestAnExternalServerKeepsTheStream(t *testing.T) {
	t.Parallel()
	srv := natsServer(t, server.Options{StoreDir: t.TempDir()})
	cfg := Config{URL: srv.ClientURL()}
	q := start(t, cfg)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			pos, err := q.Publish(t.Context(), note(fmt.Sprint(i)))
			if err != nil {
				t.Error(err)
				return
			}
			notes, err := q.Read(t.Context(), pos.Seq)
			if err != nil || string(notes[pos.Note].Body) != fmt.Sprint(i) {
				t.Errorf("%d at %v: %v, %v", i, pos, notes, err)
			}
		})
	}
	wg.Wait()
	q.SetMark(event.Mark{UpTo: event.Position{Seq: 1}})
	if _, err := q.PublishMark(t.Context()); err != nil {
		t.Error(err)
	}
	info, err := q.stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	last := info.State.LastSeq
	eventually(t, "what was stored is not read", func() bool { return q.Last() == last })
	if err := q.Purge(t.Context(), 1); err != nil {
		t.Error(err)
	}
	if _, err := q.Read(t.Context(), 1); !errors.Is(err, event.ErrGone) {
		t.Error(err)
	}
	if _, err := q.Read(t.Context(), last+1); !errors.Is(err, ErrUnavailable) {
		t.Errorf("what the server does not know is not gone for certain: %v", err)
	}
	_ = q.Close()
	q = start(t, cfg)
	if m, err := q.NewestMark(t.Context()); err != nil || m.UpTo.Seq != 1 || q.Last() != last {
		t.Errorf("after a restart: mark %v, last %d of %d, %v", m, q.Last(), last, err)
	}
	if cfg := q.stream.CachedInfo().Config; cfg.AllowDirect || cfg.Replicas != 1 {
		t.Errorf("declared as %+v", cfg)
	}
	if used, _, free := q.Room(); used == 0 || free != -1 {
		t.Errorf("%d bytes used, %d free", used, free)
	}
}

// What an embedded store takes, an external server may not: its limit is 1 MiB.
func TestTheServersLimitIsKept(t *testing.T) {
	t.Parallel()
	q := start(t, Config{URL: natsServer(t, server.Options{StoreDir: t.TempDir()}).ClientURL()})
	if _, err := q.Publish(t.Context(), note(random(1, 1<<20))); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if _, err := q.Publish(t.Context(), note(random(byte(i), 100<<10))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// Each instance publishes, and all of them read all of it in the same order.
func TestSeveralInstancesPublish(t *testing.T) {
	t.Parallel()
	cfg := Config{URL: natsServer(t, server.Options{StoreDir: t.TempDir()}).ClientURL()}
	qs := []*Queue{start(t, cfg), start(t, cfg), start(t, cfg)}
	var wg sync.WaitGroup
	for i := range 90 {
		wg.Go(func() {
			if _, err := qs[i%3].Publish(t.Context(), note(fmt.Sprint(i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	info, err := qs[0].stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	last := info.State.LastSeq
	var first []string
	for i, q := range qs {
		eventually(t, "an instance does not hear of the others", func() bool { return q.Last() == last })
		var bodies []string
		for seq := uint64(1); seq <= last; seq++ {
			notes, err := q.Read(t.Context(), seq)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range notes {
				bodies = append(bodies, string(n.Body))
			}
		}
		if len(bodies) != 90 || i > 0 && !slices.Equal(bodies, first) {
			t.Errorf("%d: %v", i, bodies)
		}
		first = bodies
	}
}

// What was given up is stored before the barrier, or never.
func TestWhatWasGivenUpDoesNotComeLate(t *testing.T) {
	t.Parallel()
	srv := natsServer(t, server.Options{StoreDir: t.TempDir()})
	q := start(t, Config{URL: srv.ClientURL()})
	publish(t, q, "x")
	behind := q.own.last
	late := func() error { // a copy that hung somewhere
		_, err := client(t, srv).Publish(t.Context(), q.own.subject, []byte{0}, jetstream.WithMsgID("late"), jetstream.WithExpectLastSequencePerSubject(behind))
		return err
	}
	p := &publishing{note: note("z"), done: make(chan published, 1), came: time.Now().Add(-storeWithin)} // its caller lost patience
	q.publish <- p
	if r := <-p.done; !errors.Is(r.err, ErrUnavailable) {
		t.Fatalf("stored after all patience: %v", r.err)
	}
	eventually(t, "no barrier", func() bool {
		info, err := q.stream.Info(t.Context())
		return err == nil && info.State.LastSeq > behind
	})
	if err := late(); err == nil {
		t.Error("the copy is stored")
	}
	// One that came in time is found, and publishing goes on behind it.
	behind = 0
	eventually(t, "no sequence", func() bool {
		m, err := q.stream.GetLastMsgForSubject(t.Context(), q.own.subject)
		if err == nil {
			behind = m.Sequence
		}
		return err == nil
	})
	if err := late(); err != nil {
		t.Fatal(err)
	}
	publish(t, q, "y")
}

// giveUp publishes a notification that is given up soon.
func giveUp(t *testing.T, q *Queue) {
	t.Helper()
	p := &publishing{note: note("given up"), done: make(chan published, 1), came: time.Now().Add(5*tryAfter - storeWithin)}
	q.publish <- p
	if r := <-p.done; !errors.Is(r.err, ErrUnavailable) {
		t.Fatalf("stored although nothing gets through: %v", r.err)
	}
}

// holds waits until the stream ends at last, and returns what it holds.
func holds(t *testing.T, js jetstream.JetStream, q *Queue, last uint64) (bodies []string) {
	t.Helper()
	s, err := js.Stream(t.Context(), streamName)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the stream does not go on", func() bool {
		info, err := s.Info(t.Context())
		return err == nil && info.State.LastSeq >= last && q.Last() >= last
	})
	for seq := uint64(1); seq <= q.Last(); seq++ {
		notes, err := q.Read(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range notes {
			bodies = append(bodies, string(n.Body))
		}
	}
	return bodies
}

// A webhook that was refused is at another instance by now. Here it hangs in the network,
// and arrives when something newer is stored.
func TestWhatArrivesAfterItWasGivenUpIsRefused(t *testing.T) {
	t.Parallel()
	srv := natsServer(t, server.Options{StoreDir: t.TempDir()})
	hung, other := queuetest.NewProxy(t, srv.Addr().String()), queuetest.NewProxy(t, srv.Addr().String())
	other.Set(queuetest.Cut)
	q := start(t, Config{URL: "nats://" + hung.Addr() + ",nats://" + other.Addr()})
	publish(t, q, "x")
	js := client(t, srv)
	hung.Set(queuetest.Silent)
	giveUp(t, q)
	other.Set(queuetest.Passing)
	holds(t, js, q, 2) // the barrier
	hung.Set(queuetest.Passing)
	eventually(t, "the connection that hung does not end", func() bool { return srv.NumClients() == 2 })
	publish(t, q, "y")
	if got := holds(t, js, q, 3); !slices.Equal(got, []string{"x", "y"}) {
		t.Errorf("stored: %q", got)
	}
}

// Nor does the client keep it for the next connection.
func TestWhatWasGivenUpWithoutAConnectionIsNotStored(t *testing.T) {
	t.Parallel()
	srv := natsServer(t, server.Options{StoreDir: t.TempDir()})
	road := queuetest.NewProxy(t, srv.Addr().String())
	q := start(t, Config{URL: "nats://" + road.Addr()})
	publish(t, q, "x")
	road.Set(queuetest.Cut)
	eventually(t, "still connected", func() bool { return !q.nc.IsConnected() })
	giveUp(t, q)
	road.Set(queuetest.Passing)
	publish(t, q, "y")
	if got := holds(t, client(t, srv), q, 3); !slices.Equal(got, []string{"x", "y"}) {
		t.Errorf("stored: %q", got)
	}
}

// A stream made anew acknowledges with sequences that were read long ago.
func TestAStreamMadeAnewIsAFailure(t *testing.T) {
	t.Parallel()
	srv := natsServer(t, server.Options{StoreDir: t.TempDir()})
	q := start(t, Config{URL: srv.ClientURL()})
	publish(t, q, "x")
	publish(t, q, "y")
	silent := start(t, Config{URL: srv.ClientURL()}) // never published before
	js := client(t, srv)
	if err := js.DeleteStream(t.Context(), streamName); err != nil {
		t.Fatal(err)
	}
	made := streamConfig()
	made.Subjects = append(made.Subjects, subject+".*")
	createStream(t, js, made)
	var wg sync.WaitGroup
	for _, q := range []*Queue{q, silent} {
		wg.Go(func() {
			if _, err := q.Publish(t.Context(), note("z")); !errors.Is(err, ErrUnavailable) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if _, err := silent.Read(t.Context(), 2); !errors.Is(err, ErrUnavailable) {
		t.Errorf("gone for certain, says a stream that ends before it: %v", err)
	}
}

// A stream that looks too short is left alone: it may only look so.
func TestAShortStreamIsNeitherFilledNorMoved(t *testing.T) {
	t.Parallel()
	srv := natsServer(t, server.Options{StoreDir: t.TempDir()})
	q := start(t, Config{URL: srv.ClientURL()})
	publish(t, q, "x")
	_ = q.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	if _, err := Open(ctx, Config{URL: srv.ClientURL(), After: 100}); !errors.Is(err, ErrShort) {
		t.Error(err)
	}
	s, err := client(t, srv).Stream(t.Context(), streamName)
	if err != nil || s.CachedInfo().State.LastSeq != 1 || s.CachedInfo().State.Msgs != 1 {
		t.Errorf("%+v, %v", s.CachedInfo().State, err)
	}
}

// A stream that is there is made safer, and refused where it would lose something.
func TestAStreamThatIsThereIsAdapted(t *testing.T) {
	t.Parallel()
	srv := natsServer(t, server.Options{StoreDir: t.TempDir()})
	js := client(t, srv)
	have := streamConfig()
	have.AllowDirect, have.Discard, have.Description = true, jetstream.DiscardOld, "made by hand"
	have.NoAck, have.MaxMsgSize, have.DenyDelete, have.Duplicates = true, 1000, false, time.Second
	for _, unfit := range []func(c *jetstream.StreamConfig){
		func(c *jetstream.StreamConfig) { c.DenyPurge = true },
		func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour },
		func(c *jetstream.StreamConfig) { c.MaxMsgs = 10 },
		func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 10 },
		func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage },
		func(c *jetstream.StreamConfig) { c.Retention = jetstream.WorkQueuePolicy },
		func(c *jetstream.StreamConfig) { c.Subjects = []string{"others"} },
	} {
		c := have
		unfit(&c)
		createStream(t, js, c)
		if _, err := Open(t.Context(), Config{URL: srv.ClientURL()}); !errors.Is(err, ErrUnfit) {
			t.Errorf("%+v: %v", c, err)
		}
		if err := js.DeleteStream(t.Context(), streamName); err != nil {
			t.Fatal(err)
		}
	}
	createStream(t, js, have)
	q := start(t, Config{URL: srv.ClientURL()})
	if c := q.stream.CachedInfo().Config; c.AllowDirect || c.Discard != jetstream.DiscardNew || c.NoAck || c.MaxMsgSize > 0 || !c.DenyDelete ||
		c.Duplicates != 2*time.Minute || c.Description != have.Description {
		t.Errorf("%+v", c)
	}
}

// A server that restarts costs nobody an answer: the publish is tried again.
func TestAPublishOutlivesARestartOfTheServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	srv := natsServer(t, server.Options{StoreDir: dir})
	q := start(t, Config{URL: srv.ClientURL()})
	publish(t, q, "x")
	port := srv.Addr().(*net.TCPAddr).Port
	stopServer(srv)
	for q.Full() == nil {
		time.Sleep(time.Millisecond)
	}
	if err := q.Full(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("without a server: %v", err)
	}
	done := make(chan error)
	go func() {
		_, err := q.Publish(t.Context(), note("y"))
		done <- err
	}()
	natsServer(t, server.Options{StoreDir: dir, Port: port})
	if err := <-done; err != nil {
		t.Error(err)
	}
	if notes, err := q.Read(t.Context(), 2); err != nil || string(notes[0].Body) != "y" {
		t.Error(notes, err)
	}
}

// cluster runs three servers.
func cluster(t *testing.T) []*server.Server {
	t.Helper()
	if testing.Short() {
		t.Skip("a cluster takes its time to elect")
	}
	var routes []*url.URL
	var ports []int
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
		routes = append(routes, &url.URL{Scheme: "nats", Host: l.Addr().String()})
		_ = l.Close()
	}
	servers := make([]*server.Server, 3)
	var wg sync.WaitGroup
	for i := range servers {
		wg.Go(func() {
			servers[i] = natsServer(t, server.Options{
				ServerName: fmt.Sprint("n", i), StoreDir: t.TempDir(), Routes: routes,
				Cluster: server.ClusterOpts{Name: "three", Host: "127.0.0.1", Port: ports[i]},
			})
		})
	}
	wg.Wait()
	return servers
}

// In a cluster the stream has three replicas, more than it was made with, and
// never fewer again. When its leader dies nothing that was acknowledged is gone,
// and publishing goes on.
func TestAClusterKeepsWhatWasAcknowledged(t *testing.T) {
	t.Parallel()
	servers := cluster(t)
	var urls []string
	for _, s := range servers {
		urls = append(urls, s.ClientURL())
	}
	cfg := Config{URL: strings.Join(urls, ",")}
	made := streamConfig()
	made.Replicas, made.AllowDirect = 1, true
	createStream(t, client(t, servers[0]), made)
	q := start(t, cfg)
	if c := q.stream.CachedInfo().Config; c.Replicas != 3 || c.AllowDirect {
		t.Errorf("%+v", c)
	}
	stored := map[event.Position]string{}
	for i := range 40 {
		if i == 20 {
			var info *jetstream.StreamInfo
			eventually(t, "three replicas hold all of it", func() bool {
				var err error
				info, err = q.stream.Info(t.Context())
				return err == nil && describe(info).Current == 3
			})
			for _, s := range servers {
				if s.Name() == info.Cluster.Leader {
					stopServer(s)
				}
			}
		}
		body := fmt.Sprint(i)
		pos, err := q.Publish(t.Context(), note(body))
		for errors.Is(err, ErrUnavailable) { // an election that took longer
			_ = q.Close()
			var again *Queue
			if again, err = Open(t.Context(), cfg); err == nil {
				t.Cleanup(func() { _ = again.Close() })
				q = again
				pos, err = q.Publish(t.Context(), note(body))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		stored[pos] = body
	}
	for pos, body := range stored {
		notes, err := q.Read(t.Context(), pos.Seq)
		if err != nil || string(notes[pos.Note].Body) != body {
			t.Errorf("%v: %v, %v", pos, notes, err)
		}
	}
	_ = q.Close()
	cfg.Replicas = 1
	q = start(t, cfg)
	if c := q.stream.CachedInfo().Config; c.Replicas != 3 {
		t.Errorf("%d replicas are left", c.Replicas)
	}
}
