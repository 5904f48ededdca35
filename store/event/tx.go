package event

import (
	"iter"
	"time"
)

// Tx is one transaction on the ledger. It stands here, not with its callers,
// because it is the argument of functions handed from worker to store, which
// do not know each other. A Tx is good until its function returns, and for one
// goroutine. Nothing of it is durable before the transaction's caller is told
// that it was committed.
type Tx interface {
	// Progress is how far the splitter has come in both streams.
	Progress() Progress
	SetProgress(Progress)

	// Episode is the state of an incident key, nil when it was never seen.
	Episode(key string) (*Episode, error)
	PutEpisode(*Episode) error
	// OpenEpisodes yields the open episodes of a source and an alert name; an
	// empty one means all.
	OpenEpisodes(source, alertname string) iter.Seq[*Episode]

	// Labels are those that stand under an incident key: of the first record that
	// was written for it. nil when there are none. They are not the caller's.
	Labels(key string) (map[string]string, error)
	// PutLabels puts labels there if there are none, and reports whether these
	// stand there now. PutRecord does the same.
	PutLabels(key string, labels map[string]string) (bool, error)

	// Record reads the record that came in at pos, at receivedAt; nil when it is
	// gone (or was never written). A zero receivedAt means that the day is not
	// known. Brief leaves out labels and alert name, which makes it cheaper; a
	// brief record can be put back.
	Record(receivedAt time.Time, pos Position) (*Record, error)
	Brief(receivedAt time.Time, pos Position) (*Record, error)
	// PutRecord writes r and keeps the counts by outcome.
	PutRecord(r *Record) error

	// Each calls fn with every record chosen, newest first unless asked otherwise,
	// until fn returns false.
	Each(f Filter, fn func(*Record) bool) error
	// Settled yields the messages of the events stream that are settled above the
	// floor, and Floor is the end of those settled without a gap.
	Settled() iter.Seq[uint64]
	Floor() uint64
	// IsSettled reports whether the message at seq is settled.
	IsSettled(seq uint64) (bool, error)
	// Settle marks the message at seq as settled.
	Settle(seq uint64) error
	// SetFloor says that everything up to seq is settled; single marks below it go.
	SetFloor(seq uint64) error

	// DropDays removes the records of whole days that end before the time given,
	// but for days with an event that is still queued, and the records of open
	// episodes. It returns the days.
	DropDays(before time.Time) ([]string, error)
	// DropRecord forgets one record.
	DropRecord(r *Record) error

	// Heard is when a notification of each PMM server last came in, by source.
	// The map is the caller's. SetHeard never goes back.
	Heard() map[string]time.Time
	SetHeard(source string, at time.Time)

	// Count adds n to a named counter that survives restarts.
	Count(name string, n int64)
	// Counts are all named counters. The map is the caller's.
	Counts() map[string]int64
	Circuit() Circuit
	SetCircuit(Circuit)
}

// Progress is how far the splitter has come.
type Progress struct {
	// At is the last place in NOTIFICATIONS that is decided on.
	At Position `json:"at"`
	// Applied is the last sequence of EVENTS that the ledger knows.
	Applied uint64 `json:"applied"`
}
