// Command callgoose-fake is a Callgoose process endpoint for demos, benches and
// containers. See package callgoosetest for what it implements and for the paths
// below /_fake/ that inspect and control it.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/worker/callgoose/callgoosetest"
	"pmm-callgoose/worker/callgoose/filters"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "callgoose-fake:", err)
		os.Exit(2)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	app := &cli.App{
		Name:            "callgoose-fake",
		Usage:           "a fake Callgoose process endpoint",
		HideHelpCommand: true,
		Writer:          stdout,
		ErrWriter:       stderr,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listen", Value: "127.0.0.1:4670", Usage: "`ADDRESS`; port 0 picks a free one"},
			&cli.StringFlag{Name: "filters", Value: "recommended", Usage: "`SET`: guide or recommended"},
			&cli.StringFlag{Name: "token-file", Usage: "`FILE` with accepted tokens, one a line; or CALLGOOSE_FAKE_TOKEN; with neither no token is needed"},
			&cli.StringFlag{Name: "fail", Usage: "`MODE` from the start: hang, reset, slow, lose-reply or a status code, which -html, -text or -error may follow"},
			&cli.StringFlag{Name: "fail-key", Usage: "only events of this incident `KEY` fail"},
			&cli.StringFlag{Name: "fail-text", Usage: "only events with `TEXT` in the body fail"},
			&cli.DurationFlag{Name: "delay", Usage: "before every answer"},
			&cli.BoolFlag{Name: "keep-bodies", Usage: "remember every request with its body"},
			&cli.BoolFlag{Name: "quiet", Usage: "log no requests"},
		},
		Action: func(c *cli.Context) error { return serve(c, stdout, stderr) },
	}
	return app.RunContext(ctx, args)
}

func serve(c *cli.Context, stdout, stderr io.Writer) error {
	cfg := callgoosetest.Config{KeepBodies: c.Bool("keep-bodies")}
	if c.Args().Present() {
		return fmt.Errorf("unexpected argument %q", c.Args().First())
	}
	set, known := filters.Sets[c.String("filters")]
	if !known {
		return fmt.Errorf("--filters %q: want guide or recommended", c.String("filters"))
	}
	cfg.Filters = set()
	text := os.Getenv("CALLGOOSE_FAKE_TOKEN")
	if file := c.String("token-file"); file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("--token-file: %w", err)
		}
		if text = string(b); strings.TrimSpace(text) == "" {
			return fmt.Errorf("--token-file %s: no token in it", file)
		}
	}
	cfg.Tokens = strings.Fields(text)
	failure, err := callgoosetest.ParseFailure(c.String("fail"))
	if err != nil {
		return fmt.Errorf("--fail: %w", err)
	}
	failure.Delay = c.Duration("delay")
	if !c.Bool("quiet") {
		log := slog.New(slog.NewTextHandler(stderr, nil))
		cfg.Observe = func(r callgoosetest.Request) {
			log.Info("request", "method", r.Method, "path", r.Path, "from", r.From, "auth", r.Auth,
				"incident_key", r.IncidentKey, "event_id", r.EventID, "status", r.Status,
				"outcome", r.How, "http_status", r.HTTPStatus, "effect", r.Effect)
		}
	}
	fake := callgoosetest.New(cfg)
	if match := (callgoosetest.Match{Key: c.String("fail-key"), Text: c.String("fail-text")}); match != (callgoosetest.Match{}) {
		fake.FailMatching(match, failure)
		failure = callgoosetest.Failure{Delay: failure.Delay}
	}
	fake.Fail(failure)
	server, err := fake.Start(c.String("listen"))
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, "callgoose-fake listening on", server.URL())
	<-c.Context.Done()
	return server.Close()
}
