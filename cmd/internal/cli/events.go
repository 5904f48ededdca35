package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/store/event"
)

// filterFlags are the filters of everything that chooses events, and how many it takes.
func filterFlags(limit cli.Flag) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "since", Usage: "received at or after: how long ago (90m, 2h, 3d), or when (2026-01-31T03:00:00Z)"},
		&cli.StringFlag{Name: "until", Usage: "received before: the same"},
		&cli.StringFlag{Name: "status", Usage: "firing or resolved"},
		&cli.StringSliceFlag{Name: "outcome", Usage: admin.OutcomeNames() + "; several with commas"},
		matchFlag(),
		&cli.StringFlag{Name: "incident", Usage: "incident key"},
		severityFlag, textFlag, limit,
	}
}

var (
	severityFlag = &cli.StringFlag{Name: "severity", Usage: "label severity: critical, warning, ..."}
	newestFlag   = &cli.IntFlag{Name: "limit", Value: admin.DefaultLimit, Usage: "how many, newest first"}
	textFlag     = &cli.StringFlag{Name: "text", Usage: "stands somewhere in name, labels, ids, error or reason, whatever its case"}
)

// matchFlag is a new one for each command: it keeps its values.
func matchFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "match", KeepSpace: true, Usage: "label=value; may be repeated, all must match"}
}

func (p *program) eventsCommand() *cli.Command {
	return &cli.Command{
		Name:  "events",
		Usage: "what came in, what became of it, every attempt",
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "list events, newest first",
				Flags:  clientFlags(filterFlags(newestFlag)...),
				Action: p.filtering(p.eventsList),
			},
			{
				Name: "show", Usage: "show one event: every attempt, what was sent, what PMM sent", ArgsUsage: "ID (of an event; of a notification: lists its events)",
				Flags: clientFlags(), Action: p.askingOf("events show needs one ID; events list prints them", p.eventsShow),
			},
			{
				Name: "tail", Usage: "print events as they come in, are tried and are settled, until interrupted; with --since or --limit begin with those that are there",
				Flags: clientFlags(filterFlags(newestFlag)...), Action: p.filtering(p.eventsTail),
			},
			{
				Name: "close", Usage: "close an open incident by hand, as a recovery: the incident at Callgoose closes; while its alert fires, PMM opens it again", ArgsUsage: "KEY (incident key)",
				Flags: clientFlags(yesFlag()), Action: p.askingOf("events close needs one incident key; incidents list prints them", p.eventsClose),
			},
			{
				Name: "park", Usage: "take a queued event out of the queue and keep it as a dead letter: what is behind it goes on", ArgsUsage: "ID",
				Flags: clientFlags(yesFlag()), Action: p.askingOf("events park needs one ID; events list --outcome queued prints them", p.eventsPark),
			},
			p.exportCommand(), p.importCommand(),
		},
	}
}

func (p *program) eventsList(c *cli.Context, client *admin.Client, q url.Values) error {
	list, err := admin.Ask[[]*event.Record](c.Context, client, "GET /api/v1/events", q)
	if err != nil {
		return err
	}
	if err := p.showEvents(c, list); err != nil {
		return err
	}
	if len(list) == c.Int("limit") {
		fmt.Fprintf(p.err, "the newest %d; more with --limit, fewer with filters\n", len(list))
	}
	return nil
}

func (p *program) showEvents(c *cli.Context, list []*event.Record) error {
	for _, r := range list {
		r.Attempts = nil // events show has them
	}
	return p.show(c, admin.NewRows(list), func() {
		if len(list) == 0 {
			fmt.Fprintln(p.out, "no events")
			return
		}
		var rows [][]string
		for _, r := range list {
			rows = append(rows, eventRow(r))
		}
		p.table(eventHeading, rows)
	})
}

var eventHeading = []string{"RECEIVED", "ID", "STATUS", "OUTCOME", "TRIES", "ALERT", "WHERE", "INCIDENT", "SEVERITY", "LAST ERROR OR REASON"}

func eventRow(r *event.Record) []string {
	note := r.LastError
	if note == "" || r.Outcome == event.Dead { // that reason quotes the last error
		note = r.Reason
	}
	return []string{
		text.Stamp(r.ReceivedAt), r.ID, string(r.Status), string(r.Outcome), strconv.Itoa(r.Tries),
		text.Short(40, r.Alertname), text.Short(40, cmp.Or(admin.Where(r.Labels), "-")), r.Key, text.Short(12, cmp.Or(r.Labels["severity"], "-")), text.Short(80, note),
	}
}

func describe(r *event.Record) string {
	if r.Status == "" {
		return "a member of the notification that cannot be used"
	}
	if at := admin.Where(r.Labels); at != "" {
		return r.Alertname + " at " + at + " is " + string(r.Status)
	}
	return r.Alertname + " is " + string(r.Status)
}

func (p *program) eventsShow(c *cli.Context, client *admin.Client, id string) error {
	d, err := client.Event(c.Context, id)
	if errors.Is(err, admin.ErrNotFound) && strings.HasPrefix(id, "n") { // a notification
		list, lerr := admin.Ask[[]*event.Record](c.Context, client, "GET /api/v1/events", url.Values{"text": {id}, "limit": {strconv.Itoa(admin.MaxLimit)}})
		list = slices.DeleteFunc(list, func(r *event.Record) bool { return r.Notification != id })
		if lerr == nil && len(list) > 0 {
			return p.showEvents(c, list)
		}
	}
	if err != nil {
		return err
	}
	return p.show(c, d, func() { p.showEvent(d) })
}

func (p *program) showEvent(d *admin.Detail) {
	rows := [][]string{
		{"event", d.ID},
		{"incident", d.Key},
		{"alert", describe(d.Record)},
		{"received", text.Stamp(d.ReceivedAt) + " from " + d.Source + " in notification " + d.Notification},
		{"outcome", strings.TrimSuffix(string(d.Outcome)+": "+d.Reason, ": ")},
	}
	more := func(name, value string) {
		if value != "" {
			rows = append(rows, []string{name, value})
		}
	}
	more("", admin.Explain(d.Record))
	if d.SettledAt != nil {
		more("settled", text.Stamp(*d.SettledAt))
	}
	more("callgoose id", d.CallgooseID)
	more("delayed by", d.DelayedBy)
	p.table(nil, rows)
	p.showAttempts(d)
	sent := "what Callgoose gets"
	if slices.ContainsFunc(d.Attempts, func(a event.Attempt) bool { return a.Sent }) {
		sent = "sent to Callgoose"
	}
	for _, part := range []struct {
		name string
		raw  json.RawMessage
	}{{sent, d.Sent}, {"as PMM sent it", d.Raw}} {
		if len(part.raw) > 0 {
			fmt.Fprintf(p.out, "\n%s:\n%s\n", part.name, text.Line(string(part.raw)))
		}
	}
	if d.Missing != "" {
		fmt.Fprintln(p.out, "\n"+d.Missing)
	}
}

func (p *program) showAttempts(d *admin.Detail) {
	if len(d.Attempts) == 0 {
		return
	}
	fmt.Fprintf(p.out, "\nattempts: %d", d.Tries)
	if d.Tries > len(d.Attempts) {
		fmt.Fprintf(p.out, ", of which the first and the latest %d are kept", len(d.Attempts)-1)
	}
	fmt.Fprintln(p.out)
	var rows [][]string
	for _, a := range d.Attempts {
		code := "-"
		if a.Status != 0 {
			code = strconv.Itoa(a.Status)
		}
		rows = append(rows, []string{"  " + text.Stamp(a.At), a.Duration.Round(10 * time.Microsecond).String(), code, a.Result, a.Effect + a.Error})
	}
	p.table([]string{"  AT", "TOOK", "HTTP", "RESULT", "ANSWER"}, rows)
}

func (p *program) eventsTail(c *cli.Context, client *admin.Client, q url.Values) error {
	return client.Tail(c.Context, q, func(r *event.Record) error {
		if c.String("output") == "json" {
			r.Attempts = nil
			line, err := json.Marshal(admin.NewRow(r))
			if err == nil {
				_, err = fmt.Fprintf(p.out, "%s\n", text.JSON(line))
			}
			return err
		}
		note := text.Short(100, eventRow(r)[9])
		if r.Tries > 0 && note != "" {
			note = fmt.Sprintf("try %d: %s", r.Tries, note)
		}
		_, err := fmt.Fprintf(p.out, "%s  %-8s  %-10s  %-20s  %s  %s  %s\n", text.Stamp(time.Now()), text.Line(string(r.Status)), r.Outcome,
			r.ID, text.Line(r.Alertname), text.Line(cmp.Or(admin.Where(r.Labels), "-")), text.Line(note))
		return err
	})
}

func (p *program) eventsClose(c *cli.Context, client *admin.Client, key string) error {
	at := "incidents/" + url.PathEscape(key)
	in, err := admin.Ask[admin.Incident](c.Context, client, "GET /api/v1/"+at, nil)
	if err != nil {
		return err
	}
	if !in.Open {
		return fmt.Errorf("incident %s is not open", key)
	}
	if err := p.confirm(c, fmt.Sprintf("close %s (%s) as if PMM had said that it is over? PMM has not.", key, in.Alertname)); err != nil {
		return err
	}
	return p.act(c, client, at+"/close", nil, "incident "+key+" is closed: its recovery goes out behind what waits for it")
}

func (p *program) eventsPark(c *cli.Context, client *admin.Client, id string) error {
	if err := p.confirm(c, "take event "+id+" out of the queue? Callgoose does not get it unless dead-letters retry sends it."); err != nil {
		return err
	}
	err := p.act(c, client, "events/"+url.PathEscape(id)+"/park", nil, "event "+id+" is a dead letter now; dead-letters retry "+id+" sends it after all")
	if errors.Is(err, admin.ErrNotFound) {
		return fmt.Errorf("event %s is not queued", id)
	}
	return err
}
