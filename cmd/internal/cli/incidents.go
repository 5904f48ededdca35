package cli

import (
	"cmp"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/text"
)

func (p *program) incidentsCommand() *cli.Command {
	return &cli.Command{
		Name: "incidents", Usage: "what is open, and one incident's story in order",
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "list the alerts that are open here, newest first",
				Flags: clientFlags(severityFlag, textFlag, matchFlag(),
					&cli.IntFlag{Name: "limit", Value: admin.DefaultLimit, Usage: "how many"}),
				Action: p.filtering(p.incidentsList),
			},
			{
				Name: "show", Usage: "one incident: began, received, repeats, attempts, answers, recovery, and who did what to it", ArgsUsage: "KEY",
				Flags: clientFlags(), Action: p.askingOf("incidents show needs one incident key; incidents list prints those that are open", p.incidentsShow),
			},
		},
	}
}

func (p *program) incidentsList(c *cli.Context, client *admin.Client, q url.Values) error {
	list, err := admin.Ask[[]admin.Incident](c.Context, client, "GET /api/v1/incidents", q)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return p.say(c, list, "no alert is open")
	}
	if len(list) == c.Int("limit") {
		defer fmt.Fprintf(p.err, "the newest %d; more with --limit\n", len(list))
	}
	var rows [][]string
	for _, in := range list {
		began := time.Time{}
		if in.StartsAt != nil {
			began = *in.StartsAt
		}
		rows = append(rows, []string{
			text.Stamp(began), in.Key, text.Short(12, cmp.Or(in.Labels["severity"], "-")), cmp.Or(string(in.Outcome), "-"), strconv.Itoa(in.Tries),
			text.Short(40, in.Alertname), text.Short(40, cmp.Or(admin.Where(in.Labels), "-")),
		})
	}
	return p.show(c, list, func() {
		p.table([]string{"BEGAN", "INCIDENT", "SEVERITY", "OUTCOME", "TRIES", "ALERT", "WHERE"}, rows)
	})
}

func (p *program) incidentsShow(c *cli.Context, client *admin.Client, key string) error {
	s, err := admin.Ask[admin.Story](c.Context, client, "GET /api/v1/incidents/"+url.PathEscape(key), nil)
	if err != nil {
		return err
	}
	return p.show(c, s, func() { p.showStory(s) })
}

func (p *program) showStory(s admin.Story) {
	state := "not open"
	if s.Open {
		state = "open"
	}
	p.table(nil, [][]string{
		{"incident", s.Key},
		{"alert", s.Alertname + " on " + cmp.Or(admin.Where(s.Labels), "-")},
		{"severity", cmp.Or(s.Labels["severity"], "-")},
		{"state", state},
	})
	fmt.Fprintln(p.out)
	if s.Cut {
		fmt.Fprintf(p.out, "  (only the newest %d events)\n", admin.StoryEvents)
	}
	var rows [][]string
	for _, step := range s.Story {
		said := step.Text
		if step.By != "" {
			said += ", by " + step.By
		}
		rows = append(rows, []string{"  " + text.Stamp(step.At), text.Short(200, said), step.ID})
	}
	p.table(nil, rows)
}
