package alarm

import (
	"time"

	"pmm-callgoose/cmd/internal/admin"
)

// fromPMM are the alarms that comparing with PMM raises, under the codes that it has
// for them: worker.ReconcileAlarm.
var fromPMM = []string{"reconcile_mass", "reconcile_missing", "pmm_contact_point_failing", "pmm_not_routed"}

// reconcile raises what a person must decide or correct when it has lasted for after,
// and ends it with the first comparison that does not find it any more.
func (w *watch) reconcile(now time.Time, s admin.Status) (out []Notice) {
	found := map[string]admin.ReconcileAlarm{}
	for _, p := range s.Sources {
		if p.Reconcile == nil {
			continue
		}
		for _, a := range p.Reconcile.Alarms {
			if _, there := found[a.Code]; !there {
				a.Text = "PMM " + p.Name + ": " + a.Text
				found[a.Code] = a
			}
		}
	}
	for _, code := range fromPMM {
		a, there := found[code]
		told := w.lasts(now, code, s, there, nil, a.Text)
		for i := range told {
			told[i].Hint = a.Way
		}
		out = append(out, told...)
	}
	return out
}
