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

// outcomeCodes and the others are places on disk: only append.
var (
	outcomeCodes = []event.Outcome{event.Queued, event.Delivered, event.Discarded, event.Dead, event.Suppressed, event.Collapsed, event.Unknown}
	statusCodes  = []event.Status{"", event.Firing, event.Resolved}
	resultCodes  = []string{"", "delivered", "discarded", "dead", "retry", "held", "interrupted"}
	effectCodes  = []string{"", "created", "resolved", "duplicate", "none", "discarded", "unknown"}
)

// code codes the place of v in codes, or v itself.
func code[T ~string](c *wire.Coder, codes []T, v *T) {
	i := byte(slices.Index(codes, *v)) // 0xff for none
	text := string(*v)
	switch c.Byte(&i); {
	case i == 0xff:
		c.String(&text)
	case int(i) < len(codes):
		text = string(codes[i])
	default:
		c.Fail()
	}
	*v = T(text)
}

// codeLayout codes what begins a value.
func codeLayout(c *wire.Coder) {
	have := byte(layout)
	if c.Byte(&have); have != layout {
		c.Fail()
	}
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
	c := wire.Coder{B: b}
	codeRecord(&c, r, !shared)
	return c.B
}

// readRecord reads a record that came in at pos. Without labels of its own it is
// Brief: they stand in the ledger under its key.
func readRecord(pos event.Position, b []byte) (*event.Record, error) {
	c := wire.Reader(b)
	r := &event.Record{Pos: pos, Notification: pos.NotificationID()}
	r.Brief = !codeRecord(&c, r, false)
	if err := c.End("record"); err != nil {
		return nil, err
	}
	return r, nil
}

// codeRecord codes r. own says that its labels and its alert name stand in the record
// itself; it returns whether they do.
func codeRecord(c *wire.Coder, r *event.Record, own bool) bool {
	codeLayout(c)
	code(c, outcomeCodes, &r.Outcome)
	code(c, statusCodes, &r.Status)
	codeReceived(c, &r.ReceivedAt)
	codeID(c, r)
	c.Key(&r.Key, &r.Source)
	isEvent, claimed := r.IsEvent(), !r.ClaimedAt.IsZero()
	text := r.Reason != "" || r.LastError != "" || r.CallgooseID != ""
	settled, starts, firing := !r.SettledAt.IsZero(), !r.StartsAt.IsZero(), !r.Firing.IsZero()
	c.Flags(&own, &isEvent, &claimed, &text, &settled, &starts, &firing)
	if isEvent {
		c.Position(&r.At)
		codeFacts(c, &r.Facts)
	}
	if firing {
		c.Position(&r.Firing)
	}
	if own {
		c.String(&r.Alertname)
		c.Map(&r.Labels)
	}
	if starts {
		c.Time(&r.StartsAt)
	}
	if settled {
		c.Time(&r.SettledAt)
	}
	if claimed {
		c.Time(&r.ClaimedAt)
	}
	if text {
		c.String(&r.Reason)
		c.String(&r.LastError)
		c.String(&r.CallgooseID)
	}
	wire.Number(c, &r.Tries)
	for i := 0; c.More(i < len(r.Attempts)); i++ {
		if c.Reading {
			r.Attempts = append(r.Attempts, event.Attempt{})
		}
		codeAttempt(c, &r.Attempts[i])
	}
	return own
}

// codeReceived codes the time of receipt in eight bytes.
func codeReceived(c *wire.Coder, at *time.Time) {
	if c.Reading {
		if b := c.Take(8); b != nil {
			*at = receivedAt(b)
		}
		return
	}
	nanos := int64(math.MinInt64) // never
	if !at.IsZero() {
		nanos = at.UnixNano()
	}
	c.B = binary.BigEndian.AppendUint64(c.B, uint64(nanos))
}

// receivedAt reads a time of receipt.
func receivedAt(b []byte) time.Time {
	at := int64(binary.BigEndian.Uint64(b))
	if at == math.MinInt64 {
		return time.Time{}
	}
	return time.Unix(0, at).UTC()
}

// codeID codes the id, or what stands for it.
func codeID(c *wire.Coder, r *event.Record) {
	raw, kind := wire.HexBytes(r.ID, idSize), byte(idText)
	switch {
	case raw != nil:
		kind = idHash
	case r.ID == r.Pos.RecordID('s'):
		kind = idSuppressed
	case r.ID == r.Pos.RecordID('u'):
		kind = idUnusable
	}
	switch c.Byte(&kind); kind {
	case idHash:
		if c.Reading {
			r.ID = hex.EncodeToString(c.Take(idSize))
		} else {
			c.B = append(c.B, raw...)
		}
	case idSuppressed:
		r.ID = r.Pos.RecordID('s')
	case idUnusable:
		r.ID = r.Pos.RecordID('u')
	case idText:
		c.String(&r.ID)
	default:
		c.Fail()
	}
}

func codeFacts(c *wire.Coder, f *event.Facts) {
	wire.Number(c, &f.Form)
	suffix, size := f.Suffix != "", f.Size > 0
	c.Flags(&f.Adopted, &suffix, &f.Reopened, &f.Reconciled, &size)
	c.Time(&f.Since)
	if f.Adopted {
		c.Map(&f.Annotations)
	}
	if suffix {
		c.String(&f.Suffix)
	}
	if size {
		wire.Number(c, &f.Size)
	}
}

func codeAttempt(c *wire.Coder, a *event.Attempt) {
	c.Flags(&a.Sent, &a.Probe)
	c.Time(&a.At)
	wire.Signed(c, &a.Duration)
	wire.Signed(c, &a.Status)
	code(c, resultCodes, &a.Result)
	code(c, effectCodes, &a.Effect)
	c.String(&a.Error)
	c.String(&a.ID)
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
func recordReceived(b []byte) time.Time { return receivedAt(b[atReceived:]) }

func appendEpisode(b []byte, ep *Episode) []byte {
	c := wire.Coder{B: b}
	codeEpisode(&c, ep)
	return c.B
}

// readEpisode reads the episode of key.
func readEpisode(key string, b []byte) (*Episode, error) {
	c, ep := wire.Reader(b), &Episode{Key: key}
	codeEpisode(&c, ep)
	if err := c.End("episode " + key); err != nil {
		return nil, err
	}
	return ep, nil
}

func codeEpisode(c *wire.Coder, ep *Episode) {
	codeLayout(c)
	named := ep.ID != event.EpisodeID(ep.StartsAt, ep.Count)
	c.Flags(&ep.Open, &ep.Adopted, &named, &ep.Shared, &ep.ByName)
	c.String(&ep.Source)
	c.String(&ep.Alertname)
	wire.Number(c, &ep.Count)
	if named {
		c.String(&ep.ID)
	}
	for _, at := range []*time.Time{&ep.StartsAt, &ep.NamedAt, &ep.FiringAt, &ep.RecoveredAt} {
		c.Time(at)
	}
	if c.Reading && !named {
		ep.ID = event.EpisodeID(ep.StartsAt, ep.Count)
	}
	c.Times(&ep.Seen)
	wire.Len(c, &ep.Past)
	for i := range ep.Past {
		c.Times(&ep.Past[i].Starts)
		c.Time(&ep.Past[i].Ended)
	}
	c.Position(&ep.Firing)
	c.Position(&ep.Recovery)
	c.String(&ep.Shown)
	c.String(&ep.Suffix)
	c.String(&ep.To)
}

// isOpen reports whether an encoded episode may be open, without decoding the rest.
func isOpen(b []byte) bool { return len(b) < 2 || b[0] != layout || b[1]&1 != 0 }

// inStorm marks what waits for the end of a storm. Lower numbers meant something else once.
const inStorm = 3

// mayBeInStorm reports whether an encoded queue entry may wait for the end of a storm,
// without decoding the rest.
func mayBeInStorm(b []byte) bool { return len(b) < 2 || b[0] != layout || b[1] == inStorm }

func appendWaiting(b []byte, w *Waiting) []byte {
	c := wire.Coder{B: b}
	codeWaiting(&c, w)
	return c.B
}

func readWaiting(at event.Position, b []byte) (w Waiting, err error) {
	c := wire.Reader(b)
	w.At = at
	codeWaiting(&c, &w)
	return w, c.End("queue entry")
}

func codeWaiting(c *wire.Coder, w *Waiting) {
	codeLayout(c)
	var storm byte
	if w.Storm {
		storm = inStorm
	}
	c.Byte(&storm)
	code(c, statusCodes, &w.Status)
	elsewhere := w.Pos != w.At
	if c.Flags(&elsewhere); elsewhere {
		c.Position(&w.Pos)
	}
	c.Key(&w.Key, &w.Source)
	c.String(&w.Alertname)
	c.Time(&w.ReceivedAt)
	c.Time(&w.QueuedAt)
	c.Time(&w.ClaimedAt)
	if c.More(!w.NotBefore.IsZero() || w.Size > 0) {
		c.Time(&w.NotBefore)
	}
	if c.More(w.Size > 0) {
		wire.Number(c, &w.Size)
	}
	if w.Storm = storm == inStorm; !elsewhere {
		w.Pos = w.At
	}
}
