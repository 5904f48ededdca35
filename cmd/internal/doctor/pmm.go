package doctor

import (
	"context"
	"maps"
	"slices"
	"time"

	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/ingest/pmm"
)

// PMM says how PMM's own side is checked.
type PMM struct {
	Clients map[string]*pmm.Client // by source; empty = it is not checked
	Name    string                 // of the contact point; "" = pmm.DefaultName
	Asks    []string               // the credentials that the intake asks for, as in pmm.Intake
}

// pmm checks PMM's contact points and routes that lead here.
func (e *examination) pmm(ctx context.Context) {
	e.reconciled()
	if len(e.PMM.Clients) == 0 {
		e.skip("pmm", "PMM's contact point is checked with --pmm-url and --pmm-token-file")
	}
	intake := pmm.Intake{ContactPoint: e.PMM.Name, Asks: e.PMM.Asks, TimestampHeader: e.Settings.IngestHMACTimestampHeader}
	if e.Service != nil {
		intake.URL, intake.Heard = e.Service.WebhookURL, len(e.Service.Sources) > 0
	}
	for _, source := range slices.Sorted(maps.Keys(e.PMM.Clients)) {
		client := e.PMM.Clients[source]
		version, findings, err := client.Inspect(ctx, intake)
		if err != nil {
			e.fail("pmm", fix("See --pmm-url and the token: a service account of role Viewer or higher (PMM 2: Admin)."), "%s", text.Short(200, err.Error()))
			continue
		}
		e.ok("pmm", "%s at %s", text.Short(200, version.String()), client.Host())
		for _, f := range findings {
			switch check, said := "pmm "+f.Part, text.Short(600, f.Text); {
			case f.Fix == "":
				e.ok(check, "%s", said)
			case f.Lost:
				e.fail(check, fix(f.Fix), "%s", said)
			default:
				e.warn(check, fix(f.Fix), "%s", said)
			}
		}
	}
}

// reconciled says what the service itself found when it compared with PMM.
func (e *examination) reconciled() {
	if e.Service == nil {
		return
	}
	for _, s := range e.Service.Sources {
		r := s.Reconcile
		if r == nil {
			continue
		}
		check := "reconcile " + s.Name
		switch {
		case r.LastPassAt == nil:
			e.skip(check, "no pass was made yet")
		case r.Failures > 0:
			e.fail(check, fix("See --pmm-url and the token: a service account of role Viewer (PMM 2: Admin). Delivery is not affected."), "%s", text.Short(200, r.Skipped))
		case len(r.Differences)+len(r.Alarms) == 0: // else the service has said so
			e.ok(check, "PMM and the open incidents agree, %s", text.Ago(*r.LastPassAt, time.Now()))
		}
	}
}
