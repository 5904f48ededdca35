package pmmtest

import (
	"fmt"
	"regexp"
	"strings"
)

// Match is one route that takes an alert.
type Match struct {
	Receiver string
	// Options are the grouping and the timing, inherited ones included.
	Options string
	// Muted: time intervals silence it at times.
	Muted bool
}

// Route returns the routes that take an alert with these labels, in order.
func (f *Fake) Route(labels map[string]string) []Match {
	f.mu.Lock()
	defer f.mu.Unlock()
	return match(f.tree, labels, map[string]any{})
}

// match is Alertmanager's walk (dispatch/route.go): depth first, left to right,
// children before the route itself, which counts only when no child matched.
func match(r map[string]any, labels map[string]string, inherited map[string]any) []Match {
	if !matches(r, labels) {
		return nil
	}
	options := map[string]any{}
	for _, k := range []string{"receiver", "group_by", "group_wait", "group_interval", "repeat_interval"} {
		options[k] = inherited[k]
		if v, ok := r[k]; ok && v != nil && v != "" {
			options[k] = v
		}
	}
	var all []Match
	for _, c := range children(r) {
		found := match(c, labels, options)
		all = append(all, found...)
		if found != nil && c["continue"] != true {
			break
		}
	}
	if len(all) == 0 {
		all = append(all, Match{
			fmt.Sprint(options["receiver"]),
			fmt.Sprint(options["group_by"], options["group_wait"], options["group_interval"], options["repeat_interval"]),
			r["mute_time_intervals"] != nil || r["active_time_intervals"] != nil,
		})
	}
	return all
}

func matches(r map[string]any, labels map[string]string) bool {
	list, _ := r["object_matchers"].([]any)
	for _, item := range list {
		m, _ := item.([]any)
		if len(m) != 3 || !holds(fmt.Sprint(m[1]), labels[fmt.Sprint(m[0])], fmt.Sprint(m[2])) {
			return false
		}
	}
	for key, op := range map[string]string{"match": "=", "match_re": "=~"} {
		pairs, _ := r[key].(map[string]any)
		for name, value := range pairs {
			if !holds(op, labels[name], fmt.Sprint(value)) {
				return false
			}
		}
	}
	texts, _ := r["matchers"].([]any)
	for _, t := range texts {
		at := strings.IndexAny(fmt.Sprint(t), "=!")
		name, rest := fmt.Sprint(t)[:at], fmt.Sprint(t)[at:]
		op := rest[:1]
		if len(rest) > 1 && strings.Contains("!= =~ !~", rest[:2]) {
			op = rest[:2]
		}
		if !holds(op, labels[name], strings.Trim(rest[len(op):], `"`)) {
			return false
		}
	}
	return true
}

func holds(op, have, want string) bool {
	switch op {
	case "=":
		return have == want
	case "!=":
		return have != want
	}
	found := regexp.MustCompile("^(?:" + want + ")$").MatchString(have)
	return found == (op == "=~")
}
