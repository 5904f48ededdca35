package event

import "time"

// Minute counts what happened in one minute.
type Minute struct {
	At time.Time `json:"at"` // its beginning, UTC
	// In counts events put in line, again ones (repeats let through, replays) too.
	In int64 `json:"in"`
	// Out counts events that left the line: delivered, discarded or collapsed.
	Out int64 `json:"out"`
	// Dead counts events given up.
	Dead int64 `json:"dead"`
	// Suppressed counts alerts that became no event.
	Suppressed int64 `json:"suppressed"`
}

// Add adds the counts of o.
func (m *Minute) Add(o Minute) {
	m.In += o.In
	m.Out += o.Out
	m.Dead += o.Dead
	m.Suppressed += o.Suppressed
}
