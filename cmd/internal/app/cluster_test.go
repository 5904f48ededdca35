package app

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/ingest"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/queue/queuetest"
	"pmm-callgoose/worker/callgoose/callgoosetest"
)

// fleet is some instances on one NATS, and what they deliver to.
type fleet struct {
	t    *testing.T
	fake *callgoosetest.Fake
	sink *httptest.Server
	all  []*forwarder
	sent map[int]int // transitions of each server's alert
	mu   sync.Mutex  // guards sent
}

type forwarder struct {
	*rig
	road *queuetest.Proxy    // to NATS
	door atomic.Pointer[App] // the app, for who sends while it is made anew
}

// make makes its App, with the network as it is.
func (r *forwarder) make() {
	r.t.Helper()
	r.ready = make(chan Addresses, 1)
	app, err := New(r.cfg, Options{Version: "test", NoListen: true, NoSync: true, ShortFor: 5 * time.Second, Ready: func(a Addresses) { r.ready <- a }, Logger: r.log})
	if err != nil {
		r.t.Fatal(err)
	}
	r.app = app
	r.door.Store(app)
}

// natsServer runs a server with JetStream, on a free port unless opts has one.
func natsServer(t *testing.T, opts server.Options) *server.Server {
	t.Helper()
	opts.Host, opts.Port, opts.StoreDir = "127.0.0.1", cmp.Or(opts.Port, server.RANDOM_PORT), t.TempDir()
	opts.JetStream, opts.NoSigs, opts.NoLog = true, true, true
	srv, err := server.NewServer(&opts)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(30 * time.Second) {
		t.Fatal("no NATS")
	}
	return srv
}

// three runs a cluster of three servers.
func three(t *testing.T) (all []*server.Server) {
	t.Helper()
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
	for i, port := range ports {
		all = append(all, natsServer(t, server.Options{
			ServerName: fmt.Sprint("n", i), Cluster: server.ClusterOpts{Name: "three", Host: "127.0.0.1", Port: port}, Routes: routes,
		}))
	}
	return all
}

// newFleet starts instances on these servers, or on one of their own that they reach by roads.
func newFleet(t *testing.T, instances int, servers ...*server.Server) *fleet {
	t.Helper()
	var urls []string
	for _, s := range servers {
		urls = append(urls, s.ClientURL())
	}
	var one *server.Server
	if len(servers) == 0 {
		one = natsServer(t, server.Options{})
	}
	f := &fleet{t: t, fake: callgoosetest.New(callgoosetest.Config{Tokens: []string{token}}), sent: map[int]int{}}
	f.sink = httptest.NewServer(f.fake)
	t.Cleanup(f.sink.Close)
	for i := range instances {
		r := &forwarder{}
		at, take := strings.Join(urls, ","), 13*time.Second
		if one != nil {
			r.road = queuetest.NewProxy(t, one.Addr().String())
			at, take = "nats://"+r.road.Addr(), 2*time.Second
		}
		r.rig = f.rig(at)
		r.cfg.Instance, r.cfg.TakeOverAfter = fmt.Sprint("i", i), take
		r.make()
		r.run()
		f.all = append(f.all, r)
	}
	return f
}

// rig is what an instance with a store at these servers is made from; "" = embedded.
func (f *fleet) rig(at string) *rig {
	return &rig{t: f.t, log: slog.New(slog.NewTextHandler(f.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})), cfg: &config.Config{
		DataDir: f.t.TempDir(), CallgooseURL: f.sink.URL + "/v1/process", CallgooseToken: config.NewSecret(token),
		CallgooseAuth: "bearer", CallgooseFrom: "PerconaPMM", IncidentBy: "alert", OnBacklog: "deliver",
		RetryMin: time.Second, RetryMax: time.Minute, RetryFor: 72 * time.Hour, Timeout: time.Second,
		LateAfter: 5 * time.Minute, Concurrency: 16, MaxBody: 1 << 20, MaxStore: 2 << 30,
		NATSURL: config.NewSecret(at),
	}}
}

// leader waits until an instance leads.
func (f *fleet) leader() (leads *forwarder) {
	f.t.Helper()
	f.until("nobody leads", func() bool {
		i := slices.IndexFunc(f.all, func(r *forwarder) bool { c := r.app.core.Load(); return c != nil && c.running.Load() && c.leads() })
		if i >= 0 {
			leads = f.all[i]
		}
		return i >= 0
	})
	return leads
}

func (f *fleet) until(what string, is func() bool) {
	f.t.Helper()
	for end := time.Now().Add(90 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatal(what)
		}
	}
}

// send brings the next transition of an alert to one instance after the other, until one
// of them has accepted it: as a load balancer does for PMM.
func (f *fleet) send(r *rand.Rand, mysql int, n int, starts time.Time) {
	status := []string{"firing", "resolved"}[n%2]
	body := group(mysqlDown(mysql, status, starts))
	for at := r.IntN(len(f.all)); ; at++ {
		ctx, cancel := context.WithTimeout(f.t.Context(), 10*time.Second)
		w := httptest.NewRecorder()
		f.all[at%len(f.all)].door.Load().Handler().ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1/v1/webhook", bytes.NewReader(body)))
		cancel()
		if w.Code == http.StatusAccepted {
			break
		}
		if f.t.Context().Err() != nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	f.mu.Lock()
	f.sent[mysql] = n + 1
	f.mu.Unlock()
}

// load sends transitions of some alerts, each one after the other, until it is told to stop.
func (f *fleet) load(alerts int) (stop func()) {
	ctx, cancel := context.WithCancel(f.t.Context())
	var wg sync.WaitGroup
	for mysql := range alerts {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(mysql), 3))
			var starts time.Time
			for n := 0; ctx.Err() == nil; n++ {
				if n%2 == 0 {
					starts = time.Now()
				}
				f.send(r, mysql, n, starts)
				time.Sleep(time.Duration(r.IntN(40)) * time.Millisecond)
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

// check waits until all is delivered, and checks that nothing is lost or overtaken. What
// was under way at a take-over may have come twice.
func (f *fleet) check() (again int) {
	f.t.Helper()
	leads := f.leader()
	f.until("not all is delivered", func() bool {
		s := leads.status()
		return s.Queued == 0 && s.InFlight == 0
	})
	came := map[string][]string{}
	for _, q := range f.fake.Received() {
		if !q.Accepted() {
			continue
		}
		if list := came[q.IncidentKey]; len(list) > 0 && list[len(list)-1] == q.Status {
			again++
			continue
		}
		came[q.IncidentKey] = append(came[q.IncidentKey], q.Status)
	}
	if len(came) != len(f.sent) {
		f.t.Errorf("%d alerts came of %d", len(came), len(f.sent))
	}
	transitions, total := 0, 0
	for _, n := range f.sent {
		total += n
	}
	for key, list := range came {
		transitions += len(list)
		for i, status := range list {
			if status != []string{"firing", "resolved"}[i%2] {
				f.t.Fatalf("%s: %v", key, list)
			}
		}
	}
	if transitions != total {
		f.t.Errorf("%d transitions were accepted, %d came", total, transitions)
	}
	f.t.Logf("%d transitions, %d came twice", total, again)
	return again
}

// same waits until every instance has the ledger of the one that leads.
func (f *fleet) same() {
	f.t.Helper()
	for _, r := range f.all {
		f.until("a copy differs", func() bool {
			want, _ := f.leader().app.Events(f.t.Context(), event.Filter{}, 100_000)
			got, err := r.app.Events(f.t.Context(), event.Filter{}, 100_000)
			return err == nil && len(got) == len(want) && slices.EqualFunc(got, want, func(a, b *event.Record) bool {
				return a.ID == b.ID && a.Outcome == b.Outcome && len(a.Attempts) == len(b.Attempts)
			})
		})
	}
}

// The leader stops, and then the next one is cut off from NATS while it still reaches
// Callgoose: another one leads, nothing is lost, the order is kept, and who was deposed
// goes on as a follower without refusing webhooks for long.
func TestAnotherInstanceTakesOver(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	defer func() {
		for _, r := range f.all {
			r.halt()
		}
	}()
	first := f.leader()
	stop := f.load(8)
	f.until("no load", func() bool { return len(f.fake.Received()) > 100 })

	// In good order: the next one leads at once.
	first.halt()
	first.make()
	second := f.leader()
	if second == first {
		t.Fatal("who stopped leads")
	}
	first.run()
	seen := len(f.fake.Received())
	f.until("the next one delivers nothing", func() bool { return len(f.fake.Received()) > seen+50 })

	// Cut off: it believes itself as long as its hold lasts, and no longer.
	second.road.Set(queuetest.Silent)
	f.until("who is cut off goes on leading", func() bool { return !second.app.core.Load().leads() })
	third := f.leader()
	if third == second {
		t.Error("who is cut off leads")
	}
	if err := second.app.core.Load().ledger.Do(t.Context(), func(tx *store.Tx) { tx.SetPause(nil) }); err == nil {
		t.Error("who is cut off changed the ledger")
	}
	seen = len(f.fake.Received())
	f.until("the third one delivers nothing", func() bool { return len(f.fake.Received()) > seen+50 })
	second.road.Set(queuetest.Passing)
	f.until("who was cut off does not follow", func() bool {
		s := second.status()
		return s.Cluster != nil && s.Cluster.Role == "follower" && s.Cluster.Leader == third.cfg.Instance && s.Cluster.Behind != nil && *s.Cluster.Behind < 100
	})
	stop()
	if again := f.check(); again > 2*16 {
		t.Errorf("%d came twice", again)
	}
	f.same()
}

// A server of the cluster dies, the one that led LEDGER: webhooks wait for the election,
// nothing is lost, and who led goes on leading or is taken over from.
func TestAServerOfTheClusterDies(t *testing.T) {
	if testing.Short() {
		t.Skip("a cluster takes its time to elect")
	}
	t.Parallel()
	servers := three(t)
	f := newFleet(t, 2, servers...)
	defer func() {
		for _, r := range f.all {
			r.halt()
		}
	}()
	f.leader()
	stop := f.load(4)
	f.until("no load", func() bool { return len(f.fake.Received()) > 30 })
	for _, s := range servers {
		if s.JetStreamIsStreamLeader("$G", "LEDGER") {
			s.Shutdown()
			break
		}
	}
	seen := len(f.fake.Received())
	f.until("nothing is delivered without one of three servers", func() bool { return len(f.fake.Received()) > seen+30 })
	stop()
	f.check()
	f.same()
}

// newPair is who leads and who follows; one event, which the follower took, is delivered.
func newPair(t *testing.T) (f *fleet, leads, follows *forwarder) {
	t.Helper()
	f = newFleet(t, 2)
	t.Cleanup(func() {
		for _, r := range f.all {
			r.halt()
		}
	})
	leads, follows = f.roles()
	follows.accept(group(mysqlDown(1, "firing", time.Now())))
	f.until("it is not delivered", func() bool { return len(f.fake.Received()) == 1 && leads.status().Delivered == 1 })
	f.same()
	return f, leads, follows
}

// roles waits until one of two leads.
func (f *fleet) roles() (leads, follows *forwarder) {
	f.t.Helper()
	leads, follows = f.leader(), f.all[0]
	if follows == leads {
		follows = f.all[1]
	}
	return leads, follows
}

// What changes something is for the leader; everybody shows the same.
func TestAFollowerSaysWhoLeads(t *testing.T) {
	t.Parallel()
	f, leads, follows := newPair(t)
	f.until("nobody announces itself", func() bool {
		c := follows.status().Cluster
		return c.Leader == leads.cfg.Instance && len(c.Instances) == 2
	})
	want := "ask instance " + leads.cfg.Instance + ", which leads"
	id := follows.events(event.Filter{})[0].ID
	for name, err := range map[string]error{
		"pause":  follows.app.Pause(t.Context(), store.Pause{By: "socket", Reason: "x"}),
		"park":   follows.app.ParkEvent(t.Context(), id, "socket"),
		"close":  follows.app.CloseIncident(t.Context(), follows.events(event.Filter{})[0].Key, "socket"),
		"replay": second(follows.app.Replay(t.Context(), admin.ReplayRequest{})),
		"drop":   second(follows.app.DropDeadLetters(t.Context(), admin.ReplayRequest{})),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if p, err := follows.app.Replay(t.Context(), admin.ReplayRequest{DryRun: true}); err != nil || p.Events != 1 {
		t.Errorf("a plan: %+v, %v", p, err)
	}
}

// An operator need not know who leads: what a follower is asked happens once, at the
// leader, in the operator's name.
func TestAFollowerBringsActsToTheLeader(t *testing.T) {
	t.Parallel()
	f, leads, follows := newPair(t)
	ask := func(method, path, want string) {
		t.Helper()
		r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
		r.Header.Set(admin.Intent, "1")
		w := httptest.NewRecorder()
		follows.app.operators.ServeHTTP(w, r)
		if got := fmt.Sprint(w.Code, " ", w.Body); !strings.Contains(got, want) {
			t.Errorf("%s %s: %s", method, path, got)
		}
	}
	ask(http.MethodPost, "/api/v1/pause?until=yesterday", "400 ")
	ask(http.MethodPost, "/api/v1/events/nothing/park", "404 ")
	ask(http.MethodPost, "/api/v1/pause?reason=x", "200 ")
	by := "somebody from 192.0.2.1 through instance " + follows.cfg.Instance
	f.until("the leader does not pause", func() bool { return leads.status().Pause != nil })
	if p := leads.status().Pause; p.By != by || p.Reason != "x" {
		t.Errorf("the pause at the leader: %+v", p)
	}
	ask(http.MethodPost, "/resume", "303 ")
	ask(http.MethodPost, "/api/v1/replay?all=true", `"job":1`)
	ask(http.MethodGet, "/api/v1/replay/1", `"total":1`)
	f.until("it does not go out again", func() bool { return len(f.fake.Received()) == 2 })
	leads.halt()
	leads.make()
	f.until("the other one does not lead", follows.app.core.Load().leads)
	ask(http.MethodPost, "/api/v1/pause", "200 ")
	leads.run()
}

func second[T any](_ T, err error) error { return err }

// What a process that was frozen finds in its sockets is old: the first webhook of them
// may be looked at before anything else runs again.
func TestTheFirstWebhookAfterAFreezeIsRefused(t *testing.T) {
	a := &App{}
	before := time.Now().Add(-frozenAfter - time.Second)
	a.ticked.Store(&before)
	if _, err := a.Publish(t.Context(), ingest.Notification{}); err == nil || !strings.Contains(err.Error(), "was frozen") {
		t.Errorf("it was answered with %v", err)
	}
}
