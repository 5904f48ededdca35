package admin

import (
	"encoding/json"
	"time"

	"pmm-callgoose/ingest"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/queue"
)

// Status is the state of the service at a glance.
type Status struct {
	Version   string    `json:"version"`
	StartedAt time.Time `json:"started_at"`

	// Queued counts alerts accepted and not settled, those in flight included.
	Queued     int64 `json:"queued"`
	InFlight   int   `json:"in_flight"`
	Delivered  int64 `json:"delivered"`
	Discarded  int64 `json:"discarded"`
	Dead       int64 `json:"dead"`
	Suppressed int64 `json:"suppressed"`
	Collapsed  int64 `json:"collapsed"`
	Unknown    int64 `json:"unknown"` // settled before the ledger was rebuilt

	Notifications    int64            `json:"notifications"`
	Alerts           int64            `json:"alerts"`
	AlertsByStatus   map[string]int64 `json:"alerts_by_status"` // firing, resolved, unusable
	Truncated        int64            `json:"truncated_alerts"`
	Damaged          int64            `json:"damaged"`
	AcceptedLosses   int64            `json:"accepted_losses"` // --accept-loss
	SuppressedReason map[string]int64 `json:"suppressed_by_reason"`

	// Headline is the state in one or a few sentences, Level how good it is.
	// Attention is what a person should look at, the most urgent first.
	Headline  string      `json:"headline"`
	Level     Level       `json:"level"`
	Attention []Attention `json:"attention"`

	// LastDelivered is the event that Callgoose took last, nil when none is stored.
	LastDelivered *LastDelivered `json:"last_delivered"`
	// Effects counts what Callgoose did with the events that it took.
	Effects Effects `json:"effects"`
	// DiscardedFiring counts firing events discarded, ever; DiscardedDay the events
	// discarded within the last day.
	DiscardedFiring int64           `json:"discarded_firing_total"`
	DiscardedDay    int64           `json:"discarded_last_day"`
	Refused         ingest.Refusals `json:"refused"`

	OldestQueuedAt *time.Time `json:"oldest_queued_at"`
	// WaitingBySeverity counts what waits by the label severity, "none" without one.
	// StillFiring is what of it fires and nobody was called for.
	WaitingBySeverity map[string]int64 `json:"waiting_by_severity"`
	StillFiring       []Waiting        `json:"still_firing"`
	Drain             Drain            `json:"drain"`
	// Storms are the storms of alerts at present, StormsTotal all that there were: --storm.
	Storms      []Storm `json:"storm"`
	StormsTotal int64   `json:"storms_total"`

	Callgoose Callgoose `json:"callgoose"`
	// Pause is set while delivery is paused by hand.
	Pause *store.Pause `json:"pause"`
	// Sources are the PMM servers heard of or waited for.
	Sources []PMM `json:"pmm"`
	// WebhookURL is the address that is really bound for PMM's webhooks.
	WebhookURL string `json:"webhook_url"`
	Store      Store  `json:"store"`
	SLO        *SLO   `json:"slo,omitempty"` // nil while the ledger cannot be read
	// Cluster is nil while an embedded store is not open.
	Cluster *Cluster `json:"cluster,omitempty"`
	// Ping, Fallback and Filters are nil when they are not set up.
	Ping     *Ping     `json:"ping,omitempty"`
	Fallback *Fallback `json:"fallback,omitempty"`
	Filters  *Filters  `json:"filters,omitempty"`
}

// Cluster is this instance among those that share one NATS.
type Cluster struct {
	Name     string `json:"name"`
	Instance string `json:"instance"`
	Role     string `json:"role"` // leader, follower, or alone: the store is embedded
	// Leader is empty while none is known.
	Leader      string     `json:"leader"`
	LeaderSince *time.Time `json:"leader_since"`
	Term        uint64     `json:"term"`
	// Behind counts transactions that this instance has not read, nil while NATS does not answer.
	Behind *uint64 `json:"behind"`
	// Outdated: a newer version leads, and this instance does nothing but take webhooks.
	Outdated  bool       `json:"outdated"`
	Instances []Instance `json:"instances"`
	// SettingsDiffer names what is set otherwise at the leader; SameName is set where
	// another instance had the name of this one before, which is called otherwise now.
	SettingsDiffer []string `json:"settings_differ,omitempty"`
	SameName       bool     `json:"same_name,omitempty"`
	// ClockSkew is how far the clock of NATS is ahead of the one here, in seconds.
	ClockSkew float64        `json:"clock_skew_seconds"`
	NATS      *queue.Servers `json:"nats,omitempty"` // nil when the store is embedded
}

// Instance is one of them as it announced itself.
type Instance struct {
	Name    string    `json:"name"`
	Version string    `json:"version"`
	Role    string    `json:"role"`
	SeenAt  time.Time `json:"seen_at"`
	// Status is what it answered when it was asked: nil when it was not, or did not answer.
	Status *Status `json:"status,omitempty"`
}

// Callgoose is the state of the receiving side.
type Callgoose struct {
	State     string     `json:"state"`
	Since     *time.Time `json:"since"`
	LastError string     `json:"last_error"`
	NextProbe *time.Time `json:"next_probe_at"`
}

// LastDelivered is an event that Callgoose took.
type LastDelivered struct {
	At     time.Time    `json:"at"`
	Title  string       `json:"title"`
	Effect string       `json:"effect"` // created, resolved, duplicate, none, unknown
	Status event.Status `json:"status"`
	Key    string       `json:"incident_key"`
}

// Effects is what Callgoose did with the events that it took, since the ledger began.
type Effects struct {
	Opened  int64 `json:"opened"`
	Closed  int64 `json:"closed"`
	Nothing int64 `json:"nothing"` // the incident was open, or closed, already
	Unknown int64 `json:"unknown"` // its answer could not be read
}

// Waiting counts the incidents of a severity and an alert name.
type Waiting struct {
	Severity string `json:"severity"`
	Name     string `json:"name"`
	Count    int64  `json:"count"`
}

// Storm is a storm of alerts of one PMM server.
type Storm struct {
	Source  string     `json:"source"`
	Since   *time.Time `json:"since"`        // null: it is over, and what waited is about to go out
	Alerts  int64      `json:"alerts"`       // that began in it
	Waiting int64      `json:"waiting"`      // events that wait for its end
	Key     string     `json:"incident_key"` // of its own incident, "" = not told yet
}

// Drain is how fast events are settled at present, and when nothing would be
// left if no more came in; nil when that is not known.
type Drain struct {
	PerSecond float64    `json:"per_second"`
	ETA       *time.Time `json:"eta"`
}

// PMM is one PMM server.
type PMM struct {
	Name        string     `json:"source"`
	LastHeardAt *time.Time `json:"last_heard_at"` // null = never
	AlertsDay   int64      `json:"alerts_day"`    // of the last 24 hours, counted by the hour
	// Drift is how many alerts differ from what that server says; null = not compared.
	Drift *int64 `json:"drift"`
	// ExpectEvery is how long it may be silent, in seconds; 0 = for ever.
	ExpectEvery float64    `json:"expect_every_seconds"`
	SilentSince *time.Time `json:"silent_since"`
	// Reconcile is how comparing goes, nil without --pmm-url.
	Reconcile *Reconcile `json:"reconcile,omitempty"`
}

// Store is the room there is.
type Store struct {
	// Accepting is false when a webhook would be answered with 503; Problem says why.
	Accepting bool   `json:"accepting"`
	Problem   string `json:"problem"`
	UsedBytes int64  `json:"used_bytes"`
	MaxBytes  int64  `json:"max_bytes"`
	FreeBytes int64  `json:"free_bytes"`
}

// Row is a record as it is shown: every field that an element has is there,
// null where there is nothing yet.
type Row struct {
	*event.Record
	SettledAt *time.Time        `json:"settled_at"`
	Labels    map[string]string `json:"labels"`
}

// NewRow makes a Row of a record.
func NewRow(r *event.Record) Row {
	row := Row{Record: r, Labels: r.Labels}
	if row.Labels == nil {
		row.Labels = map[string]string{}
	}
	if !r.SettledAt.IsZero() {
		at := r.SettledAt.UTC()
		row.SettledAt = &at
	}
	return row
}

// NewRows makes rows of records.
func NewRows(list []*event.Record) []Row {
	rows := make([]Row, len(list))
	for i, r := range list {
		rows[i] = NewRow(r)
	}
	return rows
}

// Detail is one event with everything known about it.
type Detail struct {
	Row
	// Sent is the body as Callgoose gets it; empty when nothing was made of it.
	Sent json.RawMessage `json:"sent,omitempty"`
	// Raw is the notification it came in, as PMM sent it. Missing says why not.
	Raw     json.RawMessage `json:"raw,omitempty"`
	Missing string          `json:"missing,omitempty"`
	// DelayedBy is what Sent says about lateness; empty for nothing.
	DelayedBy string `json:"delayed_by,omitempty"`
	// NextTry is when it is tried again, nil when that is not known.
	NextTry *time.Time `json:"next_try_at,omitempty"`
}
