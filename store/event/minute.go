package event

import "time"

// Minute counts what happened in one minute.
type Minute struct {
	At time.Time `json:"at"` // its beginning, UTC
	// In counts events that were queued, also those queued again (repeats let through, replays).
	In int64 `json:"in"`
	// Out counts events that left the queue well: delivered or collapsed.
	Out int64 `json:"out"`
	// Discarded counts those that Callgoose took and did nothing with.
	Discarded int64 `json:"discarded"`
	// Dead counts events given up.
	Dead int64 `json:"dead"`
	// Suppressed counts alerts that became no event.
	Suppressed int64 `json:"suppressed"`
}

// Add adds the counts of o.
func (m *Minute) Add(o Minute) {
	m.In += o.In
	m.Out += o.Out
	m.Discarded += o.Discarded
	m.Dead += o.Dead
	m.Suppressed += o.Suppressed
}

// Outage is a time in which nobody was called.
type Outage struct {
	From  time.Time `json:"from"`
	Until time.Time `json:"until,omitzero"` // zero = it lasts
	State string    `json:"state"`          // Down, Held or Paused
}
