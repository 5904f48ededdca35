// Package wire holds the primitives of what stands on disk: numbers as varints,
// a text with its length before it, and the check sum that seals a value. A
// writer only appends. A Reader stops at the first thing that cannot be, and is
// empty from then on.
package wire

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"time"

	"pmm-callgoose/store/event"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Seal puts a check sum (CRC-32C) behind a value, over its key as well. bbolt has
// none, and a flipped bit could settle what was never sent.
func Seal(key, value []byte) []byte {
	return binary.BigEndian.AppendUint32(value, crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value))
}

// Unseal checks and removes it. event.ErrDamaged when it does not fit.
func Unseal(key, sealed []byte) ([]byte, error) {
	n := len(sealed) - 4
	if n < 0 || binary.BigEndian.Uint32(sealed[n:]) != crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, sealed[:n]) {
		return nil, fmt.Errorf("key %.40q: check sum: %w", key, event.ErrDamaged)
	}
	return sealed[:n], nil
}

// AppendString appends s with its length before it.
func AppendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// AppendTime keeps the instant, to the nanosecond, of any year. The zero time is one byte.
func AppendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, 0)
	}
	return binary.AppendVarint(binary.AppendUvarint(b, uint64(t.Nanosecond())+1), t.Unix())
}

// AppendTimes appends a list of them.
func AppendTimes(b []byte, list []time.Time) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, t := range list {
		b = AppendTime(b, t)
	}
	return b
}

// AppendPosition appends p.
func AppendPosition(b []byte, p event.Position) []byte {
	b = binary.AppendUvarint(b, p.Seq)
	b = binary.AppendUvarint(b, uint64(p.Note))
	return binary.AppendUvarint(b, uint64(p.Item))
}

// AppendPositionAfter appends p as its distance from one that is not behind it.
func AppendPositionAfter(b []byte, from, p event.Position) []byte {
	b = binary.AppendUvarint(b, p.Seq-from.Seq)
	if p.Seq != from.Seq {
		from = event.Position{}
	}
	b = binary.AppendUvarint(b, uint64(p.Note-from.Note))
	if p.Note != from.Note {
		from.Item = 0
	}
	return binary.AppendUvarint(b, uint64(p.Item-from.Item))
}

// AppendMap appends the pairs of m, sorted, so that equal maps give equal
// bytes. nil is kept apart from an empty map.
func AppendMap(b []byte, m map[string]string) []byte {
	if m == nil {
		return append(b, 0)
	}
	var room [24]string
	names := slices.AppendSeq(room[:0], maps.Keys(m))
	slices.Sort(names)
	b = binary.AppendUvarint(b, uint64(len(m))+1)
	for _, k := range names {
		b = AppendString(AppendString(b, k), m[k])
	}
	return b
}

// AppendHex writes a text of lower-case hexadecimal digits of the given number
// of bytes as those, any other text as it is.
func AppendHex(b []byte, s string, size int) []byte {
	if raw := HexBytes(s, size); raw != nil {
		return append(append(b, 0), raw...)
	}
	return append(binary.AppendUvarint(b, uint64(len(s))+1), s...)
}

// HexBytes are the bytes that s says in lower-case hexadecimal digits, nil when it
// is anything else or of another size.
func HexBytes(s string, size int) []byte {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != size || hex.EncodeToString(raw) != s {
		return nil
	}
	return raw
}

// AppendKey appends an incident key and its source: the key begins with the
// source as a rule, and goes on with a fingerprint of 8 bytes.
func AppendKey(b []byte, key, source string) []byte {
	b = AppendString(b, source)
	if n := len(source) + 1; len(key) >= n && key[:n] == source+"-" {
		return AppendHex(append(b, 1), key[n:], 8)
	}
	return AppendString(append(b, 0), key)
}

// Reader takes values off the front of Rest.
type Reader struct {
	Rest []byte
	bad  bool
}

// Fail says that what was read cannot be.
func (r *Reader) Fail() { r.Rest, r.bad = nil, true }

// Bad reports whether something could not be read.
func (r *Reader) Bad() bool { return r.bad }

// End is the error when something could not be read, or more is there than was read.
func (r *Reader) End(what string) error {
	if r.bad || len(r.Rest) > 0 {
		return fmt.Errorf("decode %s: %w", what, event.ErrDamaged)
	}
	return nil
}

// Bytes takes n bytes, which share memory with what is read.
func (r *Reader) Bytes(n uint64) []byte {
	if n > uint64(len(r.Rest)) {
		r.Fail()
		return nil
	}
	b := r.Rest[:n:n]
	r.Rest = r.Rest[n:]
	return b
}

// Byte takes one byte.
func (r *Reader) Byte() byte {
	if b := r.Bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// Uvarint takes a number.
func (r *Reader) Uvarint() uint64 {
	n, w := binary.Uvarint(r.Rest)
	return number(r, n, w)
}

// Varint takes a number that may be negative.
func (r *Reader) Varint() int64 {
	n, w := binary.Varint(r.Rest)
	return number(r, n, w)
}

// number passes over a varint of w bytes.
func number[T int64 | uint64](r *Reader, n T, w int) T {
	if w <= 0 {
		r.Fail()
		return 0
	}
	r.Rest = r.Rest[w:]
	return n
}

// Uint32 takes a number of 32 bits.
func (r *Reader) Uint32() uint32 {
	n := r.Uvarint()
	if n > 1<<32-1 {
		r.Fail()
	}
	return uint32(n)
}

// Block takes what has its length before it; it shares memory with what is read.
func (r *Reader) Block() []byte { return r.Bytes(r.Uvarint()) }

// String takes a text.
func (r *Reader) String() string { return string(r.Block()) }

// Time takes an instant, in UTC.
func (r *Reader) Time() time.Time {
	nano := r.Uvarint()
	if nano == 0 {
		return time.Time{}
	}
	if nano > uint64(time.Second) {
		r.Fail()
		return time.Time{}
	}
	return time.Unix(r.Varint(), int64(nano)-1).UTC()
}

// List reads how many elements follow, and bounds the number by the bytes left.
func (r *Reader) List() uint64 {
	n := r.Uvarint()
	if n > uint64(len(r.Rest)) {
		r.Fail()
		return 0
	}
	return n
}

// Times takes a list of instants.
func (r *Reader) Times() (list []time.Time) {
	for range r.List() {
		list = append(list, r.Time())
	}
	if r.bad {
		return nil
	}
	return list
}

// Position takes a position.
func (r *Reader) Position() event.Position {
	return event.Position{Seq: r.Uvarint(), Note: r.Uint32(), Item: r.Uint32()}
}

// PositionAfter takes what AppendPositionAfter wrote.
func (r *Reader) PositionAfter(from event.Position) event.Position {
	p := event.Position{Seq: from.Seq + r.Uvarint()}
	if p.Seq != from.Seq {
		from = event.Position{}
	}
	p.Note = from.Note + r.Uint32()
	if p.Note != from.Note {
		from.Item = 0
	}
	p.Item = from.Item + r.Uint32()
	return p
}

// Hex takes what AppendHex wrote.
func (r *Reader) Hex(size int) string {
	n := r.Uvarint()
	if n == 0 {
		return hex.EncodeToString(r.Bytes(uint64(size)))
	}
	return string(r.Bytes(n - 1))
}

// Key takes what AppendKey wrote.
func (r *Reader) Key() (key, source string) {
	source = r.String()
	if r.Byte() == 1 {
		return source + "-" + r.Hex(8), source
	}
	return r.String(), source
}

// Map takes what AppendMap wrote.
func (r *Reader) Map() map[string]string {
	n := r.Uvarint()
	if n == 0 {
		return nil
	}
	if n--; n > uint64(len(r.Rest))/2 { // each pair has two bytes at least
		r.Fail()
		return nil
	}
	m := make(map[string]string, n)
	for range n {
		k := r.String()
		m[k] = r.String()
	}
	return m
}
