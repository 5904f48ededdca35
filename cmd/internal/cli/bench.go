package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/bench"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/ingest"
	"pmm-callgoose/ingest/outbound"
	"pmm-callgoose/ingest/pmm"
)

func (p *program) benchCommand() *cli.Command {
	return &cli.Command{
		Name: "bench", Usage: "load on a running service: throughput and latency",
		Flags: append(append(settingFlags(slices.Concat([]string{"data-dir", "admin-token-file"}, intakeSecrets)...), atFlags()...),
			&cli.StringFlag{Name: "webhook-url", Usage: "send there, http://HOST:4667/v1/webhook, with the ingest secrets that are named here as for serve (default: what the service says, on this machine)"},
			&cli.StringFlag{Name: "webhook-ca", Usage: "trust these authorities (PEM) for --webhook-url", TakesFile: true},
			&cli.StringFlag{Name: "webhook-cert", Usage: "client certificate and its key (PEM, in one file) for --webhook-url", TakesFile: true},
			&cli.StringFlag{Name: "connections", Value: "1,16,64", Usage: "how many connections, several separated by commas"},
			&cli.DurationFlag{Name: "duration", Value: 5 * time.Second, Usage: "how long each is measured"},
			&cli.IntFlag{Name: "count", Usage: "end each after this many webhooks"},
			&cli.IntFlag{Name: "alerts", Value: 5, Usage: "in each webhook"},
			&cli.IntFlag{Name: "body-size", Value: 5500, Usage: "about how many bytes each webhook has"},
			&cli.IntFlag{Name: "keys", Value: 10_000, Usage: "how many alerts there are: each fires, recovers, fires again"},
			&cli.StringFlag{Name: "source", Value: "bench", Usage: "the PMM server that the webhooks seem to come from"},
			&cli.BoolFlag{Name: "yes", Usage: "send the load although it reaches a real Callgoose"},
		),
		Action: p.bench,
	}
}

func (p *program) bench(c *cli.Context) error {
	connections, err := numbers(c.String("connections"))
	switch {
	case err != nil:
		return err
	case !ingest.ValidSource(c.String("source")):
		return usagef("--source: 1 to 16 of a-z, 0-9 and -")
	case c.Int("alerts") < 1 || c.Int("keys") < 1 || c.Int("body-size") < 1:
		return usagef("--alerts, --keys and --body-size must be at least 1")
	case c.Duration("duration") <= 0:
		return usagef("--duration must be more than 0")
	}
	client, err := p.client(c)
	if err != nil {
		return err
	}
	status, err := client.Status(c.Context)
	if err != nil {
		return err
	}
	in, err := p.benchIntake(c, client, status)
	if err != nil {
		return err
	}
	// What a bench sends to a real Callgoose calls people.
	if at := in.settings["callgoose-url"].Value; !pmm.IsLoopback(at) && !c.Bool("yes") {
		return usagef("the service sends to a Callgoose that is not on this machine, %s; this would open and close up to %d incidents there: say --yes if that is meant", at, c.Int("keys"))
	}
	return p.benchLoad(c, client, in.target(c.String("source")), connections)
}

// benchIntake is the intake at --webhook-url, with the secrets named beside it, else the
// one that the service itself names.
func (p *program) benchIntake(c *cli.Context, client *admin.Client, s admin.Status) (*intake, error) {
	at := strings.TrimSuffix(c.String("webhook-url"), "/")
	if at == "" {
		if slices.ContainsFunc(append(intakeSecrets, "webhook-ca", "webhook-cert"), c.IsSet) {
			return nil, usagef("the intake's secrets and certificates are for --webhook-url, which is missing")
		}
		in, err := p.findIntake(c, client, s)
		if err != nil {
			err = fmt.Errorf("its webhooks cannot be called: %w; name what it needs, --webhook-url and the ingest secrets or certificates", err)
		}
		return in, err
	}
	if u, err := url.Parse(at); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, usagef("--webhook-url is not of the form http://HOST:4667/v1/webhook")
	}
	settings, err := admin.Ask[[]config.Setting](c.Context, client, "GET /api/v1/config", nil)
	if err != nil {
		return nil, err
	}
	secrets, err := p.load(c, intakeSecrets...)
	if err != nil {
		return nil, err
	}
	network, err := outbound.Transport(c.String("webhook-ca"))
	if err != nil {
		return nil, usagef("--webhook-ca: %w", err)
	}
	if file := c.String("webhook-cert"); file != "" {
		pair, err := tls.LoadX509KeyPair(file, file)
		if err != nil {
			return nil, usagef("--webhook-cert: %w", err)
		}
		network.TLSClientConfig.Certificates = []tls.Certificate{pair}
	}
	return &intake{url: at, secrets: secrets, settings: byName(settings), tls: network.TLSClientConfig}, nil
}

// numbers reads a list such as 1,16,64.
func numbers(list string) (out []int, err error) {
	for part := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < 1 || n > 10_000 {
			return nil, usagef("--connections: %q is not a number from 1 to 10000", part)
		}
		out = append(out, n)
	}
	return out, nil
}

// serviceReport is the JSON of a bench on a running service.
type serviceReport struct {
	URL    string           `json:"webhook_url"`
	Intake []bench.Measured `json:"intake"`
	// Settled is how long it took after the load until nothing was queued any
	// more; nil when the service could not be asked.
	Settled *float64 `json:"settled_after_seconds"`
}

func (p *program) benchLoad(c *cli.Context, client *admin.Client, target bench.Target, connections []int) error {
	ctx, report := c.Context, serviceReport{URL: target.URL}
	bodies := bench.NewBodies(c.Int("alerts"), c.Int("body-size"), max(c.Int("keys"), 4*c.Int("alerts")*slices.Max(connections)))
	show, end := p.progress()
	load := &bench.Load{Target: target, Bodies: bodies, Duration: c.Duration("duration"), Count: c.Int("count")}
	load.Progress = func(sent int) { show(sent, load.Count) }
	var failed error
	for _, n := range connections {
		load.Connections = n
		var m bench.Measured
		m, failed = load.Run(ctx)
		end()
		if report.Intake = append(report.Intake, m); failed != nil {
			break
		}
	}
	// What fires is resolved also when the bench was interrupted.
	last := time.Now()
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := errors.Join(failed, load.Resolve(after)); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	if err := waitSettled(ctx, client, show); err == nil {
		s := time.Since(last).Seconds()
		report.Settled = &s
	}
	end()
	if done, err := p.json(c, report); done {
		return err
	}
	fmt.Fprintf(p.out, "%s, bodies of %s with %d alerts\n\n", text.Line(report.URL), text.Size(int64(bodies.Size())), c.Int("alerts"))
	var rows [][]string
	for _, m := range report.Intake {
		refused := 0
		for _, n := range m.Refused {
			refused += n
		}
		rows = append(rows, []string{
			strconv.Itoa(m.Connections), fmt.Sprintf("%.0f", m.PerSecond),
			msText(m.Latency.P50), msText(m.Latency.P90), msText(m.Latency.P99), msText(m.Latency.Max), strconv.Itoa(refused),
		})
	}
	p.table([]string{"CONNECTIONS", "WEBHOOKS/S", "P50 MS", "P90", "P99", "MAX", "REFUSED"}, rows)
	if report.Settled != nil {
		fmt.Fprintf(p.out, "\nall events were settled %.1f s after the load, with the recoveries of what still fired\n", *report.Settled)
	}
	return nil
}

func msText(v float64) string {
	if v >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// waitSettled waits until nothing is queued, as long as the queue gets shorter.
func waitSettled(ctx context.Context, client *admin.Client, show func(done, of int)) error {
	least, most, moved := int64(-1), int64(0), time.Now()
	return poll(ctx, 50*time.Millisecond, func() (bool, error) {
		s, err := client.Status(ctx)
		if err == nil && (least < 0 || s.Queued < least) {
			least, moved = s.Queued, time.Now()
		}
		if err == nil && time.Since(moved) > 15*time.Second {
			err = errors.New("the queue does not get shorter")
		}
		most = max(most, s.Queued)
		show(int(most-s.Queued), int(most))
		return s.Queued == 0, err
	})
}
