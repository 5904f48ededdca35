package clustertest

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pmm-callgoose/store/queue/queuetest"
)

// The tests of the test: with one check left out, the same must be found wrong that with
// the check is found right.

// Where any replica may answer a read, and its "not found" is believed, accepted alerts
// are lost without any fault.
func TestStaleReadsWouldBeNoticed(t *testing.T) {
	wanted(t)
	c := newCluster(t, 1, "leader reads")
	l := c.startLoad(rand.New(rand.NewPCG(1, 1)))
	time.Sleep(min(given.during, time.Minute)) // half of it lost three of 1,614
	a := l.finish(5 * time.Second)
	t.Log(a)
	if len(a.missing) == 0 {
		t.Error("nothing is missing although reads are stale: this test cannot see what it is there for")
	}
}

func mutations(t *testing.T) {
	t.Helper()
	if wanted(t); !given.mutations {
		t.Skip("leaving out checks takes minutes: give -mutations too")
	}
}

// goneBy waits until another forwarder than f leads and every alert has gone on twice.
func (c *cluster) goneBy(f *forwarder) {
	c.t.Helper()
	c.await("another forwarder leads", func() bool { l := c.leader(); return l != nil && l != f })
	at := c.sink.reached()
	c.await("every alert goes on", func() bool {
		now := c.sink.reached()
		for key, m := range at {
			if now[key].n < m.n+2 {
				return false
			}
		}
		return true
	})
}

// A leader is frozen in the line before it sends, until another one leads and has sent the
// same and more. It continues: nothing of it goes out any more.
func TestAFrozenLeaderSendsNothing(t *testing.T) {
	mutations(t)
	for _, without := range []string{"", "hold"} {
		t.Run("without "+without, func(t *testing.T) {
			c := newCluster(t, 2, without)
			l := c.startLoad(rand.New(rand.NewPCG(2, 2)))
			c.await("there is a load", func() bool { return len(c.sink.reached()) == keys })
			for range 2 {
				f := c.leader()
				if f == nil || !c.at("freeze", "claimed", take, func() {}) {
					t.Fatal("no leader was frozen")
				}
				url := f.url.Swap(nil)
				c.goneBy(f)
				f.signal(syscall.SIGCONT)
				f.url.Store(url)
				c.await("it follows", func() bool { return f.role() == "follower" })
			}
			a := l.finish(time.Minute)
			t.Log(a)
			if found := len(a.stale) > 0; found != (without != "") {
				t.Errorf("%d were delivered again behind a later one", len(a.stale))
			}
		})
	}
}

// The only server that a leader reaches freezes, with a decision on its way to LEDGER. Another
// one leads, decides the same and goes on. Then the server continues: it must not store what
// it has.
func TestAnAppendThatHangsIsRefused(t *testing.T) {
	mutations(t)
	for _, without := range []string{"", "log fence"} {
		t.Run("without "+without, func(t *testing.T) {
			c := newCluster(t, 2, without)
			c.await("the servers are whole", c.whole)
			l := c.newLoad()
			found := false
			for n := 0; n < 16 && !found && !t.Failed(); n += 4 { // the servers may lose what hangs
				found = !c.hang(l, n) || c.sink.stales() > 0
				t.Logf("after %d transitions: found %v", n+4, found)
			}
			a := l.finish(time.Second)
			t.Log(a)
			if found != (without != "") {
				t.Errorf("missing %v, behind a later one %v", a.missing, a.stale)
			}
		})
	}
}

// hang makes a decision of the leader arrive when another one leads, among four transitions
// from n on. It reports whether the last of them arrives.
func (c *cluster) hang(l *load, n int) bool {
	c.t.Helper()
	origin := time.Now().Add(-24 * time.Hour).UTC()
	tell := func(n int) { l.accept(mark{0, n}, origin) }
	arrived := func(n int) bool { m, ok := c.sink.reached()[0]; return ok && m.n >= n }
	tell(n)
	c.await("the first transition arrives", func() bool { return arrived(n) })
	f := c.leader()
	leads := []string{c.streamLeader("LEDGER"), c.streamLeader("NOTIFICATIONS")}
	only := slices.IndexFunc(c.servers, func(s *server) bool { return !slices.Contains(leads, s.name) }) // it passes on what it is given
	for i, p := range f.nats {
		if i != only {
			p.Set(queuetest.Cut)
		}
	}
	url := f.url.Swap(nil)
	if !c.at("freeze", "log-appended", take, func() {}) { // nothing is under way now
		c.t.Fatal("nothing is appended")
	}
	tell(n + 1)
	time.Sleep(time.Second / 4) // the server gives it to the leader
	c.servers[only].signal(syscall.SIGSTOP)
	f.signal(syscall.SIGCONT) // it decides
	c.await("the next one delivers", func() bool { return arrived(n + 1) })
	tell(n + 2)
	c.await("the next one goes on", func() bool { return arrived(n + 2) })
	c.servers[only].signal(syscall.SIGCONT)
	c.await("all is whole", func() bool { return f.role() == "follower" && c.whole() })
	tell(n + 3)
	for _, p := range f.nats {
		p.Set(queuetest.Passing)
	}
	f.url.Store(url)
	for end := time.Now().Add(2 * take); !arrived(n+3) && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	return arrived(n + 3)
}

// Ordinary tests that must fail without the check that they are about.
func TestTheFencesAreTested(t *testing.T) {
	mutations(t)
	for test, without := range map[string]string{
		"TestADeposedLeaderCannotAppend":            "log fence",
		"TestWhatArrivesAfterItWasGivenUpIsRefused": "subject fence",
	} {
		for _, check := range []string{"", without} {
			cmd := exec.CommandContext(t.Context(), "go", "test", "-tags", "faultpoint", "-count=1", "-run", "^"+test+"$", "pmm-callgoose/store/queue")
			cmd.Env = append(os.Environ(), "FAULTPOINT_WITHOUT="+check)
			out, err := cmd.CombinedOutput()
			if failed := err != nil && strings.Contains(string(out), "--- FAIL: "+test); failed != (check != "") || err != nil && !failed {
				t.Errorf("%s without %q: %v\n%s", test, check, err, out)
			}
		}
	}
}
