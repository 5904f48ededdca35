package event

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// recordVersion begins a record, and an episode, as the ledger keeps it. Format 2 of the
// ledger kept JSON, which begins with a brace.
const recordVersion = 1

// The first bytes of a record have fixed places, so that a list can leave most
// records out without decoding them:
//
//	version, outcome, status, time of receipt (8 bytes), id
const (
	atOutcome  = 1
	atStatus   = 2
	atReceived = 3
	atID       = 11
	idSize     = 10 // of the hash, see ID
)

// What stands for an id. The ids of what never was an event say where it came in.
const (
	idHash = iota
	idSuppressed
	idUnusable
	idText
)

// Flags of a record.
const (
	flagLabels  = 1 << iota // labels and alert name stand in the record itself
	flagFrozen              // Frozen
	flagOver                // Over
	flagText                // Reason, LastError, CallgooseID or DelayedBy is there
	flagSettled             // SettledAt is there
	flagStarts              // StartsAt is there
	flagFiring              // Firing is there
)

// outcomeCodes and the others are places on disk: only append.
var (
	outcomeCodes = []Outcome{Queued, Delivered, Discarded, Dead, Suppressed, Collapsed}
	statusCodes  = []Status{"", Firing, Resolved}
	resultCodes  = []string{"", "delivered", "discarded", "dead", "retry", "held", "outage", "interrupted"}
	effectCodes  = []string{"", "created", "resolved", "duplicate", "none"}
)

// appendCode writes the place of v in codes, or v itself.
func appendCode[T ~string](b []byte, codes []T, v T) []byte {
	if i := slices.Index(codes, v); i >= 0 {
		return append(b, byte(i))
	}
	return appendString(append(b, 0xff), string(v))
}

func readCode[T ~string](r *reader, codes []T) T {
	i := r.byte()
	switch {
	case i == 0xff:
		return T(r.string())
	case int(i) >= len(codes):
		r.fail()
		return ""
	}
	return codes[i]
}

// SuppressedID and UnusableID are the ids of an alert that became no event, and
// of one that could not be used: they say where it came in.
func (p Position) SuppressedID() string { return p.id('s') }

// UnusableID is described with SuppressedID.
func (p Position) UnusableID() string { return p.id('u') }

func (p Position) id(kind byte) string {
	b := append(make([]byte, 0, 32), kind)
	b = append(strconv.AppendUint(b, p.Seq, 10), '.')
	b = append(strconv.AppendUint(b, uint64(p.Note), 10), '.')
	return string(strconv.AppendUint(b, uint64(p.Item), 10))
}

// Append appends r as the ledger keeps it. shared says that its labels and its
// alert name stand in the ledger under its key, and are left out here.
func (r *Record) Append(b []byte, shared bool) []byte {
	b = append(b, recordVersion)
	b = append(b, outcomeCode(r.Outcome))
	status := slices.Index(statusCodes, r.Status)
	b = append(b, byte(status))      // 0xff = it stands behind the flags
	received := int64(math.MinInt64) // never
	if !r.ReceivedAt.IsZero() {
		received = r.ReceivedAt.UnixNano()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(received))
	raw := hexBytes(r.ID, idSize)
	switch {
	case raw != nil:
		b = append(append(b, idHash), raw...)
	case r.ID == r.Pos.SuppressedID():
		b = append(b, idSuppressed)
	case r.ID == r.Pos.UnusableID():
		b = append(b, idUnusable)
	default:
		b = appendString(append(b, idText), r.ID)
	}
	b = appendKey(b, r.Key, r.Source)
	flags := byte(0)
	set := func(flag byte, on bool) {
		if on {
			flags |= flag
		}
	}
	set(flagLabels, !shared)
	set(flagFrozen, r.Frozen)
	set(flagOver, r.Over)
	set(flagText, r.Reason != "" || r.LastError != "" || r.CallgooseID != "" || r.DelayedBy != "")
	set(flagSettled, !r.SettledAt.IsZero())
	set(flagStarts, !r.StartsAt.IsZero())
	set(flagFiring, r.Firing != Position{})
	b = append(b, flags)
	if status < 0 {
		b = appendString(b, string(r.Status))
	}
	b = binary.AppendUvarint(b, r.Seq)
	if flags&flagFiring != 0 {
		b = appendPosition(b, r.Firing)
	}
	if flags&flagLabels != 0 {
		b = AppendLabels(appendString(b, r.Alertname), r.Labels)
	}
	if flags&flagStarts != 0 {
		b = appendTime(b, r.StartsAt)
	}
	if flags&flagSettled != 0 {
		b = appendTime(b, r.SettledAt)
	}
	if flags&flagText != 0 {
		b = appendString(appendString(b, r.Reason), r.LastError)
		b = appendString(appendString(b, r.CallgooseID), r.DelayedBy)
	}
	b = binary.AppendUvarint(b, uint64(r.Tries))
	for i := range r.Attempts {
		b = r.Attempts[i].append(b)
	}
	return b
}

func outcomeCode(o Outcome) byte { return byte(slices.Index(outcomeCodes, o)) }

func (a *Attempt) append(b []byte) []byte {
	flags := byte(0)
	if a.Sent {
		flags |= 1
	}
	if a.Probe {
		flags |= 2
	}
	b = append(b, flags)
	b = appendTime(b, a.At)
	b = binary.AppendVarint(b, int64(a.Duration))
	b = binary.AppendVarint(b, int64(a.Status))
	b = appendCode(b, resultCodes, a.Result)
	b = appendCode(b, effectCodes, a.Effect)
	return appendString(appendString(b, a.Error), a.ID)
}

func (r *reader) attempt() (a Attempt) {
	flags := r.byte()
	a.Sent, a.Probe = flags&1 != 0, flags&2 != 0
	a.At, a.Duration, a.Status = r.time(), time.Duration(r.varint()), int(r.varint())
	a.Result, a.Effect = readCode(r, resultCodes), readCode(r, effectCodes)
	a.Error, a.ID = r.string(), r.string()
	return a
}

// DecodeRecord reads a record that came in at pos. Without labels of its own it
// is Brief: they stand in the ledger under its key. It reads what format 2 wrote, too.
func DecodeRecord(pos Position, b []byte) (*Record, error) {
	rec := &Record{}
	if len(b) > 0 && b[0] == '{' {
		if err := json.Unmarshal(b, rec); err != nil {
			return nil, fmt.Errorf("decode record: %w: %w", ErrDamaged, err)
		}
		rec.Pos = pos
		return rec, nil
	}
	if len(b) <= atID || b[0] != recordVersion || int(b[atOutcome]) >= len(outcomeCodes) {
		return nil, fmt.Errorf("decode record: %w", ErrDamaged)
	}
	rec.Pos, rec.Outcome, rec.Notification = pos, outcomeCodes[b[atOutcome]], pos.NotificationID()
	rec.ReceivedAt, _ = RecordReceived(b)
	r := reader{rest: b[atID:]}
	switch r.byte() {
	case idHash:
		rec.ID = hex.EncodeToString(r.bytes(idSize))
	case idSuppressed:
		rec.ID = pos.SuppressedID()
	case idUnusable:
		rec.ID = pos.UnusableID()
	case idText:
		rec.ID = r.string()
	default:
		r.fail()
	}
	rec.Key, rec.Source = r.key()
	flags := r.byte()
	rec.Brief, rec.Frozen, rec.Over = flags&flagLabels == 0, flags&flagFrozen != 0, flags&flagOver != 0
	switch status := b[atStatus]; {
	case status == 0xff:
		rec.Status = Status(r.string())
	case int(status) < len(statusCodes):
		rec.Status = statusCodes[status]
	default:
		r.fail()
	}
	if rec.Seq = r.uvarint(); flags&flagFiring != 0 {
		rec.Firing = r.position()
	}
	if flags&flagLabels != 0 {
		rec.Alertname, rec.Labels = r.string(), r.labels()
	}
	if flags&flagStarts != 0 {
		rec.StartsAt = r.time()
	}
	if flags&flagSettled != 0 {
		rec.SettledAt = r.time()
	}
	if flags&flagText != 0 {
		rec.Reason, rec.LastError, rec.CallgooseID, rec.DelayedBy = r.string(), r.string(), r.string(), r.string()
	}
	rec.Tries = int(r.uvarint())
	for len(r.rest) > 0 {
		rec.Attempts = append(rec.Attempts, r.attempt())
	}
	if err := r.end("record"); err != nil {
		return nil, err
	}
	return rec, nil
}

// RecordReceived is when an encoded record was received; false when that has to be
// decoded.
func RecordReceived(b []byte) (time.Time, bool) {
	if len(b) <= atID || b[0] != recordVersion {
		return time.Time{}, false
	}
	at := int64(binary.BigEndian.Uint64(b[atReceived:]))
	if at == math.MinInt64 {
		return time.Time{}, true
	}
	return time.Unix(0, at).UTC(), true
}

// RecordOutcome is the outcome of an encoded record.
func RecordOutcome(b []byte) (Outcome, error) {
	if len(b) > atID && b[0] == recordVersion && int(b[atOutcome]) < len(outcomeCodes) {
		return outcomeCodes[b[atOutcome]], nil
	}
	r, err := DecodeRecord(Position{}, b)
	if err != nil {
		return "", err
	}
	return r.Outcome, nil
}

// Append appends ep as the ledger keeps it under its key.
func (ep *Episode) Append(b []byte) []byte {
	flags := byte(0)
	if ep.Open {
		flags |= 1
	}
	if ep.Adopted {
		flags |= 2
	}
	if Key(ep.Source, ep.Fingerprint) == ep.Key {
		flags |= 4
	}
	if ep.ID == EpisodeID(ep.StartsAt, ep.Count) {
		flags |= 8
	}
	if ep.Shared {
		flags |= 16
	}
	b = append(b, recordVersion, flags)
	b = appendString(appendString(b, ep.Source), ep.Alertname)
	if flags&4 == 0 {
		b = appendString(b, ep.Fingerprint)
	}
	b = binary.AppendUvarint(b, ep.Count)
	b = appendTime(b, ep.StartsAt)
	if flags&8 == 0 {
		b = appendString(b, ep.ID)
	}
	b = appendTimes(appendTimes(b, ep.Seen), ep.Past)
	return appendTime(appendPosition(b, ep.Firing), ep.FiringAt)
}

// DecodeEpisode reads the episode of key, and what format 2 wrote, too.
func DecodeEpisode(key string, b []byte) (*Episode, error) {
	ep := &Episode{}
	if len(b) > 0 && b[0] == '{' {
		if err := json.Unmarshal(b, ep); err != nil {
			return nil, fmt.Errorf("decode episode %s: %w: %w", key, ErrDamaged, err)
		}
		return ep, nil
	}
	r := reader{rest: b}
	if r.byte() != recordVersion {
		return nil, fmt.Errorf("decode episode %s: %w", key, ErrDamaged)
	}
	flags := r.byte()
	ep.Key, ep.Open, ep.Adopted, ep.Shared = key, flags&1 != 0, flags&2 != 0, flags&16 != 0
	ep.Source, ep.Alertname = r.string(), r.string()
	switch {
	case flags&4 == 0:
		ep.Fingerprint = r.string()
	case len(key) > len(ep.Source):
		ep.Fingerprint = key[len(ep.Source)+1:]
	}
	ep.Count, ep.StartsAt = r.uvarint(), r.time()
	if ep.ID = EpisodeID(ep.StartsAt, ep.Count); flags&8 == 0 {
		ep.ID = r.string()
	}
	ep.Seen, ep.Past = r.times(), r.times()
	ep.Firing, ep.FiringAt = r.position(), r.time()
	if err := r.end("episode " + key); err != nil {
		return nil, err
	}
	return ep, nil
}

// EpisodeOpen reports whether an encoded episode is open, without decoding the rest.
func EpisodeOpen(b []byte) bool {
	return len(b) > 1 && (b[0] != recordVersion || b[1]&1 != 0)
}
