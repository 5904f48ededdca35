package callgoose

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sort"
	"time"
)

// Alert is one alert as it goes out: the envelope it came in, its own bytes,
// and the identity it was given.
type Alert struct {
	Status      string
	Envelope    []Member          // top-level members of the notification but "alerts", as they came
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
	UniqueName  bool // append the instance to commonLabels.alertname
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

// Body makes what is posted: the notification's own envelope holding this one
// alert, so that the filters of Callgoose's guide work, with what describes the
// group made from this alert alone, and flat string keys. Order and white space
// are fixed: the same alert gives the same bytes.
func Body(a Alert) []byte {
	common := a.Labels
	if a.UniqueName {
		common = make(map[string]string, len(a.Labels))
		maps.Copy(common, a.Labels)
		common["alertname"] = Name(a.Labels) + " [" + instanceOr(a.Labels, a.Fingerprint) + "]"
	}
	group := a.GroupLabels
	if len(group) == 0 || len(object(group)) > maxMember {
		group = map[string]string{"alertname": Name(a.Labels)}
	}
	alert := a.Raw
	if !a.HasFinger {
		alert = withFingerprint(alert, a.Fingerprint)
	}
	made := []Member{
		{"status", quote(a.Status)},
		{"alerts", append(append([]byte{'['}, alert...), ']')},
		{"groupLabels", object(group)},
		{"commonLabels", object(common)},
		{"commonAnnotations", object(a.Annotations)},
	}
	flat := []Member{
		{"source", quote(a.Source)},
		{"incident_key", quote(a.IncidentKey)},
		{"event_id", quote(a.EventID)},
		{"title", quote(Title(a.Labels, a.Annotations))},
		{"description", quote(Description(a.Labels, a.Annotations, a.Fingerprint))},
		{"severity", quote(or(a.Labels["severity"], "unknown"))},
		{"instance", quote(instanceOr(a.Labels, a.Fingerprint))},
	}
	ours := map[string]bool{"delayed_by": true, "receiver": true}
	for _, m := range made {
		ours[m.Name] = true
	}
	for _, m := range flat {
		ours[m.Name] = true
	}
	var out []Member
	for _, m := range a.Envelope {
		if m.Name == "receiver" && len(m.Value) <= maxMember {
			out = append(out, m)
		}
	}
	out = append(out, made...)
	room := maxEnvelope
	for _, m := range a.Envelope {
		size := len(m.Name) + len(m.Value)
		if !ours[m.Name] && len(m.Value) <= maxMember && size <= room {
			room -= size
			out = append(out, m)
		}
	}
	return join(append(out, flat...))
}

// Name is the alert's name, never empty.
func Name(labels map[string]string) string { return or(labels["alertname"], "alert without a name") }

// Title is the incident's title, never empty.
func Title(labels, annotations map[string]string) string {
	if s := annotations["summary"]; s != "" {
		return Name(labels) + " - " + s
	}
	return Name(labels)
}

// Description falls back from the description to the summary, then to name and
// instance: without one Callgoose would show the raw payload.
func Description(labels, annotations map[string]string, fingerprint string) string {
	return or(annotations["description"], annotations["summary"],
		Name(labels)+" on "+instanceOr(labels, fingerprint))
}

func instanceOr(labels map[string]string, fingerprint string) string {
	return or(labels["instance"], labels["service_name"], labels["node_name"], fingerprint)
}

func or(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// Late is body with a word about lateness: the key delayed_by, and a line in
// the description, which is what the person who is called gets to read.
func Late(body []byte, by time.Duration) ([]byte, error) {
	members, err := split(body)
	if err != nil {
		return nil, err
	}
	text := Delay(by)
	for i, m := range members {
		if m.Name != "description" {
			continue
		}
		var d string
		if err := json.Unmarshal(m.Value, &d); err != nil {
			return nil, fmt.Errorf("description: %w", err)
		}
		members[i].Value = quote(d + "\n\nDelivered late by pmm-callgoose: " + text + " after the event.")
	}
	return join(append(members, Member{"delayed_by", quote(text)})), nil
}

// Recovery is the alert in raw as it would look resolved at that time. It is
// made only for Grafana's Test button, whose alert PMM never resolves.
func Recovery(raw []byte, at time.Time) ([]byte, error) {
	members, err := split(raw)
	if err != nil {
		return nil, err
	}
	for i, m := range members {
		switch m.Name {
		case "status":
			members[i].Value = quote("resolved")
		case "endsAt":
			members[i].Value = quote(at.UTC().Format(time.RFC3339Nano))
		}
	}
	return join(members), nil
}

// Delay is a delay as it is told: whole seconds.
func Delay(by time.Duration) string { return by.Round(time.Second).String() }

// split takes a JSON object apart into its members, in order.
func split(body []byte) ([]Member, error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("the stored body is not a JSON object")
	}
	var out []Member
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			return nil, err
		}
		s, _ := name.(string)
		out = append(out, Member{s, v})
	}
	return out, nil
}

func join(members []Member) []byte {
	size := 2
	for _, m := range members {
		size += len(m.Name) + len(m.Value) + 4
	}
	b := bytes.NewBuffer(make([]byte, 0, size))
	b.WriteByte('{')
	for i, m := range members {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(quote(m.Name))
		b.WriteByte(':')
		b.Write(m.Value)
	}
	b.WriteByte('}')
	return b.Bytes()
}

// withFingerprint adds the member at the end of the alert's object.
func withFingerprint(raw []byte, fingerprint string) []byte {
	raw = bytes.TrimRight(raw, " \t\r\n")
	head := bytes.TrimRight(raw[:len(raw)-1], " \t\r\n")
	out := append(make([]byte, 0, len(raw)+40), head...)
	if head[len(head)-1] != '{' {
		out = append(out, ',')
	}
	out = append(out, `"fingerprint":`...)
	out = append(out, quote(fingerprint)...)
	return append(out, '}')
}

// object is a flat JSON object with sorted names.
func object(m map[string]string) []byte {
	names := make([]string, 0, len(m))
	for k := range m {
		names = append(names, k)
	}
	sort.Strings(names)
	members := make([]Member, len(names))
	for i, k := range names {
		members[i] = Member{k, quote(m[k])}
	}
	return join(members)
}

// quote is s as a JSON string, with the text as it is: < and & stay readable,
// because maintenance filters of Callgoose look for text in the raw payload.
func quote(s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string always encodes
	return bytes.TrimRight(b.Bytes(), "\n")
}
