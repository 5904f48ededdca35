package callgoose

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// appendWithFingerprint adds the member at the end of the alert's object.
func appendWithFingerprint(b, raw []byte, fingerprint string) []byte {
	if bytes.Contains(raw, []byte(`"fingerprint"`)) { // one that cannot be used: two would be no JSON for some
		var members map[string]json.RawMessage
		if json.Unmarshal(raw, &members) == nil && members["fingerprint"] != nil {
			delete(members, "fingerprint")
			raw = encode(members)
		}
	}
	raw = bytes.TrimRight(raw, " \t\r\n")
	b = append(b, bytes.TrimRight(raw[:len(raw)-1], " \t\r\n")...)
	return append(appendText(b, "fingerprint", fingerprint), '}')
}

// appendObject writes a flat JSON object with sorted names.
func appendObject(b []byte, m map[string]string) []byte {
	b = append(b, '{')
	for _, k := range slices.Sorted(maps.Keys(m)) {
		b = appendText(b, k, m[k])
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
	return append(b, encode(s)...)
}

// encode is JSON with the text as it is.
func encode(v any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // a string, or members that were decoded
	return bytes.TrimRight(buf.Bytes(), "\n")
}

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
