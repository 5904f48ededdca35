package worker

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"pmm-callgoose/ingest/pmm"
	"pmm-callgoose/store/event"
)

// note is one stored notification, taken apart. It is read-only once made.
type note struct {
	event.Notification
	pos   event.Position // of its first member
	group *pmm.Notification
	// members are the alerts and what cannot be used, in the order of the body, or what is
	// to be queued again.
	members       []candidate
	includeClosed bool // of what is to be queued again, see Splitter.Requeue
}

// candidate is one alert of a notification on its way to a decision, or an event that is
// to be queued again.
type candidate struct {
	pos    event.Position
	note   *note
	again  *Ref
	alert  *pmm.Alert
	status event.Status
	// unusable holds the raw bytes and the reason of a member that cannot be used.
	unusable *pmm.Unusable
}

// split takes a notification apart. It is pure, and its cost is linear in the
// size of the body.
func split(n event.Notification, pos event.Position) *note {
	out := &note{Notification: n, pos: pos}
	if n.Err != nil {
		out.ReceivedAt = time.Now().UTC() // when it was is not known
		return out.lost("the stored notification cannot be read: " + n.Err.Error())
	}
	if n.Origin == event.Requeue {
		return out.requested()
	}
	group, err := pmm.Decode(n.Body)
	if err != nil { // intake checked it; another version may have had other rules
		return out.lost(err.Error())
	}
	out.group = group
	out.members = make([]candidate, 0, len(group.Alerts)+len(group.Unusable))
	for i := range group.Alerts {
		a := &group.Alerts[i]
		c := candidate{pos: out.at(a.Index), note: out, alert: a, status: event.Resolved}
		if a.Firing {
			c.status = event.Firing
		}
		out.members = append(out.members, c)
	}
	for i := range group.Unusable {
		u := &group.Unusable[i]
		out.members = append(out.members, candidate{pos: out.at(u.Index), note: out, unusable: u})
	}
	slices.SortFunc(out.members, func(a, b candidate) int { return a.pos.Compare(b.pos) })
	return out
}

// at is the position of the member at an index.
func (n *note) at(index int) event.Position {
	return event.Position{Seq: n.pos.Seq, Note: n.pos.Note, Item: uint32(index)}
}

// lost makes the whole notification one member that cannot be used.
func (n *note) lost(reason string) *note {
	n.members = []candidate{{pos: n.pos, note: n, unusable: &pmm.Unusable{Raw: n.Body, Reason: reason}}}
	return n
}

// alert is the member at an index, nil when there is none that can be used.
func (n *note) alert(item uint32) *pmm.Alert {
	if n.group == nil {
		return nil
	}
	i, ok := slices.BinarySearchFunc(n.group.Alerts, int(item), func(a pmm.Alert, index int) int { return cmp.Compare(a.Index, index) })
	if !ok {
		return nil
	}
	return &n.group.Alerts[i]
}

// raw is the member at an index as it came, nil when it is not there.
func (n *note) raw(item uint32) []byte {
	if a := n.alert(item); a != nil {
		return a.Raw
	}
	for i := range n.members {
		if n.members[i].pos.Item == item && n.members[i].unusable != nil {
			return n.members[i].unusable.Raw
		}
	}
	return nil
}

// fromPMM reports whether PMM itself said something in it: a sign of life.
func (n *note) fromPMM() bool {
	if n.Origin != event.FromPMM || n.Err != nil {
		return false
	}
	return slices.ContainsFunc(n.members, func(c candidate) bool {
		if c.unusable != nil {
			return true
		}
		label := c.alert.Labels[OurLabel]
		return label == "" || label == Heartbeat
	})
}

// identity is the incident key of the alert: the fingerprint as PMM sent it,
// else one over its labels.
func (c *candidate) identity() string {
	fingerprint := c.alert.Fingerprint
	if fingerprint == "" {
		fingerprint = pmm.Fingerprint(c.alert.Labels)
	}
	return event.Key(c.note.Source, fingerprint)
}

// notedLabels bounds what the ledger keeps of the labels of one alert, bytes, and
// notedValue one of them where there are more.
const (
	notedLabels = 64 << 10
	notedValue  = 1 << 10
)

// noted are labels as the ledger keeps them: too many bytes are cut, the same ones each
// time. The alert's name stays.
func noted(labels map[string]string) map[string]string {
	size := 0
	for k, v := range labels {
		size += len(k) + len(v)
	}
	if size <= notedLabels {
		return labels
	}
	out, room := map[string]string{}, notedLabels
	for _, k := range append([]string{"alertname"}, slices.Sorted(maps.Keys(labels))...) {
		v, has := labels[k]
		if len(v) > notedValue {
			v = strings.ToValidUTF8(v[:notedValue], "")
		}
		if room -= len(k) + len(v); has && room >= 0 {
			out[k] = strings.Clone(v) // not the whole value with it
		}
	}
	return out
}

// changedAt is when the alert changed to its state: what lateness is counted
// from. An alert that PMM handed over later than lateAfter counts from its
// receipt: the service tells of its own delay, PMM's is in the alert.
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
