package cli

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/worker"
)

func (p *program) reconcileCommand() *cli.Command {
	return &cli.Command{
		Name: "reconcile", Usage: "compare what PMM says is firing with what is open, now", ArgsUsage: "[KEY...]",
		Description: "Does what --reconcile allows. KEY closes an incident that only a person can judge; not\n" +
			"one that PMM lists as firing. Needs serve with --pmm-url.",
		Flags: clientFlags(
			&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be done"},
			&cli.BoolFlag{Name: "yes", Usage: "also do what is held back because it is too much at once, or because --reconcile only reports"},
		),
		Action: p.asking(p.reconcile),
	}
}

func (p *program) reconcile(c *cli.Context, client *admin.Client) error {
	q := query(c)
	q["key"], q["yes"] = c.Args().Slice(), []string{fmt.Sprint(c.Bool("yes"))}
	list, err := admin.Ask[[]admin.ReconcilePass](c.Context, client, "POST /api/v1/reconcile", q)
	if err != nil {
		return err
	}
	err = p.show(c, list, func() {
		for i := range list {
			p.showReconcile(&list[i])
		}
	})
	if err != nil {
		return err
	}
	blind, refused := 0, 0
	for _, pass := range list {
		refused += len(pass.Refused)
		if pass.Skipped != "" {
			blind++
		}
	}
	switch {
	case len(list) == 0:
		return errors.New("nothing was compared: the service names no PMM server")
	case blind == len(list):
		return fmt.Errorf("nothing was compared: %s", list[0].Skipped)
	case blind > 0:
		return partialError{fmt.Errorf("%d of %d PMM servers were not compared", blind, len(list))}
	case refused > 0 && refused == c.NArg():
		return fmt.Errorf("%s open", text.Plural(refused, "incident stays", "incidents stay"))
	case refused > 0:
		return partialError{fmt.Errorf("%d of %d incidents stay open", refused, c.NArg())}
	}
	return nil
}

// showReconcile says what a pass did, and what is left.
func (p *program) showReconcile(pass *admin.ReconcilePass) {
	opened, closed := "opened", "closed"
	if pass.DryRun {
		opened, closed = "would open", "would close"
	}
	var rows [][]string
	acted := map[string]bool{}
	for _, act := range []struct {
		what string
		list []worker.ReconcileAct
	}{{opened, pass.Open}, {closed, pass.Close}} {
		for _, a := range act.list {
			acted[a.Key] = true
			rows = append(rows, []string{act.what, a.Key, a.Title, a.Why})
		}
	}
	for _, d := range pass.Drift {
		if !acted[d.Key] {
			rows = append(rows, []string{d.Kind, d.Key, d.Title, d.Why})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(pass.Refused)) {
		rows = append(rows, []string{"stays open", key, "", pass.Refused[key]})
	}
	switch {
	case pass.Skipped != "":
		fmt.Fprintf(p.out, "%s: not compared: %s\n", pass.Source, text.Line(pass.Skipped))
	case len(rows) == 0:
		fmt.Fprintf(p.out, "%s: PMM and the open incidents agree\n", pass.Source)
	default:
		fmt.Fprintf(p.out, "%s:\n", pass.Source)
		p.table(nil, rows)
	}
	for _, a := range pass.Alarms {
		fmt.Fprintf(p.out, "%s\n  > %s\n", text.Line(a.Text), text.Line(a.Way))
	}
}
