package faulttest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/cli"
	"pmm-callgoose/worker/callgoose/callgoosetest"
)

const programName = "pmm-callgoose"

// TestMain is the program itself when it is called by its name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == programName {
		os.Exit(cli.Main(os.Args, os.Environ(), os.Stdout, os.Stderr))
	}
	_ = flag.Set("test.parallel", "8") // they wait more than they compute
	os.Exit(m.Run())
}

const token = "f4ult-test-t0ken"

// patience is how long anything may take that a test waits for.
const patience = 60 * time.Second

// inSuite skips what takes long, where neither races nor faults are looked for.
func inSuite(t *testing.T) {
	t.Helper()
	if !suite {
		t.Skip("takes long: task test:fault")
	}
}

// number reads one of the variables that lengthen a run.
func number(t *testing.T, name string, usual int) int {
	v := os.Getenv(name)
	if v == "" {
		return usual
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatalf("%s=%q is not a number", name, v)
	}
	return n
}

// random returns the dice of a test and prints their seed.
func random(t *testing.T) *rand.Rand {
	seed := uint64(number(t, "PMM_CALLGOOSE_FAULT_SEED", int(time.Now().UnixNano()&0x7fffffff)))
	t.Logf("seed: PMM_CALLGOOSE_FAULT_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// between is a random duration.
func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(r.Int64N(int64(most-least)+1))
}

// rig is a forwarder in a process of its own, and a fake Callgoose in ours.
type rig struct {
	t      *testing.T
	fake   *callgoosetest.Fake
	server *callgoosetest.Server
	dir    string // holds the data directory, the token and the log
	data   string
	name   string   // of the program
	flags  []string // of serve, besides the usual
	before []string // what the program is run under
	env    []string // of the program, besides the usual

	url   atomic.Pointer[string] // where webhooks go, of the latest start
	admin atomic.Pointer[string] // likewise, where operators ask
	byURL bool                   // ask there, because the socket is lost
	power atomic.Int64           // odd: a power cut has begun and the machine is off
	dead  atomic.Bool            // the disk refuses everything by now
	cmd   *exec.Cmd              // nil = not running; owned by the goroutine of the test
	ready chan bool              // closed once it printed its line or ended
}

func newRig(t *testing.T, flags ...string) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), flags: flags, fake: callgoosetest.New(callgoosetest.Config{Tokens: []string{token}, KeepBodies: true})}
	r.data = filepath.Join(r.dir, "data")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r.name = filepath.Join(r.dir, programName)
	if err := os.Symlink(self, r.name); err != nil {
		t.Fatal(err)
	}
	if r.server, err = r.fake.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	r.writeToken(token)
	t.Cleanup(func() {
		r.kill()
		_ = r.server.Close()
		log, _ := os.ReadFile(r.logPath())
		if t.Failed() {
			lines := slices.DeleteFunc(slices.Collect(bytes.Lines(log)), func(line []byte) bool {
				return bytes.Contains(line, []byte("webhook refused")) // thousands, all alike
			})
			t.Logf("the end of the log:\n%s", bytes.Join(lines[max(0, len(lines)-20):], nil))
		}
		if bytes.Contains(log, []byte("DATA RACE")) {
			t.Errorf("a race in the program:\n%s", log[bytes.Index(log, []byte("DATA RACE")):])
		}
		if bytes.Contains(log, []byte(token)) {
			t.Error("the token stands in the log")
		}
	})
	return r
}

func (r *rig) logPath() string { return filepath.Join(r.dir, "log") }

func (r *rig) writeToken(token string) {
	r.t.Helper()
	path := filepath.Join(r.dir, "token")
	if err := os.WriteFile(path+".new", []byte(token+"\n"), 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		r.t.Fatal(err)
	}
}

var readyLine = regexp.MustCompile(`webhooks (\S+), operators (\S+)`)

// launch starts the process and does not wait for it.
func (r *rig) launch() {
	r.t.Helper()
	args := append(append([]string{}, r.before...), r.name,
		"serve", "--data-dir", r.data, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
		"--callgoose-url", r.server.URL(), "--callgoose-token-file", filepath.Join(r.dir, "token"),
		"--retry-min", "20ms", "--retry-max", "200ms", "--log-level", "warn", "--min-free", "off")
	args = append(args, r.flags...)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.dir, "CONFIGURATION_DIRECTORY=" + r.dir, "GORACE=" + os.Getenv("GORACE"), "GOCOVERDIR=" + os.Getenv("GOCOVERDIR")}
	cmd.Env = append(cmd.Env, r.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.OpenFile(r.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	ready := make(chan bool)
	r.cmd, r.ready = cmd, ready
	go func() {
		defer close(ready)
		line, _ := bufio.NewReader(out).ReadString('\n')
		if m := readyLine.FindStringSubmatch(line); m != nil {
			r.admin.Store(&m[2])
			r.url.Store(&m[1])
		}
	}()
}

// start starts the process and waits until it is ready.
func (r *rig) start() {
	r.t.Helper()
	r.launch()
	r.awaitReady()
}

func (r *rig) awaitReady() {
	r.t.Helper()
	select {
	case <-r.ready:
	case <-time.After(patience):
	}
	if r.url.Load() == nil {
		r.t.Fatal("serve did not become ready")
	}
}

// kill is kill -9.
func (r *rig) kill() {
	if r.cmd == nil {
		return
	}
	r.url.Store(nil) // its port may be another's from now on
	_ = r.cmd.Process.Kill()
	<-r.ready
	_ = r.cmd.Wait()
	r.cmd = nil
	r.url.Store(nil)
}

// awaitDeath waits until the process has killed itself, as it was told to.
func (r *rig) awaitDeath() {
	r.t.Helper()
	cmd, ended := r.cmd, make(chan struct{})
	go func() { <-r.ready; _ = cmd.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(patience):
		r.t.Errorf("%v: not reached within %s", r.env, patience)
		_ = cmd.Process.Kill()
		<-ended
	}
	r.url.Store(nil)
	r.cmd = nil
	if s, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !s.Signaled() || s.Signal() != syscall.SIGKILL {
		r.t.Fatalf("%v: ended with %v", r.env, cmd.ProcessState)
	}
}

// stop is SIGTERM, and demands an orderly end.
func (r *rig) stop() {
	r.t.Helper()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		r.t.Fatal(err)
	}
	<-r.ready
	err := r.cmd.Wait()
	r.cmd = nil
	if err != nil {
		r.t.Errorf("serve ended with: %v", err)
	}
}

func (r *rig) status() (admin.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := admin.NewSocketClient(r.data)
	if r.byURL {
		var err error
		if c, err = admin.NewURLClient(*r.admin.Load(), "", ""); err != nil {
			return admin.Status{}, err
		}
	}
	return c.Status(ctx)
}

// until waits for a state.
func (r *rig) until(what string, ok func(admin.Status) bool) {
	r.t.Helper()
	var last admin.Status
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if last, err = r.status(); err == nil && ok(last) {
			return
		}
	}
	r.t.Fatalf("not %s: %+v, %v", what, last, err)
}

// settle waits until everything in book has arrived and nothing waits.
func (r *rig) settle(b *book) {
	r.t.Helper()
	for end := time.Now().Add(patience); r.fake.Stats().Events < b.len() && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	r.until("settled", func(s admin.Status) bool { return s.Queued == 0 && s.InFlight == 0 })
}

// mark is one state of one alert: the body carries it as the summary.
type mark struct {
	key int // of the alert
	n   int // counts the states of this key: even is firing, odd is resolved
}

func (m mark) String() string { return fmt.Sprintf("%d/%d", m.key, m.n) }

// book remembers what was answered 202.
type book struct {
	mu       sync.Mutex
	accepted []mark // in order, within each key
}

func (b *book) add(ms []mark) {
	b.mu.Lock()
	b.accepted = append(b.accepted, ms...)
	b.mu.Unlock()
}

func (b *book) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.accepted)
}

// load is 16 senders, each with incident keys of its own, each waiting for the
// 202 before it goes on, and sending again what was not answered, as PMM does.
type load struct {
	book    book
	stop    context.CancelFunc
	senders sync.WaitGroup
	repeats atomic.Int64
	refused atomic.Int64
}

const (
	senders   = 16
	keysEach  = 3
	longAgo   = 30 * 24 * time.Hour
	episodes  = 10 * time.Minute // between two episodes of a key: more than counts as the same
	sendGives = 2 * time.Second  // as PMM, less patient
)

// startLoad sends until the context of the load ends; then each sender has
// the recoveries of what it left firing accepted, and ends.
func (r *rig) startLoad(dice *rand.Rand) *load {
	l := &load{}
	var ctx context.Context
	ctx, l.stop = context.WithCancel(context.Background())
	origin := time.Now().Add(-longAgo).UTC().Truncate(time.Second)
	client := &http.Client{Timeout: sendGives, Transport: &http.Transport{MaxIdleConnsPerHost: senders}}
	r.t.Cleanup(l.stop)
	for i := range senders {
		own := rand.New(rand.NewPCG(dice.Uint64(), uint64(i)))
		l.senders.Go(func() {
			next := make([]int, keysEach) // the next state of each own key
			send := func(keys []int) bool {
				var ms []mark
				for _, k := range keys {
					ms = append(ms, mark{i*keysEach + k, next[k]})
					next[k]++
				}
				if !l.post(r, client, body(ms, origin)) {
					return false
				}
				l.book.add(ms)
				return true
			}
			for ctx.Err() == nil {
				keys := own.Perm(keysEach)[:1+own.IntN(keysEach)]
				if !send(keys) {
					return
				}
				time.Sleep(between(own, 0, 40*time.Millisecond))
			}
			for k, n := range next {
				if n%2 == 1 && !send([]int{k}) {
					return
				}
			}
		})
	}
	return l
}

// finish ends the load. The service must be running.
func (l *load) finish() {
	l.stop()
	l.senders.Wait()
}

// post sends a body until it is answered 202. Without a service it waits.
func (l *load) post(r *rig, client *http.Client, body []byte) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		url := r.url.Load()
		if url == nil {
			continue
		}
		power, dead := r.power.Load(), r.dead.Load()
		resp, err := client.Post(*url, "application/json", bytes.NewReader(body))
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusAccepted {
				if dead {
					r.t.Error("a webhook was answered 202 although the disk was dead")
					return false
				}
				if power == r.power.Load() && power%2 == 0 {
					return true
				}
				l.repeats.Add(1) // nobody hears an answer without power
				continue
			}
			l.refused.Add(1)
			if resp.StatusCode != http.StatusServiceUnavailable {
				r.t.Errorf("a webhook was answered %d", resp.StatusCode)
				return false
			}
		}
		l.repeats.Add(1)
	}
	r.t.Errorf("a webhook was not accepted within %s", patience)
	return false
}

func body(ms []mark, origin time.Time) []byte {
	type alert struct {
		Status      string            `json:"status"`
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
		StartsAt    time.Time         `json:"startsAt"`
		EndsAt      time.Time         `json:"endsAt"`
	}
	var alerts []alert
	group := "resolved"
	for _, m := range ms {
		a := alert{
			Status: "firing", Annotations: map[string]string{"summary": m.String()},
			Labels:   map[string]string{"alertname": "Fault", "severity": "critical", "instance": fmt.Sprintf("db-%03d", m.key)},
			StartsAt: origin.Add(time.Duration(m.n/2) * episodes),
		}
		if m.n%2 == 1 {
			a.Status, a.EndsAt = "resolved", a.StartsAt.Add(episodes/2)
		} else {
			group = "firing"
		}
		alerts = append(alerts, a)
	}
	b, err := json.Marshal(map[string]any{"version": "4", "status": group, "groupKey": `{}:{alertname="Fault"}`, "alerts": alerts})
	if err != nil {
		panic(err)
	}
	return b
}

// arrived are the states that Callgoose accepted at least once.
func (r *rig) arrived() map[mark]bool {
	out := map[mark]bool{}
	for _, q := range r.fake.Received() {
		var in struct {
			Alerts []struct{ Annotations map[string]string }
		}
		var m mark
		if !q.Accepted() || json.Unmarshal(q.Body, &in) != nil || len(in.Alerts) != 1 {
			continue
		}
		if _, err := fmt.Sscanf(in.Alerts[0].Annotations["summary"], "%d/%d", &m.key, &m.n); err == nil {
			out[m] = true
		}
	}
	return out
}

// account compares what arrived with the book. It demands that nothing is
// missing, invented, changed or overtaken and that no incident is open; it
// returns how many requests were accepted again.
func (r *rig) account(b *book) (again int) {
	r.t.Helper()
	first := map[mark]int{} // when it was accepted first
	bodies := map[string][]byte{}
	for i, q := range r.fake.Received() {
		if !q.Accepted() {
			continue
		}
		var in struct {
			Alerts []struct{ Annotations map[string]string }
		}
		var m mark
		if err := json.Unmarshal(q.Body, &in); err != nil || len(in.Alerts) != 1 {
			r.t.Fatalf("not one alert: %s", q.Body)
		}
		if _, err := fmt.Sscanf(in.Alerts[0].Annotations["summary"], "%d/%d", &m.key, &m.n); err != nil {
			r.t.Fatalf("not our alert: %s", q.Body)
		}
		if old, ok := bodies[q.EventID]; ok && !bytes.Equal(old, q.Body) {
			r.t.Errorf("event %s (%s) changed:\n%s\n%s", q.EventID, m, old, q.Body)
		}
		bodies[q.EventID] = q.Body
		if _, ok := first[m]; ok {
			again++
			continue
		}
		first[m] = i
	}
	missing, overtaken := 0, 0
	latest := map[int]int{} // by key: the latest of the first acceptances
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.accepted {
		at, ok := first[m]
		switch {
		case !ok:
			if missing++; missing <= 5 {
				r.t.Errorf("%s was answered 202 and never arrived", m)
			}
			continue
		case at < latest[m.key]:
			if overtaken++; overtaken <= 5 {
				r.t.Errorf("%s was overtaken", m)
			}
		}
		latest[m.key] = max(latest[m.key], at)
	}
	if len(first)+missing != len(b.accepted) || len(bodies) != len(first) {
		r.t.Errorf("%d states answered 202, %d of them missing, but %d arrived under %d ids", len(b.accepted), missing, len(first), len(bodies))
	}
	if open := r.fake.Open(); len(open) > 0 {
		r.t.Errorf("%d incidents are left open, the first is %+v", len(open), open[0])
	}
	r.t.Logf("%d alerts answered 202: missing %d, overtaken %d, accepted again %d", len(b.accepted), missing, overtaken, again)
	return again
}
