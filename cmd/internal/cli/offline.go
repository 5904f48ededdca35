package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/app"
	"pmm-callgoose/store"
)

// offlineSettings are the settings of serve that a replay without a service needs.
var offlineSettings = []string{
	"callgoose-url", "callgoose-token-file", "callgoose-auth", "callgoose-from", "callgoose-ca", "allow-http",
	"timeout", "concurrency", "retry-min", "retry-max", "retry-for", "late-after", "incident-by", "on-backlog", "resend-after",
	"max-body",
}

// replayOffline is replay on a directory that no service holds.
func (p *program) replayOffline(c *cli.Context) error {
	q, err := choice(c, "")
	if err != nil {
		return err
	}
	req, err := admin.ParseReplay(q)
	if err != nil {
		return usageError{err}
	}
	cfg, err := p.load(c, append(slices.Clone(offlineSettings), "data-dir", "log-level", "log-format")...)
	if err != nil {
		return err
	}
	if cfg.CallgooseURL == "" {
		return fmt.Errorf("%w at %s; to replay from it without one, say --callgoose-url", admin.ErrNoService, cfg.DataDir)
	}
	if !cfg.CallgooseToken.IsSet() {
		return usagef("--callgoose-token-file is required with --callgoose-url")
	}
	cfg.Rate = req.Rate
	if _, err := admin.NewSocketClient(cfg.DataDir).Status(c.Context); err == nil {
		return fmt.Errorf("%w: a service is running on %s; leave --callgoose-url out", store.ErrLocked, cfg.DataDir)
	}
	if err := guardDataDir(cfg.DataDir, false); err != nil {
		return err
	}
	o, err := app.OpenOffline(c.Context, cfg, req, nil, newLogger(cfg, p.err, p.toJournal(p.err)))
	if errors.Is(err, fs.ErrNotExist) {
		return usagef("--data-dir: %w", err)
	}
	if err != nil {
		return err
	}
	defer o.Close()
	return p.carryOut(c, o.Plan, "to "+cfg.CallgooseURL, func() (admin.Job, error) { return o.Send(c.Context) })
}
