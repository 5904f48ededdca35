// Package wire holds the primitives of what stands on disk: numbers as varints, a text
// with its length before it, and the check sum that seals a value. A Coder writes them or
// reads them: one description of a value serves both.
package wire

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/s2"

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

// maxUnpacked bounds what damage can make a reader allocate, bytes.
const maxUnpacked = 64 << 20

// Unpack unpacks what s2.Encode packed. event.ErrDamaged.
func Unpack(packed []byte) ([]byte, error) {
	if size, err := s2.DecodedLen(packed); err != nil || size > maxUnpacked {
		return nil, fmt.Errorf("length of what is packed: %w", event.ErrDamaged)
	}
	plain, err := s2.Decode(nil, packed)
	if err != nil {
		return nil, fmt.Errorf("unpack: %w: %w", event.ErrDamaged, err)
	}
	return plain, nil
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

// Coder appends values to B, or takes them off its front. A reader stops at the first
// thing that cannot be, and is empty from then on.
type Coder struct {
	B       []byte
	Reading bool
	bad     bool
}

// Reader reads b.
func Reader(b []byte) Coder { return Coder{B: b, Reading: true} }

// Fail says that what was read cannot be.
func (c *Coder) Fail() { c.B, c.bad = nil, true }

// Bad reports whether something could not be read.
func (c *Coder) Bad() bool { return c.bad }

// End is the error when something could not be read, or more is there than was read.
func (c *Coder) End(what string) error {
	if c.bad || len(c.B) > 0 {
		return fmt.Errorf("decode %s: %w", what, event.ErrDamaged)
	}
	return nil
}

// More reports whether something follows: a writer says so, a reader sees it.
func (c *Coder) More(follows bool) bool {
	if c.Reading {
		return len(c.B) > 0
	}
	return follows
}

// Take takes n bytes off what is read; they share memory with it.
func (c *Coder) Take(n int) []byte {
	if n < 0 || n > len(c.B) {
		c.Fail()
		return nil
	}
	b := c.B[:n:n]
	c.B = c.B[n:]
	return b
}

// Byte codes one byte.
func (c *Coder) Byte(v *byte) {
	if !c.Reading {
		c.B = append(c.B, *v)
	} else if b := c.Take(1); b != nil {
		*v = b[0]
	}
}

// Flags codes up to eight of them in a byte, the lowest bit first.
func (c *Coder) Flags(list ...*bool) {
	var b byte
	for i, on := range list {
		if *on {
			b |= 1 << i
		}
	}
	c.Byte(&b)
	for i, on := range list {
		if is := b&(1<<i) != 0; *on != is {
			*on = is
		}
	}
}

// Number codes one that is not negative. A reader fails where it does not fit.
func Number[T ~int | ~uint32 | ~uint64](c *Coder, v *T) {
	if !c.Reading {
		c.B = binary.AppendUvarint(c.B, uint64(*v))
		return
	}
	n, w := binary.Uvarint(c.B)
	if *v = T(n); w <= 0 || *v < 0 || uint64(*v) != n {
		*v, w = 0, 0
		c.Fail()
	}
	c.B = c.B[w:]
}

// Signed codes a number that may be negative.
func Signed[T ~int | ~int64](c *Coder, v *T) {
	if !c.Reading {
		c.B = binary.AppendVarint(c.B, int64(*v))
		return
	}
	n, w := binary.Varint(c.B)
	if *v = T(n); w <= 0 {
		*v, w = 0, 0
		c.Fail()
	}
	c.B = c.B[w:]
}

// Block codes bytes with their length before them. What is read shares memory with B.
func (c *Coder) Block(v *[]byte) {
	n := len(*v)
	if Number(c, &n); c.Reading {
		*v = c.Take(n)
	} else {
		c.B = append(c.B, *v...)
	}
}

// String codes a text.
func (c *Coder) String(v *string) {
	n := len(*v)
	if Number(c, &n); c.Reading {
		*v = string(c.Take(n))
	} else {
		c.B = append(c.B, *v...)
	}
}

// Time codes an instant, to the nanosecond, of any year, in UTC. The zero time is one byte.
func (c *Coder) Time(v *time.Time) {
	var nano uint64
	if !v.IsZero() {
		nano = uint64(v.Nanosecond()) + 1
	}
	Number(c, &nano)
	switch at := v.Unix(); {
	case nano > uint64(time.Second):
		c.Fail()
	case nano > 0:
		if Signed(c, &at); c.Reading {
			*v = time.Unix(at, int64(nano)-1).UTC()
		}
	}
}

// Len codes the length of a list, and gives that of a reader so many elements, for what
// follows to fill. No list has more than there are bytes left.
func Len[T any](c *Coder, list *[]T) {
	n := len(*list)
	if Number(c, &n); !c.Reading {
		return
	}
	if n > len(c.B) {
		c.Fail()
		n = 0
	}
	if *list = nil; n > 0 {
		*list = make([]T, n)
	}
}

// Times codes a list of instants.
func (c *Coder) Times(list *[]time.Time) {
	Len(c, list)
	for i := range *list {
		c.Time(&(*list)[i])
	}
}

// Position codes v.
func (c *Coder) Position(v *event.Position) {
	Number(c, &v.Seq)
	Number(c, &v.Note)
	Number(c, &v.Item)
}

// PositionAfter codes v as its distance from one that is not behind it.
func (c *Coder) PositionAfter(from event.Position, v *event.Position) {
	p := *v
	p.Seq -= from.Seq
	Number(c, &p.Seq)
	if p.Seq > 0 {
		from.Note, from.Item = 0, 0
	}
	p.Note -= from.Note
	Number(c, &p.Note)
	if p.Note > 0 {
		from.Item = 0
	}
	p.Item -= from.Item
	Number(c, &p.Item)
	if c.Reading {
		*v = event.Position{Seq: from.Seq + p.Seq, Note: from.Note + p.Note, Item: from.Item + p.Item}
	}
}

// Map codes the pairs of m, sorted, so that equal maps give equal bytes. nil is kept apart
// from an empty map.
func (c *Coder) Map(m *map[string]string) {
	n := len(*m) + 1
	if *m == nil {
		n = 0
	}
	if Number(c, &n); n == 0 {
		return
	}
	if n--; !c.Reading {
		var room [24]string
		names := slices.AppendSeq(room[:0], maps.Keys(*m))
		slices.Sort(names)
		for _, k := range names {
			v := (*m)[k]
			c.String(&k)
			c.String(&v)
		}
		return
	}
	if n > len(c.B)/2 { // each pair has two bytes at least
		c.Fail()
		return
	}
	*m = make(map[string]string, n)
	for range n {
		var k, v string
		c.String(&k)
		c.String(&v)
		(*m)[k] = v
	}
}

// Key codes an incident key and its source: the key begins with the source as a rule, and
// goes on with a fingerprint of 8 bytes, which stands there as bytes where it can.
func (c *Coder) Key(key, source *string) {
	c.String(source)
	rest, begins := strings.CutPrefix(*key, *source+"-")
	if c.Flags(&begins); !begins {
		c.String(key)
		return
	}
	raw := HexBytes(rest, 8)
	n := len(rest) + 1
	if raw != nil {
		n = 0
	}
	switch Number(c, &n); {
	case !c.Reading && n == 0:
		c.B = append(c.B, raw...)
	case !c.Reading:
		c.B = append(c.B, rest...)
	case n == 0:
		*key = *source + "-" + hex.EncodeToString(c.Take(8))
	default:
		*key = *source + "-" + string(c.Take(n-1))
	}
}
