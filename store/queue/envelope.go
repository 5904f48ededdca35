package queue

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/compress/s2"

	"pmm-callgoose/store/event"
	"pmm-callgoose/store/wire"
)

// format is the first byte of every message of the stream.
//
// An envelope is: format, index, mark, notification...
//
//	index         number of notifications, length of the mark, length of each notification
//	mark          in S2: UpTo, number of waiting positions, each as its distance from the one before
//	notification  in S2: source, origin, began, received, alerts, body
//
// Each part has a check sum of its own, over its place as well, so that damage
// costs the part that it hit. They are compressed one by one for the same reason.
// The sums are ours because a damaged block can otherwise pass unnoticed.
const format = 1

// The places of an envelope's parts; notifications are numbered from placeNotes.
const (
	placeIndex = iota
	placeMark
	placeNotes
)

// encoder makes envelopes, and reuses its memory. What encode returns is
// overwritten by the next call.
type encoder struct {
	parts, plain, head []byte
	lengths            []int
}

// encode makes the envelope of the notifications in batch. mark is what
// encodeMark returned.
func (c *encoder) encode(mark []byte, batch []*publishing) []byte {
	c.lengths = c.lengths[:0]
	room := 32 + 10*len(batch) + len(mark) // what comes before the parts needs no more
	c.parts = append(c.parts[:0], make([]byte, room)...)
	for _, p := range batch {
		if !p.empty {
			before := len(c.parts)
			c.plain = appendNotification(c.plain[:0], &p.note)
			c.parts = appendPart(c.parts, placeNotes+len(c.lengths), c.plain)
			c.lengths = append(c.lengths, len(c.parts)-before)
		}
	}
	c.letGo(&c.plain)
	index, length := wire.Coder{B: append(c.head[:0], format)}, len(mark)
	codeIndex(&index, &length, &c.lengths)
	c.head = append(sealFrom(index.B, 1, placeIndex), mark...)
	from := room - len(c.head)
	copy(c.parts[from:], c.head)
	return c.parts[from:]
}

// codeIndex codes the length of the mark, and of each notification.
func codeIndex(c *wire.Coder, mark *int, lengths *[]int) {
	wire.Len(c, lengths)
	wire.Number(c, mark)
	for i := range *lengths {
		wire.Number(c, &(*lengths)[i])
	}
}

// letGo lets go of memory that one large body needed.
func (c *encoder) letGo(b *[]byte) {
	if cap(*b) > 4*gatherBytes {
		*b = nil
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sealFrom puts a check sum behind the part that begins at from.
func sealFrom(b []byte, from, place int) []byte {
	return binary.BigEndian.AppendUint32(b, crc32.Update(uint32(place), castagnoli, b[from:]))
}

// appendPart appends plain, compressed and sealed.
func appendPart(b []byte, place int, plain []byte) []byte {
	from, most := len(b), s2.MaxEncodedLen(len(plain))
	if cap(b)-from < most {
		b = append(make([]byte, 0, 2*cap(b)+most+64), b...)
	}
	packed := s2.Encode(b[from:from+most], plain)
	return sealFrom(b[:from+len(packed)], from, place)
}

// openPart checks what appendPart wrote and unpacks it.
func openPart(sealed []byte, place int) ([]byte, error) {
	n := len(sealed) - 4
	if n < 0 || binary.BigEndian.Uint32(sealed[n:]) != crc32.Update(uint32(place), castagnoli, sealed[:n]) {
		return nil, fmt.Errorf("check sum: %w", event.ErrDamaged)
	}
	return wire.Unpack(sealed[:n])
}

func appendNotification(b []byte, n *event.Notification) []byte {
	c := wire.Coder{B: b}
	codeNotification(&c, n)
	return append(c.B, n.Body...)
}

// codeNotification codes what stands before the body.
func codeNotification(c *wire.Coder, n *event.Notification) {
	c.String(&n.Source)
	c.Byte((*byte)(&n.Origin))
	c.Time(&n.BeganAt)
	c.Time(&n.ReceivedAt)
	wire.Number(c, &n.Alerts)
}

func decodeNotification(sealed []byte, number int) event.Notification {
	plain, err := openPart(sealed, placeNotes+number)
	if err != nil {
		return event.Notification{Err: err}
	}
	c, n := wire.Reader(plain), event.Notification{}
	codeNotification(&c, &n)
	n.Body, c.B = c.B, nil
	if err := c.End("notification"); err != nil {
		return event.Notification{Err: err}
	}
	return n
}

// encodeMark is the part of an envelope that holds m.
func encodeMark(m event.Mark) []byte {
	var c wire.Coder
	codeMark(&c, &m)
	return appendPart(nil, placeMark, c.B)
}

func codeMark(c *wire.Coder, m *event.Mark) {
	c.Position(&m.UpTo)
	wire.Len(c, &m.Waiting)
	var from event.Position
	for i := range m.Waiting {
		c.PositionAfter(from, &m.Waiting[i])
		from = m.Waiting[i]
	}
}

func decodeMark(sealed []byte) (m event.Mark, err error) {
	plain, err := openPart(sealed, placeMark)
	if err != nil {
		return m, err
	}
	c := wire.Reader(plain)
	if codeMark(&c, &m); c.End("mark") != nil {
		return event.Mark{}, c.End("mark")
	}
	return m, nil
}

// envelope is a message taken apart: parts that may be damaged.
type envelope struct {
	mark  []byte
	notes [][]byte
}

// open takes an envelope apart.
func open(b []byte) (e envelope, err error) {
	switch {
	case len(b) == 0 || b[0] == 0:
		return e, fmt.Errorf("envelope of %d bytes: %w", len(b), event.ErrDamaged)
	case b[0] > format:
		return e, fmt.Errorf("envelope format %d: %w", b[0], event.ErrNewer)
	}
	r := wire.Reader(b[1:])
	var mark int
	var lengths []int
	codeIndex(&r, &mark, &lengths)
	end := len(b) - len(r.B)
	sum := r.Take(4)
	if r.Bad() || binary.BigEndian.Uint32(sum) != crc32.Update(placeIndex, castagnoli, b[1:end]) {
		return e, fmt.Errorf("envelope index: %w", event.ErrDamaged)
	}
	// What is missing at the end costs the parts that stood there.
	e.mark = r.Take(min(mark, len(r.B)))
	for _, n := range lengths {
		e.notes = append(e.notes, r.Take(min(n, len(r.B))))
	}
	return e, nil
}

// decode reads the notifications of an envelope. A damaged one has Err set.
func decode(b []byte) ([]event.Notification, error) {
	e, err := open(b)
	if err != nil {
		return nil, err
	}
	notes := make([]event.Notification, 0, len(e.notes))
	for i, part := range e.notes {
		notes = append(notes, decodeNotification(part, i))
	}
	return notes, nil
}

// salvage reports whether anything can be read of a message that is damaged.
func salvage(b []byte) bool {
	e, err := open(b)
	if err != nil {
		return false
	}
	if len(e.notes) == 0 {
		_, err := decodeMark(e.mark)
		return err == nil
	}
	for i, part := range e.notes {
		if decodeNotification(part, i).Err == nil {
			return true
		}
	}
	return false
}
