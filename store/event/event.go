package event

import (
	"cmp"
	"encoding/binary"
	"errors"
	"strconv"
	"time"
)

// Status is the state an alert changed to.
type Status string

// The two states PMM reports.
const (
	Firing   Status = "firing"
	Resolved Status = "resolved"
)

// Outcome is what became of an event.
type Outcome string

// The outcomes. Only Queued is not settled.
const (
	Queued     Outcome = "queued"
	Delivered  Outcome = "delivered"
	Discarded  Outcome = "discarded"
	Dead       Outcome = "dead"
	Suppressed Outcome = "suppressed"
	Collapsed  Outcome = "collapsed"
	// Unknown is the outcome of an event that was settled before the ledger was lost.
	Unknown Outcome = "unknown"
)

// Outcomes lists every outcome, in the order in which operators read them.
var Outcomes = []Outcome{Queued, Delivered, Discarded, Dead, Suppressed, Collapsed, Unknown}

// Reasons why an alert does not become an event. They are counted and shown,
// so they do not change.
const (
	ReasonRepeat      = "repeat"           // the alert is open, and PMM said so again
	ReasonResolved    = "already_resolved" // the recovery was already passed on
	ReasonLate        = "late"             // overtaken on its way: a firing that overlapped its recovery, an imported alert older than what is open
	ReasonStale       = "stale"            // a recovery of an earlier episode
	ReasonStillFiring = "still_firing"     // another alert of that name is open (--incident-by alertname)
	ReasonHeartbeat   = "heartbeat"        // only a sign of life of PMM
)

// Reasons of a recovery that is queued and waits before it may be sent, and of what
// becomes of it.
const (
	ReasonHollow     = "hollow"     // it rests on lost data: --hollow-recovery hold
	ReasonSettling   = "settling"   // the alert may fire again at once: --hold-recovery
	ReasonFlap       = "flap"       // the alert fired again meanwhile, the incident goes on
	ReasonSuperseded = "superseded" // a recovery that counts more came meanwhile
)

// ReasonStorm is the reason of a firing event that waits for the end of a storm of
// alerts, and of what recovered while it did.
const ReasonStorm = "storm"

// Position says where an alert stands in the stream of accepted notifications:
// the stream's sequence, the notification within the stored envelope, and the
// alert within the notification. Positions are unique, never reused, and sort
// by arrival.
type Position struct {
	Seq  uint64 `json:"seq"`
	Note uint32 `json:"note"`
	Item uint32 `json:"item"`
}

// IsZero reports whether p names no place. Sequences begin at 1.
func (p Position) IsZero() bool { return p == Position{} }

// Compare orders positions by arrival.
func (p Position) Compare(o Position) int {
	return cmp.Or(cmp.Compare(p.Seq, o.Seq), cmp.Compare(p.Note, o.Note), cmp.Compare(p.Item, o.Item))
}

// Bytes is the position as a key that sorts by arrival.
func (p Position) Bytes() []byte {
	b := make([]byte, 0, 16)
	b = binary.BigEndian.AppendUint64(b, p.Seq)
	b = binary.BigEndian.AppendUint32(b, p.Note)
	return binary.BigEndian.AppendUint32(b, p.Item)
}

// PositionFrom reads what Bytes wrote; a key of another length is the zero position.
func PositionFrom(b []byte) Position {
	if len(b) != 16 {
		return Position{}
	}
	return Position{binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])}
}

// NotificationID names the stored notification the position belongs to.
func (p Position) NotificationID() string { return NotificationID(p.Seq, p.Note) }

// RecordID is the id of an alert that became no event: kind, and where it came
// in. Kind is 's' for one that was suppressed, 'u' for one that cannot be used.
func (p Position) RecordID(kind byte) string {
	return string(kind) + strconv.FormatUint(p.Seq, 10) + "." + strconv.FormatUint(uint64(p.Note), 10) + "." + strconv.FormatUint(uint64(p.Item), 10)
}

// NotificationID is the id intake answers with: the place of the body in the
// stream of notifications, for example "n1042.3".
func NotificationID(seq uint64, note uint32) string {
	return "n" + strconv.FormatUint(seq, 10) + "." + strconv.FormatUint(uint64(note), 10)
}

// Origin is where a notification comes from.
type Origin byte

// The origins. They are numbers on disk: only append.
const (
	FromPMM     Origin = iota
	Imported           // PMM said it to a forwarder, then or another; times are those of its receipt
	FromService        // this service says it: a Test button's recovery, a silent PMM, an episode closed by hand
	Reconciled         // this service says it because PMM's own lists say so
	Requeue            // an operator puts events in line again; Body is a list of positions
)

// Notification is one webhook body as it was accepted, or what the service itself
// says in the same way.
type Notification struct {
	Source string
	Origin Origin
	// BeganAt is when its request began, ReceivedAt when it was received whole.
	BeganAt, ReceivedAt time.Time
	Body                []byte
	// Alerts is the number of members, for the depth shown to operators.
	Alerts int
	// Err says why a stored notification cannot be read; the rest is then empty.
	Err error
}

// Mark says what was settled when an envelope was written: every event put in
// line at or before UpTo but those in Waiting. It is what a rebuilt ledger knows
// of the past.
type Mark struct {
	UpTo    Position
	Waiting []Position // sorted
}

// Attempt is one try to hand an event to Callgoose, as operators read it. It
// never holds a credential.
type Attempt struct {
	At       time.Time     `json:"at"`
	Duration time.Duration `json:"duration_ns"`
	Status   int           `json:"http_status,omitempty"`
	Result   string        `json:"result"` // delivered, discarded, dead, retry, held, interrupted
	Error    string        `json:"error,omitempty"`
	ID       string        `json:"callgoose_id,omitempty"`
	Effect   string        `json:"effect,omitempty"` // created, resolved, duplicate, discarded, none, unknown
	// Sent is false when Callgoose cannot have received the request.
	Sent  bool `json:"sent"`
	Probe bool `json:"probe,omitempty"`
}

// keepAttempts bounds the attempts kept with an event: the first and the latest.
const keepAttempts = 24

// Facts are what the bytes posted for an event depend on beside its notification.
type Facts struct {
	// Form numbers the settings and the layout of the body, see the ledger's Form.
	Form uint32 `json:"form,omitempty"`
	// Since is where lateness is counted from: when the alert changed state.
	Since time.Time `json:"since,omitzero"`
	// Adopted: the labels are those of the record, completed from the alert that a
	// trimmed recovery belongs to, and so are Annotations.
	Adopted     bool              `json:"adopted,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	// Suffix tells the shown name from that of another open alert.
	Suffix     string `json:"suffix,omitempty"`
	Reopened   bool   `json:"reopened,omitempty"`
	Reconciled bool   `json:"reconciled,omitempty"`
}

// Record is what the ledger knows of an alert that came in: one for each
// event, and one for each alert that was suppressed or could not be used.
type Record struct {
	ID           string            `json:"id"`
	Key          string            `json:"incident_key"`
	Source       string            `json:"source"`
	Status       Status            `json:"status"` // empty for an alert that could not be used
	Alertname    string            `json:"alertname"`
	Labels       map[string]string `json:"labels"`
	StartsAt     time.Time         `json:"starts_at,omitzero"`
	ReceivedAt   time.Time         `json:"received_at"`
	Pos          Position          `json:"-"`
	Notification string            `json:"notification"`

	Outcome     Outcome   `json:"outcome"`
	Reason      string    `json:"reason,omitempty"`
	Tries       int       `json:"attempts"`
	LastError   string    `json:"last_error"`
	SettledAt   time.Time `json:"settled_at,omitzero"`
	CallgooseID string    `json:"callgoose_id"`
	Attempts    []Attempt `json:"attempt_log,omitempty"`

	// At is where it was last put in line, zero when it never was: no event.
	At    Position `json:"-"`
	Facts Facts    `json:"-"`
	// ClaimedAt is up to when lateness is counted in the bytes that Callgoose may
	// have, zero as long as it can have none.
	ClaimedAt time.Time `json:"claimed_at,omitzero"`
	// Firing is, for a recovery, where the firing alert of its episode came in.
	Firing Position `json:"-"`
	// Brief: Labels and Alertname were not read. They stand in the ledger under Key.
	Brief bool `json:"-"`
}

// IsEvent reports whether the alert became an event, which can be sent.
func (r *Record) IsEvent() bool { return !r.At.IsZero() }

// AddAttempt appends a to the log, keeping the first and the latest.
func (r *Record) AddAttempt(a Attempt) {
	r.Tries++
	if len(r.Attempts) >= keepAttempts {
		r.Attempts = append(r.Attempts[:1], r.Attempts[2:]...)
	}
	r.Attempts = append(r.Attempts, a)
	r.LastError = a.Error
	if a.ID != "" {
		r.CallgooseID = a.ID
	}
}

// Cause is why an event was put in line.
type Cause byte

// The causes. They are numbers on disk: only append.
const (
	First  Cause = iota // the alert changed state
	Repeat              // PMM said it again, and it is let through
	Replay              // an operator wants it sent again
	Storm               // the alert changed state, and its event waits for the end of a storm
)

// Waiting is one event in line. At is its place: the line is in the order in
// which events were put there.
type Waiting struct {
	At Position
	// Pos and ReceivedAt find its record.
	Pos        Position
	ReceivedAt time.Time
	Cause      Cause
	Status     Status
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
	// NamedAt is when PMM last said that it fires: exact with --pmm-url, else within an hour.
	NamedAt time.Time
	// Firing and FiringAt find the record of the firing event, Recovery and
	// RecoveredAt that of the last recovery event.
	Firing      Position
	FiringAt    time.Time
	Recovery    Position
	RecoveredAt time.Time
	// Shared: another firing of the same incident went before it, or came beside it,
	// and no recovery between. What one of them opens at Callgoose the last recovery
	// closes, so none of them may be settled as collapsed.
	Shared bool
	// Shown is the name that Callgoose tells its incident by, with Suffix where
	// another one shows the same.
	Shown, Suffix string
	// Adopted marks a key known only through recoveries that were given to
	// another key, To, or that belonged to no alert.
	Adopted bool
	To      string
}

// Errors of reading what is stored.
var (
	// ErrGone: the message is not in the store (any more).
	ErrGone = errors.New("the stored message is gone")
	// ErrDamaged: what is stored is not what was written.
	ErrDamaged = errors.New("the stored message is damaged")
	// ErrNewer says that a newer pmm-callgoose wrote the data.
	ErrNewer = errors.New("written by a newer version of pmm-callgoose; use that version or newer")
)

// Unreadable reports whether err says of one message that nothing can be read of it.
// The others are not its fault.
func Unreadable(err error) bool { return errors.Is(err, ErrGone) || errors.Is(err, ErrDamaged) }

// Circuit is what is known of Callgoose's side.
type Circuit struct {
	State     string    `json:"state"` // up, down, held, paused, unknown
	Since     time.Time `json:"since,omitzero"`
	LastError string    `json:"last_error"`
}

// The states of a Circuit.
const (
	Up           = "up"
	Down         = "down"
	Held         = "held"
	Paused       = "paused"
	StateUnknown = "unknown"
)
