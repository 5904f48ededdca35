package admin

import (
	"fmt"
	"strings"
	"time"

	"pmm-callgoose/cmd/internal/text"
)

// Ping is the heartbeat for a watchdog: --ping-url-file.
type Ping struct {
	LastAt *time.Time `json:"last_at"` // when the service there last took one
	// Withheld says why there is none now, "" when there is.
	Withheld  string `json:"withheld"`
	LastError string `json:"last_error"` // of the last call, "" when it was taken
}

// Fallback is the other way out, while Callgoose is away: --fallback-*.
type Fallback struct {
	Ways      []string   `json:"ways"`    // webhook, command
	Told      int64      `json:"told"`    // open episodes that were told
	LastAt    *time.Time `json:"last_at"` // when a message last went out
	LastError string     `json:"last_error"`
}

// Filters is how Callgoose's answers compare with --callgoose-filters.
type Filters struct {
	Drift  int64      `json:"drift"` // answers since the start that those filters cannot give
	LastAt *time.Time `json:"last_at"`
	Last   string     `json:"last"`
}

// SLO is how many of the firing events of the last days Callgoose took soon after
// their receipt; those that still wait are none of them.
type SLO struct {
	WithinSeconds float64  `json:"within_seconds"`
	Days          int      `json:"days"`
	Events        int64    `json:"events"`
	InTime        int64    `json:"in_time"`
	Share         *float64 `json:"share"` // null when there were none
	// Objective is the share below which a person should look.
	Objective float64 `json:"objective"`
	// Late counts those of today and yesterday (UTC) that were not taken in time, what
	// waits included.
	Late int64 `json:"late_since_yesterday"`
}

// SLOObjective is the Objective of a service.
const SLOObjective = 0.99

// BudgetLeft is the part that is left of the share that may be late: 1 = all of it, 0 =
// none, less than 0 = more came late than the objective allows. For an SLO with a Share.
func (o *SLO) BudgetLeft() float64 { return (*o.Share - o.Objective) / (1 - o.Objective) }

// missed reports whether more of them came late than the objective allows, and some of
// those lately. elsewhere counts what the status speaks of anyway: what waits, what was
// discarded or given up.
func (o *SLO) missed(elsewhere int64) bool {
	late := max(o.Events-o.InTime-elsewhere, 0)
	return float64(late) > (1-o.Objective)*float64(o.Events) && o.Late > elsewhere
}

// Line is its state in one line.
func (p *Ping) Line(now time.Time) string {
	switch {
	case p.Withheld != "":
		return "withheld: " + text.Line(p.Withheld)
	case p.LastError != "":
		return "not taken: " + text.Line(p.LastError)
	case p.LastAt == nil:
		return "not tried yet"
	}
	return "taken " + text.Ago(*p.LastAt, now)
}

// Line is its state in one line.
func (f *Fallback) Line(now time.Time) string {
	ways := strings.Join(f.Ways, " and ")
	switch {
	case f.LastError != "":
		return ways + "; the last message did not get through: " + text.Line(f.LastError)
	case f.LastAt == nil:
		return ways + ", not needed since the start"
	}
	return fmt.Sprintf("%s; told of %s, the last message went out %s", ways, text.Plural(f.Told, "alert", "alerts"), text.Ago(*f.LastAt, now))
}

// Line is its state in one line.
func (f *Filters) Line(now time.Time) string {
	if f.Drift == 0 || f.LastAt == nil {
		return "all answers are those of --callgoose-filters"
	}
	return fmt.Sprintf("%s not those of --callgoose-filters, the last %s: %s", text.Plural(f.Drift, "answer is", "answers are"), text.Ago(*f.LastAt, now), text.Line(f.Last))
}

// Line is its state in one line.
func (o *SLO) Line() string {
	if o.Share == nil {
		return fmt.Sprintf("no firing event in %d days", o.Days)
	}
	return fmt.Sprintf("%.2f %% of %s of the last %d days within %.0f s, %.0f %% of the budget left", 100**o.Share, text.Plural(o.Events, "firing event", "firing events"), o.Days, o.WithinSeconds, 100*max(o.BudgetLeft(), 0))
}

// Beside lists the state of what runs besides the delivery to Callgoose, as names and
// lines; what is not set up is left out.
func (s Status) Beside(now time.Time) (lines [][2]string) {
	if s.SLO != nil {
		line := s.SLO.Line()
		if s.SLO.Share != nil && s.Queued > 0 {
			line += "; what waits counts as late until it is taken"
		}
		lines = append(lines, [2]string{"taken in time", line})
	}
	if s.Ping != nil {
		lines = append(lines, [2]string{"heartbeat", s.Ping.Line(now)})
	}
	if s.Fallback != nil {
		lines = append(lines, [2]string{"fallback", s.Fallback.Line(now)})
	}
	if s.Filters != nil {
		lines = append(lines, [2]string{"filters", s.Filters.Line(now)})
	}
	return lines
}

// Way is one way out, and whether a test message got through.
type Way struct {
	Name  string `json:"way"`
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
}
