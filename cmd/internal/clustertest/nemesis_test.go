package clustertest

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pmm-callgoose/store/queue/queuetest"
)

var given struct {
	during     time.Duration
	mutations  bool
	forwarders int
	seed       uint64
	only       string
}

func TestMain(m *testing.M) {
	flag.DurationVar(&given.during, "cluster", 0, "break a cluster for this `duration`; without it every test here is skipped")
	flag.BoolVar(&given.mutations, "mutations", false, "leave out one check after the other, to see that it is noticed: five minutes")
	flag.IntVar(&given.forwarders, "forwarders", 1, "how many forwarders share the cluster")
	flag.Uint64Var(&given.seed, "seed", 0, "repeats the choices of a run; 0 = a new one")
	flag.StringVar(&given.only, "only", "", "faults whose `name` contains this")
	flag.Parse()
	os.Exit(m.Run())
}

// few is the beginning of a list.
func few(list []mark) string {
	return fmt.Sprint(list[:min(len(list), 10)])
}

func wanted(t *testing.T) {
	t.Helper()
	if given.during <= 0 {
		t.Skip("breaking a cluster takes minutes: give -args -cluster 3m")
	}
}

// The times of several forwarders: how long a leader believes itself, and how long
// the others wait before one takes over.
const (
	hold = 11 * time.Second
	take = 13 * time.Second
)

// maxAgain bounds the events that may be delivered again after one fault: those
// sent whose outcome was not stored.
const maxAgain = 32

// fault breaks something, waits, and heals it.
type fault struct {
	name string
	run  func(c *cluster, dice *rand.Rand)
}

// between is a random duration.
func between(dice *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(dice.Int64N(int64(most-least)+1))
}

// ofServers breaks one server.
var ofServers = []fault{
	{"server: kill -9", func(c *cluster, dice *rand.Rand) {
		s := c.servers[dice.IntN(len(c.servers))]
		s.end(syscall.SIGKILL)
		time.Sleep(between(dice, 0, take))
		s.start()
	}},
	{"server: restart", func(c *cluster, dice *rand.Rand) {
		s := c.servers[dice.IntN(len(c.servers))]
		s.end(syscall.SIGTERM)
		s.start()
	}},
	{"server: frozen", func(c *cluster, dice *rand.Rand) {
		s := c.servers[dice.IntN(len(c.servers))]
		s.signal(syscall.SIGSTOP)
		time.Sleep(between(dice, 2*time.Second, take+2*time.Second))
		s.signal(syscall.SIGCONT)
	}},
	{"server: cut from the others", func(c *cluster, dice *rand.Rand) {
		c.isolate(dice, queuetest.Cut)
	}},
	{"server: half-open to the others", func(c *cluster, dice *rand.Rand) {
		c.isolate(dice, queuetest.Silent)
	}},
}

// isolate breaks the routes of one server, in both directions.
func (c *cluster) isolate(dice *rand.Rand, m queuetest.Mode) {
	i := dice.IntN(len(c.servers))
	set := func(m queuetest.Mode) {
		for j, s := range c.servers {
			for k, p := range s.routes {
				to := k
				if k >= j { // a server has no route to itself
					to++
				}
				if j == i || to == i {
					p.Set(m)
				}
			}
		}
	}
	set(m)
	time.Sleep(between(dice, 2*time.Second, take+2*time.Second))
	set(queuetest.Passing)
}

// ofForwarders breaks one forwarder, or what it is connected to.
var ofForwarders = []fault{
	{"forwarder: kill -9", func(c *cluster, dice *rand.Rand) {
		f := c.forwarders[dice.IntN(len(c.forwarders))]
		f.kill()
		time.Sleep(between(dice, 0, 2*time.Second))
		f.start()
	}},
	{"forwarder: restart", func(c *cluster, dice *rand.Rand) {
		c.forwarders[dice.IntN(len(c.forwarders))].restart()
	}},
	{"forwarder: frozen, longer than the hold", freeze(hold + time.Second)},
	{"forwarder: frozen, longer than a take-over", freeze(take + 3*time.Second)},
	{"forwarder: cut from NATS", func(c *cluster, dice *rand.Rand) { broken(c, dice, queuetest.Cut, (*forwarder).toNATS) }},
	{"forwarder: half-open to NATS", func(c *cluster, dice *rand.Rand) { broken(c, dice, queuetest.Silent, (*forwarder).toNATS) }},
	{"forwarder: cut from Callgoose", func(c *cluster, dice *rand.Rand) { broken(c, dice, queuetest.Cut, (*forwarder).toSink) }},
	{halfOpenToSink, func(c *cluster, dice *rand.Rand) { broken(c, dice, queuetest.Silent, (*forwarder).toSink) }},
	{"forwarder: slow to NATS", func(c *cluster, dice *rand.Rand) {
		f := c.forwarders[dice.IntN(len(c.forwarders))]
		for _, p := range f.nats {
			p.Delay.Store(int64(between(dice, 20*time.Millisecond, 300*time.Millisecond)))
		}
		time.Sleep(between(dice, 5*time.Second, take))
		for _, p := range f.nats {
			p.Delay.Store(0)
		}
	}},
}

// steps are the moments at which a forwarder dies, and what brings one of them there; nil
// when the load does.
var steps = map[string]func(c *cluster){
	"claimed": nil, "log-appended": nil, "log-committed": nil, "snapshot-piece": nil,
	"took-over": func(c *cluster) {
		if f := c.leader(); f != nil {
			f.restart()
		}
	},
}

func init() {
	for _, step := range slices.Sorted(maps.Keys(steps)) {
		ofForwarders = append(ofForwarders, fault{"forwarder: dies at " + step, func(c *cluster, _ *rand.Rand) {
			if !c.at("kill", step, 2*take, func() {
				if bring := steps[step]; bring != nil {
					bring(c)
				}
			}) {
				c.t.Logf("nobody came to %s within %s", step, 2*take)
			}
		}})
	}
}

func (f *forwarder) toNATS() []*queuetest.Proxy { return f.nats }
func (f *forwarder) toSink() []*queuetest.Proxy { return []*queuetest.Proxy{f.sink} }

// restart stops it in good order, and starts it again.
func (f *forwarder) restart() {
	f.url.Store(nil)
	f.end(syscall.SIGTERM)
	f.start()
}

// kill is kill -9.
func (f *forwarder) kill() {
	f.url.Store(nil)
	f.end(syscall.SIGKILL)
	f.url.Store(nil) // what it printed meanwhile
}

func broken(c *cluster, dice *rand.Rand, m queuetest.Mode, of func(*forwarder) []*queuetest.Proxy) {
	f := c.forwarders[dice.IntN(len(c.forwarders))]
	for _, p := range of(f) {
		p.Set(m)
	}
	time.Sleep(between(dice, 2*time.Second, take+3*time.Second))
	for _, p := range of(f) {
		p.Set(queuetest.Passing)
	}
}

func freeze(d time.Duration) func(*cluster, *rand.Rand) {
	return func(c *cluster, dice *rand.Rand) {
		f := c.forwarders[dice.IntN(len(c.forwarders))]
		f.signal(syscall.SIGSTOP)
		time.Sleep(d)
		f.signal(syscall.SIGCONT)
	}
}

const (
	diskOfForwarder = "forwarder: disk emptied"
	halfOpenToSink  = "forwarder: half-open to Callgoose" // what hangs there arrives late, and nobody can take it back
)

// ofAll are never combined with another one.
var ofAll = []fault{
	{"server: disk emptied", func(c *cluster, dice *rand.Rand) {
		s := c.servers[dice.IntN(len(c.servers))]
		s.end(syscall.SIGKILL)
		if err := os.RemoveAll(s.dir); err != nil {
			c.t.Error(err)
		}
		time.Sleep(2 * time.Second) // the others have caught up with each other
		s.start()
	}},
	{diskOfForwarder, func(c *cluster, dice *rand.Rand) {
		f := c.forwarders[dice.IntN(len(c.forwarders))]
		f.kill()
		if err := os.RemoveAll(f.data); err != nil {
			c.t.Error(err)
		}
		f.start()
	}},
	{"all: kill -9 at once", func(c *cluster, dice *rand.Rand) {
		for _, s := range c.servers {
			s.signal(syscall.SIGKILL)
		}
		for _, f := range c.forwarders {
			f.kill()
		}
		for _, s := range c.servers {
			s.end(syscall.SIGKILL)
			time.Sleep(between(dice, 0, time.Second))
			s.start()
		}
		for _, f := range c.forwarders {
			f.start()
		}
	}},
	{"all: restart", func(c *cluster, _ *rand.Rand) {
		for _, s := range c.servers {
			s.end(syscall.SIGTERM)
			s.start()
			c.await("the servers are whole", c.whole)
		}
		for _, f := range c.forwarders {
			f.restart()
		}
	}},
}

// supervise starts a forwarder again that has ended by itself.
func (c *cluster) supervise() {
	for _, f := range c.forwarders {
		if f.cmd == nil {
			continue
		}
		select {
		case <-f.read:
			_ = f.cmd.Wait()
			c.t.Logf("%s ended by itself: %s", f.name, f.tail(2))
			f.url.Store(nil)
			time.Sleep(time.Second)
			f.start()
		default:
		}
	}
}

// healthy waits until everything runs again.
func (c *cluster) healthy() {
	c.t.Helper()
	c.await("servers and forwarders are whole", func() bool {
		c.supervise()
		return c.whole() && !slices.ContainsFunc(c.forwarders, func(f *forwarder) bool { return f.url.Load() == nil })
	})
}

// strike breaks the next thing of the deck; a quarter of the time a forwarder and a
// server at once.
func (c *cluster) strike(dice *rand.Rand, deck *[]fault) []fault {
	if len(*deck) == 0 { // each comes once before any comes again
		*deck = slices.DeleteFunc(slices.Concat(ofServers, ofForwarders, ofAll), func(f fault) bool { return !strings.Contains(f.name, given.only) })
		dice.Shuffle(len(*deck), func(i, j int) { (*deck)[i], (*deck)[j] = (*deck)[j], (*deck)[i] })
	}
	f := (*deck)[0]
	*deck = (*deck)[1:]
	among := func(list []fault) bool {
		return slices.ContainsFunc(list, func(o fault) bool { return o.name == f.name })
	}
	struck := []fault{f}
	if given.only == "" && among(ofForwarders) && dice.IntN(4) == 0 {
		struck = append(struck, ofServers[dice.IntN(len(ofServers))])
	}
	var names []string
	var wg sync.WaitGroup
	for _, f := range struck {
		names = append(names, f.name)
		own := rand.New(rand.NewPCG(dice.Uint64(), 0))
		wg.Go(func() { f.run(c, own) })
	}
	began := time.Now()
	wg.Wait()
	c.t.Logf("%s (%s)", strings.Join(names, ", and "), time.Since(began).Round(time.Second))
	return struck
}

// TestNothingIsLostWhateverBreaks breaks one thing after the other, or two at once.
func TestNothingIsLostWhateverBreaks(t *testing.T) {
	wanted(t)
	seed := given.seed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("repeat with -args -cluster %s -forwarders %d -seed %d", given.during, given.forwarders, seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	c := newCluster(t, given.forwarders, "")
	c.await("the servers are whole", c.whole)
	l := c.startLoad(dice)
	counts, allowed := map[string]int{}, 0
	var deck []fault
	for end := time.Now().Add(given.during); time.Now().Before(end) && !t.Failed(); {
		stale, mayBe := c.sink.stales(), false
		for _, f := range c.strike(dice, &deck) {
			counts[f.name]++
			allowed += maxAgain
			mayBe = mayBe || f.name == halfOpenToSink
			if f.name == diskOfForwarder { // what was settled within the last minute goes out again
				allowed += c.sink.since(90 * time.Second)
			}
		}
		c.healthy()
		time.Sleep(between(dice, time.Second, 5*time.Second))
		if n := c.sink.stales() - stale; n > 0 && !mayBe {
			t.Errorf("%d delivered again behind a later one", n)
		}
	}
	c.healthy()
	a := l.finish(time.Minute)
	for _, f := range c.forwarders {
		c.await(f.name+" has nothing left", f.settled)
	}
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("%4d x %s", counts[name], name)
	}
	t.Log(a)
	if a.wrong() {
		t.Errorf("missing %v, overtaken %v, arrived without being accepted %v, %d incidents left open", few(a.missing), few(a.overtaken), few(a.invented), len(a.opened))
	}
	if a.again > allowed {
		t.Errorf("%d delivered again, more than %d for these faults", a.again, allowed)
	}
}
