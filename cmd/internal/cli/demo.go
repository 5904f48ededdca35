package cli

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/bench"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/ingest/pmm"
	"pmm-callgoose/store/event"
	"pmm-callgoose/testdata/webhook"
	"pmm-callgoose/worker/callgoose/callgoosetest"
)

func (p *program) demoCommand() *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "the whole story on this machine, no account needed: an outage, a kill -9, the recovery",
		Flags: []cli.Flag{
			outputFlag(),
			&cli.BoolFlag{Name: "keep", Usage: "keep the service running at the end, until interrupted"},
		},
		Action: func(c *cli.Context) error {
			ctx, cancel := context.WithTimeout(c.Context, 2*time.Minute)
			defer cancel()
			if c.Bool("keep") {
				ctx = c.Context
			}
			return p.demo(ctx, c)
		},
	}
}

// demo is one telling of the story.
type demo struct {
	*program
	ctx    context.Context //nolint:containedctx // lives as long as the story
	say    io.Writer
	dir    string
	self   string
	fake   *callgoosetest.Fake
	server *callgoosetest.Server
	token  string

	serve  *exec.Cmd
	url    string // of the intake
	status *admin.Client

	want  []callgoosetest.Expect
	state map[string]event.Status // by incident key: what Callgoose should have heard last
	sent  int                     // alerts in accepted bodies
}

func (p *program) demo(ctx context.Context, c *cli.Context) (err error) {
	d := &demo{program: p, ctx: ctx, say: p.out, token: "demo-" + rand.Text(), state: map[string]event.Status{}}
	if c.String("output") == "json" {
		d.say = io.Discard
	}
	if d.self, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if d.dir, err = os.MkdirTemp("", "pmm-callgoose-demo-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(d.dir) }()
	defer d.stop()

	started := time.Now()
	if err := d.tell(); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	report := d.fake.Check(d.want)
	if done, err := p.json(c, map[string]any{
		"ok": report.OK() && len(d.fake.Open()) == 0, "alerts_sent": d.sent, "events_expected": len(d.want),
		"report": report, "incidents": d.fake.Incidents(), "seconds": time.Since(started).Seconds(),
	}); done && err != nil {
		return err
	}
	d.step("The account")
	d.line("%d alerts went in, %d of them were news; Callgoose holds %d events", d.sent, len(d.want), report.Events)
	d.line("missing %d, doubled %d, out of order %d, changed %d, unexpected %d",
		report.Count(callgoosetest.Missing), report.Count(callgoosetest.Doubled), report.Count(callgoosetest.OutOfOrder), report.Count(callgoosetest.Changed), report.Count(callgoosetest.Unexpected))
	d.line("incidents opened %d, still open %d", len(d.fake.Incidents()), len(d.fake.Open()))
	if !report.OK() || len(d.fake.Open()) != 0 {
		return fmt.Errorf("what Callgoose holds is not what was sent:\n%s", report)
	}
	d.line("every alert arrived once and in order, in %s", time.Since(started).Round(100*time.Millisecond))
	if c.Bool("keep") {
		d.line("still running; ask it with: pmm-callgoose status --data-dir %s/data; end with Ctrl-C", d.dir)
		<-ctx.Done()
	}
	return nil
}

func (d *demo) step(title string) { fmt.Fprintf(d.say, "\n== %s\n", title) }

func (d *demo) line(format string, args ...any) {
	fmt.Fprintf(d.say, "   %s\n", fmt.Sprintf(format, args...))
}

// tell tells the story: each chapter does its acts in turn.
func (d *demo) tell() error {
	fmt.Fprintln(d.say, "pmm-callgoose demo: PMM, a firewall, and Callgoose, on this machine alone")
	five := file("grafana-firing-group-5.json")
	post := func(name string, body []byte) func() error { return func() error { return d.post(name, body) } }
	others := bench.NewBodies(5, 0, 40)
	storm := func(name string, from int) func() error {
		return func() error {
			for n := range 8 {
				if err := d.post(fmt.Sprintf(name+" %d of 8", n+1), others.Body(nil, from+n)); err != nil {
					return err
				}
			}
			return nil
		}
	}
	for _, chapter := range []struct {
		title string
		acts  []func() error
	}{
		{"A fake Callgoose and the real forwarder start", []func() error{d.startFake, d.start}},
		{"PMM sends one notification with five alerts in it", []func() error{post("grafana-firing-group-5.json", five), d.settled, d.incidents}},
		{"The firewall closes: nothing gets through to Callgoose any more", []func() error{
			func() error { return d.server.Close() },
			post("grafana-nodata.json", file("grafana-nodata.json")),
			post("alertmanager-mixed.json", file("alertmanager-mixed.json")),
			post("guide-firing.json", file("guide-firing.json")),
			post("the first five again, PMM's repeat", five),
			storm("a storm, notification", 0), d.outage,
		}},
		{"kill -9: the forwarder dies in the middle of it, and starts again", []func() error{
			d.kill, d.start,
			post("recoveries of the first five", recoveries(five)),
			post("guide-resolved.json, trimmed by hand: no fingerprint, no instance", file("guide-resolved.json")), d.outage,
		}},
		{"The firewall opens", []func() error{d.reopen, d.show}},
		{"Everything recovers", []func() error{
			storm("recoveries of storm", 8),
			post("recoveries of grafana-nodata.json", recoveries(file("grafana-nodata.json"))),
			post("recoveries of alertmanager-mixed.json", recoveries(file("alertmanager-mixed.json"))), d.settled,
		}},
	} {
		d.step(chapter.title)
		for _, act := range chapter.acts {
			if err := act(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *demo) startFake() (err error) {
	d.fake = callgoosetest.New(callgoosetest.Config{Tokens: []string{d.token}, KeepBodies: true})
	if d.server, err = d.fake.Start("127.0.0.1:0"); err == nil {
		d.line("Callgoose    %s, one incident for each alert (filters as in README.md)", d.server.URL())
	}
	return err
}

func (d *demo) incidents() error {
	for _, i := range d.fake.Open() {
		d.line("incident     %s", text.Line(i.Title))
	}
	return nil
}

// reopen waits until all that waited went out.
func (d *demo) reopen() error {
	if err := d.server.Reopen(); err != nil {
		return err
	}
	opened := time.Now()
	err := d.settled()
	d.line("drained      %s after it opened", time.Since(opened).Round(10*time.Millisecond))
	return err
}

// start runs serve as a process of its own.
func (d *demo) start() error {
	tokenFile := filepath.Join(d.dir, "callgoose-token")
	if err := os.WriteFile(tokenFile, []byte(d.token+"\n"), 0o600); err != nil {
		return err
	}
	// The path may be that of a test binary: it is told apart by its name.
	d.serve = exec.CommandContext(d.ctx, d.self) // #nosec G204 -- this very program
	d.serve.Args = []string{
		"pmm-callgoose", "serve", "--data-dir", filepath.Join(d.dir, "data"),
		"--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--callgoose-url", d.server.URL(),
		"--callgoose-token-file", tokenFile, "--retry-min", "200ms", "--retry-max", "1s", "--log-level", "error",
	}
	d.serve.Env = append(os.Environ(), "PMM_CALLGOOSE_CONFIG=")
	d.serve.Stderr = d.program.err
	out, err := d.serve.StdoutPipe()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := d.serve.Start(); err != nil {
		return fmt.Errorf("start serve: %w", err)
	}
	first, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return fmt.Errorf("serve ended before it was ready: %w", d.serve.Wait())
	}
	d.line("forwarder    process %d, ready after %s", d.serve.Process.Pid, time.Since(began).Round(time.Millisecond))
	d.line("             %s", strings.TrimSpace(first))
	d.status = admin.NewSocketClient(filepath.Join(d.dir, "data"))
	s, err := d.status.Status(d.ctx)
	d.url = s.WebhookURL
	return err
}

func (d *demo) kill() error {
	_ = d.serve.Process.Kill()
	_ = d.serve.Wait()
	d.line("killed       process %d, without a warning", d.serve.Process.Pid)
	return nil
}

// stop ends what is still running.
func (d *demo) stop() {
	if d.serve != nil && d.serve.Process != nil && d.serve.ProcessState == nil {
		_ = d.serve.Process.Signal(os.Interrupt)
		done := time.AfterFunc(15*time.Second, func() { _ = d.serve.Process.Kill() })
		_ = d.serve.Wait()
		done.Stop()
	}
	if d.server != nil {
		_ = d.server.Close()
	}
}

// post is PMM sending a body. What Callgoose should hear of it is worked out
// here by the plainest rule there is: an alert whose state changed.
func (d *demo) post(name string, body []byte) error {
	began := time.Now()
	_, status, err := (&intake{url: d.url, secrets: &config.Config{}}).post(d.ctx, "pmm", body)
	if err != nil {
		return fmt.Errorf("post %s: status %d, %w", name, status, err)
	}
	n, err := pmm.Decode(body)
	if err != nil {
		return err
	}
	for _, a := range n.Alerts {
		d.sent++
		key := "pmm-" + a.Fingerprint
		if a.Fingerprint == "" {
			// The guide's trimmed recovery belongs to the guide's firing alert.
			key = "pmm-18e04dbe104bb755"
		}
		now := event.Resolved
		if a.Firing {
			now = event.Firing
		}
		if d.state[key] != now {
			d.state[key] = now
			d.want = append(d.want, callgoosetest.Expect{IncidentKey: key, Status: string(now)})
		}
	}
	d.line("PMM -> %d     %s (%d alerts, %s, on disk in %s)", status, name, len(n.Alerts), text.Size(int64(len(body))), time.Since(began).Round(100*time.Microsecond))
	return nil
}

func (d *demo) waitFor(ok func(admin.Status) bool) error {
	var last admin.Status
	err := poll(d.ctx, 20*time.Millisecond, func() (bool, error) {
		s, err := d.status.Status(d.ctx)
		if err == nil {
			last = s
		}
		return err == nil && ok(s), nil
	})
	if err != nil {
		return fmt.Errorf("the state waited for never came, the last one was %+v: %w", last, err)
	}
	return nil
}

// outage waits until all that was accepted is split and stuck, and shows it.
func (d *demo) outage() error {
	if err := d.waitFor(func(s admin.Status) bool {
		return s.Callgoose.State == event.Down && s.Alerts == int64(d.sent)
	}); err != nil {
		return err
	}
	return d.show()
}

func (d *demo) settled() error {
	return d.waitFor(func(s admin.Status) bool { return s.Queued == 0 && s.InFlight == 0 })
}

// show prints the state in one line.
func (d *demo) show() error {
	s, err := d.status.Status(d.ctx)
	if err != nil {
		return err
	}
	side := s.Callgoose.State
	if s.Callgoose.LastError != "" {
		side += " (" + s.Callgoose.LastError + ")"
	}
	d.line("status       callgoose %s; %d events safe on disk, %d delivered, %d suppressed", side, s.Queued, s.Delivered, s.Suppressed)
	return nil
}

func file(name string) []byte {
	b, err := webhook.Files.ReadFile(name)
	if err != nil {
		panic(err) // it is compiled in
	}
	return b
}

// recoveries is the body with every alert resolved now.
func recoveries(body []byte) []byte {
	var m map[string]any
	if err := json.Unmarshal(body, &m); err != nil {
		panic(err) // it is compiled in
	}
	m["status"] = "resolved"
	for _, a := range m["alerts"].([]any) {
		alert := a.(map[string]any)
		alert["status"], alert["endsAt"] = "resolved", time.Now().UTC()
	}
	out, _ := json.Marshal(m) // it was just decoded
	return out
}
