package store

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"time"

	"pmm-callgoose/store/event"
	"pmm-callgoose/store/wire"
)

// layout begins a record, an episode and a queue entry.
const layout = 1

// The first bytes of a record have fixed places, so that a list can leave most
// records out without decoding them:
//
//	layout, outcome, status, time of receipt (8 bytes), id
const (
	atOutcome  = 1
	atStatus   = 2
	atReceived = 3
	atID       = 11
	idSize     = 10 // of the hash, see event.ID
)

// What stands for an id. The ids of what never was an event say where it came in.
const (
	idHash = iota
	idSuppressed
	idUnusable
	idText
)

// Flags of a record: the value is there.
const (
	flagLabels  = 1 << iota // labels and alert name stand in the record itself
	flagEvent               // At and Facts
	flagClaimed             // ClaimedAt
	flagText                // Reason, LastError or CallgooseID
	flagSettled             // SettledAt
	flagStarts              // StartsAt
	flagFiring              // Firing
)

// Flags of facts.
const (
	factAdopted = 1 << iota
	factSuffix
	factReopened
	factReconciled
	factSize
)

// outcomeCodes and the others are places on disk: only append.
var (
	outcomeCodes = []event.Outcome{event.Queued, event.Delivered, event.Discarded, event.Dead, event.Suppressed, event.Collapsed, event.Unknown}
	statusCodes  = []event.Status{"", event.Firing, event.Resolved}
	resultCodes  = []string{"", "delivered", "discarded", "dead", "retry", "held", "interrupted"}
	effectCodes  = []string{"", "created", "resolved", "duplicate", "none", "discarded", "unknown"}
)

// appendCode writes the place of v in codes, or v itself.
func appendCode[T ~string](b []byte, codes []T, v T) []byte {
	if i := slices.Index(codes, v); i >= 0 {
		return append(b, byte(i))
	}
	return wire.AppendString(append(b, 0xff), string(v))
}

func readCode[T ~string](r *wire.Reader, codes []T) T {
	i := r.Byte()
	switch {
	case i == 0xff:
		return T(r.String())
	case int(i) >= len(codes):
		r.Fail()
		return ""
	}
	return codes[i]
}

// flag is bit when on, else none.
func flag(bit byte, on bool) byte {
	if on {
		return bit
	}
	return 0
}

// placeKey is a position as a key that sorts by arrival.
func placeKey(p event.Position) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 16), p.Seq)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, p.Note), p.Item)
}

// positionOf reads what placeKey wrote; a key of another length is the zero position.
func positionOf(key []byte) event.Position {
	if len(key) != 16 {
		return event.Position{}
	}
	return event.Position{Seq: binary.BigEndian.Uint64(key), Note: binary.BigEndian.Uint32(key[8:]), Item: binary.BigEndian.Uint32(key[12:])}
}

// appendRecord appends r as it stands under its position. shared says that its
// labels and its alert name stand in the ledger under its key, and are left out here.
func appendRecord(b []byte, r *event.Record, shared bool) []byte {
	b = append(b, layout, byte(slices.Index(outcomeCodes, r.Outcome)), byte(slices.Index(statusCodes, r.Status)))
	received := int64(math.MinInt64) // never
	if !r.ReceivedAt.IsZero() {
		received = r.ReceivedAt.UnixNano()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(received))
	raw := wire.HexBytes(r.ID, idSize)
	switch {
	case raw != nil:
		b = append(append(b, idHash), raw...)
	case r.ID == r.Pos.RecordID('s'):
		b = append(b, idSuppressed)
	case r.ID == r.Pos.RecordID('u'):
		b = append(b, idUnusable)
	default:
		b = wire.AppendString(append(b, idText), r.ID)
	}
	b = wire.AppendKey(b, r.Key, r.Source)
	text := r.Reason != "" || r.LastError != "" || r.CallgooseID != ""
	b = append(b, flag(flagLabels, !shared)|flag(flagEvent, r.IsEvent())|flag(flagClaimed, !r.ClaimedAt.IsZero())|flag(flagText, text)|
		flag(flagSettled, !r.SettledAt.IsZero())|flag(flagStarts, !r.StartsAt.IsZero())|flag(flagFiring, !r.Firing.IsZero()))
	if r.IsEvent() {
		b = appendFacts(wire.AppendPosition(b, r.At), &r.Facts)
	}
	if !r.Firing.IsZero() {
		b = wire.AppendPosition(b, r.Firing)
	}
	if !shared {
		b = wire.AppendMap(wire.AppendString(b, r.Alertname), r.Labels)
	}
	for _, t := range []time.Time{r.StartsAt, r.SettledAt, r.ClaimedAt} {
		if !t.IsZero() {
			b = wire.AppendTime(b, t)
		}
	}
	if text {
		b = wire.AppendString(wire.AppendString(wire.AppendString(b, r.Reason), r.LastError), r.CallgooseID)
	}
	b = binary.AppendUvarint(b, uint64(r.Tries))
	for i := range r.Attempts {
		b = appendAttempt(b, &r.Attempts[i])
	}
	return b
}

func appendFacts(b []byte, f *event.Facts) []byte {
	b = binary.AppendUvarint(b, uint64(f.Form))
	b = append(b, flag(factAdopted, f.Adopted)|flag(factSuffix, f.Suffix != "")|flag(factReopened, f.Reopened)|flag(factReconciled, f.Reconciled)|flag(factSize, f.Size > 0))
	b = wire.AppendTime(b, f.Since)
	if f.Adopted {
		b = wire.AppendMap(b, f.Annotations)
	}
	if f.Suffix != "" {
		b = wire.AppendString(b, f.Suffix)
	}
	if f.Size > 0 {
		b = binary.AppendUvarint(b, uint64(f.Size))
	}
	return b
}

func readFacts(r *wire.Reader) (f event.Facts) {
	f.Form = r.Uint32()
	flags := r.Byte()
	f.Adopted, f.Reopened, f.Reconciled = flags&factAdopted != 0, flags&factReopened != 0, flags&factReconciled != 0
	f.Since = r.Time()
	if f.Adopted {
		f.Annotations = r.Map()
	}
	if flags&factSuffix != 0 {
		f.Suffix = r.String()
	}
	if flags&factSize != 0 {
		f.Size = int(r.Uint32())
	}
	return f
}

func appendAttempt(b []byte, a *event.Attempt) []byte {
	b = append(b, flag(1, a.Sent)|flag(2, a.Probe))
	b = wire.AppendTime(b, a.At)
	b = binary.AppendVarint(b, int64(a.Duration))
	b = binary.AppendVarint(b, int64(a.Status))
	b = appendCode(b, resultCodes, a.Result)
	b = appendCode(b, effectCodes, a.Effect)
	return wire.AppendString(wire.AppendString(b, a.Error), a.ID)
}

func readAttempt(r *wire.Reader) (a event.Attempt) {
	flags := r.Byte()
	a.Sent, a.Probe = flags&1 != 0, flags&2 != 0
	a.At, a.Duration, a.Status = r.Time(), time.Duration(r.Varint()), int(r.Varint())
	a.Result, a.Effect = readCode(r, resultCodes), readCode(r, effectCodes)
	a.Error, a.ID = r.String(), r.String()
	return a
}

// readRecord reads a record that came in at pos. Without labels of its own it is
// Brief: they stand in the ledger under its key.
func readRecord(pos event.Position, b []byte) (*event.Record, error) {
	if len(b) <= atID || b[0] != layout || int(b[atOutcome]) >= len(outcomeCodes) || int(b[atStatus]) >= len(statusCodes) {
		return nil, fmt.Errorf("decode record: %w", event.ErrDamaged)
	}
	rec := &event.Record{Pos: pos, Outcome: outcomeCodes[b[atOutcome]], Status: statusCodes[b[atStatus]], Notification: pos.NotificationID()}
	rec.ReceivedAt = recordReceived(b)
	r := wire.Reader{Rest: b[atID:]}
	switch r.Byte() {
	case idHash:
		rec.ID = hex.EncodeToString(r.Bytes(idSize))
	case idSuppressed:
		rec.ID = pos.RecordID('s')
	case idUnusable:
		rec.ID = pos.RecordID('u')
	case idText:
		rec.ID = r.String()
	default:
		r.Fail()
	}
	rec.Key, rec.Source = r.Key()
	flags := r.Byte()
	if flags&flagEvent != 0 {
		rec.At, rec.Facts = r.Position(), readFacts(&r)
	}
	if flags&flagFiring != 0 {
		rec.Firing = r.Position()
	}
	if rec.Brief = flags&flagLabels == 0; !rec.Brief {
		rec.Alertname, rec.Labels = r.String(), r.Map()
	}
	for _, t := range []struct {
		flag byte
		into *time.Time
	}{{flagStarts, &rec.StartsAt}, {flagSettled, &rec.SettledAt}, {flagClaimed, &rec.ClaimedAt}} {
		if flags&t.flag != 0 {
			*t.into = r.Time()
		}
	}
	if flags&flagText != 0 {
		rec.Reason, rec.LastError, rec.CallgooseID = r.String(), r.String(), r.String()
	}
	rec.Tries = int(r.Uvarint())
	for len(r.Rest) > 0 {
		rec.Attempts = append(rec.Attempts, readAttempt(&r))
	}
	return rec, r.End("record")
}

// recordAt reads the record under a key.
func recordAt(k, b []byte) (*event.Record, error) { return readRecord(positionOf(k), b) }

// outcomeOf is the outcome of an encoded record, without decoding the rest.
func outcomeOf(b []byte) (event.Outcome, error) {
	if len(b) <= atID || b[0] != layout || int(b[atOutcome]) >= len(outcomeCodes) {
		return "", fmt.Errorf("decode record: %w", event.ErrDamaged)
	}
	return outcomeCodes[b[atOutcome]], nil
}

// recordReceived is when an encoded record was received.
func recordReceived(b []byte) time.Time {
	at := int64(binary.BigEndian.Uint64(b[atReceived:]))
	if at == math.MinInt64 {
		return time.Time{}
	}
	return time.Unix(0, at).UTC()
}

// Flags of an episode.
const (
	episodeOpen = 1 << iota
	episodeAdopted
	episodeID // the ID is not the one of its start
	episodeShared
	episodeByName
)

func appendEpisode(b []byte, ep *Episode) []byte {
	named := ep.ID != event.EpisodeID(ep.StartsAt, ep.Count)
	b = append(b, layout, flag(episodeOpen, ep.Open)|flag(episodeAdopted, ep.Adopted)|flag(episodeID, named)|flag(episodeShared, ep.Shared)|flag(episodeByName, ep.ByName))
	b = wire.AppendString(wire.AppendString(b, ep.Source), ep.Alertname)
	b = binary.AppendUvarint(b, ep.Count)
	if named {
		b = wire.AppendString(b, ep.ID)
	}
	for _, t := range []time.Time{ep.StartsAt, ep.NamedAt, ep.FiringAt, ep.RecoveredAt} {
		b = wire.AppendTime(b, t)
	}
	b = wire.AppendTimes(b, ep.Seen)
	b = binary.AppendUvarint(b, uint64(len(ep.Past)))
	for _, span := range ep.Past {
		b = wire.AppendTime(wire.AppendTimes(b, span.Starts), span.Ended)
	}
	b = wire.AppendPosition(wire.AppendPosition(b, ep.Firing), ep.Recovery)
	return wire.AppendString(wire.AppendString(wire.AppendString(b, ep.Shown), ep.Suffix), ep.To)
}

// readEpisode reads the episode of key.
func readEpisode(key string, b []byte) (*Episode, error) {
	r := wire.Reader{Rest: b}
	if r.Byte() != layout {
		return nil, fmt.Errorf("decode episode %s: %w", key, event.ErrDamaged)
	}
	flags := r.Byte()
	ep := &Episode{Key: key, Open: flags&episodeOpen != 0, Adopted: flags&episodeAdopted != 0, Shared: flags&episodeShared != 0, ByName: flags&episodeByName != 0}
	ep.Source, ep.Alertname, ep.Count = r.String(), r.String(), r.Uvarint()
	if flags&episodeID != 0 {
		ep.ID = r.String()
	}
	for _, into := range []*time.Time{&ep.StartsAt, &ep.NamedAt, &ep.FiringAt, &ep.RecoveredAt} {
		*into = r.Time()
	}
	if flags&episodeID == 0 {
		ep.ID = event.EpisodeID(ep.StartsAt, ep.Count)
	}
	ep.Seen = r.Times()
	for range r.List() {
		ep.Past = append(ep.Past, Span{Starts: r.Times(), Ended: r.Time()})
	}
	ep.Firing, ep.Recovery = r.Position(), r.Position()
	ep.Shown, ep.Suffix, ep.To = r.String(), r.String(), r.String()
	if err := r.End("episode " + key); err != nil {
		return nil, err
	}
	return ep, nil
}

// isOpen reports whether an encoded episode may be open, without decoding the rest.
func isOpen(b []byte) bool { return len(b) < 2 || b[0] != layout || b[1]&episodeOpen != 0 }

// inStorm marks what waits for the end of a storm. Lower numbers meant something else once.
const inStorm = 3

// mayBeInStorm reports whether an encoded queue entry may wait for the end of a storm,
// without decoding the rest.
func mayBeInStorm(b []byte) bool { return len(b) < 2 || b[0] != layout || b[1] == inStorm }

func appendWaiting(b []byte, w *Waiting) []byte {
	b = append(b, layout, flag(inStorm, w.Storm))
	b = appendCode(b, statusCodes, w.Status)
	if w.Pos == w.At {
		b = append(b, 0)
	} else {
		b = wire.AppendPosition(append(b, 1), w.Pos)
	}
	b = wire.AppendKey(b, w.Key, w.Source)
	b = wire.AppendString(b, w.Alertname)
	b = wire.AppendTime(wire.AppendTime(wire.AppendTime(b, w.ReceivedAt), w.QueuedAt), w.ClaimedAt)
	if !w.NotBefore.IsZero() || w.Size > 0 {
		b = wire.AppendTime(b, w.NotBefore)
	}
	if w.Size > 0 {
		b = binary.AppendUvarint(b, uint64(w.Size))
	}
	return b
}

func readWaiting(at event.Position, b []byte) (Waiting, error) {
	r := wire.Reader{Rest: b}
	if r.Byte() != layout {
		r.Fail()
	}
	w := Waiting{At: at, Pos: at, Storm: r.Byte() == inStorm, Status: readCode(&r, statusCodes)}
	if r.Byte() == 1 {
		w.Pos = r.Position()
	}
	w.Key, w.Source = r.Key()
	w.Alertname = r.String()
	w.ReceivedAt, w.QueuedAt, w.ClaimedAt = r.Time(), r.Time(), r.Time()
	if len(r.Rest) > 0 {
		w.NotBefore = r.Time()
	}
	if len(r.Rest) > 0 {
		w.Size = int(r.Uint32())
	}
	return w, r.End("queue entry")
}
