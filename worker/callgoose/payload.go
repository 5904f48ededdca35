package callgoose

import (
	"bytes"
	"cmp"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
)

// Alert is one alert as it goes out: the envelope it came in, its own bytes,
// and the identity it was given.
type Alert struct {
	Status      string
	Envelope    []Member          // top-level members of the notification but "alerts", as they came
	Members     int               // how many alerts share that envelope, 0 = this one alone
	Raw         []byte            // the alert exactly as it came
	GroupLabels map[string]string // of the notification, nil when it had none
	// Labels and Annotations describe the alert; for a trimmed recovery they are
	// completed from the open alert it belongs to.
	Labels, Annotations map[string]string
	// Fingerprint is added to the alert when PMM sent none.
	Fingerprint string
	HasFinger   bool
	Source      string // the --callgoose-from of the worked examples
	IncidentKey string
	EventID     string
	UniqueName  bool   // commonLabels.alertname is the shown name, see [ShownName]
	Suffix      string // put after the shown name, see [Suffix]; "" = none. With UniqueName only

	Link     string // to the alert's panel, dashboard or rule; "" = none
	Reopened bool   // the episode goes on: its recovery was revoked
	// Recovery is what a resolved event rests on, see [RecoveryKind]; "" = as the
	// annotations say.
	Recovery      string
	RecoveryWords bool   // the description says that a recovery is not confirmed
	Reconciled    string // opened, closed, "" = PMM sent the alert itself

	ShortLength int      // of the key "short", in characters; 0 = 100
	UrgencyHigh []string // the severities of urgency high; nil = emergency, alert, critical, error
}

// Member is one member of a JSON object, in its place.
type Member struct {
	Name  string
	Value []byte
}

// maxMember bounds an envelope's member that is repeated with every alert of a
// group. Grafana's "message" holds the text of all alerts: a storm of a
// thousand alerts would otherwise be stored a thousand times a thousand.
// The whole body stays in the stored notification.
const maxMember = 16 << 10

// maxEnvelope bounds all of them together: what is in the body once would
// otherwise be stored with every one of its alerts.
const maxEnvelope = 64 << 10

// maxGroup bounds what the envelope of one notification takes in all its events:
// a small body with thousands of alerts must not fill the disk.
const maxGroup = 16 << 20

// Body makes what is posted: the notification's own envelope holding this one
// alert, so that the filters of Callgoose's guide work, with what describes the
// group made from this alert alone, and flat string keys. Order and white space
// are fixed: the same alert gives the same bytes.
func Body(a Alert) []byte {
	room := min(maxEnvelope, maxGroup/max(a.Members, 1))
	each := min(maxMember, room)
	buf := bodies.Get().(*[]byte)
	defer bodies.Put(buf)
	b := append(slices.Grow((*buf)[:0], len(a.Raw)+sizeOf(a.Labels)+sizeOf(a.Annotations)), '{')
	for _, m := range a.Envelope {
		if m.Name == "receiver" && len(m.Value) <= each {
			b = appendMember(b, m.Name, m.Value)
		}
	}
	b = appendText(b, "status", a.Status)
	b = append(appendName(b, "alerts"), '[')
	if a.HasFinger {
		b = append(b, a.Raw...)
	} else {
		b = appendWithFingerprint(b, a.Raw, a.Fingerprint)
	}
	b = append(b, ']')
	b = appendName(b, "groupLabels")
	group := appendObject(b, a.GroupLabels)
	if len(a.GroupLabels) == 0 || len(group)-len(b) > each {
		group = appendObject(b, map[string]string{"alertname": name(a.Labels)})
	}
	labels := a.Labels
	if a.UniqueName {
		labels = make(map[string]string, len(a.Labels)+1)
		maps.Copy(labels, a.Labels)
		labels["alertname"] = ShownName(a.Labels, a.Fingerprint)
		if a.Suffix != "" {
			labels["alertname"] += " #" + a.Suffix
		}
	}
	b = appendObject(appendName(group, "commonLabels"), labels)
	b = appendObject(appendName(b, "commonAnnotations"), a.Annotations)
	for _, m := range a.Envelope {
		size := len(m.Name) + len(m.Value)
		if !made[m.Name] && len(m.Value) <= each && size <= room {
			room -= size
			b = appendMember(b, m.Name, m.Value)
		}
	}
	b = append(appendFlat(b, a), '}')
	if cap(b) > 1<<20 { // one large alert must not stay, nor be held twice
		*buf = nil
		return b
	}
	*buf = b
	return bytes.Clone(b)
}

// sizeOf is about what an object of texts takes, bytes.
func sizeOf(m map[string]string) (n int) {
	for k, v := range m {
		n += len(k) + len(v) + 6
	}
	return n
}

// bodies are buffers to write a body in before its size is known.
var bodies = sync.Pool{New: func() any { return new([]byte) }}

// appendFlat writes the flat keys. Those up to instance are always there.
func appendFlat(b []byte, a Alert) []byte {
	recovery := ""
	if a.Status == "resolved" {
		recovery = cmp.Or(a.Recovery, RecoveryKind(a.Annotations))
	}
	b = appendText(b, "source", a.Source)
	b = appendText(b, "incident_key", a.IncidentKey)
	b = appendText(b, "event_id", a.EventID)
	b = appendText(b, "title", title(a))
	b = appendText(b, "description", description(a, recovery)) // only strings may follow, see Late
	b = appendText(b, "severity", first(a.Labels["severity"], "unknown"))
	b = appendText(b, "instance", instance(a.Labels, a.Fingerprint))
	b = appendText(b, "short", short(a))
	b = appendText(b, "urgency", urgency(a))
	reopened := ""
	if a.Reopened {
		reopened = "true"
	}
	for _, k := range [...]struct{ name, text string }{
		{"where", where(a.Labels)},
		{"link", first(a.Link)},
		{"runbook", first(a.Annotations["runbook_url"])},
		{"recovery", recovery},
		{"reopened", reopened},
		{"reconciled", a.Reconciled},
	} {
		if k.text != "" {
			b = appendText(b, k.name, k.text)
		}
	}
	return b
}

// made are the members that Body or Late writes itself, or puts first.
var made = map[string]bool{
	"receiver": true, "status": true, "alerts": true, "groupLabels": true, "commonLabels": true, "commonAnnotations": true,
	"source": true, "incident_key": true, "event_id": true, "title": true, "description": true, "severity": true, "instance": true,
	"short": true, "urgency": true, "where": true, "link": true, "runbook": true, "recovery": true, "reopened": true, "reconciled": true,
	"delayed_by": true,
}

// The kinds of a recovery.
const (
	RecoveryConfirmed = "confirmed" // PMM saw the value return to normal
	RecoveryHollow    = "hollow"    // the data was lost: the fault may still be there
	RecoveryByEdit    = "by_edit"   // somebody changed, paused or deleted the rule
)

// StateReason is the annotation in which Grafana says why an alert changed without
// its condition having changed.
const StateReason = "grafana_state_reason"

// RecoveryKind is what a recovery with these annotations rests on.
func RecoveryKind(annotations map[string]string) string {
	switch annotations[StateReason] {
	case "MissingSeries", "NoData", "Error":
		return RecoveryHollow
	case "Updated", "Paused", "RuleDeleted":
		return RecoveryByEdit
	}
	return RecoveryConfirmed
}

// Late says in a body that Body made that it is late: with the key delayed_by, and with
// a line in the description, which is what the person who is called gets to read.
func Late(body []byte, by time.Duration) ([]byte, error) {
	// After the description there are strings only, and in a string this would be
	// escaped: the last of its kind is the one that we wrote.
	const name = `,"description":"`
	start := bytes.LastIndex(body, []byte(name))
	if start < 0 || body[len(body)-1] != '}' {
		return nil, errors.New("the stored body has no description")
	}
	end := start + len(name)
	for end < len(body) && body[end] != '"' {
		if body[end] == '\\' {
			end++
		}
		end++
	}
	if end >= len(body) {
		return nil, errors.New("the description in the stored body has no end")
	}
	text := Delay(by)
	out := append(make([]byte, 0, len(body)+128), body[:end]...)
	out = append(out, `\n\nDelivered late by pmm-callgoose: `+text+` after the event.`...)
	out = append(out, body[end:len(body)-1]...)
	return append(appendText(out, "delayed_by", text), '}'), nil
}

// Delay is a delay in words: whole seconds.
func Delay(by time.Duration) string { return by.Round(time.Second).String() }
