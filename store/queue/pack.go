package queue

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/s2"

	"pmm-callgoose/store/event"
)

// packed is the version of a message of EVENTS that is an event in S2. An event
// says most things several times, so a third of it is left. Versions below are
// the event as it is, see event.Decode.
const packed = 3

// maxUnpacked bounds what a damaged message can make a reader allocate, bytes.
const maxUnpacked = 64 << 20

var eventBuffers = sync.Pool{New: func() any { return new([]byte) }}

// pack is the message for e.
func pack(e *event.Event) []byte {
	buf := eventBuffers.Get().(*[]byte)
	defer eventBuffers.Put(buf)
	raw := e.Encode((*buf)[:0])
	if *buf = raw; cap(raw) > 1<<20 { // one large event must not stay
		*buf = nil
	}
	into := eventBuffers.Get().(*[]byte)
	defer eventBuffers.Put(into)
	m := s2.Encode((*into)[:cap(*into)], raw)
	if *into = m; cap(m) > 1<<20 {
		*into = nil
	}
	return append(append(make([]byte, 0, 1+len(m)), packed), m...)
}

// unpack reads a message with decode, which is event.Decode or event.DecodeBrief.
func unpack(m []byte, decode func([]byte) (*event.Event, error)) (*event.Event, error) {
	return unpackInto(nil, m, decode)
}

// unpackInto uses buf where it is large enough: then the event's body is a part of it.
func unpackInto(buf, m []byte, decode func([]byte) (*event.Event, error)) (*event.Event, error) {
	if len(m) == 0 || m[0] != packed {
		return decode(m)
	}
	size, err := s2.DecodedLen(m[1:])
	if err != nil || size > maxUnpacked {
		return nil, fmt.Errorf("unpack event: length: %w", event.ErrDamaged)
	}
	raw, err := s2.Decode(buf[:cap(buf)], m[1:])
	if err != nil {
		return nil, fmt.Errorf("unpack event: %w: %w", event.ErrDamaged, err)
	}
	return decode(raw)
}
