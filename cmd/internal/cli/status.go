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
	_ = poll(c.Context, watchEvery, func() (bool, error) {
		s, err := client.Status(c.Context)
		if c.Context.Err() != nil {
			return true, c.Context.Err()
		}
		if isTerminal(p.screen()) {
			fmt.Fprint(p.out, "\x1b[H\x1b[2J")
		}
		now := time.Now()
		fmt.Fprintf(p.out, "%s, every %s; Ctrl-C ends it\n\n", text.Stamp(now), text.Span(watchEvery))
		if err != nil {
			fmt.Fprintln(p.out, p.paint(red, text.Line(err.Error())))
		} else {
			p.showStatus(s, now)
		}
		return false, nil
	})
	return nil // interrupted
}

func (p *program) showStatus(s admin.Status, now time.Time) {
	colour := map[admin.Level]string{admin.Good: green, admin.Odd: yellow, admin.Bad: red}[s.Level]
	fmt.Fprintln(p.out, p.paint(colour, text.Line(s.Headline)))
	for _, a := range s.Attention {
		fmt.Fprintf(p.out, "  > %s: %s\n", a.Code, text.Line(a.Fix))
	}
	fmt.Fprintln(p.out)
	var f facts
	f.add("last call", "%s", lastCall(s.LastDelivered, now))
	f.callgoose(s, now)
	f.waiting(s, now)
	f.add("delivered", "%d", s.Delivered)
	if e := s.Effects; s.Delivered > 0 {
		f.add("", "opened %d, closed %d, nothing done %d, unknown %d", e.Opened, e.Closed, e.Nothing, e.Unknown)
	}
	f.add("discarded", "%d%s", s.Discarded, hint(s.Discarded > 0, "no filter of Callgoose matched: events list --outcome discarded"))
	f.add("dead", "%d%s", s.Dead, hint(s.Dead > 0, "events list --outcome dead says why"))
	f.add("suppressed", "%d%s", s.Suppressed, reasons(s.SuppressedReason))
	f.add("collapsed", "%d", s.Collapsed)
	f.add("received", "%s, %s%s", text.Plural(s.Notifications, "notification", "notifications"), text.Plural(s.Alerts, "alert", "alerts"),
		hint(s.Truncated > 0, fmt.Sprintf("PMM cut off %s: set Max alerts to 0 in its contact point", text.Plural(s.Truncated, "alert", "alerts"))))
	if r := s.Refused; r.LastAt != nil {
		f.add("refused", "%d in the last hour, the last %s: %d %s, from %s", r.LastHour, text.Ago(*r.LastAt, now), r.LastCode, text.Short(120, r.LastReason), r.LastRemote)
	}
	f.heard(s, now)
	for _, line := range s.Beside(now) {
		f.add(line[0], "%s", line[1])
	}
	f.add("store", "%s", room(s.Store))
	if s.Damaged > 0 {
		f.add("damaged", "%s could not be read; see the log", text.Plural(s.Damaged, "stored message", "stored messages"))
	}
	f.add("version", "%s", s.Version)
	p.table(nil, f)
}

func lastCall(l *admin.LastDelivered, now time.Time) string {
	if l == nil {
		return "never: nothing that is stored was delivered"
	}
	return fmt.Sprintf("%s (%s): %s is %s, %s", text.Ago(l.At, now), text.Stamp(l.At), l.Title, l.Status, l.Did())
}

func (f *facts) callgoose(s admin.Status, now time.Time) {
	side := s.Callgoose.State
	if s.Callgoose.Since != nil {
		side += fmt.Sprintf(" for %s (since %s)", text.Span(now.Sub(*s.Callgoose.Since)), text.Stamp(*s.Callgoose.Since))
	}
	f.add("callgoose", "%s", side)
	if s.Callgoose.LastError != "" {
		f.add("", "last error: %s", s.Callgoose.LastError)
	}
	if s.Callgoose.State != event.Up && s.Callgoose.NextProbe != nil && s.Queued > 0 && s.Pause == nil {
		next := "now"
		if in := s.Callgoose.NextProbe.Sub(now).Round(time.Second); in > 0 {
			next = "in " + in.String()
		}
		f.add("", "next probe %s (SIGHUP probes at once)", next)
	}
}

// waiting says what waits, and what of it is worth a call by hand.
func (f *facts) waiting(s admin.Status, now time.Time) {
	waiting := fmt.Sprintf("%d, %d in flight", s.Queued, s.InFlight)
	if s.OldestQueuedAt != nil {
		waiting += fmt.Sprintf(", the oldest for %s", text.Span(now.Sub(*s.OldestQueuedAt)))
	}
	if s.Drain.ETA != nil {
		waiting += fmt.Sprintf("; %.0f a second go out, done %s", s.Drain.PerSecond, text.Until(*s.Drain.ETA, now))
	}
	f.add("queued", "%s", waiting)
	const most = 8
	name := "still firing"
	for _, w := range s.StillFiring[:min(most, len(s.StillFiring))] {
		f.add(name, "%d %s  %s", w.Count, text.Short(20, w.Severity), text.Short(60, w.Name))
		name = ""
	}
	if more := len(s.StillFiring) - most; more > 0 {
		f.add("", "and %d more names: events list --outcome queued", more)
	}
}

func (f *facts) heard(s admin.Status, now time.Time) {
	name := "heard"
	for _, pmm := range s.Sources {
		last := "never"
		if pmm.LastHeardAt != nil {
			last = text.Ago(*pmm.LastHeardAt, now)
		}
		if pmm.SilentSince != nil {
			last += ", SILENT since " + text.Stamp(*pmm.SilentSince)
		}
		f.add(name, "%s: %s", pmm.Name, last)
		name = ""
		r := pmm.Reconcile
		if r == nil {
			continue
		}
		for _, a := range r.Alarms {
			f.add("", "%s  (%s)", a.Text, a.Way)
		}
		if r.Skipped != "" {
			f.add("", "not compared: %s", r.Skipped)
		} else if pmm.Drift != nil && *pmm.Drift > 0 {
			f.add("", "%s from what is open here  (pmm-callgoose reconcile --dry-run)", text.Plural(*pmm.Drift, "difference", "differences"))
		}
	}
}

// reasons counts by reason, in brackets; "" when there are none.
func reasons(counts map[string]int64) string {
	var why []string
	for _, reason := range slices.Sorted(maps.Keys(counts)) {
		why = append(why, fmt.Sprintf("%s %d", reason, counts[reason]))
	}
	if len(why) == 0 {
		return ""
	}
	return " (" + strings.Join(why, ", ") + ")"
}

func room(s admin.Store) string {
	if !s.Accepting {
		return "NOT ACCEPTING webhooks: " + s.Problem
	}
	store := fmt.Sprintf("%s of %s used", text.Size(s.UsedBytes), text.Size(s.MaxBytes))
	if s.FreeBytes >= 0 {
		store += fmt.Sprintf(", %s free on disk", text.Size(s.FreeBytes))
	}
	return store
}

func hint(show bool, what string) string {
	if !show {
		return ""
	}
	return "  (" + what + ")"
}
