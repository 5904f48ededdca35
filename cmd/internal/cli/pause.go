package cli

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/text"
)

func (p *program) pauseCommand() *cli.Command {
	return &cli.Command{
		Name: "pause", Usage: "hold delivery, not intake, until it is resumed; survives restarts, alarmed after --alarm-after",
		Description: "Webhooks are accepted and what comes in is kept. Use it while a filter at Callgoose\n" +
			"is being repaired, so that no events are sent into it and discarded:\n\n" +
			"   pmm-callgoose pause --reason \"filter of the DBA service\" --until 30m\n" +
			"   pmm-callgoose resume",
		Flags: clientFlags(
			&cli.StringFlag{Name: "reason", Usage: "why; shown wherever the pause is"},
			&cli.StringFlag{Name: "until", Usage: "when it ends by itself: for how long (30m, 2h, 1d), or when (2026-01-31T03:00:00Z)"},
		),
		Action: p.asking(func(c *cli.Context, client *admin.Client) error {
			q := url.Values{}
			for _, name := range []string{"reason", "until"} {
				if v := c.String(name); v != "" {
					q.Set(name, v)
				}
			}
			ends, err := admin.ParsePause(q, time.Now())
			if err != nil {
				return usagef("--%w", err)
			}
			if err := client.Pause(c.Context, q); err != nil {
				return err
			}
			if ends.Until != nil {
				return p.done(c, "delivery is paused until "+text.Stamp(*ends.Until))
			}
			return p.done(c, "delivery is paused until pmm-callgoose resume")
		}),
	}
}

func (p *program) resumeCommand() *cli.Command {
	return &cli.Command{
		Name: "resume", Usage: "end a pause: what waits goes out, oldest first",
		Flags: clientFlags(),
		Action: p.asking(func(c *cli.Context, client *admin.Client) error {
			if err := client.Resume(c.Context); err != nil {
				return err
			}
			return p.done(c, "delivery goes on")
		}),
	}
}

// done says what was done.
func (p *program) done(c *cli.Context, said string) error {
	return p.say(c, map[string]string{"done": said}, "%s", said)
}

func (p *program) eventsClose(c *cli.Context, client *admin.Client, key string) error {
	in, err := client.Incident(c.Context, key)
	if err != nil {
		return err
	}
	if !in.Open {
		return fmt.Errorf("incident %s is not open", key)
	}
	if err := p.confirm(c, fmt.Sprintf("close %s (%s) as if PMM had said that it is over? PMM has not.", key, in.Alertname)); err != nil {
		return err
	}
	if err := client.CloseIncident(c.Context, key); err != nil {
		return err
	}
	return p.done(c, "incident "+key+" is closed: its recovery goes out behind what waits for it")
}

func (p *program) eventsPark(c *cli.Context, client *admin.Client, id string) error {
	if err := p.confirm(c, "take event "+id+" out of the queue? Callgoose does not get it unless dead-letters retry sends it."); err != nil {
		return err
	}
	if err := client.ParkEvent(c.Context, id); errors.Is(err, admin.ErrNotFound) {
		return fmt.Errorf("event %s is not queued", id)
	} else if err != nil {
		return err
	}
	return p.done(c, "event "+id+" is a dead letter now; dead-letters retry "+id+" sends it after all")
}
