package event

import (
	"cmp"
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
)

// Unknown is the outcome of an event that was settled before the ledger was lost, and the
// state of Callgoose's side before the first answer.
const Unknown = "unknown"

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

// NotificationID names the stored notification the position belongs to, as intake
// answered with it: for example "n1042.3".
func (p Position) NotificationID() string {
	return "n" + strconv.FormatUint(p.Seq, 10) + "." + strconv.FormatUint(uint64(p.Note), 10)
}

// RecordID is the id of an alert that became no event: kind, and where it came
// in. Kind is 's' for one that was suppressed, 'u' for one that cannot be used.
func (p Position) RecordID(kind byte) string {
	return string(kind) + strconv.FormatUint(p.Seq, 10) + "." + strconv.FormatUint(uint64(p.Note), 10) + "." + strconv.FormatUint(uint64(p.Item), 10)
}

// Origin is where a notification comes from.
type Origin byte

// The origins. They are numbers on disk: only append.
const (
	FromPMM     Origin = iota
	Imported           // PMM said it to a forwarder, then or another; times are those of its receipt
	FromService        // this service says it: a Test button's recovery, a silent PMM, an episode closed by hand
	Reconciled         // this service says it because PMM's own lists say so
	Requeue            // an operator queues events again; Body is a list of positions
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

// Mark says what was settled when an envelope was written: every event queued at or
// before UpTo but those in Waiting. It is what a rebuilt ledger knows of the past.
type Mark struct {
	UpTo    Position
	Waiting []Position // sorted, MaxMarked at most
}

// MaxMarked bounds the waiting events that a mark names: 15 KiB in each envelope when they
// stand apart, and a few bytes for a backlog.
const MaxMarked = 4096

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
	// Size is how large the body may become, bytes; 0 = less than matters.
	Size int `json:"size,omitempty"`
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

	// At is where it was last queued, zero when it never was: no event.
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

// TimesTaken is how often Callgoose took the event: a replay is no second success.
func (r *Record) TimesTaken() (n int) {
	for _, a := range r.Attempts {
		if a.Result == string(Delivered) {
			n++
		}
	}
	return n
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

// The states of Callgoose's side, beside Unknown.
const (
	Up     = "up"
	Down   = "down"
	Held   = "held"
	Paused = "paused"
)
