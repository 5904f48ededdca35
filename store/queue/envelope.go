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

// maxUnpacked bounds what a damaged part can make a reader allocate, bytes.
const maxUnpacked = 64 << 20

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
	b := append(c.head[:0], format)
	b = binary.AppendUvarint(b, uint64(len(c.lengths)))
	b = binary.AppendUvarint(b, uint64(len(mark)))
	for _, n := range c.lengths {
		b = binary.AppendUvarint(b, uint64(n))
	}
	c.head = append(sealFrom(b, 1, placeIndex), mark...)
	from := room - len(c.head)
	copy(c.parts[from:], c.head)
	return c.parts[from:]
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
	if size, err := s2.DecodedLen(sealed[:n]); err != nil || size > maxUnpacked {
		return nil, fmt.Errorf("length: %w", event.ErrDamaged)
	}
	plain, err := s2.Decode(nil, sealed[:n])
	if err != nil {
		return nil, fmt.Errorf("unpack: %w: %w", event.ErrDamaged, err)
	}
	return plain, nil
}

func appendNotification(b []byte, n *event.Notification) []byte {
	b = wire.AppendString(b, n.Source)
	b = append(b, byte(n.Origin))
	b = wire.AppendTime(b, n.BeganAt)
	b = wire.AppendTime(b, n.ReceivedAt)
	b = binary.AppendUvarint(b, uint64(max(n.Alerts, 0)))
	return append(b, n.Body...)
}

func decodeNotification(sealed []byte, number int) event.Notification {
	plain, err := openPart(sealed, placeNotes+number)
	if err != nil {
		return event.Notification{Err: err}
	}
	r := wire.Reader{Rest: plain}
	n := event.Notification{Source: r.String(), Origin: event.Origin(r.Byte()), BeganAt: r.Time(), ReceivedAt: r.Time(), Alerts: int(r.Uint32())}
	n.Body, r.Rest = r.Rest, nil
	if err := r.End("notification"); err != nil {
		return event.Notification{Err: err}
	}
	return n
}

// encodeMark is the part of an envelope that holds m.
func encodeMark(m event.Mark) []byte {
	plain := wire.AppendPosition(nil, m.UpTo)
	plain = binary.AppendUvarint(plain, uint64(len(m.Waiting)))
	var from event.Position
	for _, p := range m.Waiting {
		plain = wire.AppendPositionAfter(plain, from, p)
		from = p
	}
	return appendPart(nil, placeMark, plain)
}

func decodeMark(sealed []byte) (m event.Mark, err error) {
	plain, err := openPart(sealed, placeMark)
	if err != nil {
		return m, err
	}
	r := wire.Reader{Rest: plain}
	m.UpTo = r.Position()
	var p event.Position
	for range r.List() {
		p = r.PositionAfter(p)
		m.Waiting = append(m.Waiting, p)
	}
	if err := r.End("mark"); err != nil {
		return event.Mark{}, err
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
	r := wire.Reader{Rest: b[1:]}
	count, mark := r.List(), r.Uvarint()
	lengths := make([]uint64, 0, min(count, gatherCount))
	for range count {
		lengths = append(lengths, r.Uvarint())
	}
	end := len(b) - len(r.Rest)
	sum := r.Bytes(4)
	if r.Bad() || binary.BigEndian.Uint32(sum) != crc32.Update(placeIndex, castagnoli, b[1:end]) {
		return e, fmt.Errorf("envelope index: %w", event.ErrDamaged)
	}
	// What is missing at the end costs the parts that stood there.
	rest := r.Rest
	take := func(n uint64) []byte {
		n = min(n, uint64(len(rest)))
		part := rest[:n:n]
		rest = rest[n:]
		return part
	}
	e.mark = take(mark)
	for _, n := range lengths {
		e.notes = append(e.notes, take(n))
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
