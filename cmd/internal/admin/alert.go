package admin

import (
	"slices"
	"strings"

	"pmm-callgoose/store/event"
)

// Where is the place that an alert with these labels speaks of, as PMM's own pages name it; "" when it
// names none.
func Where(labels map[string]string) string {
	for _, name := range []string{"service_name", "node_name", "instance"} {
		if v := labels[name]; v != "" {
			return v
		}
	}
	return ""
}

// Explain says what an outcome means, and what can be done about it, where the
// one word of its reason does not.
func Explain(r *event.Record) string {
	switch {
	case r.Outcome == event.Discarded:
		return "Callgoose answered that no filter of its service matched. Correct the filter (pmm-callgoose send-test says how), then send this again."
	case r.Outcome == event.Suppressed && r.Reason == event.ReasonRepeat:
		return "PMM repeats an alert as long as it fires. The first one is an event of its own; see the incident's other events."
	case r.Outcome == event.Suppressed && r.Reason == event.ReasonResolved:
		return "The incident was closed before: Callgoose knows already."
	case r.Outcome == event.Suppressed && r.Reason == event.ReasonLate:
		return "It fired for an episode that was over when it came in."
	case r.Outcome == event.Suppressed && r.Reason == event.ReasonStillFiring:
		return "Other alerts of that name still fire: the incident closes with the last of them (--incident-by alertname)."
	case r.Outcome == event.Suppressed && r.Reason == event.ReasonHeartbeat:
		return "A sign of life of PMM, made by a rule for it: never an alert."
	case r.Outcome == event.Dead && r.Status == "":
		return "It can only be dropped: PMM sent something of which no event can be made."
	}
	return ""
}

// severities are those that PMM's rules use, the worst first.
var severities = []string{"emergency", "alert", "critical", "error", "high", "warning", "notice", "info", "debug"}

// SeverityRank orders severities, the worst first; those not known come last.
func SeverityRank(s string) int {
	if i := slices.Index(severities, strings.ToLower(s)); i >= 0 {
		return i
	}
	return len(severities)
}
