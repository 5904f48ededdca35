package filters

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestAFileSaysWhatWasWritten(t *testing.T) {
	for name, want := range map[string][]Filter{"guide": Guide(), "recommended": Recommended()} {
		text, err := Write(want)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Parse(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s as YAML: %v %+v\n%s", name, err, got, text)
		}
		text, err = json.Marshal(map[string]any{"filters": want})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Parse(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s as JSON: %v %+v\n%s", name, err, got, text)
		}
	}
}

func TestAFileThatCannotBeMeantIsRefused(t *testing.T) {
	good := "filters:\n  - trigger:\n      keys: [{key: '\"status\"', contains: [firing]}]\n      map_with: '\"incident_key\"'\n"
	if _, err := Parse([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ text, want string }{
		"nothing":               {"", "holds no filters"},
		"no YAML":               {"filters: [", "line 1"},
		"a list only":           {"- trigger: {}", "cannot unmarshal"},
		"an unknown word":       {strings.Replace(good, "map_with", "mapwith", 1), "mapwith"},
		"a path without quotes": {strings.Replace(good, `'"incident_key"'`, "incident_key", 1), `map_with of the trigger: "incident_key" is no path`},
		"no path to map with":   {"filters: [{resolve: {key: '\"status\"', contains: [resolved]}}]", `map_with of the resolve: "" is no path`},
		"a filter of nothing":   {"filters: [{}]", "neither a trigger nor a resolve"},
		"a key without items":   {strings.Replace(good, "[firing]", "[]", 1), "without items"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Parse([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
