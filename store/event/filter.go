package event

import (
	"slices"
	"strings"
	"time"
)

// Filter chooses records. The zero value chooses all.
type Filter struct {
	Since, Until time.Time // by the time of receipt; Until is exclusive
	Status       Status
	Outcomes     []Outcome
	Labels       map[string]string // every one must match
	Incident     string            // incident key
	IDs          []string
	Text         string   // stands somewhere in the record's texts, whatever its case
	After        Position // only what came in after it
	Before       Position // only what is listed behind it, newest first; zero = no bound
	BeforeDay    string   // the day of receipt of Before, as the ledger lists by day; empty = by position alone
	OldestFirst  bool     // in the order of arrival
}

// bounds reports whether Before bounds the records of a day.
func (f *Filter) bounds(day string) bool { return f.BeforeDay == "" || f.BeforeDay == day }

// DayBefore returns the bound for the records of a day (2006-01-02), and false when
// none of them is listed behind it.
func (f *Filter) DayBefore(day string) (Position, bool) {
	if f.bounds(day) {
		return f.Before, true
	}
	return Position{}, day < f.BeforeDay
}

// Match reports whether r is chosen.
func (f *Filter) Match(r *Record) bool {
	switch {
	case !f.Since.IsZero() && r.ReceivedAt.Before(f.Since),
		!f.Until.IsZero() && !r.ReceivedAt.Before(f.Until),
		f.Status != "" && r.Status != f.Status,
		f.Incident != "" && r.Key != f.Incident,
		r.Pos.Compare(f.After) <= 0,
		f.Before != (Position{}) && f.bounds(r.ReceivedAt.UTC().Format(time.DateOnly)) && r.Pos.Compare(f.Before) >= 0:
		return false
	}
	if len(f.Outcomes) > 0 && !slices.Contains(f.Outcomes, r.Outcome) || len(f.IDs) > 0 && !slices.Contains(f.IDs, r.ID) {
		return false
	}
	for k, v := range f.Labels {
		if got, ok := r.Labels[k]; !ok || got != v {
			return false
		}
	}
	return f.Text == "" || r.mentions(strings.ToLower(f.Text))
}

// mentions reports whether a text that an operator may look for holds the
// lower-case text.
func (r *Record) mentions(text string) bool {
	for _, s := range []string{r.Alertname, r.ID, r.Key, r.LastError, r.Reason, r.CallgooseID, r.Notification} {
		if strings.Contains(strings.ToLower(s), text) {
			return true
		}
	}
	for _, v := range r.Labels {
		if strings.Contains(strings.ToLower(v), text) {
			return true
		}
	}
	return false
}
