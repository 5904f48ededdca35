package admin

import (
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker"
)

// ReplayRequest chooses stored events to be sent again, or dead letters to be forgotten:
// then IncludeClosed and Rate mean nothing.
type ReplayRequest struct {
	Filter event.Filter
	Limit  int // the oldest so many, 0 = all
	// IncludeClosed takes firing events too whose episode has closed since.
	IncludeClosed bool
	// Rate is how many events a second are queued, 0 = at once.
	Rate float64
	// DryRun only counts.
	DryRun bool
	By     string // who asks, for the incidents' stories
}

// Plan is what a replay would do, or does.
type Plan struct {
	Events int `json:"events"`
	worker.Choice
	Job int `json:"job,omitempty"` // 0 for a dry run
}

// Count adds what is known of one more event.
func (p *Plan) Count(s event.Status) {
	p.Events++
	switch s {
	case event.Firing:
		p.Firing++
	case event.Resolved:
		p.Resolved++
	default:
		p.NoEvent++
	}
}

// Job is how far a replay has come.
type Job struct {
	ID       int                   `json:"id"`
	Total    int                   `json:"total"`
	InLine   int                   `json:"in_line"`  // queued again so far
	Gone     int                   `json:"gone"`     // no longer stored
	Settled  int                   `json:"settled"`  // of those queued again
	Outcomes map[event.Outcome]int `json:"outcomes"` // of the settled
	Done     bool                  `json:"done"`
	Error    string                `json:"error,omitempty"`
}
