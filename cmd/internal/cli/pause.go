package cli

import (
	"time"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/text"
)

func (p *program) pauseCommand() *cli.Command {
	return &cli.Command{
		Name: "pause", Usage: "hold delivery, not intake, until it is resumed; survives restarts, alarmed after --alarm-after",
		Description: "Webhooks are accepted and what comes in is kept. Use it while a filter at Callgoose\n" +
			"is being repaired, so that no events are sent into it and discarded.",
		Flags: clientFlags(
			&cli.StringFlag{Name: "reason", Usage: "why; shown wherever the pause is"},
			&cli.StringFlag{Name: "until", Usage: "when it ends by itself: for how long (30m, 2h, 1d), or when (2026-01-31T03:00:00Z)"},
		),
		Action: p.asking(func(c *cli.Context, client *admin.Client) error {
			q, ends := query(c), "pmm-callgoose resume"
			pause, err := admin.ParsePause(q, time.Now())
			if err != nil {
				return usagef("--%w", err)
			}
			if !pause.Until.IsZero() {
				ends = text.Stamp(pause.Until)
			}
			return p.act(c, client, "pause", q, "delivery is paused until "+ends)
		}),
	}
}

func (p *program) resumeCommand() *cli.Command {
	return &cli.Command{
		Name: "resume", Usage: "end a pause: what waits goes out, oldest first",
		Flags: clientFlags(),
		Action: p.asking(func(c *cli.Context, client *admin.Client) error {
			return p.act(c, client, "resume", nil, "delivery goes on")
		}),
	}
}
