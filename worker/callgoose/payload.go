package callgoose

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
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
	b := append((*buf)[:0], '{')
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
		group = appendObject(b, map[string]string{"alertname": Name(a.Labels)})
	}
	b = appendName(group, "commonLabels")
	if a.UniqueName {
		b = appendObjectWith(b, a.Labels, "alertname", Name(a.Labels)+" ["+instanceOr(a.Labels, a.Fingerprint)+"]")
	} else {
		b = appendObject(b, a.Labels)
	}
	b = appendObject(appendName(b, "commonAnnotations"), a.Annotations)
	for _, m := range a.Envelope {
		size := len(m.Name) + len(m.Value)
		if !made[m.Name] && len(m.Value) <= each && size <= room {
			room -= size
			b = appendMember(b, m.Name, m.Value)
		}
	}
	b = appendText(b, "source", a.Source)
	b = appendText(b, "incident_key", a.IncidentKey)
	b = appendText(b, "event_id", a.EventID)
	b = appendText(b, "title", Title(a.Labels, a.Annotations))
	b = appendText(b, "description", Description(a.Labels, a.Annotations, a.Fingerprint))
	b = appendText(b, "severity", or(a.Labels["severity"], "unknown"))
	b = appendText(b, "instance", instanceOr(a.Labels, a.Fingerprint))
	b = append(b, '}')
	if *buf = b; cap(b) > 1<<20 { // one large alert must not stay
		*buf = nil
	}
	return bytes.Clone(b)
}

// bodies are buffers to write a body in before its size is known.
var bodies = sync.Pool{New: func() any { return new([]byte) }}

// made are the members that Body or Late writes itself, or puts first.
var made = map[string]bool{
	"receiver": true, "status": true, "alerts": true, "groupLabels": true, "commonLabels": true, "commonAnnotations": true,
	"source": true, "incident_key": true, "event_id": true, "title": true, "description": true, "severity": true, "instance": true,
	"delayed_by": true,
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

// Late is a body that Body made, with a word about lateness: the key delayed_by, and
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
	b := append(make([]byte, 0, size), '{')
	for _, m := range members {
		b = appendMember(b, m.Name, m.Value)
	}
	return append(b, '}')
}

// appendWithFingerprint adds the member at the end of the alert's object.
func appendWithFingerprint(b, raw []byte, fingerprint string) []byte {
	if bytes.Contains(raw, []byte(`"fingerprint"`)) { // one that cannot be used: two would be no JSON for some
		own := func(m Member) bool { return m.Name == "fingerprint" }
		if members, err := split(raw); err == nil && slices.ContainsFunc(members, own) {
			raw = join(slices.DeleteFunc(members, own))
		}
	}
	raw = bytes.TrimRight(raw, " \t\r\n")
	b = append(b, bytes.TrimRight(raw[:len(raw)-1], " \t\r\n")...)
	return append(appendText(b, "fingerprint", fingerprint), '}')
}

// appendObject writes a flat JSON object with sorted names.
func appendObject(b []byte, m map[string]string) []byte { return appendObjectWith(b, m, "", "") }

// appendObjectWith writes it with one member of another value, unless name is empty.
func appendObjectWith(b []byte, m map[string]string, name, value string) []byte {
	names := make([]string, 0, len(m)+1)
	for k := range m {
		names = append(names, k)
	}
	if _, has := m[name]; !has && name != "" {
		names = append(names, name)
	}
	slices.Sort(names)
	b = append(b, '{')
	for _, k := range names {
		if k == name && name != "" {
			b = appendText(b, k, value)
		} else {
			b = appendText(b, k, m[k])
		}
	}
	return append(b, '}')
}

func appendMember(b []byte, name string, value []byte) []byte {
	return append(appendName(b, name), value...)
}

func appendText(b []byte, name, text string) []byte {
	return appendQuote(appendName(b, name), text)
}

// appendName begins a member. No value ends as an object begins.
func appendName(b []byte, name string) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	return append(appendQuote(b, name), ':')
}

// appendQuote writes s as a JSON string, with the text as it is: < and & stay
// readable, because maintenance filters of Callgoose look for text in the raw payload.
func appendQuote(b []byte, s string) []byte {
	if plain(s) {
		b = append(append(b, '"'), s...)
		return append(b, '"')
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string always encodes
	return append(b, bytes.TrimRight(buf.Bytes(), "\n")...)
}

func quote(s string) []byte { return appendQuote(nil, s) }

// plain reports whether the encoder would leave every character of s as it is.
func plain(s string) bool {
	ascii := true
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' {
			return false
		} else if c >= utf8.RuneSelf {
			ascii = false
		}
	}
	return ascii || utf8.ValidString(s) && !strings.ContainsAny(s, "\u2028\u2029")
}
