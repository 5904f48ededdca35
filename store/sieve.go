package store

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"time"

	"pmm-callgoose/store/event"
	"pmm-callgoose/store/wire"
)

// sieve tells, without decoding it, which encoded record a filter
// cannot choose: a filter that chooses little would otherwise decode everything.
// It may let through too much, never too little. For one goroutine.
type sieve struct {
	outcomes     [256]bool
	status       int // -1 = any
	since, until int64
	key, keyText []byte // one of them stands in the record; nil = any key
	keyRoom      int    // what a key takes at most
	ids          map[[idSize]byte]bool
	otherIDs     bool // some have to be read as texts
}

// newSieve is the sieve of f.
func newSieve(f *event.Filter) *sieve {
	s := &sieve{status: -1, since: math.MinInt64, until: math.MaxInt64}
	for i, o := range outcomeCodes {
		s.outcomes[i] = len(f.Outcomes) == 0 || slices.Contains(f.Outcomes, o)
	}
	if f.Status != "" {
		s.status = slices.Index(statusCodes, f.Status) & 0xff
	}
	if !f.Since.IsZero() {
		s.since = nanos(f.Since)
	}
	if !f.Until.IsZero() {
		s.until = nanos(f.Until)
	}
	// The end of the key, however it is written: at a hyphen, source and fingerprint
	// may stand apart.
	if end := f.Incident[strings.LastIndexByte(f.Incident, '-')+1:]; end != "" {
		s.keyText = []byte(end)
		s.key, s.keyRoom = wire.HexBytes(end, 8), len(f.Incident)+8
	}
	if len(f.IDs) > 0 {
		s.ids = make(map[[idSize]byte]bool, len(f.IDs))
		for _, id := range f.IDs {
			if raw := wire.HexBytes(id, idSize); raw != nil {
				s.ids[[idSize]byte(raw)] = true
			} else {
				s.otherIDs = true
			}
		}
	}
	return s
}

// nanos is t as the number that a record has, or the nearest one.
func nanos(t time.Time) int64 {
	switch {
	case t.Year() < 1678:
		return math.MinInt64
	case t.Year() > 2261:
		return math.MaxInt64
	}
	return t.UnixNano()
}

// lets reports whether the filter may choose the record.
func (s *sieve) lets(b []byte) bool {
	if len(b) <= atID+idSize || b[0] != layout {
		return true
	}
	at := int64(binary.BigEndian.Uint64(b[atReceived:]))
	switch {
	case !s.outcomes[b[atOutcome]], s.status >= 0 && int(b[atStatus]) != s.status, at < s.since, at >= s.until, !s.letsKey(b):
		return false
	case s.ids == nil:
		return true
	case b[atID] == idHash:
		return s.ids[[idSize]byte(b[atID+1:])]
	}
	return s.otherIDs
}

// letsKey looks where the key stands, behind id and source.
func (s *sieve) letsKey(b []byte) bool {
	if s.keyText == nil {
		return true
	}
	from := atID + 1
	switch b[atID] {
	case idHash:
		from += idSize
	case idText:
		from = len(b)
	}
	if from < len(b) && b[from] < 0x80 { // the length of the source
		from += 1 + int(b[from])
		b = b[min(from, len(b)):min(from+s.keyRoom, len(b))]
	}
	return bytes.Contains(b, s.keyText) || s.key != nil && bytes.Contains(b, s.key)
}
