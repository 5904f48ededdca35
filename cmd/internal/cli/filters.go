package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/text"
	apifilters "pmm-callgoose/worker/callgoose/filters"
)

func (p *program) filtersCommand() *cli.Command {
	return &cli.Command{
		Name:  "filters",
		Usage: "what filters of Callgoose do, before they are changed there",
		Subcommands: []*cli.Command{
			{
				Name: "show", Usage: "print filters as filters test reads them", ArgsUsage: "guide|recommended",
				Flags: []cli.Flag{outputFlag()}, Action: p.filtersShow,
			},
			{
				Name: "test", Usage: "what the stored events, at most " + strconv.Itoa(admin.MaxLimit) + ", would do under the filters in a file (YAML or JSON, - = standard input); nothing is sent",
				ArgsUsage: "FILE",
				Flags: clientFlags(
					&cli.StringFlag{Name: "since", Value: "7d", Usage: "received at or after: how long ago (90m, 2h, 3d), or when (2026-01-31T03:00:00Z)"},
					&cli.IntFlag{Name: "limit", Value: 20, Usage: "how many incidents, and how many discarded events, a table shows"},
				),
				Action: p.filtersTest,
			},
		},
	}
}

func (p *program) filtersShow(c *cli.Context) error {
	set := apifilters.Sets[c.Args().First()]
	if c.NArg() != 1 || set == nil {
		return usagef("filters show needs one of guide and recommended")
	}
	out, err := apifilters.Write(set())
	if err != nil {
		return err
	}
	return p.show(c, map[string]any{"filters": set()}, func() { _, _ = p.out.Write(out) }) // p.out keeps the error
}

func (p *program) filtersTest(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef("filters test needs one FILE; filters show recommended prints one")
	}
	name := c.Args().First()
	file, err := open(name)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	body, err := io.ReadAll(io.LimitReader(file, apifilters.MaxFile+1))
	if err != nil {
		return usagef("read %s: %w", name, err)
	}
	if len(body) > apifilters.MaxFile {
		return usagef("%s has more than %s", name, text.Size(apifilters.MaxFile))
	}
	if _, err := apifilters.Parse(body); err != nil {
		return usagef("%s: %w", name, err)
	}
	if _, _, err := admin.ParseFilter(map[string][]string{"since": {c.String("since")}}); err != nil {
		return usagef("--%w", err)
	}
	client, err := p.client(c)
	if err != nil {
		return err
	}
	r, err := client.Forecast(c.Context, body, c.String("since"))
	if err != nil {
		return err
	}
	return p.show(c, r, func() { p.showForecast(r, max(c.Int("limit"), 0)) })
}

func (p *program) showForecast(r apifilters.Report, limit int) {
	rows := [][]string{
		{"events", strconv.Itoa(r.Events)},
		{"incidents opened", strconv.Itoa(r.Created)},
		{"closing something", strconv.Itoa(r.Resolved)},
		{"doing nothing", strconv.Itoa(r.None)},
		{"discarded", strconv.Itoa(r.Discarded)},
		{"incidents closed too early", strconv.Itoa(r.ClosedEarly)},
		{"incidents never closed", strconv.Itoa(r.NeverClosed)},
		{"incidents still open", strconv.Itoa(r.Open)},
	}
	if r.Gone > 0 {
		rows = append(rows, []string{"no longer stored", strconv.Itoa(r.Gone)})
	}
	p.table(nil, rows)
	fmt.Fprintln(p.out)
	rows = nil
	for _, u := range r.Filters {
		rows = append(rows, []string{strconv.Itoa(u.Filter), strconv.Itoa(u.Triggers), strconv.Itoa(u.Resolves)})
	}
	p.table([]string{"FILTER", "TRIGGERS", "RESOLVES"}, rows)
	list := slices.DeleteFunc(slices.Clone(r.Incidents), func(i apifilters.Incident) bool { return i.Problem == "" })
	rows = nil
	for _, i := range list[:min(limit, len(list))] {
		closed := "-"
		if !i.ClosedAt.IsZero() {
			closed = text.Stamp(i.ClosedAt)
		}
		rows = append(rows, []string{
			strings.ReplaceAll(i.Problem, "_", " "), text.Stamp(i.OpenedAt), closed, strconv.Itoa(i.Filter),
			text.Short(60, i.Title), text.Short(60, cmp.Or(i.Mapped, "(no value)")), text.Short(80, strings.Join(i.Keys, ", ")),
		})
	}
	p.shorten("PROBLEM OPENED CLOSED FILTER TITLE MAPPED INCIDENTS", rows, r.NeverClosed+r.ClosedEarly)
	rows = nil
	for _, d := range r.Discards[:min(limit, len(r.Discards))] {
		rows = append(rows, []string{"discarded", text.Stamp(d.At), d.ID, string(d.Status), d.Key})
	}
	p.shorten("PROBLEM RECEIVED ID STATUS INCIDENT", rows, r.Discarded)
}

// shorten prints some of a number of rows, and says when there are more.
func (p *program) shorten(heading string, rows [][]string, of int) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintln(p.out)
	p.table(strings.Fields(heading), rows)
	if of > len(rows) {
		fmt.Fprintf(p.out, "and %d more; --output json has up to 1000 of each kind\n", of-len(rows))
	}
}
