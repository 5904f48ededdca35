package store

import (
	"bytes"
	"crypto/sha256"
	"iter"
	"slices"
	"time"

	"pmm-callgoose/store/event"
	"pmm-callgoose/store/wire"
)

// ReasonStorm is the reason of a firing event that waits for the end of a storm of
// alerts, and of what recovered while it did.
const ReasonStorm = "storm"

// Storm is what is known of the new episodes of one PMM server, for --storm.
type Storm struct {
	Source string
	Since  time.Time // when the storm began; zero = there is none
	Total  int64     // new episodes in it, with those that began it
	Key    string    // of the incident that says so, the latest
	// Times are when the newest episodes were received, Errors those of alerts that
	// say that their data source failed.
	Times, Errors []time.Time
	// Release is up to where what waits for the end of a storm is to be released;
	// zero = nothing is.
	Release event.Position
}

// On reports whether there is a storm.
func (s *Storm) On() bool { return !s.Since.IsZero() }

// First is the latest event of an alert name that did not wait for the end of a storm.
type First struct {
	Pos        event.Position // with ReceivedAt: finds its record
	ReceivedAt time.Time
}

// bucketStorms holds storms by source, bucketFirsts the names by source and hash: a
// name may be longer than a key.
var (
	bucketStorms = []byte("storms")
	bucketFirsts = []byte("firsts")
)

// Storm reads what is known of a source, nil when nothing is.
func (t *Tx) Storm(source string) *Storm {
	return read(t, bucketStorms, []byte(source), func(b []byte) (*Storm, error) { return readStorm([]byte(source), b) })
}

// InStorm counts the events of a source that are queued to wait for the end of a storm.
func (t *Tx) InStorm(source string) int64 { return t.Counted(stormCount + source) }

// stormCount begins the names of those counters.
const stormCount = "storm:"

// countStorm keeps count of a place in the queue, which is taken (n = 1) or left (-1).
func (t *Tx) countStorm(w *Waiting, n int64) {
	if w.Storm {
		t.Count(stormCount+w.Source, n)
	}
}

// uncountStorm takes what is queued at a place out of the count. Each event passes here,
// and few wait for a storm: only those are decoded.
func (t *Tx) uncountStorm(at event.Position, key []byte) {
	if b := t.get(bucketQueue, key); b != nil && mayBeInStorm(b) {
		old, err := readWaiting(at, b)
		t.Fail(err)
		t.countStorm(&old, -1)
	}
}

// Storms reads what is known of all sources.
func (t *Tx) Storms() []*Storm { return slices.Collect(each(t, bucketStorms, nil, readStorm)) }

// PutStorm writes it.
func (t *Tx) PutStorm(s *Storm) {
	var c wire.Coder
	codeStorm(&c, s)
	t.put(bucketStorms, []byte(s.Source), c.B)
}

func readStorm(source, b []byte) (*Storm, error) {
	c, s := wire.Reader(b), &Storm{Source: string(source)}
	codeStorm(&c, s)
	return s, c.End("storm of " + s.Source)
}

func codeStorm(c *wire.Coder, s *Storm) {
	codeLayout(c)
	c.Time(&s.Since)
	wire.Signed(c, &s.Total)
	c.String(&s.Key)
	c.Times(&s.Times)
	c.Times(&s.Errors)
	c.Position(&s.Release)
}

func firstKey(source, alertname string) []byte {
	sum := sha256.Sum256([]byte(alertname))
	return append([]byte(source+"\x00"), sum[:]...)
}

// First reads the first event of a name, nil when there is none.
func (t *Tx) First(source, alertname string) *First {
	return read(t, bucketFirsts, firstKey(source, alertname), readFirst)
}

// Firsts yields those of all names of a source.
func (t *Tx) Firsts(source string) iter.Seq[*First] {
	prefix := []byte(source + "\x00")
	return func(yield func(*First) bool) {
		for k, b := range t.from(bucketFirsts, prefix) {
			first, err := readFirst(b)
			if t.Fail(err); err != nil || !bytes.HasPrefix(k, prefix) || !yield(first) {
				return
			}
		}
	}
}

// PutFirst writes it, in place of an older one of that name.
func (t *Tx) PutFirst(source, alertname string, f *First) {
	var c wire.Coder
	codeFirst(&c, f)
	t.put(bucketFirsts, firstKey(source, alertname), c.B)
}

func readFirst(b []byte) (*First, error) {
	c, f := wire.Reader(b), &First{}
	codeFirst(&c, f)
	return f, c.End("first of a name")
}

func codeFirst(c *wire.Coder, f *First) {
	codeLayout(c)
	c.Position(&f.Pos)
	c.Time(&f.ReceivedAt)
}

// DropFirsts forgets all names of a source.
func (t *Tx) DropFirsts(source string) {
	prefix := []byte(source + "\x00")
	t.dropWhere(bucketFirsts, func(k, _ []byte) bool { return bytes.HasPrefix(k, prefix) })
}
