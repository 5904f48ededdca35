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
		Name: "status", Usage: "what waits, what became of the rest, and the state of Callgoose's side",
		Flags: clientFlags(),
		Action: func(c *cli.Context) error {
			if err := noArgs(c); err != nil {
				return err
			}
			client, err := p.client(c)
			if err != nil {
				return err
			}
			s, err := client.Status(c.Context)
			if err != nil {
				return err
			}
			if done, err := p.json(c, s); done {
				return err
			}
			p.showStatus(s, time.Now())
			return nil
		},
	}
}

func (p *program) showStatus(s admin.Status, now time.Time) {
	side := s.Callgoose.State
	if s.Callgoose.Since != nil {
		side += fmt.Sprintf(" for %s (since %s)", text.Span(now.Sub(*s.Callgoose.Since)), text.Stamp(*s.Callgoose.Since))
	}
	rows := [][]string{{"callgoose", side}}
	if s.Callgoose.LastError != "" {
		rows = append(rows, []string{"", "last error: " + s.Callgoose.LastError})
	}
	if s.Callgoose.State != event.Up && s.Callgoose.NextProbe != nil && s.Queued > 0 {
		next := "now"
		if in := s.Callgoose.NextProbe.Sub(now).Round(time.Second); in > 0 {
			next = "in " + in.String()
		}
		rows = append(rows, []string{"", "next probe " + next + " (SIGHUP probes at once)"})
	}
	if s.Callgoose.State == event.Held {
		rows = append(rows, []string{"", "token or address is wrong: pmm-callgoose doctor says which; a new token in its file is found by itself"})
	}
	waiting := fmt.Sprintf("%d, %d in flight", s.Queued, s.InFlight)
	if s.OldestQueuedAt != nil {
		waiting += fmt.Sprintf(", the oldest for %s", text.Span(now.Sub(*s.OldestQueuedAt)))
	}
	var why []string
	for _, reason := range slices.Sorted(maps.Keys(s.SuppressedReason)) {
		why = append(why, fmt.Sprintf("%s %d", reason, s.SuppressedReason[reason]))
	}
	suppressed := fmt.Sprint(s.Suppressed)
	if len(why) > 0 {
		suppressed += " (" + strings.Join(why, ", ") + ")"
	}
	store := fmt.Sprintf("%s of %s used", text.Size(s.Store.UsedBytes), text.Size(s.Store.MaxBytes))
	if s.Store.FreeBytes >= 0 {
		store += fmt.Sprintf(", %s free on disk", text.Size(s.Store.FreeBytes))
	}
	if !s.Store.Accepting {
		store = "NOT ACCEPTING webhooks: " + s.Store.Problem
	}
	rows = append(rows,
		[]string{"queued", waiting},
		[]string{"delivered", fmt.Sprint(s.Delivered)},
		[]string{"discarded", fmt.Sprint(s.Discarded) + hint(s.Discarded > 0, "no filter of Callgoose matched: events list --outcome discarded")},
		[]string{"dead", fmt.Sprint(s.Dead) + hint(s.Dead > 0, "events list --outcome dead says why")},
		[]string{"suppressed", suppressed},
		[]string{"collapsed", fmt.Sprint(s.Collapsed)},
		[]string{"received", text.Plural(s.Notifications, "notification", "notifications") + ", " + text.Plural(s.Alerts, "alert", "alerts") +
			hint(s.Truncated > 0, fmt.Sprintf("PMM cut off %s: set Max alerts to 0 in its contact point", text.Plural(s.Truncated, "alert", "alerts")))},
	)
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
	rows = append(rows, []string{"store", store})
	if s.Damaged > 0 {
		rows = append(rows, []string{"damaged", text.Plural(s.Damaged, "stored message", "stored messages") + " could not be read; see the log"})
	}
	rows = append(rows, []string{"version", s.Version})
	p.table(nil, rows)
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
	case pmm.DriftCount > 0:
		rows = append(rows, []string{"", text.Plural(pmm.DriftCount, "difference", "differences") + " from what is open here" + hint(true, "pmm-callgoose reconcile --dry-run")})
	}
	return rows
}

func hint(show bool, what string) string {
	if !show {
		return ""
	}
	return "  (" + what + ")"
}
