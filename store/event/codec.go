package event

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
)

// The versions of the encodings on disk. A reader accepts every version up to
// its own and refuses newer ones by name, so that a downgrade cannot misread.
const eventVersion = 1

// ErrNewer says that a newer pmm-callgoose wrote the data.
var ErrNewer = errors.New("written by a newer version of pmm-callgoose; use that version or newer")

// Encode is the event as it stands in the events stream:
// version, length of the head, head (JSON), body.
func (e *Event) Encode() ([]byte, error) {
	head, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode event %s: %w", e.ID, err)
	}
	b := make([]byte, 0, 1+binary.MaxVarintLen32+len(head)+len(e.Body))
	b = append(b, eventVersion)
	b = binary.AppendUvarint(b, uint64(len(head)))
	b = append(b, head...)
	return append(b, e.Body...), nil
}

// Size is how many bytes Encode makes, at least when they are many: a small body
// means a small head.
func (e *Event) Size() (int, error) {
	if len(e.Body) < 1<<20 {
		return len(e.Body), nil
	}
	b, err := e.Encode()
	return len(b), err
}

// Decode reads what Encode wrote. The event's body is a part of b.
func Decode(b []byte) (*Event, error) {
	if len(b) < 2 {
		return nil, fmt.Errorf("decode event: too short: %w", ErrDamaged)
	}
	if b[0] == 0 {
		return nil, fmt.Errorf("decode event: zeros: %w", ErrDamaged)
	}
	if b[0] != eventVersion {
		return nil, fmt.Errorf("decode event: format %d: %w", b[0], ErrNewer)
	}
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
