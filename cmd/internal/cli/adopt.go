package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/app"
	"pmm-callgoose/cmd/internal/config"
)

// natsSettings are the settings of serve that say where the NATS servers are.
var natsSettings = []string{
	"nats-url", "nats-url-file", "nats-creds-file", "nats-user-file", "nats-ca", "nats-cert", "nats-key",
	"nats-replicas", "nats-name", "instance", "takeover-after",
}

// movingCommands are the commands that bring a store to NATS servers, and back.
func (p *program) movingCommands() []*cli.Command {
	flags := append(settingFlags("data-dir", "log-level", "log-format"), settingFlags(natsSettings...)[1:]...)
	return []*cli.Command{
		{
			Name: "adopt", Usage: "bring the data directory of a stopped service to the NATS servers", Flags: flags,
			Description: "Interrupted, it goes on when it is run again. Afterwards the directory is not served any more.",
			Action:      p.moving(app.Adopt, "Everything in %[1]s is on the NATS servers now. Start the forwarders with the same --nats-url, each with an empty data directory; keep %[1]s until they deliver."),
		},
		{
			Name: "leave", Usage: "bring what the NATS servers hold into an empty data directory", Flags: flags,
			Description: "All forwarders must be stopped; none can lead afterwards. Interrupted, it begins anew when it is run again.",
			Action:      p.moving(app.Leave, "Everything is in %[1]s now. Start one forwarder with --data-dir %[1]s and without --nats-url."),
		},
	}
}

// moving is the action of a command that moves a store; done says that it did.
func (p *program) moving(move func(context.Context, *config.Config, app.Options, app.Progress) error, done string) cli.ActionFunc {
	return func(c *cli.Context) error {
		cfg, err := p.load(c, append([]string{"data-dir", "log-level", "log-format"}, natsSettings...)...)
		if err != nil {
			return err
		}
		if cfg.NATS() == "" {
			return usagef("--nats-url is required: the NATS servers")
		}
		syscall.Umask(0o077)
		if err := refuseRoot(cfg.DataDir, os.Geteuid(), false, "cluster "+c.Command.Name); err != nil {
			return err
		}
		if err := guardDataDir(cfg.DataDir, true); err != nil {
			return err
		}
		bar, end := p.progress()
		told := 0 // tenths
		show := func(done, of int) {
			bar(done, of)
			if tenth := done * 10 / of; tenth > told && !isTerminal(p.err) {
				told = tenth
				fmt.Fprintf(p.err, "%d of %d notifications copied\n", done, of)
			}
		}
		err = move(c.Context, cfg, app.Options{Version: build().Version, Logger: newLogger(cfg, p.err, p.toJournal(p.err))}, show)
		end()
		if err != nil && c.Context.Err() != nil {
			return errors.New("interrupted: run it again")
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(p.out, done+"\n", cfg.DataDir)
		return nil
	}
}
