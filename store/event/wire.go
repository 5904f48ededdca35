package event

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"
)

// The primitives of what stands on disk: numbers as varints, a text with its
// length before it. A writer only appends. A reader stops at the first thing
// that cannot be, and is empty from then on.

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendTime keeps the instant, to the nanosecond, of any year. The zero time is one byte.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, 0)
	}
	return binary.AppendVarint(binary.AppendUvarint(b, uint64(t.Nanosecond())+1), t.Unix())
}

func appendPosition(b []byte, p Position) []byte {
	b = binary.AppendUvarint(b, p.Seq)
	b = binary.AppendUvarint(b, uint64(p.Note))
	return binary.AppendUvarint(b, uint64(p.Item))
}

// AppendLabels appends the pairs of m, sorted, so that equal maps give equal
// bytes. nil is kept apart from an empty map.
func AppendLabels(b []byte, m map[string]string) []byte {
	if m == nil {
		return append(b, 0)
	}
	var room [24]string
	names := slices.AppendSeq(room[:0], maps.Keys(m))
	slices.Sort(names)
	b = binary.AppendUvarint(b, uint64(len(m))+1)
	for _, k := range names {
		b = appendString(appendString(b, k), m[k])
	}
	return b
}

// DecodeLabels reads what AppendLabels wrote.
func DecodeLabels(b []byte) (map[string]string, error) {
	r := reader{rest: b}
	m := r.labels()
	return m, r.end("labels")
}

// appendHex writes a text of lower-case hexadecimal digits of the given number
// of bytes as those, any other text as it is.
func appendHex(b []byte, s string, size int) []byte {
	if raw := hexBytes(s, size); raw != nil {
		return append(append(b, 0), raw...)
	}
	return append(binary.AppendUvarint(b, uint64(len(s))+1), s...)
}

// hexBytes are the bytes that s says in lower-case hexadecimal digits, nil when it
// is anything else or of another size.
func hexBytes(s string, size int) []byte {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != size || hex.EncodeToString(raw) != s {
		return nil
	}
	return raw
}

type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) fail() {
	r.rest, r.bad = nil, true
}

// end is the error when something could not be read, or more is there than was read.
func (r *reader) end(what string) error {
	if r.bad || len(r.rest) > 0 {
		return fmt.Errorf("decode %s: %w", what, ErrDamaged)
	}
	return nil
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.fail()
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	n, w := binary.Uvarint(r.rest)
	return number(r, n, w)
}

// number passes over a varint of w bytes.
func number[T int64 | uint64](r *reader, n T, w int) T {
	if w <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[w:]
	return n
}

func (r *reader) uint32() uint32 {
	n := r.uvarint()
	if n > 1<<32-1 {
		r.fail()
	}
	return uint32(n)
}

func (r *reader) varint() int64 {
	n, w := binary.Varint(r.rest)
	return number(r, n, w)
}

func (r *reader) string() string { return string(r.bytes(r.uvarint())) }

func (r *reader) time() time.Time {
	nano := r.uvarint()
	if nano == 0 {
		return time.Time{}
	}
	if nano > uint64(time.Second) {
		r.fail()
		return time.Time{}
	}
	return time.Unix(r.varint(), int64(nano)-1).UTC()
}

func (r *reader) position() Position { return Position{r.uvarint(), r.uint32(), r.uint32()} }

func (r *reader) hex(size int) string {
	n := r.uvarint()
	if n == 0 {
		return hex.EncodeToString(r.bytes(uint64(size)))
	}
	return string(r.bytes(n - 1))
}

func (r *reader) labels() map[string]string {
	n := r.uvarint()
	if n == 0 {
		return nil
	}
	if n--; n > uint64(len(r.rest))/2 { // each pair has two bytes at least
		r.fail()
		return nil
	}
	m := make(map[string]string, n)
	for range n {
		k := r.string()
		m[k] = r.string()
	}
	return m
}

// times is a list of them, of a bounded number.
func (r *reader) times() (list []time.Time) {
	n := r.uvarint()
	if n > uint64(len(r.rest)) {
		r.fail()
	}
	for range n {
		if r.bad {
			return nil
		}
		list = append(list, r.time())
	}
	return list
}

func appendTimes(b []byte, list []time.Time) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, t := range list {
		b = appendTime(b, t)
	}
	return b
}

// A key and its source: the key begins with the source as a rule, and goes on
// with a fingerprint of 8 bytes.
func appendKey(b []byte, key, source string) []byte {
	b = appendString(b, source)
	if n := len(source) + 1; len(key) >= n && key[:n] == source+"-" {
		return appendHex(append(b, 1), key[n:], 8)
	}
	return appendString(append(b, 0), key)
}

func (r *reader) key() (key, source string) {
	source = r.string()
	if r.byte() == 1 {
		return Key(source, r.hex(8)), source
	}
	return r.string(), source
}
