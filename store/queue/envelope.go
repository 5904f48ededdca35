package queue

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/klauspost/compress/s2"

	"pmm-callgoose/store/event"
)

// envelopeVersion is the first byte of every message in NOTIFICATIONS.
const envelopeVersion = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encodeEnvelope is: version, packed, CRC-32C; packed is in S2: count,
// {source, received, alerts, body}... Bodies of one rule are much alike, and
// what limits the intake is the number of bytes to sync. The check sum is ours
// because a damaged block can otherwise pass unnoticed. scratch is reused.
func encodeEnvelope(dst, scratch []byte, notes []*publishing) (envelope, grown []byte) {
	scratch = appendNotes(scratch[:0], notes)
	need := 1 + s2.MaxEncodedLen(len(scratch)) + 4
	if cap(dst) < need {
		dst = make([]byte, 0, need)
	}
	dst = append(dst[:0], envelopeVersion)
	packed := s2.Encode(dst[1:need-4], scratch)
	dst = dst[:1+len(packed)]
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst, castagnoli)), scratch
}

func appendNotes(dst []byte, notes []*publishing) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(notes)))
	for _, p := range notes {
		n := &p.note
		dst = binary.AppendUvarint(dst, uint64(len(n.Source)))
		dst = append(dst, n.Source...)
		dst = binary.AppendVarint(dst, n.ReceivedAt.UnixNano())
		dst = binary.AppendUvarint(dst, uint64(n.Alerts))
		dst = binary.AppendUvarint(dst, uint64(len(n.Body)))
		dst = append(dst, n.Body...)
	}
	return dst
}

// decodeEnvelope reads what encodeEnvelope wrote; bodies share memory.
func decodeEnvelope(b []byte) ([]event.Notification, error) {
	if len(b) < 6 {
		return nil, fmt.Errorf("envelope of %d bytes: %w", len(b), event.ErrDamaged)
	}
	if b[0] != envelopeVersion {
		return nil, fmt.Errorf("envelope format %d: %w", b[0], event.ErrNewer)
	}
	if sum := binary.BigEndian.Uint32(b[len(b)-4:]); sum != crc32.Checksum(b[:len(b)-4], castagnoli) {
		return nil, fmt.Errorf("envelope check sum: %w", event.ErrDamaged)
	}
	plain, err := s2.Decode(nil, b[1:len(b)-4])
	if err != nil {
		return nil, fmt.Errorf("envelope packing: %w", event.ErrDamaged)
	}
	r := reader{b: plain}
	count := r.uvarint()
	if count > uint64(len(plain)) {
		return nil, fmt.Errorf("envelope count: %w", event.ErrDamaged)
	}
	out := make([]event.Notification, 0, count)
	for range count {
		n := event.Notification{Source: string(r.bytes())}
		n.ReceivedAt = time.Unix(0, r.varint()).UTC()
		n.Alerts = int(r.uvarint())
		n.Body = r.bytes()
		out = append(out, n)
	}
	if r.bad || len(r.b) != 0 {
		return nil, fmt.Errorf("envelope layout: %w", event.ErrDamaged)
	}
	return out, nil
}

// reader takes values off the front of b and remembers whether one was missing.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) advance(n int) {
	if n <= 0 {
		r.bad, r.b = true, nil
		return
	}
	r.b = r.b[n:]
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	r.advance(n)
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	r.advance(n)
	return v
}

func (r *reader) bytes() []byte {
	n := r.uvarint()
	if r.bad || n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}
