package event

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
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
)

// Outcomes lists every outcome, in the order in which operators read them.
var Outcomes = []Outcome{Queued, Delivered, Discarded, Dead, Suppressed, Collapsed}

// Reasons why an alert does not become an event. They are counted and shown,
// so they do not change.
const (
	ReasonRepeat      = "repeat"           // the alert is open, and PMM said so again
	ReasonResolved    = "already_resolved" // the recovery was already passed on
	ReasonLate        = "late"             // a firing of the episode that has ended
	ReasonStillFiring = "still_firing"     // another alert of that name is open (--incident-by alertname)
	ReasonHeartbeat   = "heartbeat"        // only a sign of life of PMM
)

// Position says where an alert stands in the stream of accepted notifications:
// the stream's sequence, the notification within the stored envelope, and the
// alert within the notification. Positions are unique, never reused, and sort
// by arrival. Item counts two places an alert, so that the recovery made for
// a Test button alert has a place of its own.
type Position struct {
	Seq  uint64 `json:"seq"`
	Note uint32 `json:"note"`
	Item uint32 `json:"item"`
}

// Made reports whether PMM never sent what stands here: the recovery that we make
// for an alert of the Test button.
func (p Position) Made() bool { return p.Item%2 == 1 }

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

// NotificationID is the id intake answers with: the place of the body in the
// stream of notifications, for example "n1042.3".
func NotificationID(seq uint64, note uint32) string {
	return "n" + strconv.FormatUint(seq, 10) + "." + strconv.FormatUint(uint64(note), 10)
}

// ParseNotificationID reads what NotificationID wrote.
func ParseNotificationID(id string) (seq uint64, note uint32, err error) {
	s, n, ok := strings.Cut(strings.TrimPrefix(id, "n"), ".")
	if ok && strings.HasPrefix(id, "n") {
		var n64 uint64
		if seq, err = strconv.ParseUint(s, 10, 64); err == nil {
			if n64, err = strconv.ParseUint(n, 10, 32); err == nil {
				return seq, uint32(n64), nil
			}
		}
	}
	return 0, 0, fmt.Errorf("%q is not a notification id (like n1042.3)", id)
}

// Event is one alert changing state. It is written once, to the events stream,
// and never changed: what became of it is the Record.
type Event struct {
	ID     string   `json:"id"`
	Key    string   `json:"key"`    // the incident key
	Lane   string   `json:"lane"`   // events of one lane go out strictly in order
	Source string   `json:"source"` // the PMM server
	Status Status   `json:"status"`
	Pos    Position `json:"pos"` // where the alert came in; names the record
	// At is how far the splitter had come when it wrote this message: a restart
	// goes on behind the At of the last message.
	At Position `json:"at"`

	Alertname   string            `json:"alertname"`
	Fingerprint string            `json:"fingerprint"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations,omitempty"`

	// Episode tells one firing of the key from the next; it goes into the ID.
	Episode string `json:"episode"`
	// StartsAt is when the episode began, zero when PMM never said.
	StartsAt time.Time `json:"starts_at,omitzero"`
	// Since is where lateness is counted from: when the alert changed state.
	Since      time.Time `json:"since"`
	ReceivedAt time.Time `json:"received_at"`

	// QueuedAt is when the event was put in line: right after receipt or import, or
	// again later. --retry-for counts from it.
	QueuedAt time.Time `json:"queued_at"`

	// Firing is, for a recovery, where the firing alert of its episode came in.
	Firing Position `json:"firing,omitzero"`

	// Settled is set when the outcome was known before any attempt: an alert
	// that cannot be used (Dead), or a recovery that is withheld but ends its
	// episode (Suppressed). Reason says why.
	Settled Outcome `json:"settled,omitempty"`
	Reason  string  `json:"reason,omitempty"`
	// Again marks a message that puts an earlier event back in line: a repeat
	// that was let through, or a replay. Its body is the earlier event's.
	Again string `json:"again,omitempty"`

	// Shared is, for a recovery on its way into the ledger, that of its episode. It
	// is not stored.
	Shared bool `json:"-"`

	// Body is what is posted to Callgoose, before any word about lateness.
	Body []byte `json:"-"`
}

// Attempt is one try to hand an event to Callgoose, as operators read it. It
// never holds a credential.
type Attempt struct {
	At       time.Time     `json:"at"`
	Duration time.Duration `json:"duration_ns"`
	Status   int           `json:"http_status,omitempty"`
	Result   string        `json:"result"` // delivered, discarded, dead, retry, held, outage, interrupted
	Error    string        `json:"error,omitempty"`
	ID       string        `json:"callgoose_id,omitempty"`
	Effect   string        `json:"effect,omitempty"` // created, resolved, duplicate, none
	// Sent is false when Callgoose cannot have received the request.
	Sent  bool `json:"sent"`
	Probe bool `json:"probe,omitempty"`
}

// KeepAttempts bounds the attempts kept with an event: the first and the latest.
const KeepAttempts = 24

// Record is what the ledger knows of an alert that came in: one for each
// event, and one for each alert that was suppressed or could not be used.
type Record struct {
	ID           string            `json:"id"`
	Key          string            `json:"incident_key"`
	Source       string            `json:"source"`
	Status       Status            `json:"status"`
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

	// Seq is the event's newest message in the events stream, 0 for none.
	Seq uint64 `json:"seq,omitempty"`
	// Frozen is set, durably, before the first attempt that Callgoose may
	// receive: from then on the body never changes again, and DelayedBy is what
	// it says about lateness ("" for nothing).
	Frozen    bool   `json:"frozen,omitempty"`
	DelayedBy string `json:"delayed_by,omitempty"`

	// Firing is, for a recovery, where the firing alert of its episode came in.
	// Over is set with a firing event whose episode ended while it still waited.
	Firing Position `json:"-"`
	Over   bool     `json:"-"`
	// Brief: Labels and Alertname were not read. They stand in the ledger under Key.
	Brief bool `json:"-"`
}

// NewRecord is the record of an event that has just been put in line.
func NewRecord(e *Event, seq uint64) *Record {
	r := &Record{
		ID: e.ID, Key: e.Key, Source: e.Source, Status: e.Status, Alertname: e.Alertname,
		Labels: e.Labels, StartsAt: e.StartsAt, ReceivedAt: e.ReceivedAt, Pos: e.Pos,
		Notification: e.Pos.NotificationID(), Outcome: Queued, Seq: seq, Firing: e.Firing,
	}
	if e.Settled != "" {
		r.Outcome, r.Reason, r.SettledAt = e.Settled, e.Reason, e.ReceivedAt
	}
	return r
}

// AddAttempt appends a to the log, keeping the first and the latest.
func (r *Record) AddAttempt(a Attempt) {
	r.Tries++
	if len(r.Attempts) >= KeepAttempts {
		r.Attempts = append(r.Attempts[:1], r.Attempts[2:]...)
	}
	r.Attempts = append(r.Attempts, a)
	r.LastError = a.Error
	if a.ID != "" {
		r.CallgooseID = a.ID
	}
}

// Episode is the dedupe state of one incident key: closed, or open since
// StartsAt.
type Episode struct {
	Key         string    `json:"key"`
	Source      string    `json:"source"`
	Alertname   string    `json:"alertname"`
	Fingerprint string    `json:"fingerprint"`
	Open        bool      `json:"open"`
	ID          string    `json:"id"` // what goes into the event id
	Count       uint64    `json:"count"`
	StartsAt    time.Time `json:"starts_at,omitzero"`
	// Seen are further start times of the same episode (a second PMM of a pair).
	Seen []time.Time `json:"seen,omitempty"`
	// Past are the start times of the episode just closed.
	Past []time.Time `json:"past,omitempty"`
	// Adopted marks a key known only through recoveries that were given to
	// another key, or that belonged to no alert.
	Adopted bool `json:"adopted,omitempty"`
	// Shared: another firing of the same incident went before it, or came beside it,
	// and no recovery between. What one of them opens at Callgoose the last recovery
	// closes, so none of them may be settled as collapsed.
	Shared bool `json:"shared,omitempty"`
	// Firing and FiringAt find the record of the firing event.
	Firing   Position  `json:"firing,omitzero"`
	FiringAt time.Time `json:"firing_at,omitzero"`
}

// Notification is one webhook body as it was accepted.
type Notification struct {
	Source     string
	ReceivedAt time.Time
	Body       []byte
	// Alerts is the number of members, for the depth shown to operators.
	Alerts int
}

// Delivery is one message of the events stream on its way to Callgoose.
type Delivery struct {
	Seq uint64
	// Event is nil when Err says why the message cannot be read.
	Event *Event
	Err   error
}

// Errors of reading a stream.
var (
	// ErrGone: the message is not in the store (any more).
	ErrGone = errors.New("the stored message is gone")
	// ErrDamaged: a stored message does not carry what was written.
	ErrDamaged = errors.New("the stored message is damaged")
)

// Unreadable reports whether err says of one message that nothing can be read of it.
// The others are not its fault.
func Unreadable(err error) bool { return errors.Is(err, ErrGone) || errors.Is(err, ErrDamaged) }

// Circuit is what is known of Callgoose's side.
type Circuit struct {
	State     string    `json:"state"` // up, down, held, unknown
	Since     time.Time `json:"since,omitzero"`
	LastError string    `json:"last_error"`
}

// The states of a Circuit.
const (
	Up      = "up"
	Down    = "down"
	Held    = "held"
	Unknown = "unknown"
)
