package main

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/rogpeppe/go-internal/testscript"

	"pmm-callgoose/ingest/pmm"
	"pmm-callgoose/ingest/pmm/pmmtest"
	"pmm-callgoose/testdata/webhook"
	"pmm-callgoose/worker/callgoose/callgoosetest"
	"pmm-callgoose/worker/callgoose/filters"
)

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "8") // the stories wait more than they compute
	testscript.Main(m, map[string]func(){"pmm-callgoose": main})
}

// TestScript tells the stories of testdata/script. Besides what package
// testscript offers, they are written with
//
//	fake accept | refuse | fail MODE [RETRY-AFTER] | discard | no-resolve | token T | count N | open N | in-order N
//	serve start [FLAG...] | stop | hup | kill     a real process; $URL and $ADMIN are where it listens
//	serve start -nofile N [FLAG...]         one that may open N descriptors
//	idle N URL                    keep N connections open that say nothing; 0 closes them all
//	post [-sign SECRET] [-user U:P] CODE FILE [HEADER...]
//	flow REGEXP FILE              post a state of the alert Flow every 50 ms until the file matches
//	pmm start [VERSION GRAFANA]   a fake PMM at $PMM; its token stands in the file pmm-token
//	pmm point|tree FILE           a contact point more; other notification policies
//	pmm page STATUS               nginx answers everything with an error page; 0 = no more
//	pmm writes N                  so many requests have changed something
//	pmm routes RECEIVERS [L=V...]  who gets an alert with these labels, separated by commas
//	pmm send CODE UID FILE        as the contact point does, with what is stored in it
//	nats start                    a NATS server at $NATS
//	page PATH                     what a browser gets there, on standard output
//	exit CODE COMMAND...          it must end with that code
//	until REGEXP COMMAND...       again and again until its output matches
//	json PATH VALUE | PATH has KEY...    on the latest standard output
//	certificate CERT KEY          a new pair for 127.0.0.1, good for an hour, in these files
//	holds-no TEXT DIR...          no file below holds it
//	nats start | stop             a NATS server with JetStream at $NATS
//	newer ledger|notification|event DIR   a version to come has written there
//
// The token of the fake stands in the file token; PMM_CALLGOOSE_DATA_DIR is
// $WORK/data. The bodies of testdata/webhook are in $WORK/webhook.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("..", "..", "testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fake": fakeCmd, "serve": serveCmd, "post": postCmd, "flow": flowCmd, "exit": exitCmd,
			"pmm": pmmCmd, "page": pageCmd, "until": untilCmd, "json": jsonCmd, "holds-no": holdsNoCmd, "certificate": certificateCmd, "idle": idleCmd,
			"newer": newerCmd, "nats": natsCmd,
		},
	})
}

// patience is how long anything may take that a script waits for.
const patience = 20 * time.Second

const token = "cg-s3cr3t-0f-the-scr1pt"

// story is what belongs to one script: it is run by one goroutine.
type story struct {
	fake   *callgoosetest.Fake
	server *callgoosetest.Server
	env    []string
	pmm    *pmmtest.Fake
	serve  *exec.Cmd
	log    *os.File // of all runs of serve; read by scripts as serve.log
	idle   []net.Conn
	nats   *server.Server
}

type storyKey struct{}

func of(ts *testscript.TestScript) *story { return ts.Value(storyKey{}).(*story) }

func setup(env *testscript.Env) error {
	s := &story{fake: callgoosetest.New(callgoosetest.Config{Tokens: []string{token}, KeepBodies: true})}
	var err error
	if s.server, err = s.fake.Start("127.0.0.1:0"); err != nil {
		return err
	}
	env.Setenv("CALLGOOSE", s.server.URL())
	env.Setenv("TOKEN", token)
	env.Setenv("PMM_CALLGOOSE_DATA_DIR", filepath.Join(env.WorkDir, "data"))
	env.Setenv("CONFIGURATION_DIRECTORY", filepath.Join(env.WorkDir, "etc")) // not this machine's
	if err := os.WriteFile(filepath.Join(env.WorkDir, "token"), []byte(token+"\n"), 0o600); err != nil {
		return err
	}
	if err := os.CopyFS(filepath.Join(env.WorkDir, "webhook"), webhook.Files); err != nil {
		return err
	}
	if s.log, err = os.Create(filepath.Join(env.WorkDir, "serve.log")); err != nil {
		return err
	}
	s.env = env.Vars
	env.Values[storyKey{}] = s
	env.Defer(func() {
		s.kill()
		s.stopNATS()
		_ = s.server.Close()
		_ = s.log.Close()
	})
	return nil
}

func (s *story) kill() {
	if s.serve != nil {
		_ = s.serve.Process.Kill()
		_ = s.serve.Wait()
		s.serve = nil
	}
}

func (s *story) stopNATS() {
	if s.nats != nil {
		s.nats.Shutdown()
		s.nats.WaitForShutdown()
		s.nats = nil
	}
}

func natsCmd(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	switch {
	case neg || len(args) != 1:
		ts.Fatalf("usage: nats start|stop")
	case args[0] == "stop":
		s.stopNATS()
		return
	}
	var err error
	s.nats, err = server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: ts.MkAbs("nats")})
	ts.Check(err)
	s.nats.Start()
	if !s.nats.ReadyForConnections(patience) {
		ts.Fatalf("the NATS server does not start")
	}
	ts.Setenv("NATS", s.nats.ClientURL())
}

func fakeCmd(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	if neg || len(args) == 0 {
		ts.Fatalf("usage: fake accept|refuse|fail|discard|token|count|open|in-order")
	}
	verb, args := args[0], args[1:]
	switch verb {
	case "accept":
		s.fake.Fail(callgoosetest.Failure{})
		ts.Check(s.server.Reopen())
		s.fake.SetFilters(filters.Recommended())
	case "refuse":
		ts.Check(s.server.Close())
	case "fail":
		f, err := callgoosetest.ParseFailure(args[0])
		ts.Check(err)
		if len(args) > 1 {
			f.RetryAfter = args[1]
		}
		s.fake.Fail(f)
	case "discard": // the only filter is one that nothing passes
		s.fake.SetFilters([]filters.Filter{{Trigger: filters.Trigger{
			Urgency: "high", Pairs: []filters.Pair{{Key: `"status"`, Items: []string{"never"}}},
			MapWith: `"incident_key"`, TitleFrom: `"title"`, DescriptionFrom: `"description"`,
		}}})
	case "no-resolve": // the resolve parts are switched off
		off := filters.Recommended()
		for i := range off {
			off[i].Resolve = filters.Resolve{}
		}
		s.fake.SetFilters(off)
	case "token":
		s.fake.SetTokens(args...)
	case "count":
		poll(ts, args[0], "events accepted", func() int { return s.fake.Stats().Events })
	case "open":
		poll(ts, args[0], "incidents open", func() int { return len(s.fake.Open()) })
	case "in-order": // so many events, each accepted once, in the order of their incident
		poll(ts, args[0], "events accepted", func() int { return s.fake.Stats().Accepted })
		last := map[string]string{}
		for _, r := range s.fake.Received() {
			if !r.Accepted() {
				continue
			}
			if last[r.IncidentKey] == r.Status {
				ts.Fatalf("incident %s: %s twice, one after the other", r.IncidentKey, r.Status)
			}
			last[r.IncidentKey] = r.Status
		}
	default:
		ts.Fatalf("fake %s: no such thing", verb)
	}
}

func idleCmd(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	if neg || len(args) == 0 {
		ts.Fatalf("usage: idle N URL")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	if n == 0 {
		for _, c := range s.idle {
			_ = c.Close()
		}
		s.idle = nil
		return
	}
	u, err := url.Parse(args[1])
	ts.Check(err)
	for range n {
		c, err := net.Dial("tcp", u.Host)
		ts.Check(err)
		s.idle = append(s.idle, c)
	}
}

func certificateCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: certificate CERT KEY")
	}
	public, private, err := ed25519.GenerateKey(nil)
	ts.Check(err)
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{{127, 0, 0, 1}}}
	der, err := x509.CreateCertificate(nil, c, c, public, private)
	ts.Check(err)
	key, err := x509.MarshalPKCS8PrivateKey(private)
	ts.Check(err)
	for file, block := range map[string]*pem.Block{args[0]: {Type: "CERTIFICATE", Bytes: der}, args[1]: {Type: "PRIVATE KEY", Bytes: key}} {
		ts.Check(os.WriteFile(ts.MkAbs(file), pem.EncodeToMemory(block), 0o600))
	}
}

func poll(ts *testscript.TestScript, want, what string, get func() int) {
	n, err := strconv.Atoi(want)
	ts.Check(err)
	got := get()
	for end := time.Now().Add(patience); got != n && time.Now().Before(end); got = get() {
		time.Sleep(5 * time.Millisecond)
	}
	if got != n {
		ts.Fatalf("%d %s, not %d", got, what, n)
	}
}

func pmmCmd(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	if neg || len(args) == 0 || args[0] != "start" && s.pmm == nil {
		ts.Fatalf("usage: pmm start|point|tree|page|writes|routes|send, start first")
	}
	verb, args := args[0], args[1:]
	switch verb {
	case "start":
		var cfg pmmtest.Config
		if len(args) == 2 {
			cfg.PMM, cfg.Grafana = args[0], args[1]
		}
		cfg.Viewer = "glsa_v1ewer-of-the-scr1pt"
		s.pmm = pmmtest.New(cfg)
		server := httptest.NewServer(s.pmm)
		ts.Defer(server.Close)
		ts.Setenv("PMM", server.URL)
		ts.Check(os.WriteFile(ts.MkAbs("pmm-token"), []byte(pmmtest.Token+"\n"), 0o600))
	case "point":
		s.pmm.AddPoint(ts.ReadFile(args[0]))
	case "tree":
		s.pmm.SetTree(ts.ReadFile(args[0]))
	case "page":
		status, err := strconv.Atoi(args[0])
		ts.Check(err)
		s.pmm.Page(status)
	case "writes":
		if got := s.pmm.Writes(); strconv.Itoa(len(got)) != args[0] {
			ts.Fatalf("%d requests have changed something, not %s: %v", len(got), args[0], got)
		}
	case "routes":
		labels := map[string]string{}
		for _, l := range args[1:] {
			k, v, _ := strings.Cut(l, "=")
			labels[k] = v
		}
		var got []string
		for _, m := range s.pmm.Route(labels) {
			got = append(got, m.Receiver)
		}
		if strings.Join(got, ",") != args[0] {
			ts.Fatalf("it goes to %v, not to %s\n%s", got, args[0], s.pmm.Tree())
		}
	case "send":
		resp, err := http.DefaultClient.Do(asContactPoint(ts, s.pmm, args[1], ts.ReadFile(args[2])))
		ts.Check(err)
		defer resp.Body.Close()
		if answer, _ := io.ReadAll(resp.Body); strconv.Itoa(resp.StatusCode) != args[0] {
			ts.Fatalf("answered %d, not %s: %s", resp.StatusCode, args[0], answer)
		}
	default:
		ts.Fatalf("pmm %s: no such thing", verb)
	}
}

// asContactPoint is a webhook as that contact point of PMM sends it, with the credentials
// that are stored in it (grafana/alerting:receivers/webhook, http/hmac.go).
func asContactPoint(ts *testscript.TestScript, fake *pmmtest.Fake, uid, body string) *http.Request {
	var points []struct {
		UID      string
		Settings struct {
			URL, HTTPMethod, Username string
			Scheme                    string                           `json:"authorization_scheme"`
			HMAC                      struct{ TimestampHeader string } `json:"hmacConfig"`
		}
	}
	ts.Check(json.Unmarshal([]byte(fake.Points()), &points))
	for _, p := range points {
		if p.UID != uid {
			continue
		}
		req, err := http.NewRequest(cmp.Or(p.Settings.HTTPMethod, http.MethodPost), p.Settings.URL, strings.NewReader(body))
		ts.Check(err)
		req.Header.Set("User-Agent", "Grafana")
		if credentials := fake.Secret(uid, "authorization_credentials"); credentials != "" {
			req.Header.Set("Authorization", p.Settings.Scheme+" "+credentials)
		} else if password := fake.Secret(uid, "password"); password != "" {
			req.SetBasicAuth(p.Settings.Username, password)
		}
		if secret := fake.Secret(uid, "hmacConfig.secret"); secret != "" {
			pmm.Sign(req.Header, secret, p.Settings.HMAC.TimestampHeader, []byte(body), time.Now())
		}
		return req
	}
	ts.Fatalf("PMM has no contact point %s", uid)
	return nil
}

var ready = regexp.MustCompile(`^pmm-callgoose is ready: webhooks (\S+), operators (\S+)\n$`)

func serveCmd(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	if neg || len(args) == 0 {
		ts.Fatalf("usage: serve start|stop|hup|kill")
	}
	switch args[0] {
	case "start":
		if s.serve != nil {
			ts.Fatalf("serve is already running")
		}
		program := []string{"pmm-callgoose"}
		if len(args) > 2 && args[1] == "-nofile" {
			program = []string{"sh", "-c", "ulimit -n " + args[2] + ` && exec "$0" "$@"`, "pmm-callgoose"}
			args = args[2:]
		}
		all := append(append(program, []string{
			"serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--callgoose-url", ts.Getenv("CALLGOOSE"),
			"--callgoose-token-file", ts.MkAbs("token"), "--retry-min", "20ms", "--retry-max", "100ms",
		}...), args[1:]...)
		cmd := exec.Command(all[0], all[1:]...)
		cmd.Env, cmd.Stderr, cmd.Dir = s.env, s.log, ts.MkAbs(".")
		out, err := cmd.StdoutPipe()
		ts.Check(err)
		ts.Check(cmd.Start())
		s.serve = cmd
		line, err := bufio.NewReader(out).ReadString('\n')
		m := ready.FindStringSubmatch(line)
		if err != nil || m == nil {
			s.kill()
			ts.Fatalf("serve printed %q (%v) and logged:\n%s", line, err, ts.ReadFile("serve.log"))
		}
		ts.Setenv("URL", m[1])
		ts.Setenv("ADMIN", m[2])
	case "stop":
		ts.Check(s.serve.Process.Signal(syscall.SIGTERM))
		err := s.serve.Wait()
		s.serve = nil
		if err != nil {
			ts.Fatalf("serve ended with %v, log:\n%s", err, ts.ReadFile("serve.log"))
		}
	case "hup":
		ts.Check(s.serve.Process.Signal(syscall.SIGHUP))
	case "kill":
		s.kill()
	default:
		ts.Fatalf("serve %s: no such thing", args[0])
	}
}

func pageCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: page PATH")
	}
	resp, err := http.Get(ts.Getenv("ADMIN") + args[0])
	ts.Check(err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%s", b)
}

func postCmd(ts *testscript.TestScript, neg bool, args []string) {
	var secret, user string
	for len(args) > 1 && (args[0] == "-sign" || args[0] == "-user") {
		if args[0] == "-sign" {
			secret = args[1]
		} else {
			user = args[1]
		}
		args = args[2:]
	}
	if neg || len(args) < 2 {
		ts.Fatalf("usage: post [-sign SECRET] [-user USER:PASSWORD] CODE FILE [HEADER: VALUE...]")
	}
	body := ts.ReadFile(args[1])
	req, err := http.NewRequest(http.MethodPost, ts.Getenv("URL"), strings.NewReader(body))
	ts.Check(err)
	req.Header.Set("Content-Type", "application/json")
	for _, h := range args[2:] {
		k, v, _ := strings.Cut(h, ": ")
		req.Header.Set(k, v)
	}
	if name, password, ok := strings.Cut(user, ":"); ok {
		req.SetBasicAuth(name, password)
	}
	if secret != "" { // as Grafana signs
		at := strconv.FormatInt(time.Now().Unix(), 10)
		mac := hmac.New(sha256.New, []byte(secret))
		fmt.Fprintf(mac, "%s:%s", at, body)
		req.Header.Set("X-Grafana-Alerting-Timestamp", at)
		req.Header.Set("X-Grafana-Alerting-Signature", hex.EncodeToString(mac.Sum(nil)))
	}
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%s", answer)
	if strconv.Itoa(resp.StatusCode) != args[0] {
		ts.Fatalf("answered %d, not %s: %s", resp.StatusCode, args[0], answer)
	}
}

// flowCmd is for readers of which nobody can say when they began to listen.
func flowCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flow REGEXP FILE")
	}
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	start := time.Now()
	for n := 0; time.Since(start) < patience; n++ {
		status := []string{"firing", "resolved"}[n/3%2]
		body := fmt.Sprintf(`{"alerts":[{"status":%q,"labels":{"alertname":"Flow","instance":"flow-%04d"},"startsAt":%q}]}`,
			status, n%3, start.Add(time.Duration(n/6)*time.Hour).Format(time.RFC3339))
		resp, err := http.Post(ts.Getenv("URL"), "application/json", strings.NewReader(body))
		ts.Check(err)
		ts.Check(resp.Body.Close())
		if b, err := os.ReadFile(ts.MkAbs(args[1])); err == nil && re.Match(b) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	ts.Fatalf("%s has no match for %s:\n%s", args[1], args[0], ts.ReadFile(args[1]))
}

func exitCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exit CODE COMMAND...")
	}
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		ee, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		code = ee.ExitCode()
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, not %s", code, args[0])
	}
}

func untilCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until REGEXP COMMAND...")
	}
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	s := of(ts)
	var out []byte
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		cmd := exec.Command(args[1], args[2:]...)
		cmd.Env, cmd.Dir = s.env, ts.MkAbs(".")
		out, err = cmd.Output()
		if err == nil && re.Match(out) {
			_, _ = ts.Stdout().Write(out)
			return
		}
	}
	ts.Fatalf("%v; the last output was\n%s", err, out)
}

// jsonCmd looks into the standard output before it. A path is made of names
// and indexes, for example 0.labels.severity or callgoose.state; "." is all.
func jsonCmd(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: json PATH VALUE, json PATH has KEY...")
	}
	dec := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	dec.UseNumber()
	var doc any
	ts.Check(dec.Decode(&doc))
	for part := range strings.SplitSeq(strings.Trim(args[0], "."), ".") {
		switch v := doc.(type) {
		case map[string]any:
			if part != "" {
				doc = v[part]
			}
		case []any:
			if part == "length" {
				doc = len(v)
				continue
			}
			i, err := strconv.Atoi(part)
			if err != nil || i >= len(v) {
				ts.Fatalf("there is no %s in a list of %d", part, len(v))
			}
			doc = v[i]
		default:
			ts.Fatalf("there is no %s in %v", part, v)
		}
	}
	if args[1] == "has" {
		object, _ := doc.(map[string]any)
		for _, key := range args[2:] {
			if _, ok := object[key]; ok == neg {
				ts.Fatalf("key %s: there is %v", key, ok)
			}
		}
		return
	}
	if got := fmt.Sprint(doc); (got == args[1]) == neg {
		ts.Fatalf("%s is %s", args[0], got)
	}
}

func holdsNoCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: holds-no TEXT DIR...")
	}
	files := 0
	for _, dir := range args[1:] {
		ts.Check(filepath.WalkDir(ts.MkAbs(dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			files++
			b, err := os.ReadFile(path)
			if err == nil && bytes.Contains(b, []byte(args[0])) {
				err = fmt.Errorf("%s holds %q", path, args[0])
			}
			return err
		}))
	}
	if files == 0 {
		ts.Fatalf("there is no file at all in %v", args[1:])
	}
}
