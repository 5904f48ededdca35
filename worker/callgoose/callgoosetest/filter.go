package callgoosetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A Path names one value of a payload the way Callgoose writes it: quoted,
// case-sensitive keys and bracketed indexes joined by dots, for example
// "alerts".[0]."annotations"."summary". A path that is malformed, or that leads
// nowhere, to null, to an empty string, or to an object or array, has no value.
type Path string

func (p Path) value(doc any) string {
	if p == "" {
		return ""
	}
	rest := string(p)
	for i := 0; rest != ""; i++ {
		if i > 0 && rest[0] != '.' {
			return ""
		} else if i > 0 {
			rest = rest[1:]
		}
		switch {
		case strings.HasPrefix(rest, `"`):
			quoted, err := strconv.QuotedPrefix(rest)
			if err != nil {
				return ""
			}
			key, _ := strconv.Unquote(quoted) // cannot fail on a quoted prefix
			object, _ := doc.(map[string]any)
			doc, rest = object[key], rest[len(quoted):]
		case strings.HasPrefix(rest, "["):
			index, after, _ := strings.Cut(rest[1:], "]")
			n, err := strconv.Atoi(index)
			list, _ := doc.([]any)
			if err != nil || n < 0 || n >= len(list) {
				return ""
			}
			doc, rest = list[n], after
		default:
			return ""
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
	Key    Path
	Items  []string // 1 to 10, of up to 50 characters
	Equals bool
}

func (p Pair) passes(doc any) bool {
	value := p.Key.value(doc)
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
	Urgency         string
	Pairs           []Pair // up to 2; none = this part is off
	MapWith         Path   // the incident is remembered under this value
	TitleFrom       Path
	DescriptionFrom Path
}

func (t Trigger) passes(doc any) bool {
	for _, p := range t.Pairs {
		if !p.passes(doc) {
			return false
		}
	}
	return len(t.Pairs) > 0
}

// Resolve is the part of a filter that closes the incidents remembered under the
// value of MapWith. A Pair without items means that this part is switched off.
type Resolve struct {
	Pair    Pair
	MapWith Path
}

func (r Resolve) passes(doc any) bool { return len(r.Pair.Items) > 0 && r.Pair.passes(doc) }

// A Filter belongs to the service. A request is checked against the triggers of
// all filters and against the resolves of all; the first that passes is used.
type Filter struct {
	Trigger Trigger
	Resolve Resolve
}

// GuideFilters are those of the Callgoose guide for Percona, as printed there:
// one incident per alert name, and a title path whose quotes are wrong.
func GuideFilters() []Filter {
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

// RecommendedFilters use the flat keys of the forwarder: one incident per alert.
// Critical alerts are urgent, all others are not.
func RecommendedFilters() []Filter {
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

// validate applies the limits of the Callgoose form.
func validate(filters []Filter) error {
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

// decode returns nil for anything but one JSON value.
func decode(body []byte) (doc any) {
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
