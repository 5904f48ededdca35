package store

import (
	"time"

	"pmm-callgoose/store/event"
)

// Waiting is one queued event. At is its place: the queue is in the order in
// which events were put there.
type Waiting struct {
	At event.Position
	// Pos and ReceivedAt find its record.
	Pos        event.Position
	ReceivedAt time.Time
	Status     event.Status
	Key        string
	Source     string
	Alertname  string
	QueuedAt   time.Time // --retry-for counts from it
	// ClaimedAt is set, durably, before Callgoose can receive anything of it: from
	// then on its bytes do not change. Zero: not claimed.
	ClaimedAt time.Time
	// NotBefore is until when a recovery is held, zero = it is not. What is queued
	// behind it ends that.
	NotBefore time.Time
	// Storm: it waits for the end of a storm of alerts, and is not sent before.
	Storm bool
	// Size is how large its body may become, bytes; 0 = less than matters.
	Size int
}

// Span is the time of an episode that ended.
type Span struct {
	Starts []time.Time // its start, and those the peers of a pair saw
	Ended  time.Time   // zero when PMM never said
}

// Episode is the dedupe state of one incident key: closed, or open since
// StartsAt.
type Episode struct {
	Key       string
	Source    string
	Alertname string
	Open      bool
	ID        string // what goes into the event id
	Count     uint64
	StartsAt  time.Time // zero when PMM never said
	// Seen are further start times of the open episode (a second PMM of a pair).
	Seen []time.Time
	// Past are the episodes that ended last, the newest first.
	Past []Span
	// NamedAt is when PMM last said of it what it is: of one that is open that it fires,
	// exact with --pmm-url, else within an hour; of a closed one that it recovered.
	NamedAt time.Time
	// Firing and FiringAt find the record of the firing event, Recovery and
	// RecoveredAt that of the last recovery event. See Dropped.
	Firing      event.Position
	FiringAt    time.Time
	Recovery    event.Position
	RecoveredAt time.Time
	// Shared: another firing of the same incident went before it, or came beside it,
	// and no recovery between; or a lost ledger no longer says what of it was sent. What
	// one of them opens at Callgoose the last recovery closes, so none of them may be
	// settled as collapsed.
	Shared bool
	// Shown is the name that Callgoose tells its incident by, with Suffix where
	// another one shows the same.
	Shown, Suffix string
	// ByName: its incident is that of all alerts of its name, as --incident-by said
	// when it was opened.
	ByName bool
	// Adopted marks a key known only through recoveries that were given to
	// another key, To, or that belonged to no alert.
	Adopted bool
	To      string
}

// Dropped reports whether an operator dropped the recovery, which Callgoose does not have.
func (e *Episode) Dropped() bool { return e.Recovery.IsZero() && !e.RecoveredAt.IsZero() }
