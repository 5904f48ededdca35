package pmmtest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// route is a notification policy, with those below it: the root is the tree. Empty
// members are left out when Grafana shows it.
type route struct {
	Newer           map[string]any    `json:"a_newer_member,omitempty"` // of a Grafana to come
	ActiveIntervals []string          `json:"active_time_intervals,omitempty"`
	Continue        bool              `json:"continue,omitempty"`
	GroupBy         []string          `json:"group_by,omitempty"`
	GroupInterval   string            `json:"group_interval,omitempty"`
	GroupWait       string            `json:"group_wait,omitempty"`
	Match           map[string]string `json:"match,omitempty"`
	MatchRE         map[string]string `json:"match_re,omitempty"`
	Matchers        []string          `json:"matchers,omitempty"`
	MuteIntervals   []string          `json:"mute_time_intervals,omitempty"`
	ObjectMatchers  [][]string        `json:"object_matchers,omitempty"`
	Provenance      string            `json:"provenance,omitempty"` // of the root
	Receiver        string            `json:"receiver,omitempty"`
	RepeatInterval  string            `json:"repeat_interval,omitempty"`
	Routes          []*route          `json:"routes,omitempty"`
}

// readTree reads policies. Grafana sorts their matchers.
func readTree(text []byte) (*route, error) {
	r := &route{}
	err := json.Unmarshal(text, r)
	_ = r.each(func(r *route) string {
		slices.SortStableFunc(r.ObjectMatchers, slices.Compare)
		return ""
	})
	return r, err
}

// each visits the route and those below it, until one of them is at fault.
func (r *route) each(visit func(*route) (fault string)) string {
	fault := visit(r)
	for _, c := range r.Routes {
		fault = cmp.Or(fault, c.each(visit))
	}
	return fault
}

// Match is one route that takes an alert.
type Match struct {
	Receiver string
	// Options are the grouping and the timing, inherited ones included.
	Options string
	// Muted: time intervals silence it at times.
	Muted bool
}

// Route returns the routes that take an alert with these labels, in order.
func (f *Fake) Route(labels map[string]string) []Match { return f.policies().match(labels, route{}) }

// match is Alertmanager's walk (dispatch/route.go): depth first, left to right,
// children before the route itself, which counts only when no child matched.
func (r *route) match(labels map[string]string, from route) (all []Match) {
	if !r.takes(labels) {
		return nil
	}
	from.Receiver, from.GroupWait = cmp.Or(r.Receiver, from.Receiver), cmp.Or(r.GroupWait, from.GroupWait)
	from.GroupInterval, from.RepeatInterval = cmp.Or(r.GroupInterval, from.GroupInterval), cmp.Or(r.RepeatInterval, from.RepeatInterval)
	if len(r.GroupBy) > 0 {
		from.GroupBy = r.GroupBy
	}
	for _, c := range r.Routes {
		found := c.match(labels, from)
		all = append(all, found...)
		if found != nil && !c.Continue {
			break
		}
	}
	if len(all) == 0 {
		options := fmt.Sprint(from.GroupBy, from.GroupWait, from.GroupInterval, from.RepeatInterval)
		all = append(all, Match{from.Receiver, options, len(r.MuteIntervals)+len(r.ActiveIntervals) > 0})
	}
	return all
}

var matcher = regexp.MustCompile(`^([^=!]+)(=~|!~|!=|=)"?(.*?)"?$`)

func (r *route) takes(labels map[string]string) bool {
	conditions := slices.Clone(r.ObjectMatchers)
	for name, value := range r.Match {
		conditions = append(conditions, []string{name, "=", value})
	}
	for name, value := range r.MatchRE {
		conditions = append(conditions, []string{name, "=~", value})
	}
	for _, text := range r.Matchers {
		conditions = append(conditions, matcher.FindStringSubmatch(text)[1:])
	}
	return !slices.ContainsFunc(conditions, func(c []string) bool {
		have, op, want := labels[c[0]], c[1], c[2]
		holds := have == want
		if strings.HasSuffix(op, "~") {
			holds = regexp.MustCompile("^(?:" + want + ")$").MatchString(have)
		}
		return holds == strings.HasPrefix(op, "!")
	})
}
