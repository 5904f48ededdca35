package event

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// The versions of the encodings on disk. A reader accepts every version up to
// its own and refuses newer ones by name, so that a downgrade cannot misread.
const (
	eventVersion1 = 1 // length of the head, head (JSON), body
	eventVersion  = 2 // length of the head, head, body
	// 3 is store/queue's: one of version 2, packed.
)

// ErrNewer says that a newer pmm-callgoose wrote the data.
var ErrNewer = errors.New("written by a newer version of pmm-callgoose; use that version or newer")

// Encode appends the event as it stands in the events stream, before store/queue
// packs it.
func (e *Event) Encode(b []byte) []byte {
	b = append(b, eventVersion, 0, 0, 0, 0)
	at := len(b)
	b = e.appendHead(b)
	binary.LittleEndian.PutUint32(b[at-4:], uint32(len(b)-at))
	return append(b, e.Body...)
}

// appendHead writes all but the body. The labels come last: a reader may leave them out.
func (e *Event) appendHead(b []byte) []byte {
	b = appendKey(appendHex(b, e.ID, idSize), e.Key, e.Source)
	if e.Lane == e.Key {
		b = append(b, 1)
	} else {
		b = appendString(append(b, 0), e.Lane)
	}
	b = appendCode(b, statusCodes, e.Status)
	b = appendPosition(appendPosition(appendPosition(b, e.Pos), e.At), e.Firing)
	b = appendString(appendString(b, e.Alertname), e.Fingerprint)
	b = appendString(b, e.Episode)
	for _, t := range []time.Time{e.StartsAt, e.Since, e.ReceivedAt, e.QueuedAt} {
		b = appendTime(b, t)
	}
	b = appendString(appendString(appendString(b, string(e.Settled)), e.Reason), e.Again)
	return AppendLabels(AppendLabels(b, e.Labels), e.Annotations)
}

// Size is how many bytes a reader needs for the event, at least when they are many: a
// small body means a small head.
func (e *Event) Size() int {
	if len(e.Body) < 1<<20 {
		return len(e.Body)
	}
	return len(e.appendHead(nil)) + len(e.Body)
}

// Decode reads what Encode wrote. The event's body is a part of b.
func Decode(b []byte) (*Event, error) { return decode(b, true) }

// DecodeBrief leaves out labels and annotations.
func DecodeBrief(b []byte) (*Event, error) { return decode(b, false) }

func decode(b []byte, all bool) (*Event, error) {
	switch {
	case len(b) < 2:
		return nil, fmt.Errorf("decode event: too short: %w", ErrDamaged)
	case b[0] == 0:
		return nil, fmt.Errorf("decode event: zeros: %w", ErrDamaged)
	case b[0] == eventVersion1:
		return decodeVersion1(b)
	case b[0] != eventVersion:
		return nil, fmt.Errorf("decode event: format %d: %w", b[0], ErrNewer)
	}
	if len(b) < 5 || uint64(binary.LittleEndian.Uint32(b[1:])) > uint64(len(b)-5) {
		return nil, fmt.Errorf("decode event: length: %w", ErrDamaged)
	}
	n, raw := binary.LittleEndian.Uint32(b[1:]), b[5:]
	e := &Event{Body: raw[n:len(raw):len(raw)]}
	r := reader{rest: raw[:n]}
	e.readHead(&r)
	if !all {
		r.rest = nil
	} else {
		e.Labels, e.Annotations = r.labels(), r.labels()
	}
	if err := r.end("event"); err != nil {
		return nil, err
	}
	return e, nil
}

func (e *Event) readHead(r *reader) {
	e.ID = r.hex(idSize)
	e.Key, e.Source = r.key()
	if e.Lane = e.Key; r.byte() != 1 {
		e.Lane = r.string()
	}
	e.Status = readCode(r, statusCodes)
	e.Pos, e.At, e.Firing = r.position(), r.position(), r.position()
	e.Alertname, e.Fingerprint, e.Episode = r.string(), r.string(), r.string()
	e.StartsAt, e.Since, e.ReceivedAt, e.QueuedAt = r.time(), r.time(), r.time(), r.time()
	e.Settled, e.Reason, e.Again = Outcome(r.string()), r.string(), r.string()
}

func decodeVersion1(b []byte) (*Event, error) {
	n, w := binary.Uvarint(b[1:])
	if w <= 0 || n > uint64(len(b)-1-w) {
		return nil, fmt.Errorf("decode event: length: %w", ErrDamaged)
	}
	head, body := b[1+w:1+w+int(n)], b[1+w+int(n):]
	e := &Event{Body: body}
	if err := json.Unmarshal(head, e); err != nil {
		return nil, fmt.Errorf("decode event: %w: %w", ErrDamaged, err)
	}
	return e, nil
}
