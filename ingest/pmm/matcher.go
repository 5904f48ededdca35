package pmm

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

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

// sorted is the set of matchers in one order: Grafana sorts them too.
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

// mark is a condition that every alert fulfils, since none has that label. By it the
// default routes of setup are known from those that people made.
var mark = Matcher{"pmm_callgoose_route", "!=", "default"}
