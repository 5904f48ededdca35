package pmm

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The notification policies of Grafana are one tree, read and written whole. A
// route says which alerts it matches, to whom they go, and whether routes after it
// are looked at too. Alertmanager walks it like this (dispatch/route.go, Match):
//
//	match(route): none of its matchers fails
//	    ask each child in turn; stop after the first that matched without "continue"
//	    if no child matched, the route itself is the one
//
// So the receiver at the root gets an alert only when *no* child matches. A child
// that takes every alert, even one with continue, therefore silences the root. To
// take nothing away we add two kinds of routes:
//
//	root (receiver D)
//	 ├─ ours      continue, first: gets what it wants and stops nothing
//	 ├─ …         the routes that were there, untouched
//	 └─ default   continue, last: no receiver of its own, so it inherits D and all
//	              else of the root; matches exactly what fell to the root before
//
// A default route is needed only where something can fall to the root at all. It
// is reached by alerts that no route without continue took; its matchers exclude
// those that a route with continue took. An exclusion of (a and b) is "not a", or
// "a and not b", so there can be several default routes, of which one at most
// matches an alert. They continue, so that a route which somebody adds below them
// later gets its alerts.

// Matcher is a condition on one label of an alert.
type Matcher struct {
	Name  string
	Op    string // = != =~ !~
	Value string
}

func (m Matcher) String() string { return m.Name + m.Op + strconv.Quote(m.Value) }

// MarshalJSON writes the triple that Grafana calls an object matcher.
func (m Matcher) MarshalJSON() ([]byte, error) { return json.Marshal([]string{m.Name, m.Op, m.Value}) }

// negated is true exactly when m is false.
func (m Matcher) negated() Matcher {
	m.Op = map[string]string{"=": "!=", "!=": "=", "=~": "!~", "!~": "=~"}[m.Op]
	return m
}

var matcherText = regexp.MustCompile(`(?s)^\s*("(?:[^"\\]|\\.)*"|[^\s=!~"{},]+)\s*(=~|!~|!=|=)\s*(.*?)\s*$`)

// ParseMatcher reads name=value, name!=value, name=~regexp or name!~regexp. Name
// and value may stand in double quotes.
func ParseMatcher(text string) (Matcher, error) {
	parts := matcherText.FindStringSubmatch(text)
	if parts == nil {
		return Matcher{}, fmt.Errorf("%q is not of the form label=value (or != =~ !~)", text)
	}
	m := Matcher{Name: parts[1], Op: parts[2], Value: parts[3]}
	for _, s := range []*string{&m.Name, &m.Value} {
		if strings.HasPrefix(*s, `"`) {
			var err error
			if *s, err = strconv.Unquote(*s); err != nil {
				return Matcher{}, fmt.Errorf("%q has a quote that does not end", text)
			}
		}
	}
	if m.Name == "" {
		return Matcher{}, fmt.Errorf("%q names no label", text)
	}
	if strings.HasSuffix(m.Op, "~") {
		if _, err := regexp.Compile(m.Value); err != nil {
			return Matcher{}, fmt.Errorf("%q is not a regular expression", m.Value)
		}
	}
	return m, nil
}

// sameMatchers compares sets: Grafana sorts them.
func sameMatchers(a, b []Matcher) bool {
	return slices.Equal(sorted(a), sorted(b))
}

func sorted(ms []Matcher) []Matcher {
	out := slices.Clone(ms)
	slices.SortFunc(out, func(a, b Matcher) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(out)
}

func describe(ms []Matcher) string {
	if len(ms) == 0 {
		return "all alerts"
	}
	var parts []string
	for _, m := range sorted(ms) {
		parts = append(parts, m.String())
	}
	return strings.Join(parts, ", ")
}

// mark is a condition that every alert fulfils, since none has that label. It
// tells our default routes from those that people made.
var mark = Matcher{"pmm_callgoose_route", "!=", "default"}

// object is a JSON object of which every member that we do not touch stays as it
// was, byte for byte: a newer Grafana has members that this code does not know.
type object map[string]json.RawMessage

// encode is JSON without escapes that the text does not need.
func encode(v any) json.RawMessage {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // texts, booleans, raw JSON that was decoded, lists and maps of them
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func (o object) set(key string, v any) { o[key] = encode(v) }

func (o object) text(key string) string {
	var s string
	_ = json.Unmarshal(o[key], &s)
	return s
}

func (o object) flag(key string) bool {
	var b bool
	_ = json.Unmarshal(o[key], &b)
	return b
}

// filled reports whether there is a member that is not null, "", [] or {}.
func (o object) filled(key string) bool {
	switch s := string(bytes.Join(bytes.Fields(o[key]), nil)); s {
	case "", "null", `""`, "[]", "{}":
		return false
	}
	return true
}

// route is one child of the root, or a deeper one.
type route struct {
	object
	matchers []Matcher
	children []*route
	// unread says why the matchers are unknown; then nothing can be said about
	// which alerts the route takes.
	unread error
}

func readRoute(raw []byte, depth int) (*route, error) {
	if depth > 100 {
		return nil, errors.New("routes are nested more than 100 deep")
	}
	r := &route{}
	if err := json.Unmarshal(raw, &r.object); err != nil {
		return nil, fmt.Errorf("a route cannot be read: %w", err)
	}
	r.matchers, r.unread = r.readMatchers()
	var children []json.RawMessage
	if r.filled("routes") {
		if err := json.Unmarshal(r.object["routes"], &children); err != nil {
			return nil, errors.New("the routes of a route are not a list")
		}
	}
	for _, c := range children {
		child, err := readRoute(c, depth+1)
		if err != nil {
			return nil, err
		}
		r.children = append(r.children, child)
	}
	return r, nil
}

// readMatchers knows the four ways to write conditions, which add up
// (grafana/alerting:definition, Route.AllMatchers).
func (r *route) readMatchers() (all []Matcher, err error) {
	var triples [][]string
	var texts []string
	var equal, like map[string]string
	for key, into := range map[string]any{"object_matchers": &triples, "matchers": &texts, "match": &equal, "match_re": &like} {
		if r.filled(key) && json.Unmarshal(r.object[key], into) != nil {
			return nil, fmt.Errorf("its %s cannot be read", key)
		}
	}
	for _, t := range triples {
		if len(t) != 3 || !slices.Contains([]string{"=", "!=", "=~", "!~"}, t[1]) {
			return nil, errors.New("its object_matchers cannot be read")
		}
		all = append(all, Matcher{t[0], t[1], t[2]})
	}
	for _, t := range texts {
		m, err := ParseMatcher(t)
		if err != nil {
			return nil, errors.New("its matchers cannot be read")
		}
		all = append(all, m)
	}
	for name, value := range equal {
		all = append(all, Matcher{name, "=", value})
	}
	for name, value := range like {
		all = append(all, Matcher{name, "=~", value})
	}
	return sorted(all), nil
}

// isDefault reports whether the route is a default route that setup made.
func (r *route) isDefault() bool { return r.unread == nil && slices.Contains(r.matchers, mark) }

// label names a route for people.
func (r *route) label() string {
	name := r.text("receiver")
	if name == "" {
		name = "the default contact point"
	}
	if r.unread != nil {
		return strconv.Quote(name)
	}
	return fmt.Sprintf("%q (%s)", name, describe(r.matchers))
}

// readTree reads the notification policies, and returns their root.
func readTree(raw []byte) (*route, error) {
	root, err := readRoute(raw, 0)
	if err != nil {
		return nil, fmt.Errorf("the notification policies cannot be read: %w", err)
	}
	if root.text("receiver") == "" {
		return nil, errors.New("the notification policies have no default contact point; is this the answer of PMM?")
	}
	return root, nil
}

// with is the tree of a root with these routes below it.
func (r *route) with(routes []*route) []byte {
	list := make([]object, len(routes))
	for i, child := range routes {
		list[i] = child.object
	}
	root := maps.Clone(r.object)
	if delete(root, "routes"); len(list) > 0 {
		root.set("routes", list)
	}
	return encode(root)
}

// maxDefaults is how many default routes we add at most: more would bury the
// routes that people look for.
const maxDefaults = 12

// defaults are the matchers of the default routes that are needed beside the given
// routes, which are those of others at the root, in order.
func defaults(others []*route) ([][]Matcher, error) {
	terms := [][]Matcher{{mark}}
	for _, r := range others {
		if r.unread == nil && len(r.matchers) == 0 {
			return nil, nil // takes everything, so nothing falls to the root today
		}
	}
	for _, r := range others {
		if !r.flag("continue") {
			continue // what it takes never gets as far as a default route
		}
		if r.unread != nil {
			return nil, fmt.Errorf("the route to %s: %w, so it is unknown what falls to the default contact point; add the route by hand", r.label(), r.unread)
		}
		var next [][]Matcher
		for _, term := range terms {
			for i, m := range r.matchers {
				grown := slices.Concat(term, r.matchers[:i], []Matcher{m.negated()})
				if !contradicts(grown) {
					next = append(next, sorted(grown))
				}
			}
		}
		if terms = next; len(terms) > maxDefaults {
			return nil, fmt.Errorf("so many routes continue that more than %d routes would be needed to leave the default contact point what it has; add the route by hand", maxDefaults)
		}
	}
	return terms, nil
}

// contradicts reports whether no alert can fulfil all of them.
func contradicts(ms []Matcher) bool {
	return slices.ContainsFunc(ms, func(m Matcher) bool { return slices.Contains(ms, m.negated()) })
}

// newDefault makes a default route.
func newDefault(ms []Matcher) *route {
	r := &route{object: object{}, matchers: sorted(ms)}
	r.set("continue", true)
	r.set("object_matchers", r.matchers)
	return r
}

// repeatInterval is how long Grafana does not repeat what it believes to have told.
// Where the intake's answer was lost, the two sides disagree for that long: measured on a
// real Grafana 12.4.3, an alert without an incident for the 4 h that are usual. A
// repetition that tells nothing new is suppressed here.
const repeatInterval = "15m"

// newRoute makes the route that leads here. The group interval is short because
// PMM does not try a failed webhook again before it (grafana/alerting, RetryStage);
// not below a minute, as it bounds how long our answer may take too.
func newRoute(receiver string, ms []Matcher) *route {
	r := newDefault(append([]Matcher{}, ms...)) // [], not null
	r.set("receiver", receiver)
	r.set("group_by", []string{"grafana_folder", "alertname"})
	r.set("group_wait", "10s")
	r.set("group_interval", "1m")
	r.set("repeat_interval", repeatInterval)
	return r
}

// ourKeys are the members that newRoute writes. A route with others was changed
// by somebody, who would lose them if it were removed.
var ourKeys = []string{"receiver", "continue", "object_matchers", "matchers", "match", "match_re", "group_by", "group_wait", "group_interval", "repeat_interval", "provenance"}

// foreign names what somebody added to a route that setup made, "" if nothing.
func (r *route) foreign() string {
	for _, k := range slices.Sorted(maps.Keys(r.object)) {
		if r.filled(k) && !slices.Contains(ourKeys, k) {
			return k
		}
	}
	return ""
}

// timing is what a route inherits from the one above it. The defaults are Grafana's
// (prometheus/alertmanager:dispatch/route.go).
type timing struct {
	receiver, wait, interval, repeat string
}

var rootTiming = timing{wait: "30s", interval: "5m", repeat: "4h"}

func (t timing) below(r *route) timing {
	return timing{
		cmp.Or(r.text("receiver"), t.receiver), cmp.Or(r.text("group_wait"), t.wait),
		cmp.Or(r.text("group_interval"), t.interval), cmp.Or(r.text("repeat_interval"), t.repeat),
	}
}

// muted reports whether time intervals silence the route at times. Those of the
// routes above it do not count (dispatch/route.go: they are not inherited).
func (r *route) muted() bool {
	return r.filled("mute_time_intervals") || r.filled("active_time_intervals")
}

// routing says how the policies lead to the receiver.
func (r *route) routing(receiver string) Routing {
	var out Routing
	var walk func(r *route, above timing)
	walk = func(r *route, above timing) {
		own := above.below(r)
		if own.receiver == receiver {
			out.Leads, out.Muted = true, out.Muted || r.muted()
			out.Settle = max(out.Settle, settle(own.wait, own.interval))
		}
		for _, c := range r.children {
			walk(c, own)
		}
	}
	walk(r, rootTiming)
	return out
}

// settle is how long after its beginning the notification of an alert has come at
// the latest: two flushes, as the first may fail, and a minute of grace.
func settle(groupWait, groupInterval string) time.Duration {
	wait, ok1 := duration(cmp.Or(groupWait, rootTiming.wait))
	interval, ok2 := duration(cmp.Or(groupInterval, rootTiming.interval))
	if !ok1 || !ok2 {
		return 0
	}
	return wait + 2*interval + time.Minute
}

var durationPart = regexp.MustCompile(`(\d+)(ms|[smhdwy])`)

// duration reads one of Prometheus' (prometheus/common:model/time.go), as 1d12h.
func duration(text string) (time.Duration, bool) {
	units := map[string]time.Duration{
		"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour,
		"d": 24 * time.Hour, "w": 7 * 24 * time.Hour, "y": 365 * 24 * time.Hour,
	}
	var sum time.Duration
	for _, part := range durationPart.FindAllStringSubmatch(text, -1) {
		n, err := strconv.Atoi(part[1])
		if err != nil || n > 1e6 {
			return 0, false
		}
		sum += time.Duration(n) * units[part[2]]
	}
	return sum, text != "" && durationPart.ReplaceAllString(text, "") == ""
}
