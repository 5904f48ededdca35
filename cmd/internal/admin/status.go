package admin

import (
	"encoding/json"
	"time"

	"pmm-callgoose/store/event"
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
	SuppressedReason map[string]int64 `json:"suppressed_by_reason"`

	OldestQueuedAt *time.Time `json:"oldest_queued_at"`
	Callgoose      Callgoose  `json:"callgoose"`
	// Sources are the PMM servers heard of or waited for.
	Sources []PMM `json:"sources"`
	// WebhookURL is the address that is really bound for PMM's webhooks.
	WebhookURL string `json:"webhook_url"`
	Store      Store  `json:"store"`
}

// Callgoose is the state of the receiving side.
type Callgoose struct {
	State     string     `json:"state"`
	Since     *time.Time `json:"since"`
	LastError string     `json:"last_error"`
	NextProbe *time.Time `json:"next_probe_at"`
}

// PMM is one PMM server.
type PMM struct {
	Name        string     `json:"name"`
	LastHeardAt *time.Time `json:"last_heard_at"` // null = never
	// ExpectEvery is how long it may be silent, in seconds; 0 = for ever.
	ExpectEvery float64    `json:"expect_every_seconds"`
	SilentSince *time.Time `json:"silent_since"`
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
