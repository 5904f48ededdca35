package worker

import (
	"time"

	"pmm-callgoose/ingest/pmm"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose"
)

// candidate is one alert of a notification on its way to a decision.
type candidate struct {
	pos    event.Position
	note   *event.Notification
	group  *pmm.Notification
	alert  pmm.Alert
	status event.Status
	// unusable holds the raw bytes and the reason of a member that cannot be used.
	unusable *pmm.Unusable
}

// split takes a notification apart, in order. It is pure.
func split(n *event.Notification, seq uint64, note uint32) (out []candidate, truncated int64) {
	group, err := pmm.Decode(n.Body)
	if err != nil {
		// Intake checked it; another version may have had other rules. It is kept.
		return []candidate{{
			pos: event.Position{Seq: seq, Note: note}, note: n,
			unusable: &pmm.Unusable{Raw: n.Body, Reason: err.Error()},
		}}, 0
	}
	at := func(index, second int) event.Position {
		return event.Position{Seq: seq, Note: note, Item: uint32(2*index + second)}
	}
	alerts, bad := group.Alerts, group.Unusable
	for len(alerts) > 0 || len(bad) > 0 {
		if len(alerts) == 0 || len(bad) > 0 && bad[0].Index < alerts[0].Index {
			out = append(out, candidate{pos: at(bad[0].Index, 0), note: n, group: group, unusable: &bad[0]})
			bad = bad[1:]
			continue
		}
		a := alerts[0]
		alerts = alerts[1:]
		c := candidate{pos: at(a.Index, 0), note: n, group: group, alert: a, status: event.Resolved}
		if a.Firing {
			c.status = event.Firing
		}
		out = append(out, c)
		if a.Firing && a.Test(group) {
			if r, ok := testRecovery(a, n.ReceivedAt); ok {
				out = append(out, candidate{pos: at(a.Index, 1), note: n, group: group, alert: r, status: event.Resolved})
			}
		}
	}
	return out, group.TruncatedAlerts
}

// testRecovery is what ends the alert of Grafana's Test button: PMM never does.
func testRecovery(a pmm.Alert, at time.Time) (pmm.Alert, bool) {
	raw, err := callgoose.Recovery(a.Raw, at)
	if err != nil {
		return a, false
	}
	a.Raw, a.Firing, a.EndsAt = raw, false, at
	return a, true
}

// changedAt is when the alert changed to its state: what lateness is counted
// from. An alert that PMM handed over later than lateAfter counts from its
// receipt: we tell of our own delay, PMM's is in the alert.
func (c *candidate) changedAt(lateAfter time.Duration) time.Time {
	t := c.alert.StartsAt
	if c.status == event.Resolved {
		t = c.alert.EndsAt
	}
	received := c.note.ReceivedAt
	if t.IsZero() || t.After(received) || received.Sub(t) > lateAfter {
		return received
	}
	return t
}
