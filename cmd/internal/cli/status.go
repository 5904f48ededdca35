package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/store/event"
)

func (p *program) statusCommand() *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "was anybody called, and what waits: the last event that Callgoose took, what waits, and what a person should look at",
		Description: "   pmm-callgoose status\n" +
			"   pmm-callgoose status --check || echo \"look at it\"     # for cron, Nagios\n" +
			"   pmm-callgoose status --output json | jq .attention",
		Flags: clientFlags(
			&cli.BoolFlag{Name: "check", Usage: "exit 1 where a person should look"},
			&cli.BoolFlag{Name: "cluster", Usage: "ask each instance on the same NATS how it is"},
			&cli.BoolFlag{Name: "watch", Usage: "show it again every two seconds, until interrupted"},
		),
		Action: p.asking(func(c *cli.Context, client *admin.Client) error {
			switch {
			case c.Bool("cluster"):
				return p.clusterStatus(c, client)
			case c.Bool("watch"):
				return p.watchStatus(c, client)
			}
			s, err := client.Status(c.Context)
			if err == nil {
				err = p.show(c, s, func() { p.showStatus(s, time.Now()) })
			}
			if n := len(s.Attention); err == nil && c.Bool("check") && n > 0 {
				err = fmt.Errorf("%s to look at: %s", text.Plural(n, "thing", "things"), s.Headline)
			}
			return err
		}),
	}
}

// watchEvery is how often status --watch asks.
const watchEvery = 2 * time.Second

// watchStatus shows the status again and again. A service that is away may come back.
func (p *program) watchStatus(c *cli.Context, client *admin.Client) error {
	if c.Bool("check") || c.String("output") == "json" {
		return usagef("--watch is for people: leave out --check and --output json")
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		s, err := client.Status(c.Context)
		if isTerminal(p.screen()) {
			fmt.Fprint(p.out, "\x1b[H\x1b[2J")
		}
		now := time.Now()
		fmt.Fprintf(p.out, "%s, every %s; Ctrl-C ends it\n\n", text.Stamp(now), text.Span(watchEvery))
		switch {
		case c.Context.Err() != nil:
			return nil
		case err != nil:
			fmt.Fprintln(p.out, p.paint(red, text.Line(err.Error())))
		default:
			p.showStatus(s, now)
		}
		select {
		case <-c.Context.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (p *program) showStatus(s admin.Status, now time.Time) {
	colour := map[admin.Level]string{admin.Good: green, admin.Odd: yellow, admin.Bad: red}[s.Level]
	fmt.Fprintln(p.out, p.paint(colour, text.Line(s.Headline)))
	for _, a := range s.Attention {
		fmt.Fprintf(p.out, "  > %s: %s\n", a.Code, text.Line(a.Fix))
	}
	fmt.Fprintln(p.out)
	rows := append([][]string{{"last call", lastCall(s.LastDelivered, now)}}, callgooseRows(s, now)...)
	rows = append(rows, waitingRows(s, now)...)
	rows = append(rows, []string{"delivered", fmt.Sprint(s.Delivered)})
	if e := s.Effects; s.Delivered > 0 {
		rows = append(rows, []string{"", fmt.Sprintf("opened %d, closed %d, nothing done %d, unknown %d", e.Opened, e.Closed, e.Nothing, e.Unknown)})
	}
	rows = append(rows,
		[]string{"discarded", fmt.Sprint(s.Discarded) + hint(s.Discarded > 0, "no filter of Callgoose matched: events list --outcome discarded")},
		[]string{"dead", fmt.Sprint(s.Dead) + hint(s.Dead > 0, "events list --outcome dead says why")},
		[]string{"suppressed", suppressed(s)},
		[]string{"collapsed", fmt.Sprint(s.Collapsed)},
		[]string{"received", text.Plural(s.Notifications, "notification", "notifications") + ", " + text.Plural(s.Alerts, "alert", "alerts") +
			hint(s.Truncated > 0, fmt.Sprintf("PMM cut off %s: set Max alerts to 0 in its contact point", text.Plural(s.Truncated, "alert", "alerts")))},
	)
	if r := s.Refused; r.LastAt != nil {
		rows = append(rows, []string{"refused", fmt.Sprintf("%d in the last hour, the last %s: %d %s, from %s", r.LastHour, text.Ago(*r.LastAt, now), r.LastCode, text.Short(120, r.LastReason), r.LastRemote)})
	}
	rows = append(rows, heardRows(s, now)...)
	for _, line := range s.Beside(now) {
		rows = append(rows, line[:])
	}
	rows = append(rows, []string{"store", room(s)})
	if s.Damaged > 0 {
		rows = append(rows, []string{"damaged", text.Plural(s.Damaged, "stored message", "stored messages") + " could not be read; see the log"})
	}
	p.table(nil, append(rows, []string{"version", s.Version}))
}

func lastCall(l *admin.LastDelivered, now time.Time) string {
	if l == nil {
		return "never: nothing that is stored was delivered"
	}
	return fmt.Sprintf("%s (%s): %s is %s, %s", text.Ago(l.At, now), text.Stamp(l.At), l.Title, l.Status, l.Did())
}

func callgooseRows(s admin.Status, now time.Time) [][]string {
	side := s.Callgoose.State
	if s.Callgoose.Since != nil {
		side += fmt.Sprintf(" for %s (since %s)", text.Span(now.Sub(*s.Callgoose.Since)), text.Stamp(*s.Callgoose.Since))
	}
	rows := [][]string{{"callgoose", side}}
	if s.Callgoose.LastError != "" {
		rows = append(rows, []string{"", "last error: " + s.Callgoose.LastError})
	}
	if s.Callgoose.State != event.Up && s.Callgoose.NextProbe != nil && s.Queued > 0 && s.Pause == nil {
		next := "now"
		if in := s.Callgoose.NextProbe.Sub(now).Round(time.Second); in > 0 {
			next = "in " + in.String()
		}
		rows = append(rows, []string{"", "next probe " + next + " (SIGHUP probes at once)"})
	}
	return rows
}

// waitingRows say what waits, and what of it is worth a call by hand.
func waitingRows(s admin.Status, now time.Time) [][]string {
	waiting := fmt.Sprintf("%d, %d in flight", s.Queued, s.InFlight)
	if s.OldestQueuedAt != nil {
		waiting += fmt.Sprintf(", the oldest for %s", text.Span(now.Sub(*s.OldestQueuedAt)))
	}
	if s.Drain.ETA != nil {
		waiting += fmt.Sprintf("; %.0f a second go out, done %s", s.Drain.PerSecond, text.Until(*s.Drain.ETA, now))
	}
	rows := [][]string{{"queued", waiting}}
	const most = 8
	for i, w := range s.StillFiring {
		heading := ""
		if i == 0 {
			heading = "still firing"
		}
		if i == most {
			rows = append(rows, []string{"", fmt.Sprintf("and %d more names: events list --outcome queued", len(s.StillFiring)-most)})
			break
		}
		rows = append(rows, []string{heading, fmt.Sprintf("%d %s  %s", w.Count, text.Short(20, w.Severity), text.Short(60, w.Name))})
	}
	return rows
}

func suppressed(s admin.Status) string {
	var why []string
	for _, reason := range slices.Sorted(maps.Keys(s.SuppressedReason)) {
		why = append(why, fmt.Sprintf("%s %d", reason, s.SuppressedReason[reason]))
	}
	if len(why) == 0 {
		return fmt.Sprint(s.Suppressed)
	}
	return fmt.Sprintf("%d (%s)", s.Suppressed, strings.Join(why, ", "))
}

func heardRows(s admin.Status, now time.Time) (rows [][]string) {
	for i, pmm := range s.Sources {
		heading := ""
		if i == 0 {
			heading = "heard"
		}
		last := pmm.Name + ": never"
		if pmm.LastHeardAt != nil {
			last = pmm.Name + ": " + text.Ago(*pmm.LastHeardAt, now)
		}
		if pmm.SilentSince != nil {
			last += ", SILENT since " + text.Stamp(*pmm.SilentSince)
		}
		rows = append(rows, []string{heading, last})
		rows = append(rows, compared(pmm)...)
	}
	return rows
}

func room(s admin.Status) string {
	if !s.Store.Accepting {
		return "NOT ACCEPTING webhooks: " + s.Store.Problem
	}
	store := fmt.Sprintf("%s of %s used", text.Size(s.Store.UsedBytes), text.Size(s.Store.MaxBytes))
	if s.Store.FreeBytes >= 0 {
		store += fmt.Sprintf(", %s free on disk", text.Size(s.Store.FreeBytes))
	}
	return store
}

// compared says what comparing with a PMM found.
func compared(pmm admin.PMM) (rows [][]string) {
	r := pmm.Reconcile
	if r == nil {
		return nil
	}
	for _, a := range r.Alarms {
		rows = append(rows, []string{"", a.Text + hint(true, a.Way)})
	}
	switch {
	case r.Skipped != "":
		rows = append(rows, []string{"", "not compared: " + r.Skipped})
	case pmm.Drift != nil && *pmm.Drift > 0:
		rows = append(rows, []string{"", text.Plural(*pmm.Drift, "difference", "differences") + " from what is open here" + hint(true, "pmm-callgoose reconcile --dry-run")})
	}
	return rows
}

func hint(show bool, what string) string {
	if !show {
		return ""
	}
	return "  (" + what + ")"
}
