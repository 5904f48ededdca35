package cli

import (
	"context"
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
		Subcommands: append(p.movingCommands(), &cli.Command{
			Name: "step-down", Usage: "have the instance that leads stop leading, for maintenance: another one leads within seconds",
			Flags: clientFlags(), Action: p.asking(p.stepDown),
		}, &cli.Command{
			Name: "snapshot", Usage: "have the instance that leads store the ledger as a whole in NATS now",
			Flags: clientFlags(), Action: p.asking(p.snapshot),
		}),
	}
}

func (p *program) snapshot(c *cli.Context, client *admin.Client) error {
	stored, err := admin.Ask[struct{ Entry uint64 }](c.Context, client, "POST /api/v1/cluster/snapshot", nil)
	if err != nil {
		return err
	}
	return p.done(c, fmt.Sprintf("a snapshot of the ledger is stored, up to entry %d", stored.Entry))
}

// stepDown asks for it and waits until another instance leads.
func (p *program) stepDown(c *cli.Context, client *admin.Client) error {
	ended, err := admin.Ask[struct{ Term uint64 }](c.Context, client, "POST /api/v1/cluster/step-down", nil)
	if err != nil {
		return err
	}
	const within = 30 * time.Second
	ctx, cancel := context.WithTimeout(c.Context, within)
	defer cancel()
	leader := ""
	err = poll(ctx, 200*time.Millisecond, func() (bool, error) {
		s, err := client.Status(ctx)
		if err != nil || s.Cluster == nil || s.Cluster.Term <= ended.Term {
			return false, nil //nolint:nilerr // it may be the one that steps down
		}
		leader = s.Cluster.Leader
		return true, nil
	})
	switch {
	case c.Context.Err() != nil:
		return c.Context.Err()
	case err != nil:
		return fmt.Errorf("the leader was asked to step down, and no other instance leads after %s: pmm-callgoose status --cluster", text.Span(within))
	}
	return p.done(c, fmt.Sprintf("instance %s leads now", leader))
}

// clusterStatus shows how each instance is.
func (p *program) clusterStatus(c *cli.Context, client *admin.Client) error {
	if c.Bool("watch") {
		return usagef("--cluster and --watch do not go together")
	}
	list, err := admin.Ask[[]admin.Instance](c.Context, client, "GET /api/v1/cluster", nil)
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
