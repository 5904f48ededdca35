package pmm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// maxDepth bounds nesting, and with it the stack a hostile body can claim.
// Real bodies nest four deep.
const maxDepth = 512

// scanner walks one JSON text from front to back and checks it against RFC 8259
// on the way. The caller steers:
//
//	for more := s.open('}'); more; more = s.more('}') {
//		name, value := s.name(), s.value()
//	}
//
// The first mistake sets err and moves to the end of the text, where every
// method does nothing, so err need only be looked at once, when all is read.
//
// As in encoding/json, invalid UTF-8 inside a string is no mistake; whoever
// keeps a value passes it through clean.
type scanner struct {
	data  []byte
	pos   int
	depth int
	err   *Error
}

func (s *scanner) fail(at int) {
	switch {
	case at >= len(s.data):
		s.failf("it ends too early, after %d bytes", len(s.data))
	default:
		s.failf("unexpected %q at byte %d", s.data[at:at+1], at)
	}
}

func (s *scanner) failf(format string, args ...any) {
	if s.err == nil {
		s.err = &Error{"not JSON: " + fmt.Sprintf(format, args...)}
	}
	s.pos = len(s.data)
}

// peek skips white space and returns the byte that follows, 0 at the end.
func (s *scanner) peek() byte {
	if s.pos < len(s.data) && s.data[s.pos] > ' ' { // what PMM sends has no white space
		return s.data[s.pos]
	}
	return s.space()
}

func (s *scanner) space() byte {
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; c {
		case ' ', '\n', '\t', '\r':
			s.pos++
		default:
			return c
		}
	}
	return 0
}

// end checks that nothing but white space follows.
func (s *scanner) end() {
	if s.peek(); s.pos < len(s.data) {
		s.fail(s.pos)
	}
}

// open enters the object or array at pos and reports whether it has a first
// element; end is its closing byte.
func (s *scanner) open(end byte) bool {
	s.pos++
	if s.depth++; s.depth > maxDepth {
		s.failf("it nests deeper than %d levels", maxDepth)
		return false
	}
	if s.peek() != end {
		return true
	}
	s.pos++
	s.depth--
	return false
}

// more moves behind the comma or out of the object or array, and reports which.
func (s *scanner) more(end byte) bool {
	switch s.peek() {
	case ',':
		s.pos++
		return true
	case end:
		s.pos++
		s.depth--
	default:
		s.fail(s.pos)
	}
	return false
}

// name reads the name of an object's next member, still quoted.
func (s *scanner) name() []byte {
	if s.peek() != '"' {
		s.fail(s.pos)
		return nil
	}
	start := s.pos
	s.str()
	name := s.data[start:s.pos]
	if s.peek() != ':' {
		s.fail(s.pos)
		return nil
	}
	s.pos++
	return name
}

// value reads any value and returns it as written.
func (s *scanner) value() []byte {
	c := s.peek()
	start := s.pos
	switch c {
	case '"':
		s.str()
	case '{':
		for more := s.open('}'); more; more = s.more('}') {
			s.name()
			s.value()
		}
	case '[':
		for more := s.open(']'); more; more = s.more(']') {
			s.value()
		}
	case 't':
		s.literal("true")
	case 'f':
		s.literal("false")
	case 'n':
		s.literal("null")
	default:
		s.number()
	}
	return s.data[start:s.pos]
}

// str passes over the string at pos.
func (s *scanner) str() {
	for i := s.pos + 1; i < len(s.data); i++ {
		switch c := s.data[i]; {
		case c == '"':
			s.pos = i + 1
			return
		case c == '\\':
			n := escape(s.data[i:])
			if n == 0 {
				s.fail(min(i+1, len(s.data)))
				return
			}
			i += n - 1
		case c < ' ':
			s.fail(i)
			return
		}
	}
	s.fail(len(s.data))
}

// escape returns the length of the escape sequence that b begins with, 0 when it
// is none.
func escape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(b) >= 6 && hex(b[2]) && hex(b[3]) && hex(b[4]) && hex(b[5]) {
			return 6
		}
	}
	return 0
}

func hex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}

func (s *scanner) literal(word string) {
	if !bytes.HasPrefix(s.data[s.pos:], []byte(word)) {
		s.fail(s.pos)
		return
	}
	s.pos += len(word)
}

func (s *scanner) number() {
	s.accept('-', '-')
	if !s.accept('0', '0') {
		s.digits()
	}
	if s.accept('.', '.') {
		s.digits()
	}
	if s.accept('e', 'E') {
		s.accept('+', '-')
		s.digits()
	}
}

// accept passes over one of two bytes, and reports whether it was there.
func (s *scanner) accept(a, b byte) bool {
	if s.pos < len(s.data) && (s.data[s.pos] == a || s.data[s.pos] == b) {
		s.pos++
		return true
	}
	return false
}

func (s *scanner) digits() {
	start := s.pos
	for s.pos < len(s.data) && '0' <= s.data[s.pos] && s.data[s.pos] <= '9' {
		s.pos++
	}
	if s.pos == start {
		s.fail(start)
	}
}

// unquote returns what a string token says. Without escapes that is part of the
// token itself.
func unquote(token []byte) []byte {
	if len(token) < 2 {
		return nil
	}
	if bytes.IndexByte(token, '\\') < 0 && utf8.Valid(token) {
		return token[1 : len(token)-1]
	}
	var s string
	if json.Unmarshal(token, &s) != nil {
		return nil // only behind a mistake, which the scanner reports
	}
	return []byte(s)
}

// text returns what a value says: a string unquoted, null nothing, a number or
// boolean as written, anything nested as compact JSON.
func text(value []byte) []byte {
	if len(value) == 0 {
		return nil
	}
	switch value[0] {
	case '"':
		return unquote(value)
	case 'n':
		return nil
	case '{', '[':
		var b bytes.Buffer
		_ = json.Compact(&b, clean(value)) // valid, the scanner saw to it
		return b.Bytes()
	}
	return value
}

// clean returns b with every byte that is not UTF-8 replaced by U+FFFD, as
// encoding/json does. A clean b is returned as it is.
func clean(b []byte) []byte {
	if utf8.Valid(b) {
		return b
	}
	return []byte(string([]rune(string(b))))
}
