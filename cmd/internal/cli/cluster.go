package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/text"
)

func (p *program) clusterCommand() *cli.Command {
	return &cli.Command{
		Name: "cluster", Usage: "several forwarders on one NATS cluster",
		Subcommands: []*cli.Command{p.stepDownCommand(), p.snapshotCommand()},
	}
}

func (p *program) stepDownCommand() *cli.Command {
	return &cli.Command{
		Name: "step-down", Usage: "have the instance that leads stop leading, for maintenance: another one leads within seconds",
		Flags:  clientFlags(),
		Action: p.asking(p.stepDown),
	}
}

func (p *program) snapshotCommand() *cli.Command {
	return &cli.Command{
		Name: "snapshot", Usage: "have the instance that leads store the ledger as a whole in NATS now",
		Flags: clientFlags(),
		Action: p.asking(func(c *cli.Context, client *admin.Client) error {
			entry, err := client.Snapshot(c.Context)
			if err != nil {
				return err
			}
			return p.done(c, fmt.Sprintf("a snapshot of the ledger is stored, up to entry %d", entry))
		}),
	}
}

// stepDown asks for it and waits until another instance leads.
func (p *program) stepDown(c *cli.Context, client *admin.Client) error {
	term, err := client.StepDown(c.Context)
	if err != nil {
		return err
	}
	const within, every = 30 * time.Second, 200 * time.Millisecond
	for end := time.Now().Add(within); time.Now().Before(end); {
		s, err := client.Status(c.Context)
		if err == nil && s.Cluster != nil && s.Cluster.Term > term {
			return p.done(c, fmt.Sprintf("instance %s leads now", s.Cluster.Leader))
		}
		select {
		case <-time.After(every):
		case <-c.Context.Done():
			return c.Context.Err()
		}
	}
	return fmt.Errorf("the leader was asked to step down, and no other instance leads after %s: pmm-callgoose status --cluster", text.Span(within))
}

// clusterStatus shows how each instance is.
func (p *program) clusterStatus(c *cli.Context, client *admin.Client) error {
	if c.Bool("watch") {
		return usagef("--cluster and --watch do not go together")
	}
	list, err := client.Instances(c.Context)
	if err != nil {
		return err
	}
	var rows [][]string
	odd, now := 0, time.Now()
	for _, of := range list {
		s := of.Status
		if s == nil {
			odd++
			rows = append(rows, []string{of.Name, "?", of.Version, "?", "?", "does not answer; heard " + text.Ago(of.SeenAt, now)})
			continue
		}
		behind := "?"
		if s.Cluster.Behind != nil {
			behind = fmt.Sprint(*s.Cluster.Behind)
		}
		odd += len(s.Attention)
		rows = append(rows, []string{of.Name, of.Role, of.Version, behind, fmt.Sprint(s.Queued), s.Headline})
	}
	err = p.show(c, list, func() { p.table([]string{"INSTANCE", "ROLE", "VERSION", "BEHIND", "QUEUED", "STATE"}, rows) })
	if err == nil && c.Bool("check") && odd > 0 {
		err = errors.New(text.Plural(odd, "thing", "things") + " to look at")
	}
	return err
}
