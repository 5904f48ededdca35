package admin

import (
	"net/url"
	"time"

	"pmm-callgoose/worker"
)

// MaxDrift bounds the differences that a status lists, of one PMM.
const MaxDrift = 100

// Reconcile is how comparing with one PMM goes.
type Reconcile struct {
	Mode       string     `json:"mode"`
	LastPassAt *time.Time `json:"last_pass_at"` // nil = none yet
	// Failures counts consecutive passes in which PMM could not be read.
	Failures int `json:"failures"`
	// Skipped says why the last pass saw nothing, "" = it did.
	Skipped string `json:"skipped"`
	// ContactLastAttemptAt and ContactLastError are what PMM says of its contact point
	// that leads here; nil and "" where it says nothing.
	ContactLastAttemptAt *time.Time              `json:"contact_point_last_attempt_at"`
	ContactLastError     string                  `json:"contact_point_last_error"`
	Alarms               []worker.ReconcileAlarm `json:"alarms"`
	// Differences are the first MaxDrift of those that the last pass found.
	Differences []worker.ReconcileDrift `json:"differences"`
}

// ReconcileRequest is one pass that a person asks for.
type ReconcileRequest struct {
	Keys   []string // incidents to close though no rule vouches for it; not if they fire
	Yes    bool     // do what is held back because it is too much at once
	DryRun bool     // only say what would be done
}

// ParseReconcile reads a request.
func ParseReconcile(q url.Values) ReconcileRequest {
	return ReconcileRequest{Keys: q["key"], Yes: q.Get("yes") == "true", DryRun: q.Get("dry_run") == "true"}
}

// ReconcilePass is what one pass over one PMM came to.
type ReconcilePass struct {
	Source string                  `json:"source"`
	DryRun bool                    `json:"dry_run"`
	Open   []worker.ReconcileAct   `json:"open"`
	Close  []worker.ReconcileAct   `json:"close"`
	Drift  []worker.ReconcileDrift `json:"drift"`
	Alarms []worker.ReconcileAlarm `json:"alarms"`
	// Refused are the keys of the request that stay open, and why.
	Refused map[string]string `json:"refused"`
	Skipped string            `json:"skipped"`
}
