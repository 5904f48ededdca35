package cli

import (
	"context"
	"errors"
	"time"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/admin"
)

// healthTimeout is how long the answer may take; Docker's own default is 30 s.
const healthTimeout = 5 * time.Second

func (p *program) healthCommand() *cli.Command {
	return &cli.Command{
		Name: "health", Usage: "exit 0 if a webhook would be accepted now, 1 if not: the health check of containers",
		Description: "Callgoose being down does not make it unhealthy: that is when webhooks must be\n" +
			"accepted. status tells of Callgoose.",
		Flags: clientFlags(&cli.BoolFlag{Name: "alive", Usage: "only ask whether the process answers: for what restarts it, as a restart makes no room in a full store"}),
		Action: p.asking(func(c *cli.Context, client *admin.Client) error {
			ctx, cancel := context.WithTimeout(c.Context, healthTimeout)
			defer cancel()
			what := "GET /readyz"
			if c.Bool("alive") {
				what = "GET /healthz"
			}
			_, err := admin.Ask[struct{}](ctx, client, what, nil)
			if err == nil {
				return p.say(c, map[string]string{"status": "ok"}, "ok")
			}
			_, jsonErr := p.json(c, map[string]string{"status": "failed", "problem": err.Error()})
			return errors.Join(errors.New(err.Error()), jsonErr) // exit 1, not 3: Docker knows 0 and 1
		}),
	}
}
