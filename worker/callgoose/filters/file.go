package filters

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// file is how filters are written, as YAML or as JSON:
//
//	filters:
//	  - trigger:
//	      urgency: High
//	      keys:
//	        - key: '"status"'
//	          contains: [firing]
//	      map_with: '"incident_key"'
//	      title_from: '"title"'
//	      description_from: '"description"'
//	    resolve:
//	      key: '"status"'
//	      contains: [resolved]
//	      equals: true
//	      map_with: '"incident_key"'
//
// A trigger or a resolve that is left out is switched off.
type file struct {
	Filters []Filter `json:"filters" yaml:"filters"`
}

// MaxFile is how large a file of filters may be, in bytes.
const MaxFile = 256 << 10

// Parse reads a file of 1 to 10 filters. An unknown word in it is an error, and
// so is a path that could never have a value.
func Parse(text []byte) ([]Filter, error) {
	var f file
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&f); err != nil && err != io.EOF { //nolint:errorlint // an empty file
		return nil, errors.New(strings.ReplaceAll(strings.TrimPrefix(err.Error(), "yaml: "), "\n", " "))
	}
	if len(f.Filters) == 0 {
		return nil, errors.New("holds no filters: it begins with the word filters: and a list")
	}
	if err := Validate(f.Filters); err != nil {
		return nil, err
	}
	for i, filter := range f.Filters {
		if err := filter.written(); err != nil {
			return nil, fmt.Errorf("filter %d: %w", i+1, err)
		}
	}
	return f.Filters, nil
}

// Write is the text of a file with these filters.
func Write(filters []Filter) ([]byte, error) {
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	err := enc.Encode(file{filters})
	return out.Bytes(), errors.Join(err, enc.Close())
}

// written checks what a person wrote.
func (f Filter) written() error {
	t, r := f.Trigger, f.Resolve
	if len(t.Pairs) == 0 && len(r.Items) == 0 {
		return errors.New("has neither a trigger nor a resolve")
	}
	needed := map[string]Path{}
	for i, p := range t.Pairs {
		needed[fmt.Sprintf("key %d of the trigger", i+1)] = p.Key
	}
	if len(r.Items) > 0 {
		needed["key of the resolve"], needed["map_with of the resolve"] = r.Key, r.MapWith
	}
	for where, p := range map[string]Path{"map_with": t.MapWith, "title_from": t.TitleFrom, "description_from": t.DescriptionFrom} {
		if p != "" {
			needed[where+" of the trigger"] = p
		}
	}
	for where, p := range needed {
		if _, ok := p.steps(); !ok {
			return fmt.Errorf(`%s: %q is no path: it is written "status" or "commonLabels"."alertname", quotes included`, where, string(p))
		}
	}
	return nil
}
