package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/store/event"
)

// choiceFlags are the filters without a default limit: what is chosen here is
// acted on.
func choiceFlags(more ...cli.Flag) []cli.Flag {
	return append(filterFlags(&cli.IntFlag{Name: "limit", Usage: "how many, oldest first", DefaultText: "all"}), more...)
}

func yesFlag() cli.Flag {
	return &cli.BoolFlag{Name: "yes", Usage: "do not ask; required without a terminal"}
}

func sendAgainFlags() []cli.Flag {
	return choiceFlags(
		&cli.BoolFlag{Name: "all", Usage: "everything that is stored"},
		&cli.BoolFlag{Name: "include-closed", Usage: "also firing events whose episode has closed since"},
		&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be sent"},
		yesFlag(),
		&cli.Float64Flag{Name: "rate", Usage: "events queued a second", DefaultText: "at once"},
	)
}

func (p *program) replayCommand() *cli.Command {
	return &cli.Command{
		Name: "replay", Usage: "send stored events again, chosen by ID or by filters", ArgsUsage: "[ID...]",
		Description: "Through the running service; or, with --callgoose-url, on a data directory with no\n" +
			"service running, for example one copied from a dead host: then waiting events are\n" +
			"sent too, and nothing in the directory changes.",
		Flags: append(clientFlags(sendAgainFlags()...), settingFlags(offlineSettings...)[1:]...),
		Action: func(c *cli.Context) error {
			if c.IsSet("callgoose-url") {
				return p.replayOffline(c)
			}
			err := p.sendAgain(c, "")
			if errors.Is(err, admin.ErrNoService) && c.IsSet("data-dir") && c.String("admin-url") == "" {
				return p.replayOffline(c) // the URL may be in the environment or the file
			}
			return err
		},
	}
}

func (p *program) deadLettersCommand() *cli.Command {
	return &cli.Command{
		Name: "dead-letters", Usage: "events given up, with the reason",
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "list them, newest first", Flags: clientFlags(dead(filterFlags(newestFlag))...),
				Action: p.filtering(func(c *cli.Context, client *admin.Client, q url.Values) error {
					q.Set("outcome", string(event.Dead))
					return p.eventsList(c, client, q)
				}),
			},
			{
				Name: "retry", Usage: "queue them again", ArgsUsage: "[ID...]", Flags: clientFlags(dead(sendAgainFlags())...),
				Action: func(c *cli.Context) error { return p.sendAgain(c, event.Dead) },
			},
			{
				Name: "drop", Usage: "forget them", ArgsUsage: "[ID...]",
				Flags: clientFlags(dead(choiceFlags(
					&cli.BoolFlag{Name: "all", Usage: "all dead letters"},
					&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be forgotten"},
					yesFlag(),
				))...),
				Action: p.dropDeadLetters,
			},
		},
	}
}

// dead are the flags of a command for dead letters: their outcome is no choice.
func dead(flags []cli.Flag) []cli.Flag {
	return slices.DeleteFunc(flags, func(f cli.Flag) bool { return f.Names()[0] == "outcome" })
}

// choice turns flags and IDs into a query.
func choice(c *cli.Context, only event.Outcome) (url.Values, error) {
	q := query(c)
	for _, id := range c.Args().Slice() {
		q.Add("id", id)
	}
	if _, err := admin.ParseReplay(q); err != nil {
		return nil, usagef("--%w", err)
	}
	if only != "" {
		q.Set("outcome", string(only))
	}
	return q, nil
}

// sendAgain is replay, and dead-letters retry.
func (p *program) sendAgain(c *cli.Context, only event.Outcome) error {
	q, err := choice(c, only)
	if err != nil {
		return err
	}
	client, err := p.client(c)
	if err != nil {
		return err
	}
	const replay = "POST /api/v1/replay"
	q.Set("dry_run", "true")
	plan, err := admin.Ask[admin.Plan](c.Context, client, replay, q)
	if err != nil {
		return err
	}
	return p.carryOut(c, plan, "again", func() (admin.Job, error) {
		q.Del("dry_run")
		plan, err := admin.Ask[admin.Plan](c.Context, client, replay, q)
		if err != nil {
			return admin.Job{}, err
		}
		return p.watch(c.Context, client, plan.Job)
	})
}

// carryOut shows the plan of a replay, asks whether the events may go where it says,
// sends them, and makes the exit code of what became of them.
func (p *program) carryOut(c *cli.Context, plan admin.Plan, where string, send func() (admin.Job, error)) error {
	if c.String("output") != "json" {
		p.showPlan(plan)
	}
	if c.Bool("dry-run") || plan.Events == 0 {
		var said any = plan
		if !c.Bool("dry-run") {
			said = admin.Job{Outcomes: map[event.Outcome]int{}, Done: true}
		}
		_, err := p.json(c, said)
		if err == nil && plan.Events == 0 && c.NArg() > 0 {
			err = errors.New("nothing of what was named can be sent again")
		}
		return err
	}
	if err := p.confirm(c, fmt.Sprintf("send %s %s?", text.Plural(plan.Events, "event", "events"), where)); err != nil {
		return err
	}
	job, err := send()
	if err != nil {
		return err
	}
	if err := p.show(c, job, func() { p.showJob(job) }); err != nil {
		return err
	}
	bad := job.Total - job.Outcomes[event.Delivered] - job.Outcomes[event.Collapsed]
	if bad == 0 && job.Error == "" {
		return nil
	}
	err = fmt.Errorf("%d of %s not delivered", bad, text.Plural(job.Total, "event was", "events were"))
	if job.Error != "" {
		err = fmt.Errorf("%w: %s", err, job.Error)
	}
	if bad == job.Total {
		return err
	}
	return partialError{err}
}

func (p *program) showPlan(plan admin.Plan) {
	fmt.Fprintf(p.out, "%s: %d firing, %d resolved, of %s", text.Plural(plan.Events, "event", "events"), plan.Firing, plan.Resolved, text.Plural(plan.Incidents, "incident", "incidents"))
	if len(plan.Outcomes) > 0 {
		fmt.Fprintf(p.out, "; so far %s", outcomes(plan.Outcomes))
	}
	fmt.Fprintln(p.out)
	for _, left := range []struct {
		n   int
		why string
	}{
		{plan.Closed, "firing events whose episode has closed since (--include-closed takes them)"},
		{plan.Superseded, "recoveries of alerts that fire again (--include-closed takes them)"},
		{plan.Gone, "events that are no longer stored"},
		{plan.Waiting, "events that are queued already"},
		{plan.NoEvent, "alerts that never were events (suppressed or unusable)"},
	} {
		if left.n > 0 {
			fmt.Fprintf(p.out, "left out: %d %s\n", left.n, left.why)
		}
	}
}

func (p *program) showJob(j admin.Job) {
	said := outcomes(j.Outcomes)
	if j.Gone > 0 {
		said = strings.TrimPrefix(fmt.Sprintf("%s, %d no longer stored or queued already", said, j.Gone), ", ")
	}
	fmt.Fprintf(p.out, "%s: %s\n", text.Plural(j.Total, "event", "events"), said)
}

// outcomes lists how many came to what.
func outcomes(counts map[event.Outcome]int) string {
	var parts []string
	for _, o := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", counts[o], o))
	}
	return strings.Join(parts, ", ")
}

// watch follows a replay to its end. Interrupted, the events stay queued.
func (p *program) watch(ctx context.Context, client *admin.Client, id int) (job admin.Job, err error) {
	progress, end := p.progress()
	defer end()
	err = poll(ctx, 200*time.Millisecond, func() (bool, error) {
		job, err = admin.Ask[admin.Job](ctx, client, fmt.Sprint("GET /api/v1/replay/", id), nil)
		progress(job.Settled, job.Total)
		return job.Done, err
	})
	if ctx.Err() != nil {
		err = errors.New("interrupted: what is queued still goes out; events list shows it")
	}
	return job, err
}

// confirm asks on a terminal; without one --yes is required.
func (p *program) confirm(c *cli.Context, question string) error {
	if c.Bool("yes") {
		return nil
	}
	if !isTerminal(os.Stdin) {
		look := ""
		if slices.ContainsFunc(c.Command.Flags, func(f cli.Flag) bool { return f.Names()[0] == "dry-run" }) {
			look = ", or look first with --dry-run"
		}
		return usagef("there is no terminal to ask on: say --yes%s", look)
	}
	fmt.Fprintf(p.err, "%s [y/N] ", question)
	answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil || !strings.EqualFold(strings.TrimSpace(answer), "y") {
		return errors.New("not confirmed, nothing was done")
	}
	return nil
}

func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull) // by cron and systemd, under the name /dev/stdin
	return err != nil || !os.SameFile(info, null)
}

func (p *program) dropDeadLetters(c *cli.Context) error {
	q, err := choice(c, event.Dead)
	if err != nil {
		return err
	}
	client, err := p.client(c)
	if err != nil {
		return err
	}
	const drop = "POST /api/v1/dead-letters/drop"
	q.Set("dry_run", "true")
	plan, err := admin.Ask[admin.Plan](c.Context, client, drop, q)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("%s of %s", text.Plural(plan.Events, "dead letter", "dead letters"), text.Plural(plan.Incidents, "incident", "incidents"))
	if c.Bool("dry-run") || plan.Events == 0 {
		var said any = plan
		if !c.Bool("dry-run") {
			said = map[string]int{"dropped": 0}
		}
		return p.say(c, said, "%s: %d firing, %d resolved, %d unusable; nothing was dropped", what, plan.Firing, plan.Resolved, plan.NoEvent)
	}
	if err := p.confirm(c, fmt.Sprintf("forget %s (%d firing, %d resolved, %d unusable) for good? Callgoose will never hear of them.", what, plan.Firing, plan.Resolved, plan.NoEvent)); err != nil {
		return err
	}
	q.Del("dry_run")
	dropped, err := admin.Ask[map[string]int](c.Context, client, drop, q)
	if err != nil {
		return err
	}
	return p.say(c, dropped, "%s dropped", text.Plural(dropped["dropped"], "dead letter", "dead letters"))
}
