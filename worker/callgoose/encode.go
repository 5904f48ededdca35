package callgoose

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"
)

// split takes a JSON object apart into its members, in order.
func split(body []byte) ([]Member, error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("the stored body is not a JSON object")
	}
	var out []Member
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			return nil, err
		}
		s, _ := name.(string)
		out = append(out, Member{s, v})
	}
	return out, nil
}

func join(members []Member) []byte {
	size := 2
	for _, m := range members {
		size += len(m.Name) + len(m.Value) + 4
	}
	b := append(make([]byte, 0, size), '{')
	for _, m := range members {
		b = appendMember(b, m.Name, m.Value)
	}
	return append(b, '}')
}

// appendWithFingerprint adds the member at the end of the alert's object.
func appendWithFingerprint(b, raw []byte, fingerprint string) []byte {
	if bytes.Contains(raw, []byte(`"fingerprint"`)) { // one that cannot be used: two would be no JSON for some
		own := func(m Member) bool { return m.Name == "fingerprint" }
		if members, err := split(raw); err == nil && slices.ContainsFunc(members, own) {
			raw = join(slices.DeleteFunc(members, own))
		}
	}
	raw = bytes.TrimRight(raw, " \t\r\n")
	b = append(b, bytes.TrimRight(raw[:len(raw)-1], " \t\r\n")...)
	return append(appendText(b, "fingerprint", fingerprint), '}')
}

// appendObject writes a flat JSON object with sorted names.
func appendObject(b []byte, m map[string]string) []byte { return appendObjectWith(b, m, "", "") }

// appendObjectWith writes it with one member of another value, unless name is empty.
func appendObjectWith(b []byte, m map[string]string, name, value string) []byte {
	names := make([]string, 0, len(m)+1)
	for k := range m {
		names = append(names, k)
	}
	if _, has := m[name]; !has && name != "" {
		names = append(names, name)
	}
	slices.Sort(names)
	b = append(b, '{')
	for _, k := range names {
		if k == name && name != "" {
			b = appendText(b, k, value)
		} else {
			b = appendText(b, k, m[k])
		}
	}
	return append(b, '}')
}

func appendMember(b []byte, name string, value []byte) []byte {
	return append(appendName(b, name), value...)
}

func appendText(b []byte, name, text string) []byte {
	return appendQuote(appendName(b, name), text)
}

// appendName begins a member. No value ends as an object begins.
func appendName(b []byte, name string) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	return append(appendQuote(b, name), ':')
}

// appendQuote writes s as a JSON string, with the text as it is: < and & stay
// readable, because maintenance filters of Callgoose look for text in the raw payload.
func appendQuote(b []byte, s string) []byte {
	if plain(s) {
		b = append(append(b, '"'), s...)
		return append(b, '"')
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string always encodes
	return append(b, bytes.TrimRight(buf.Bytes(), "\n")...)
}

func quote(s string) []byte { return appendQuote(nil, s) }

// plain reports whether the encoder would leave every character of s as it is.
func plain(s string) bool {
	ascii := true
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' {
			return false
		} else if c >= utf8.RuneSelf {
			ascii = false
		}
	}
	return ascii || utf8.ValidString(s) && !strings.ContainsAny(s, "\u2028\u2029")
}
