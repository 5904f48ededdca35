package pmm

import (
	"bytes"
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Notification is one decoded webhook body: a group of alerts. It shares memory
// with the body it was decoded from.
type Notification struct {
	Status          string // of the group: firing when any alert fires
	GroupKey        string
	Version         string            // "1" from Grafana, "4" from Alertmanager
	TruncatedAlerts int64             // alerts PMM cut off before sending
	GroupLabels     map[string]string // nil when absent
	Envelope        []Field           // all top-level members but "alerts", as they came
	Alerts          []Alert           // the usable members of "alerts"
	Unusable        []Unusable        // the others
}

// Field is one top-level member of a body. Of members with the same name the last
// one counts, in the place of the first.
type Field struct {
	Name  string
	Value []byte // JSON as written, in valid UTF-8
}

// Alert is one usable member of a notification.
type Alert struct {
	Index       int    // position in the body's "alerts"
	Raw         []byte // the member as it came; only invalid UTF-8 became U+FFFD
	Firing      bool   // else resolved
	Labels      map[string]string
	Annotations map[string]string // like Labels never nil; values are their text, null is ""
	StartsAt    time.Time         // UTC; zero when absent, unreadable or in year 1
	EndsAt      time.Time         // likewise
	Fingerprint string            // as PMM sent it, [A-Za-z0-9_-]{1,64}; else ""
	Link        string            // http(s) URL of the panel, else the dashboard, else the rule; "" = none
}

// Unusable is a member of a notification that cannot become an event.
type Unusable struct {
	Index  int
	Raw    []byte
	Reason string
}

// maxMembers bounds what decoding a body can cost. PMM's alerts take hundreds of bytes
// each: a body with that many of them is larger than what is accepted.
const maxMembers = 100_000

var errTooMany = &Error{fmt.Sprintf(`"alerts" has more than %d members`, maxMembers)}

// Error says, in words meant for the sender, why a body cannot be used.
type Error struct{ Reason string }

func (e *Error) Error() string { return e.Reason }

// Check judges a body as [Decode] does, without keeping anything. Members counts
// the unusable ones too; truncated is what PMM cut off.
func Check(body []byte) (members int, truncated int64, err error) { return read(body, nil) }

// Decode reads a webhook body. Its error is an [*Error], and the one [Check]
// gives for the same body.
func Decode(body []byte) (n *Notification, err error) {
	n = &Notification{Envelope: make([]Field, 0, 16)}
	if _, n.TruncatedAlerts, err = read(body, n); err != nil {
		return nil, err
	}
	for i := range n.Envelope {
		f := &n.Envelope[i]
		f.Value = clean(f.Value)
		switch f.Name {
		case "status":
			n.Status = string(text(f.Value))
		case "groupKey":
			n.GroupKey = string(text(f.Value))
		case "version":
			n.Version = string(text(f.Value))
		case "groupLabels":
			if f.Value[0] == '{' {
				n.GroupLabels = pairs(f.Value)
			}
		}
	}
	return n, nil
}

// read judges a body, and keeps its members in n, unless that is nil.
func read(body []byte, n *Notification) (members int, truncated int64, err error) {
	h, err := survey(body, n)
	if err != nil {
		return 0, 0, err
	}
	usable, first := false, ""
	for i, m := range h.each {
		if members = i + 1; members > maxMembers {
			return 0, 0, errTooMany
		}
		if usable && n == nil {
			continue
		}
		why := m.fault(h)
		usable, first = usable || why == "", cmp.Or(first, why)
		switch {
		case n == nil:
		case why != "":
			n.Unusable = append(n.Unusable, Unusable{Index: i, Raw: clean(m.raw), Reason: why})
		default:
			n.Alerts = append(n.Alerts, m.alert(i, h))
		}
	}
	if !usable {
		return 0, 0, &Error{fmt.Sprintf("none of the %d members of \"alerts\" is usable; the first: %s", members, first)}
	}
	return members, h.truncated(), nil
}

// head is what the verdict needs of the top level: values as written, nil when
// absent.
type head struct {
	alerts, status, truncatedAlerts []byte
}

// survey validates the whole body and finds its top-level members. Where n is not nil it
// keeps all but "alerts" in its envelope.
func survey(body []byte, n *Notification) (h head, err error) {
	s := scanner{data: bytes.TrimPrefix(body, []byte("\ufeff"))}
	if s.peek(); s.pos == len(s.data) {
		return h, &Error{"not JSON: the body is empty"}
	}
	if s.data[s.pos] == '{' {
		var place map[string]int // in the envelope
		if n != nil {
			place = make(map[string]int, 16)
		}
		for more := s.open('}'); more; more = s.more('}') {
			name, value := unquote(s.name()), s.value()
			switch string(name) {
			case "alerts":
				h.alerts = value
				continue
			case "status":
				h.status = value
			case "truncatedAlerts":
				h.truncatedAlerts = value
			}
			if n == nil {
				continue
			}
			i, again := place[string(name)]
			if !again {
				i = len(n.Envelope)
				n.Envelope = append(n.Envelope, Field{Name: string(name)})
				place[n.Envelope[i].Name] = i
			}
			n.Envelope[i].Value = value
		}
	} else {
		s.value()
	}
	s.end()
	switch {
	case s.err != nil:
		return h, s.err
	case len(h.alerts) == 0 || h.alerts[0] != '[':
		return h, &Error{`no "alerts" array; a custom payload in PMM's contact point must keep it`}
	}
	if list := (&scanner{data: h.alerts}); !list.open(']') {
		return h, &Error{`the "alerts" array is empty`}
	}
	return h, nil
}

func (h head) truncated() int64 {
	n, err := strconv.ParseInt(string(text(h.truncatedAlerts)), 10, 64)
	if err != nil {
		return 0
	}
	return max(n, 0)
}

// each yields the members of "alerts", which survey found valid.
func (h head) each(yield func(int, member) bool) {
	s := scanner{data: h.alerts}
	i := 0
	for more := s.open(']'); more; more = s.more(']') {
		m := readMember(&s)
		if !yield(i, m) {
			return
		}
		i++
	}
}

// member is one element of "alerts": values as written, nil when absent.
type member struct {
	raw, status, labels, annotations, startsAt, endsAt, fingerprint []byte
	panelURL, dashboardURL, generatorURL                            []byte
}

func readMember(s *scanner) (m member) {
	if s.peek() != '{' {
		m.raw = s.value()
		return m
	}
	start := s.pos
	for more := s.open('}'); more; more = s.more('}') {
		name, value := unquote(s.name()), s.value()
		switch string(name) {
		case "status":
			m.status = value
		case "labels":
			m.labels = value
		case "annotations":
			m.annotations = value
		case "startsAt":
			m.startsAt = value
		case "endsAt":
			m.endsAt = value
		case "fingerprint":
			m.fingerprint = value
		case "panelURL":
			m.panelURL = value
		case "dashboardURL":
			m.dashboardURL = value
		case "generatorURL":
			m.generatorURL = value
		}
	}
	m.raw = s.data[start:s.pos]
	return m
}

func (m member) alert(i int, h head) Alert {
	return Alert{
		Index:       i,
		Raw:         clean(m.raw),
		Firing:      string(m.state(h)) == "firing",
		Labels:      pairs(m.labels),
		Annotations: pairs(m.annotations),
		StartsAt:    instant(m.startsAt),
		EndsAt:      instant(m.endsAt),
		Fingerprint: string(fingerprint(m.fingerprint)),
		Link:        link(m.panelURL, m.dashboardURL, m.generatorURL),
	}
}

// state is the member's own status, else that of its group.
func (m member) state(h head) []byte {
	if own := text(m.status); len(own) > 0 {
		return own
	}
	return text(h.status)
}

// fault says why m cannot become an event, "" when it can.
func (m member) fault(h head) string {
	if m.raw[0] != '{' {
		return "not a JSON object"
	}
	switch string(m.state(h)) {
	case "firing", "resolved":
	case "":
		return `no "status", neither its own nor the group's`
	default:
		return `"status" is neither "firing" nor "resolved"`
	}
	if len(m.labels) == 0 || m.labels[0] != '{' {
		return `no "labels" object`
	}
	labels := scanner{data: m.labels}
	if !labels.open('}') && fingerprint(m.fingerprint) == nil {
		return "neither a label nor a fingerprint to know it by"
	}
	return ""
}

// fingerprint returns the fingerprint a value holds, nil when it holds none. It
// becomes part of queue subjects and keys, hence the narrow alphabet.
func fingerprint(value []byte) []byte {
	if len(value) == 0 || value[0] != '"' {
		return nil
	}
	f := unquote(value)
	if len(f) == 0 || len(f) > 64 {
		return nil
	}
	for _, c := range f {
		if !('0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z' || c == '_' || c == '-') {
			return nil
		}
	}
	return f
}

// link is the first value that a browser can open as a page.
func link(values ...[]byte) string {
	for _, v := range values {
		if u := string(text(v)); strings.HasPrefix(u, "https://") || strings.HasPrefix(u, "http://") {
			return u
		}
	}
	return ""
}

// pairs reads an object of texts; what is no object has none.
func pairs(object []byte) map[string]string {
	texts := make(map[string]string, 8)
	if len(object) == 0 || object[0] != '{' {
		return texts
	}
	s := scanner{data: object}
	for more := s.open('}'); more; more = s.more('}') {
		name, value := unquote(s.name()), s.value()
		texts[string(name)] = string(text(value))
	}
	return texts
}

// instant reads an RFC 3339 time, which may be in lower case.
func instant(value []byte) time.Time {
	t, err := time.Parse(time.RFC3339, strings.ToUpper(string(text(value))))
	t = t.UTC()
	if err != nil || t.Year() <= 1 || t.Year() > 9999 { // an offset can lead out of what RFC 3339 holds
		return time.Time{}
	}
	return t
}

// Test reports whether a, a member of n, came from the Test button of a contact
// point. PMM never resolves such an alert.
func (a Alert) Test(n *Notification) bool {
	if n.GroupKey == "" || n.GroupKey[0] == '{' {
		return false
	}
	if a.Labels["alertname"] == "TestAlert" {
		return true
	}
	// The user may have replaced all labels: <receiver>-<fingerprint>-<Unix time>.
	name := strings.TrimRight(n.GroupKey, "0123456789")
	return a.Fingerprint != "" && name != n.GroupKey &&
		strings.HasSuffix(name, "-"+a.Fingerprint+"-")
}
