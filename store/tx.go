package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"pmm-callgoose/store/event"
	"pmm-callgoose/store/wire"
)

// Tx is one transaction on the ledger. It is good until its function returns,
// and for one goroutine. Nothing of it is durable before the transaction's
// caller is told that it was committed.
//
// The first error of a read or a write fails the transaction, and its caller gets that:
// nothing is committed. Reads find nothing, or less, where they failed; a function that
// acts on what it read does so after it was told that the transaction did not fail.
type Tx struct {
	tx      *bbolt.Tx
	write   bool
	state   Summary
	read    bool // state was read
	dirty   bool
	err     error // the first that failed it
	sums    map[sumKey][]int64
	names   names  // nil = not made yet
	scratch []byte // for what is only compared
	ops     *ops   // what is written, of a shared ledger
}

// Fail makes the transaction fail with err, unless it is nil or one failed it before.
func (t *Tx) Fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

// Err is what failed the transaction, nil when nothing has.
func (t *Tx) Err() error { return t.err }

// get reads what stands under a key, nil when nothing does.
func (t *Tx) get(bucket, key []byte) []byte {
	b := t.tx.Bucket(bucket)
	if b == nil {
		return nil
	}
	sealed := b.Get(key)
	if sealed == nil {
		return nil
	}
	v, err := wire.Unseal(key, sealed)
	t.Fail(err)
	return v
}

// read decodes what stands under a key, and is the zero T where nothing does.
func read[T any](t *Tx, bucket, key []byte, decode func(b []byte) (T, error)) (v T) {
	if b := t.get(bucket, key); b != nil {
		decoded, err := decode(b)
		if t.Fail(err); err == nil {
			return decoded
		}
	}
	return v
}

// from yields what a bucket holds from a key on, in order. Nothing may be written to it
// meanwhile. What cannot be read ends it.
func (t *Tx) from(bucket, key []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		c := t.tx.Bucket(bucket).Cursor()
		for k, sealed := c.Seek(key); k != nil; k, sealed = c.Next() {
			v, err := wire.Unseal(k, sealed)
			if t.Fail(err); err != nil || !yield(k, v) {
				return
			}
		}
	}
}

// each is from, decoded.
func each[T any](t *Tx, bucket, key []byte, decode func(k, b []byte) (T, error)) iter.Seq[T] {
	return func(yield func(T) bool) {
		for k, b := range t.from(bucket, key) {
			v, err := decode(k, b)
			if t.Fail(err); err != nil || !yield(v) {
				return
			}
		}
	}
}

// readJSON decodes what putJSON wrote.
func readJSON[T any](b []byte) (v T, err error) {
	if json.Unmarshal(b, &v) != nil {
		err = fmt.Errorf("decode %T: %w", v, event.ErrDamaged)
	}
	return v, err
}

// putJSON writes v as JSON.
func (t *Tx) putJSON(bucket, key []byte, v any) {
	b, err := json.Marshal(v)
	t.Fail(err)
	t.put(bucket, key, b)
}

// small is the small state, which a reader decodes when it is asked for.
func (t *Tx) small() *Summary {
	if !t.write && !t.read {
		t.read, t.state = true, read(t, bucketMeta, keyState, readJSON[Summary])
	}
	return &t.state
}

// Progress is the last place in NOTIFICATIONS that is decided on.
func (t *Tx) Progress() event.Position { return t.small().Progress }

// SetProgress moves it.
func (t *Tx) SetProgress(p event.Position) { t.state.Progress, t.dirty = p, true }

// Rebuild is the mark up to which a lost ledger's events were settled, and the
// sequence up to which notifications are split a second time; nil when nothing
// is being rebuilt.
func (t *Tx) Rebuild() *Rebuild { return t.small().Rebuild }

// SetRebuild begins a rebuild, and ends it with nil.
func (t *Tx) SetRebuild(r *Rebuild) { t.state.Rebuild, t.dirty = r, true }

// Pause is what holds delivery by hand, nil when nothing does.
func (t *Tx) Pause() *Pause { return t.small().Pause }

// SetPause holds delivery, and resumes it with nil.
func (t *Tx) SetPause(p *Pause) { t.state.Pause, t.dirty = p, true }

// Form reads the settings with a number that FormOf gave. Empty when there are none.
func (t *Tx) Form(n uint32) string {
	forms := t.small().Forms
	if n == 0 || int(n) > len(forms) {
		return ""
	}
	return forms[n-1]
}

// FormOf is the number of these settings, the same for the same ones.
func (t *Tx) FormOf(settings string) uint32 {
	for i, have := range t.state.Forms {
		if have == settings {
			return uint32(i + 1)
		}
	}
	t.state.Forms, t.dirty = append(slices.Clip(t.state.Forms), settings), true
	return uint32(len(t.state.Forms))
}

// Heard is when a notification of each PMM server last came in, by source. The
// map is the caller's.
func (t *Tx) Heard() map[string]time.Time { return maps.Clone(t.small().Heard) }

// SetHeard keeps the newest time; one from a clock that was ahead gives way.
func (t *Tx) SetHeard(source string, at time.Time) {
	if heard := t.state.Heard[source]; !at.After(heard) && !heard.After(time.Now()) {
		return
	}
	t.state.Heard[source], t.dirty = at, true
}

// Count adds n to a named counter that survives restarts.
func (t *Tx) Count(name string, n int64) {
	t.state.Counts[name] += n
	t.dirty = true
}

// Counted is one of them.
func (t *Tx) Counted(name string) int64 { return t.small().Counts[name] }

// Episode is the state of an incident key, nil when it was never seen.
func (t *Tx) Episode(key string) *Episode {
	return read(t, bucketEpisodes, []byte(key), func(b []byte) (*Episode, error) { return readEpisode(key, b) })
}

// PutEpisode writes it.
func (t *Tx) PutEpisode(e *Episode) {
	if t.names != nil {
		t.names.put(e)
	}
	t.put(bucketEpisodes, []byte(e.Key), appendEpisode(make([]byte, 0, 192), e))
}

// Labels are those that stand under an incident key: of the first record that
// was written for it. nil when there are none. They are not the caller's.
func (t *Tx) Labels(key string) map[string]string {
	return read(t, bucketLabels, []byte(key), func(b []byte) (map[string]string, error) {
		var m map[string]string
		c := wire.Reader(b)
		c.Map(&m)
		return m, c.End("labels")
	})
}

// share reports whether the labels of r stand under its key, and need not be in the
// record: an alert has the same ones as long as it lives. Where there are none, it puts
// them there.
func (t *Tx) share(r *event.Record) bool {
	if r.Brief || len(r.Labels) == 0 || r.Key == "" || r.Alertname != r.Labels["alertname"] {
		return r.Brief
	}
	key := []byte(r.Key)
	c := wire.Coder{B: t.scratch[:0]}
	c.Map(&r.Labels)
	t.scratch = c.B
	if have := t.get(bucketLabels, key); have != nil {
		return bytes.Equal(have, t.scratch)
	}
	t.put(bucketLabels, key, t.scratch)
	t.scratch = nil // bbolt keeps it until the commit
	return true
}

// Waiting yields the events queued behind a place, in order. It must not be
// changed meanwhile.
func (t *Tx) Waiting(after event.Position) iter.Seq[Waiting] {
	behind := append(placeKey(after), 0) // the first key that is greater
	return each(t, bucketQueue, behind, func(k, b []byte) (Waiting, error) { return readWaiting(positionOf(k), b) })
}

// Places yields the places of the queued events, in order. It reads nothing else of them.
func (t *Tx) Places() iter.Seq[event.Position] {
	return func(yield func(event.Position) bool) {
		c := t.tx.Bucket(bucketQueue).Cursor()
		for k, _ := c.First(); k != nil; k, _ = c.Next() {
			if !yield(positionOf(k)) {
				return
			}
		}
	}
}

// WaitingAt reads the event queued at a place, false when it is settled.
func (t *Tx) WaitingAt(at event.Position) (w Waiting, ok bool) {
	w = read(t, bucketQueue, placeKey(at), func(b []byte) (Waiting, error) { return readWaiting(at, b) })
	return w, !w.At.IsZero()
}

// PutWaiting queues an event, or changes it there.
func (t *Tx) PutWaiting(w *Waiting) {
	key := placeKey(w.At)
	t.uncountStorm(w.At, key)
	t.countStorm(w, 1)
	t.tx.Bucket(bucketQueue).FillPercent = 0.9 // they come in the order of their keys
	t.put(bucketQueue, key, appendWaiting(make([]byte, 0, 128), w))
}

// DropWaiting takes an event out of the queue. Its record says what became of it.
func (t *Tx) DropWaiting(at event.Position) {
	key := placeKey(at)
	t.uncountStorm(at, key)
	t.delete(bucketQueue, key)
}

func day(at time.Time) string { return at.UTC().Format(time.DateOnly) }

func recordsBucket(d string) []byte { return []byte("records-" + d) }

// Record reads the record that came in at pos, at receivedAt; nil when it is
// gone (or was never written). A zero receivedAt means that the day is not known.
func (t *Tx) Record(receivedAt time.Time, pos event.Position) *event.Record {
	r := t.Brief(receivedAt, pos)
	if r != nil && r.Brief {
		give(r, t.Labels(r.Key))
	}
	return r
}

// Brief leaves out labels and alert name, which makes it cheaper; a brief record
// can be put back.
func (t *Tx) Brief(receivedAt time.Time, pos event.Position) (r *event.Record) {
	days := []string{day(receivedAt)}
	if receivedAt.IsZero() {
		days = recordDays(t.tx)
	}
	for i := len(days) - 1; i >= 0 && r == nil; i-- {
		r = read(t, recordsBucket(days[i]), placeKey(pos), func(b []byte) (*event.Record, error) { return readRecord(pos, b) })
	}
	return r
}

// give makes a brief record whole with the labels that stand under its key.
func give(r *event.Record, labels map[string]string) {
	r.Brief, r.Labels, r.Alertname = false, labels, labels["alertname"]
}

// PutRecord writes r and keeps the counts by outcome.
func (t *Tx) PutRecord(r *event.Record) {
	bucket, key := recordsBucket(day(r.ReceivedAt)), placeKey(r.Pos)
	t.makeBucket(bucket)
	t.tx.Bucket(bucket).FillPercent = 0.9 // they come in the order of their keys
	was := read(t, bucket, key, outcomeOf)
	if was != r.Outcome {
		if was != "" {
			t.Count(string(was), -1)
		}
		t.Count(string(r.Outcome), 1)
		t.tally(was, r)
		t.serve(was, r)
	}
	t.put(bucket, key, appendRecord(make([]byte, 0, 256), r, t.share(r)))
}

// DropRecord forgets one record.
func (t *Tx) DropRecord(r *event.Record) {
	bucket, key := recordsBucket(day(r.ReceivedAt)), placeKey(r.Pos)
	if t.get(bucket, key) != nil {
		t.Count(string(r.Outcome), -1)
		t.delete(bucket, key)
	}
}
