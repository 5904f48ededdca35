package filters

import (
	"slices"
	"strings"
	"testing"
)

func TestPath(t *testing.T) {
	doc := Decode([]byte(`{"a":{"b":"deep","B":"other","a.b":"dotted","n":12345678901234567890,"t":true,"z":null,"e":""},
		"alerts":[{"x":"first"},{"x":"second"}],"\"q":"quote"}`))
	for path, want := range map[Path]string{
		`"a"."b"`:             "deep",
		`"a"."B"`:             "other",
		`"A"."b"`:             "",
		`"a"."a.b"`:           "dotted",
		`"a"."n"`:             "12345678901234567890",
		`"a"."t"`:             "true",
		`"a"."z"`:             "",
		`"a"."e"`:             "",
		`"a"`:                 "",
		`"\"q"`:               "quote",
		`"alerts".[0]."x"`:    "first",
		`"alerts".[1]."x"`:    "second",
		`"alerts".[2]."x"`:    "",
		`"alerts".[-1]."x"`:   "",
		`"alerts".[x]."x"`:    "",
		`"alerts".[0`:         "",
		`"alerts"[0]."x"`:     "",
		`"a"."b".`:            "",
		`"a"."b"."c"`:         "",
		`"a"."b`:              "",
		`a.b`:                 "",
		`{{alerts.0.x}}`:      "",
		``:                    "",
		`"a - alerts"."b"`:    "",
		`"missing".[0]."a"`:   "",
		`"a"."b - missing"."`: "",
	} {
		if got := path.Value(doc); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
	for _, bad := range []string{``, `{"a":1} x`, `{"a":`, `plain text`} {
		if got := Decode([]byte(bad)); got != nil {
			t.Errorf("%q decodes to %v", bad, got)
		}
	}
}

func TestPair(t *testing.T) {
	doc := Decode([]byte(`{"status":"Firing now"}`))
	for name, c := range map[string]struct {
		pair Pair
		want bool
	}{
		"contains a part, in any case":  {Pair{Key: `"status"`, Items: []string{"fIRing"}}, true},
		"contains all items":            {Pair{Key: `"status"`, Items: []string{"firing", "now"}}, true},
		"lacks one item":                {Pair{Key: `"status"`, Items: []string{"firing", "then"}}, false},
		"equals does not take a part":   {Pair{Key: `"status"`, Items: []string{"firing"}, Equals: true}, false},
		"equals the whole, in any case": {Pair{Key: `"status"`, Items: []string{"FIRING NOW"}, Equals: true}, true},
		"the key is not there":          {Pair{Key: `"state"`, Items: []string{"firing"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.pair.passes(doc); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
	firing, never := Pair{Key: `"status"`, Items: []string{"firing"}}, Pair{Key: `"status"`, Items: []string{"x"}}
	if (Trigger{Pairs: []Pair{firing, never}}).passes(doc) || (Trigger{}).passes(doc) || (Resolve{}).passes(doc) {
		t.Error("both pairs must pass, and a part that is off never does")
	}
}

func TestFiltersKeepTheLimits(t *testing.T) {
	trigger := func(pairs ...Pair) []Filter { return []Filter{{Trigger: Trigger{Pairs: pairs}}} }
	items := func(items ...string) Pair { return Pair{Key: `"a"`, Items: items} }
	for name, filters := range map[string][]Filter{
		"11 filters":    make([]Filter, 11),
		"3 pairs":       trigger(items("a"), items("b"), items("c")),
		"11 items":      trigger(items(slices.Repeat([]string{"a"}, 11)...)),
		"51 characters": trigger(items(strings.Repeat("é", 51))),
		"an empty item": {{Resolve: Resolve{Pair: items("")}}},
		"no item":       trigger(items()),
	} {
		t.Run(name, func(t *testing.T) {
			if Validate(filters) == nil {
				t.Error("accepted")
			}
		})
	}
	if err := Validate(trigger(items(slices.Repeat([]string{strings.Repeat("é", 50)}, 10)...), items("b"))); err != nil {
		t.Error(err)
	}
}
