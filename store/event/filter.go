package event

import (
	"slices"
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
	After        Position // only what came in after it
	OldestFirst  bool
}

// Match reports whether r is chosen.
func (f *Filter) Match(r *Record) bool {
	switch {
	case !f.Since.IsZero() && r.ReceivedAt.Before(f.Since),
		!f.Until.IsZero() && !r.ReceivedAt.Before(f.Until),
		f.Status != "" && r.Status != f.Status,
		f.Incident != "" && r.Key != f.Incident,
		r.Pos.Compare(f.After) <= 0:
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
	return true
}
