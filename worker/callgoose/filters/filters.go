// Package filters knows Callgoose's API filters: how they read a payload, how
// they are written to a file, and what they would do with events.
package filters

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// A Path names one value of a payload the way Callgoose writes it: quoted,
// case-sensitive keys and bracketed indexes joined by dots, for example
// "alerts".[0]."annotations"."summary". A path that is malformed, or that leads
// nowhere, to null, to an empty string, or to an object or array, has no value.
type Path string

// steps are the keys (string) and indexes (int) of a path; false when it is malformed.
func (p Path) steps() (list []any, ok bool) {
	rest := string(p)
	for i := 0; rest != ""; i++ {
		if i > 0 && rest[0] != '.' {
			return nil, false
		} else if i > 0 {
			rest = rest[1:]
		}
		switch {
		case strings.HasPrefix(rest, `"`):
			quoted, err := strconv.QuotedPrefix(rest)
			if err != nil {
				return nil, false
			}
			key, _ := strconv.Unquote(quoted) // cannot fail on a quoted prefix
			list, rest = append(list, key), rest[len(quoted):]
		case strings.HasPrefix(rest, "["):
			index, after, closed := strings.Cut(rest[1:], "]")
			n, err := strconv.Atoi(index)
			if err != nil || n < 0 || !closed {
				return nil, false
			}
			list, rest = append(list, n), after
		default:
			return nil, false
		}
	}
	return list, len(list) > 0
}

// Value is what the path names in a payload that Decode read, "" when it has none.
func (p Path) Value(doc any) string {
	steps, ok := p.steps()
	if !ok {
		return ""
	}
	for _, s := range steps {
		switch s := s.(type) {
		case string:
			object, _ := doc.(map[string]any)
			doc = object[s]
		case int:
			list, _ := doc.([]any)
			if s >= len(list) {
				return ""
			}
			doc = list[s]
		}
	}
	switch v := doc.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	}
	return ""
}

// A Pair is one "Payload JSON Key" with its "Key Value Contains" items: all of
// them must occur in the value, in any case. With Equals the value must be equal.
type Pair struct {
	Key    Path     `json:"key" yaml:"key"`
	Items  []string `json:"contains" yaml:"contains,flow"` // 1 to 10, of up to 50 characters
	Equals bool     `json:"equals,omitempty" yaml:"equals,omitempty"`
}

func (p Pair) passes(doc any) bool {
	value := p.Key.Value(doc)
	for _, item := range p.Items {
		if p.Equals && !strings.EqualFold(value, item) ||
			!strings.Contains(strings.ToLower(value), strings.ToLower(item)) {
			return false
		}
	}
	return value != ""
}

// Trigger is the part of a filter that opens incidents: all its pairs must pass.
type Trigger struct {
	Urgency         string `json:"urgency,omitempty" yaml:"urgency,omitempty"`
	Pairs           []Pair `json:"keys" yaml:"keys"`         // up to 2; none = this part is off
	MapWith         Path   `json:"map_with" yaml:"map_with"` // the incident is remembered under this value
	TitleFrom       Path   `json:"title_from,omitempty" yaml:"title_from,omitempty"`
	DescriptionFrom Path   `json:"description_from,omitempty" yaml:"description_from,omitempty"`
}

func (t Trigger) passes(doc any) bool {
	return len(t.Pairs) > 0 && !slices.ContainsFunc(t.Pairs, func(p Pair) bool { return !p.passes(doc) })
}

// Title is that of an incident: with where the request said that it is from, ""
// when it said nothing.
func (t Trigger) Title(doc any, from string) string {
	title := t.TitleFrom.Value(doc)
	switch {
	case title == "" && from == "":
		return "New incident"
	case title == "":
		return "New incident from " + from
	case from != "":
		return from + " - " + title
	}
	return title
}

// Resolve is the part of a filter that closes the incidents remembered under the
// value of MapWith. A Pair without items means that this part is switched off.
type Resolve struct {
	Pair    `yaml:",inline"`
	MapWith Path `json:"map_with" yaml:"map_with"`
}

func (r Resolve) passes(doc any) bool { return len(r.Items) > 0 && r.Pair.passes(doc) }

// A Filter belongs to the service. A request is checked against the triggers of
// all filters and against the resolves of all; the first that passes is used.
type Filter struct {
	Trigger Trigger `json:"trigger" yaml:"trigger,omitempty"`
	Resolve Resolve `json:"resolve" yaml:"resolve,omitempty"`
}

// First are the trigger and the resolve that a payload passes first, -1 = none.
func First(set []Filter, doc any) (trigger, resolve int) {
	return slices.IndexFunc(set, func(f Filter) bool { return f.Trigger.passes(doc) }),
		slices.IndexFunc(set, func(f Filter) bool { return f.Resolve.passes(doc) })
}

// Sets are the filters that are known by a name.
var Sets = map[string]func() []Filter{"guide": Guide, "recommended": Recommended}

// Guide are the filters of the Callgoose guide for Percona, as printed there:
// one incident per alert name, and a title path whose quotes are wrong.
func Guide() []Filter {
	const mapped = `"commonLabels"."alertname"`
	return []Filter{{
		Trigger: Trigger{
			Urgency:         "High",
			Pairs:           []Pair{{Key: `"status"`, Items: []string{"firing"}}},
			MapWith:         mapped,
			TitleFrom:       `"commonLabels"."alertname - commonAnnotations"."summary"`,
			DescriptionFrom: `"alerts".[0]."annotations"."description"`,
		},
		Resolve: Resolve{Pair: Pair{Key: `"status"`, Items: []string{"resolved"}, Equals: true}, MapWith: mapped},
	}}
}

// Recommended use the flat keys of the forwarder: one incident per alert.
// Critical alerts are urgent, all others are not.
func Recommended() []Filter {
	firing := Pair{Key: `"status"`, Items: []string{"firing"}}
	critical := Pair{Key: `"severity"`, Items: []string{"critical"}}
	resolve := Resolve{Pair: Pair{Key: `"status"`, Items: []string{"resolved"}}, MapWith: `"incident_key"`}
	trigger := func(urgency string, pairs ...Pair) Filter {
		return Filter{Resolve: resolve, Trigger: Trigger{
			Urgency: urgency, Pairs: pairs,
			MapWith: `"incident_key"`, TitleFrom: `"title"`, DescriptionFrom: `"description"`,
		}}
	}
	return []Filter{trigger("High", firing, critical), trigger("Low", firing)}
}

// Validate applies the limits of the Callgoose form.
func Validate(filters []Filter) error {
	if len(filters) > 10 {
		return fmt.Errorf("%d filters, the limit is 10", len(filters))
	}
	for i, f := range filters {
		if len(f.Trigger.Pairs) > 2 {
			return fmt.Errorf("filter %d: %d trigger keys, the limit is 2", i+1, len(f.Trigger.Pairs))
		}
		for _, p := range f.Trigger.Pairs {
			if len(p.Items) == 0 {
				return fmt.Errorf("filter %d: key %s without items", i+1, p.Key)
			}
		}
		for _, p := range append([]Pair{f.Resolve.Pair}, f.Trigger.Pairs...) {
			if len(p.Items) > 10 {
				return fmt.Errorf("filter %d: %d items for key %s, the limit is 10", i+1, len(p.Items), p.Key)
			}
			for _, item := range p.Items {
				if item == "" || len([]rune(item)) > 50 {
					return fmt.Errorf("filter %d: item %q is not 1 to 50 characters", i+1, item)
				}
			}
		}
	}
	return nil
}

// Decode reads a payload; nil for anything but one JSON value.
func Decode(body []byte) (doc any) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if d.Decode(&doc) != nil {
		return nil
	}
	if _, err := d.Token(); err != io.EOF {
		return nil
	}
	return doc
}
