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

// route is one of the notification policies: the root, or one below it.
type route struct {
	object
	inherited
	matchers []Matcher
	children []*route
	// unread says why the matchers are unknown; then nothing can be said about
	// which alerts the route takes.
	unread error
}

// inherited is what a route has from those above it, where it says nothing else itself.
type inherited struct {
	receiver, wait, interval, repeat string
	// conditions are the matchers of the route and of those above it.
	conditions []Matcher
	// behind names the first route before it, on the same level or one above, that
	// does not continue: what that one takes does not get here. "" = none.
	behind string
	depth  int
}

// What the root has where it says nothing (prometheus/alertmanager:dispatch/route.go).
const defaultWait, defaultInterval, defaultRepeat = "30s", "5m", "4h"

// readTree reads the notification policies, and returns their root.
func readTree(raw []byte) (*route, error) {
	root, err := readRoute(raw, inherited{wait: defaultWait, interval: defaultInterval, repeat: defaultRepeat})
	if err != nil {
		return nil, fmt.Errorf("the notification policies cannot be read: %w", err)
	}
	if root.receiver == "" {
		return nil, errors.New("the notification policies have no default contact point; is this the answer of PMM?")
	}
	return root, nil
}

func readRoute(raw []byte, from inherited) (*route, error) {
	if from.depth > 100 {
		return nil, errors.New("routes are nested more than 100 deep")
	}
	r := &route{}
	if err := json.Unmarshal(raw, &r.object); err != nil {
		return nil, fmt.Errorf("a route cannot be read: %w", err)
	}
	r.matchers, r.unread = r.readMatchers()
	r.inherited = inherited{
		receiver: cmp.Or(r.text("receiver"), from.receiver), wait: cmp.Or(r.text("group_wait"), from.wait),
		interval: cmp.Or(r.text("group_interval"), from.interval), repeat: cmp.Or(r.text("repeat_interval"), from.repeat),
		conditions: slices.Concat(from.conditions, r.matchers), behind: from.behind, depth: from.depth + 1,
	}
	var children []json.RawMessage
	if r.filled("routes") {
		if err := json.Unmarshal(r.object["routes"], &children); err != nil {
			return nil, errors.New("the routes of a route are not a list")
		}
	}
	below := r.inherited
	for _, c := range children {
		child, err := readRoute(c, below)
		if err != nil {
			return nil, err
		}
		r.children = append(r.children, child)
		if below.behind == "" && !child.flag("continue") {
			below.behind = child.label()
		}
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
	if r.unread != nil {
		return strconv.Quote(r.receiver)
	}
	return fmt.Sprintf("%q (%s)", r.receiver, describe(r.matchers))
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

// newDefault makes a default route.
func newDefault(ms []Matcher) *route {
	r := &route{object: object{}, matchers: sorted(ms)}
	r.set("continue", true)
	r.set("object_matchers", r.matchers)
	return r
}

// repeatInterval is how long Grafana does not repeat what it believes to have delivered.
// Where the intake's answer was lost, the two sides disagree for that long: measured on a
// real Grafana 12.4.3, an alert without an incident for the 4 h that are usual. A
// repetition that holds nothing new is suppressed here.
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

// defaultKeys are the members that a default route may have. One with others was changed
// by somebody, who would lose them when it is written anew.
var defaultKeys = []string{"continue", "object_matchers", "matchers", "match", "match_re", "group_by", "group_wait", "group_interval", "repeat_interval", "provenance"}

// foreign names what somebody added to a route that setup made, "" if nothing. own are
// members that it has besides those of a default route.
func (r *route) foreign(own ...string) string {
	for _, k := range slices.Sorted(maps.Keys(r.object)) {
		if r.filled(k) && !slices.Contains(defaultKeys, k) && !slices.Contains(own, k) {
			return k
		}
	}
	return ""
}

// leadingTo are the routes that send to a receiver, r among them.
func (r *route) leadingTo(receiver string) (list []*route) {
	if r.receiver == receiver {
		list = append(list, r)
	}
	for _, c := range r.children {
		list = append(list, c.leadingTo(receiver)...)
	}
	return list
}

// muted reports whether time intervals silence the route at times. Those of the
// routes above it do not count (dispatch/route.go: they are not inherited).
func (r *route) muted() bool {
	return r.filled("mute_time_intervals") || r.filled("active_time_intervals")
}

// hasty reports whether the group interval is so short that the intake may not answer
// in time: it is how long PMM waits, though at least 10 s.
func (r *route) hasty() bool {
	d, ok := duration(r.interval)
	return ok && d < time.Minute
}

// routing says how the policies lead to the receiver.
func (r *route) routing(receiver string) (out Routing) {
	for _, to := range r.leadingTo(receiver) {
		out.Leads, out.Muted = true, out.Muted || to.muted()
		out.Settle = max(out.Settle, settle(to.wait, to.interval))
	}
	return out
}

// settle is how long after its beginning the notification of an alert has come at
// the latest: two flushes, as the first may fail, and a minute of grace.
func settle(groupWait, groupInterval string) time.Duration {
	wait, ok1 := duration(cmp.Or(groupWait, defaultWait))
	interval, ok2 := duration(cmp.Or(groupInterval, defaultInterval))
	if !ok1 || !ok2 {
		return 0
	}
	return wait + 2*interval + time.Minute
}

var longUnit = regexp.MustCompile(`(\d+)([dwy])`)

// duration reads one of Prometheus', which is one of Go's with days, weeks and years
// (prometheus/common:model/time.go), as 1d12h.
func duration(text string) (time.Duration, bool) {
	hours := map[string]int{"d": 24, "w": 7 * 24, "y": 365 * 24}
	d, err := time.ParseDuration(longUnit.ReplaceAllStringFunc(text, func(part string) string {
		n, err := strconv.Atoi(part[:len(part)-1])
		if err != nil || n > 1e6 {
			return part // Go does not read it either
		}
		return strconv.Itoa(n*hours[part[len(part)-1:]]) + "h"
	}))
	return d, err == nil
}
