package pmm

import (
	"encoding/json"
	"strings"
	"testing"
)

// FuzzScanner holds the scanner against encoding/json: the same texts are valid,
// and strings and objects say the same.
func FuzzScanner(f *testing.F) {
	for _, body := range samples(f) {
		f.Add(body)
	}
	for _, text := range []string{
		``, ` `, `0`, `-0.5E+10`, `01`, `1.`, `-`, `1e`, `+1`, `.5`, `nul`, `truex`, `[]`, `[1,]`, `[,1]`, `[1 2]`, `{}`, `{"a"}`,
		`{"a":1,}`, `{a:1}`, `{"a":1 "b":2}`, `"`, `"\`, `"\u12`, `"\u12g4"`, `"\x"`, `"seven77"`, `"eight888"`, `"nine9999\n"`,
		"\"\x7f\x80\xff\"", "\"12345\x1f\"", "\"\x00\"", `"\ud83d\ude00\ud800\u0000"`, `{"a":"x","\u0061":"y","b":null,"c":[{}]}`, "\u00a01", "[1]\x00",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := scanner{data: data}
		value := s.value()
		s.end()
		if s.err != nil && strings.Contains(s.err.Reason, "nests deeper") {
			return // encoding/json goes deeper
		}
		if (s.err == nil) != json.Valid(data) {
			t.Fatalf("scanner: %v; encoding/json: %v", s.err, json.Valid(data))
		}
		if s.err != nil {
			return
		}
		if got, want := string(value), strings.Trim(string(data), " \t\r\n"); got != want {
			t.Fatalf("value %q, want %q", got, want)
		}
		if !json.Valid(clean(value)) {
			t.Fatalf("cleaned %q is not JSON", value)
		}
		switch value[0] {
		case '"':
			var want string
			if err := json.Unmarshal(value, &want); err != nil || string(unquote(value)) != want {
				t.Fatalf("unquoted %q, want %q, %v", unquote(value), want, err)
			}
		case '{':
			var want map[string]json.RawMessage
			if err := json.Unmarshal(value, &want); err != nil {
				t.Fatal(err)
			}
			got := pairs(value)
			if len(got) != len(want) {
				t.Fatalf("%d members, want %d", len(got), len(want))
			}
			for name, raw := range want {
				if got[name] != string(text(raw)) {
					t.Fatalf("member %q is %q, want %q", name, got[name], raw)
				}
			}
		}
	})
}

func TestNestingUpToTheLimit(t *testing.T) {
	s := scanner{data: []byte(strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth))}
	s.value()
	if s.end(); s.err != nil {
		t.Error(s.err)
	}
}
