package alarm

import (
	"slices"
	"strings"
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
		out = append(out, hinted(w.lasts(now, code, s, there, nil, a.Text), a.Way)...)
	}
	return out
}

// cluster raises what each instance says by itself: that NATS does not answer, and that
// none leads.
func (w *watch) cluster(now time.Time, s admin.Status) (out []Notice) {
	for _, code := range []string{admin.NATSUnreachable, admin.NoLeader} {
		if s.Cluster == nil || code == admin.NoLeader && !w.found[admin.NATSUnreachable].IsZero() {
			break // whether one leads is not known
		}
		var a admin.Attention
		i := slices.IndexFunc(s.Attention, func(a admin.Attention) bool { return a.Code == code })
		if i >= 0 {
			a = s.Attention[i]
		}
		out = append(out, hinted(w.lasts(now, code, s, i >= 0, nil, strings.TrimSuffix(a.Text, ".")), a.Fix)...)
	}
	return out
}

// hinted are notices with the way out.
func hinted(told []Notice, way string) []Notice {
	for i := range told {
		told[i].Hint = way
	}
	return told
}
