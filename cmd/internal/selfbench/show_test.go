package selfbench

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"pmm-callgoose/cmd/internal/bench"
	"pmm-callgoose/cmd/internal/text"
)

// table prints rows in columns.
func table(out io.Writer, rows [][]string) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	_ = w.Flush()
}

func (r *Report) show(out io.Writer, dir string) {
	fmt.Fprintf(out, "one fsync of the same bytes in %s: p50 %.2f ms, p99 %.2f ms\n", dir, r.Fsync.P50, r.Fsync.P99)
	rows := [][]string{{"CONNECTIONS", "WHAT", "WEBHOOKS/S", "RATIO", "P50 MS", "P90", "P99", "MAX"}}
	for _, c := range r.Intake {
		for i, m := range []bench.Measured{c.Service, c.Discard, c.FsyncEach} {
			rows = append(rows, []string{
				fmt.Sprint(c.Connections), []string{"service", "body thrown away", "one fsync each"}[i], fmt.Sprintf("%.0f", m.PerSecond),
				fmt.Sprintf("%.0f %%", 100*m.PerSecond/c.Discard.PerSecond),
				fmt.Sprintf("%.2f", m.Latency.P50), fmt.Sprintf("%.2f", m.Latency.P90), fmt.Sprintf("%.2f", m.Latency.P99), fmt.Sprintf("%.2f", m.Latency.Max),
			})
		}
	}
	table(out, rows)
	rows = [][]string{
		{"ready after", fmt.Sprintf("%.2f s", r.Idle.Ready)},
		{"idle", fmt.Sprintf("%s resident, %.1f %% of a CPU", text.Size(r.Idle.Usage.Resident), r.Idle.CPUPart)},
	}
	for _, c := range r.Intake {
		rows = append(rows, []string{
			fmt.Sprintf("cost at %d connections", c.Connections),
			fmt.Sprintf("%.1f CPU seconds for 10,000 alerts, %s written for each webhook, peak %s resident", c.CPUPer10k, text.Size(int64(c.WrittenEach)), text.Size(c.Peak)),
		})
	}
	rows = append(rows, []string{"202 to sink, quiet", fmt.Sprintf("p50 %.2f ms, p99 %.2f ms, max %.2f ms", r.Delay.P50, r.Delay.P99, r.Delay.Max)})
	if o := r.Outage; o != nil {
		rows = append(rows, []string{"outage", fmt.Sprintf("%d calls in %.0f s with %d events waiting; first delivery after %.2f s", o.Calls, o.Seconds, o.Queued, o.First)})
	}
	if b := r.Backlog; b != nil {
		rows = append(rows,
			[]string{"backlog", fmt.Sprintf("%d events of %d keys: %s resident, at most %s since the start", b.Events, b.Keys, text.Size(b.Usage.Resident), text.Size(b.Usage.Peak))},
			[]string{"after kill -9", fmt.Sprintf("port open in %.2f s, ready in %.2f s, %s resident", b.Open, b.Ready, text.Size(b.Restored.Resident))},
			[]string{"drain", fmt.Sprintf("%.0f events/s, %.0f %% of the %.0f/s of a bare client; peak %s resident, %.1f CPU seconds for 10,000", b.Drain, 100*b.OfBare, b.Bare, text.Size(b.Peak), b.CPU/float64(b.Events)*10_000)},
		)
	}
	if g := r.Growth; g != nil {
		rows = append(rows,
			[]string{"growth", fmt.Sprintf("intake %.0f webhooks/s before, %.0f after (%+.0f %%)", g.IntakeBefore, g.IntakeAfter, 100*(g.IntakeAfter/g.IntakeBefore-1))},
			[]string{"", fmt.Sprintf("drain %.0f events/s before, %.0f after (%+.0f %%)", g.DrainBefore, g.DrainAfter, 100*(g.DrainAfter/g.DrainBefore-1))},
		)
	}
	table(out, append(rows, []string{"account", fmt.Sprintf("%d events, missing %d, twice or out of order %d", r.Events, r.Missing, r.Wrong)}))
}
