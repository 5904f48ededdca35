package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// entry is the value of one key of the file.
type entry struct {
	text  string
	place string // path:line
}

// readConfig reads the file that is named, else the one in Etc.
func (l *loader) readConfig() {
	named := cmp.Or(l.in.ConfigPath, l.env[EnvName("config")])
	path := cmp.Or(named, existing(l.in.Etc, "config.yaml"))
	if path == "" {
		return
	}
	const most = 1 << 20
	b, err := readAtMost(path, most+1)
	if named == "" && !l.in.Serve && errors.Is(err, fs.ErrPermission) {
		l.warn(path, "cannot be read by this user, so its settings are not known here")
		return
	}
	l.path, l.unreadable = path, true
	switch {
	case err != nil:
		l.problems.add(path, "cannot be read: %v", pathless(err))
	case len(b) > most:
		l.problems.add(path, "is too large for a configuration file")
	default:
		var problems Problems
		l.file, problems = parseFile(path, b)
		l.unreadable = l.file == nil && len(problems) > 0
		l.misread(problems)
	}
}

// misread records what is wrong in the file: as a warning only for a command that asks
// the service and does not need the setting itself.
func (l *loader) misread(problems Problems) {
	for _, p := range problems {
		at := strings.LastIndex(p.Where, ": ")
		if l.in.Asks && (at < 0 || !slices.Contains(l.in.Only, p.Where[at+2:])) {
			l.warn(p.Where, "%s", p.Text)
			continue
		}
		l.problems = append(l.problems, p)
	}
}

// readAtMost reads a file, or the first bytes of it.
func readAtMost(path string, bytes int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, bytes))
}

var yamlError = regexp.MustCompile(`(?s)^yaml: (?:line (\d+): )?(.*)$`)

// parseFile reads the keys of the file without reading anything into their
// values: the table does that, so file, environment and flags cannot differ.
func parseFile(path string, data []byte) (map[string]entry, Problems) {
	var problems Problems
	syntax := func(err error) {
		where, text := path, err.Error()
		if m := yamlError.FindStringSubmatch(text); m != nil {
			text = m[2]
			if m[1] != "" {
				where += ":" + m[1]
			}
		}
		problems.add(where, "%s", strings.Join(strings.Fields(text), " "))
	}

	var doc, second yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		syntax(err)
		return nil, problems
	}
	if err := dec.Decode(&second); err == nil {
		problems.add(fmt.Sprintf("%s:%d", path, second.Line), "a second document is not read; take the --- out")
	} else if !errors.Is(err, io.EOF) {
		syntax(err)
	}
	if len(doc.Content) == 0 || doc.Content[0].ShortTag() == "!!null" {
		return nil, problems
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		problems.add(fmt.Sprintf("%s:%d", path, root.Line), "lines of the form key: value are expected")
		return nil, problems
	}
	values := readKeys(path, root, &problems)
	return values, problems
}

// readKeys reads the mapping at the top of the file, and adds what is wrong with it.
func readKeys(path string, root *yaml.Node, problems *Problems) map[string]entry {
	values := make(map[string]entry)
	lines := make(map[string]int) // where each key was seen first
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		place := fmt.Sprintf("%s:%d", path, key.Line)
		where := place + ": " + plain(key.Value)
		o, known := find(key.Value)
		switch first := lines[key.Value]; {
		case key.Kind != yaml.ScalarNode:
			problems.add(place, "a key is a single word")
			continue
		case first != 0:
			problems.add(where, "is set twice, first on line %d", first)
			continue
		case !known:
			problems.add(where, "%s", unknownKey(key.Value))
		case value.Kind != yaml.ScalarNode:
			problems.add(where, "takes one %s, not a list, a mapping or an alias", o.Kind)
		case value.ShortTag() == "!!null":
			problems.add(where, "has no value")
		default:
			values[key.Value] = entry{value.Value, place}
		}
		lines[key.Value] = key.Line
	}
	return values
}

func unknownKey(key string) string {
	var names []string
	for _, o := range table {
		if o.Secret && strings.ReplaceAll(key, "_", "-") == o.Credential() {
			return "a secret does not belong here; put it in a file of its own and name that with " + o.Name
		}
		names = append(names, o.Name)
	}
	return "unknown key" + Suggest(key, names)
}

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,60}$`)

// plain quotes a key that would spoil the line it is printed on.
func plain(key string) string {
	if plainKey.MatchString(key) {
		return key
	}
	return quote(key)
}
