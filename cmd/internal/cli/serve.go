package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/app"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/cmd/internal/sdnotify"
)

func (p *program) serveCommand() *cli.Command {
	return &cli.Command{
		Name:   "serve",
		Usage:  "run the forwarder until SIGTERM or SIGINT; SIGHUP reads the secrets again",
		Flags:  settingFlags(),
		Action: p.serve,
	}
}

func (p *program) serve(c *cli.Context) error {
	cfg, warnings, err := config.Load(p.input(c, true))
	if err != nil || cfg.LogFormat != "json" {
		p.warn(warnings)
	}
	if err != nil {
		return err
	}
	if p.env("GOMAXPROCS") == "" {
		// A goroutine in fsync holds one of these until the runtime notices, and one or two
		// always are in it.
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 2)
	}
	// Forwarding goes on when whoever reads the log or the terminal goes away: the write
	// fails, and the failure is ignored. signal.Ignore would do too, but --alarm-command
	// would inherit it.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	syscall.Umask(0o077)
	harden(cfg.AlarmCommand != "" || cfg.FallbackCommand != "")
	if err := refuseRoot(cfg.DataDir, os.Geteuid(), unitInstalled(cfg.DataDir), "serve"); err != nil {
		return err
	}
	if err := guardDataDir(cfg.DataDir, true); err != nil {
		return err
	}
	log := newLogger(cfg, p.err, p.toJournal(p.err))
	if cfg.LogFormat == "json" {
		for _, w := range warnings {
			log.Warn("a setting is odd", "component", "config", "warning", string(w))
		}
	}
	slog.SetDefault(log) // net/http writes there what a server sends unasked, which may be a secret
	a, err := app.New(cfg, app.Options{
		Version: build().Version, Logger: log, Notify: sdnotify.New(p.environ),
		AtNextStart: func() ([]config.Change, config.Problems) { return p.atNextStart(c, cfg) },
		Ready:       func(addrs app.Addresses) { fmt.Fprintln(p.out, addrs.Line()) },
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(c.Context)
	defer stop()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hup:
				a.Reload()
				changes, problems := p.atNextStart(c, cfg)
				logNextStart(log, changes, problems)
			}
		}
	}()
	return a.Run(ctx)
}

// atNextStart says which settings differ from those of the running service: they take a
// restart. What the next start would refuse is said now and not then.
func (p *program) atNextStart(c *cli.Context, running *config.Config) ([]config.Change, config.Problems) {
	next, _, err := config.Load(p.input(c, true))
	if problems, ok := errors.AsType[config.Problems](err); ok {
		return nil, problems
	}
	return running.Changes(next), nil
}

func logNextStart(log *slog.Logger, changes []config.Change, problems config.Problems) {
	for _, problem := range problems {
		log.Error("the configuration is broken: the service goes on as it is, and would not start again", "where", problem.Where, "problem", problem.Text)
	}
	for _, change := range changes {
		log.Warn("a setting was changed: it takes effect at the next start", "setting", change.Name, "was", change.Was, "now", change.Now, "from", change.From)
	}
	if len(changes)+len(problems) == 0 {
		log.Info("the settings are the same")
	}
}
