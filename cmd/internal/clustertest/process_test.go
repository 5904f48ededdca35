package clustertest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store/queue/queuetest"
)

const (
	token    = "clust3r-test-t0ken"
	patience = 2 * time.Minute // for what the test waits for
)

// process is a child that is stopped, killed and started again.
type process struct {
	t    *testing.T
	name string
	args []string
	env  []string
	log  string
	line func(string) // gets the first line of its output
	cmd  *exec.Cmd    // nil = not running
	read chan struct{}
}

func (p *process) start() {
	p.t.Helper()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(p.args[0], p.args[1:]...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Dir(p.log)}, p.env...)
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.cmd, p.read = cmd, make(chan struct{})
	go func() {
		defer close(p.read)
		r := bufio.NewReader(out)
		text, _ := r.ReadString('\n')
		if p.line != nil {
			p.line(text)
		}
		_, _ = r.WriteTo(log)
	}()
}

// signal ends the process, or freezes or continues it.
func (p *process) signal(s syscall.Signal) {
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(s)
	}
}

// end sends s and waits until the process is gone.
func (p *process) end(s syscall.Signal) {
	if p.cmd == nil {
		return
	}
	p.signal(s)
	<-p.read
	err := p.cmd.Wait()
	if p.cmd = nil; s == syscall.SIGTERM && err != nil {
		p.t.Logf("%s ended with: %v", p.name, err)
	}
}

// tail is the end of the log, without what is there a thousand times.
func (p *process) tail(n int) string {
	text, _ := os.ReadFile(p.log)
	lines := slices.DeleteFunc(slices.Collect(bytes.Lines(text)), func(l []byte) bool { return bytes.Contains(l, []byte("webhook refused")) })
	return string(bytes.Join(lines[max(0, len(lines)-n):], nil))
}

// server is a NATS server.
type server struct {
	process
	dir    string
	client string // address
	routes []*queuetest.Proxy
}

// forwarder is the program itself.
type forwarder struct {
	process
	data string
	nats []*queuetest.Proxy
	sink *queuetest.Proxy
	url  atomic.Pointer[string] // for webhooks; nil = not running
}

// cluster is all that runs.
type cluster struct {
	t          *testing.T
	servers    []*server
	forwarders []*forwarder
	sink       *sink
	step       string // the file that says where the forwarders die or freeze
}

var readyLine = regexp.MustCompile(`webhooks (\S+)`)

// build makes a program of this module, or of one that go.mod names.
func build(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	cmd := exec.Command("go", append(append([]string{"build", "-o", path}, args[:len(args)-1]...), args[len(args)-1])...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", name, err, out)
	}
	return path
}

// freeAddr is an address that a child can listen on.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// newCluster starts three servers and n forwarders, which lack a check ("" = none).
func newCluster(t *testing.T, n int, without string) *cluster {
	t.Helper()
	dir := t.TempDir()
	c := &cluster{t: t, sink: newSink(t), step: filepath.Join(dir, "step")}
	c.startServers(dir, build(t, dir, "nats-server", "github.com/nats-io/nats-server/v2"))
	program := build(t, dir, "pmm-callgoose", "-tags", "faultpoint", "pmm-callgoose/cmd/pmm-callgoose")
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		c.addForwarder(dir, program, i, []string{"FAULTPOINT_FILE=" + c.step, "FAULTPOINT_WITHOUT=" + without})
	}
	t.Cleanup(c.end)
	c.await("every forwarder is ready", func() bool {
		return !slices.ContainsFunc(c.forwarders, func(f *forwarder) bool { return f.url.Load() == nil })
	})
	return c
}

// startServers makes the servers' files and starts them. A route goes through the
// proxy of its direction only: no address is told to others.
func (c *cluster) startServers(dir, program string) {
	c.t.Helper()
	const servers = 3
	var routes []string // addresses
	for i := range servers {
		s := &server{dir: filepath.Join(dir, fmt.Sprint("nats", i)), client: freeAddr(c.t)}
		config := filepath.Join(dir, fmt.Sprint("nats", i, ".conf"))
		s.process = process{t: c.t, name: fmt.Sprint("n", i), args: []string{program, "-c", config}, log: filepath.Join(dir, fmt.Sprint("nats", i, ".log"))}
		c.servers, routes = append(c.servers, s), append(routes, freeAddr(c.t))
	}
	for i, s := range c.servers {
		var to []string
		for j := range servers {
			if j != i {
				p := queuetest.NewProxy(c.t, routes[j])
				s.routes = append(s.routes, p)
				to = append(to, "nats-route://"+p.Addr())
			}
		}
		text := fmt.Sprintf("server_name: %s\nlisten: %q\njetstream { store_dir: %q, sync_interval: always }\n"+
			"cluster { name: test, listen: %q, advertise: \"127.0.0.1:1\", no_advertise: true, routes: [%s] }\n",
			s.name, s.client, s.dir, routes[i], strings.Join(to, ", "))
		if err := os.WriteFile(s.args[2], []byte(text), 0o600); err != nil {
			c.t.Fatal(err)
		}
		s.start()
	}
}

func (c *cluster) addForwarder(dir, program string, i int, env []string) {
	c.t.Helper()
	f := &forwarder{data: filepath.Join(dir, fmt.Sprint("data", i)), sink: queuetest.NewProxy(c.t, c.sink.addr())}
	var urls []string
	for _, s := range c.servers {
		p := queuetest.NewProxy(c.t, s.client)
		f.nats, urls = append(f.nats, p), append(urls, "nats://"+p.Addr())
	}
	f.process = process{
		t: c.t, name: fmt.Sprint("f", i), env: env, log: filepath.Join(dir, fmt.Sprint("forwarder", i, ".log")),
		args: []string{
			program, "serve", "--data-dir", f.data, "--listen", "127.0.0.1:0", "--admin-listen", "off", "--nats-url", strings.Join(urls, ","), "--instance", fmt.Sprint("f", i),
			"--callgoose-url", "http://" + f.sink.Addr() + "/v1/process", "--callgoose-token-file", filepath.Join(dir, "token"),
			"--timeout", "5s", "--retry-min", "50ms", "--retry-max", "1s", "--log-level", "warn",
		},
		line: func(text string) {
			if m := readyLine.FindStringSubmatch(text); m != nil {
				f.url.Store(&m[1])
			}
		},
	}
	c.forwarders = append(c.forwarders, f)
	f.start()
}

// end ends all processes, and shows what they said if the test failed.
func (c *cluster) end() {
	for _, f := range c.forwarders {
		f.signal(syscall.SIGCONT)
		f.end(syscall.SIGKILL)
		text, _ := os.ReadFile(f.log)
		if bytes.Contains(text, []byte(token)) {
			c.t.Error("the token stands in the log")
		}
		if c.t.Failed() {
			c.t.Logf("the end of the log of %s:\n%s", f.name, f.tail(40))
		}
	}
	for _, s := range c.servers {
		s.signal(syscall.SIGCONT)
		s.end(syscall.SIGKILL)
		if c.t.Failed() {
			c.t.Logf("the end of the log of %s:\n%s", s.name, s.tail(10))
		}
	}
}

// await waits for something.
func (c *cluster) await(what string, ok func() bool) {
	c.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// streams is what a server says of them, nil when it cannot.
func (c *cluster) streams() (all []*jetstream.StreamInfo) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	nc, err := nats.Connect(c.servers[0].client, nats.Timeout(time.Second))
	if err != nil {
		return nil
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return nil
	}
	list := js.ListStreams(ctx)
	for info := range list.Info() {
		all = append(all, info)
	}
	if list.Err() != nil {
		return nil
	}
	return all
}

// whole reports whether every stream has a leader and three replicas that are
// current. Before that a server's disk must not be emptied.
func (c *cluster) whole() bool {
	all := c.streams()
	for _, info := range all {
		if info.Cluster == nil || info.Cluster.Leader == "" || len(info.Cluster.Replicas) != 2 {
			return false
		}
		for _, r := range info.Cluster.Replicas {
			if !r.Current || r.Offline || r.Lag > 0 {
				return false
			}
		}
	}
	return len(all) > 0
}

// streamLeader is the server that leads a stream, "" when none does.
func (c *cluster) streamLeader(name string) string {
	for _, info := range c.streams() {
		if info.Config.Name == name && info.Cluster != nil {
			return info.Cluster.Leader
		}
	}
	return ""
}

// status is what a forwarder says, false when it says nothing.
func (f *forwarder) status() (admin.Status, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s, err := admin.NewSocketClient(f.data).Status(ctx)
	return s, err == nil
}

// settled reports whether a forwarder waits for nothing.
func (f *forwarder) settled() bool {
	s, ok := f.status()
	return ok && s.Queued == 0 && s.InFlight == 0
}

func (f *forwarder) role() string {
	if s, ok := f.status(); ok && s.Cluster != nil {
		return s.Cluster.Role
	}
	return ""
}

// leader is the forwarder that leads, nil when none does.
func (c *cluster) leader() *forwarder {
	for _, f := range c.forwarders {
		if f.url.Load() != nil && f.role() == "leader" {
			return f
		}
	}
	return nil
}

// at lets whoever comes to a step first die or freeze there, and reports whether one did
// within d. bring makes it happen.
func (c *cluster) at(what, step string, d time.Duration, bring func()) bool {
	if err := os.WriteFile(c.step, []byte(what+" "+step), 0o600); err != nil {
		c.t.Error(err)
	}
	bring()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(c.step); err != nil {
			return true
		}
	}
	return os.Remove(c.step) != nil
}
