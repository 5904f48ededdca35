package store

import (
	"bytes"
	"encoding/json"
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
type Tx struct {
	tx      *bbolt.Tx
	write   bool
	state   Summary
	read    bool // state was read
	dirty   bool
	bad     error // damage found where no error can be returned
	sums    map[sumKey][]int64
	names   *names // nil = not made yet
	scratch []byte // for what is only compared
	ops     *ops   // what is written, of a shared ledger
}

// get reads what stands under a key, nil when nothing does.
func (t *Tx) get(bucket, key []byte) ([]byte, error) {
	b := t.tx.Bucket(bucket)
	if b == nil {
		return nil, nil
	}
	sealed := b.Get(key)
	if sealed == nil {
		return nil, nil
	}
	return wire.Unseal(key, sealed)
}

// from yields what a bucket holds from a key on, in order. Nothing may be written to it
// meanwhile. Damage ends it, and fails the transaction.
func (t *Tx) from(bucket, key []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		c := t.tx.Bucket(bucket).Cursor()
		for k, sealed := c.Seek(key); k != nil; k, sealed = c.Next() {
			v, err := wire.Unseal(k, sealed)
			if err != nil {
				t.fail(err)
				return
			}
			if !yield(k, v) {
				return
			}
		}
	}
}

// fail makes the transaction fail, where no error can be returned.
func (t *Tx) fail(err error) {
	if t.bad == nil {
		t.bad = err
	}
}

// putJSON writes v as JSON.
func (t *Tx) putJSON(bucket, key []byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return t.put(bucket, key, b)
}

// small is the small state, which a reader decodes when it is asked for.
func (t *Tx) small() *Summary {
	if !t.write && !t.read {
		t.read = true
		t.fail(readState(t.tx, &t.state))
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
func (t *Tx) Episode(key string) (*Episode, error) {
	b, err := t.get(bucketEpisodes, []byte(key))
	if b == nil {
		return nil, err
	}
	return readEpisode(key, b)
}

// PutEpisode writes it.
func (t *Tx) PutEpisode(e *Episode) error {
	if t.names != nil {
		t.names.put(e)
	}
	return t.put(bucketEpisodes, []byte(e.Key), appendEpisode(make([]byte, 0, 192), e))
}

// Labels are those that stand under an incident key: of the first record that
// was written for it. nil when there are none. They are not the caller's.
func (t *Tx) Labels(key string) (map[string]string, error) {
	b, err := t.get(bucketLabels, []byte(key))
	if b == nil {
		return nil, err
	}
	r := wire.Reader{Rest: b}
	m := r.Map()
	return m, r.End("labels")
}

// share reports whether the labels of r stand under its key, and need not be in the
// record: an alert has the same ones as long as it lives. Where there are none, it puts
// them there.
func (t *Tx) share(r *event.Record) (bool, error) {
	if r.Brief || len(r.Labels) == 0 || r.Key == "" || r.Alertname != r.Labels["alertname"] {
		return r.Brief, nil
	}
	key := []byte(r.Key)
	t.scratch = wire.AppendMap(t.scratch[:0], r.Labels)
	if have, err := t.get(bucketLabels, key); have != nil || err != nil {
		return bytes.Equal(have, t.scratch), err
	}
	return true, t.put(bucketLabels, key, bytes.Clone(t.scratch)) // which bbolt keeps until the commit
}

// Waiting yields the events queued behind a place, in order. It must not be
// changed meanwhile.
func (t *Tx) Waiting(after event.Position) iter.Seq[Waiting] {
	return func(yield func(Waiting) bool) {
		for k, v := range t.from(bucketQueue, placeKey(after)) {
			at := positionOf(k)
			if at == after {
				continue
			}
			w, err := readWaiting(at, v)
			if err != nil {
				t.fail(err)
				return
			}
			if !yield(w) {
				return
			}
		}
	}
}

// WaitingAt reads the event queued at a place, false when it is settled.
func (t *Tx) WaitingAt(at event.Position) (w Waiting, ok bool, err error) {
	b, err := t.get(bucketQueue, placeKey(at))
	if b == nil {
		return w, false, err
	}
	w, err = readWaiting(at, b)
	return w, err == nil, err
}

// PutWaiting queues an event, or changes it there.
func (t *Tx) PutWaiting(w *Waiting) error {
	key := placeKey(w.At)
	if err := t.uncountStorm(w.At, key); err != nil {
		return err
	}
	t.countStorm(w, 1)
	t.tx.Bucket(bucketQueue).FillPercent = 0.9 // they come in the order of their keys
	return t.put(bucketQueue, key, appendWaiting(make([]byte, 0, 128), w))
}

// DropWaiting takes an event out of the queue. Its record says what became of it.
func (t *Tx) DropWaiting(at event.Position) error {
	key := placeKey(at)
	if err := t.uncountStorm(at, key); err != nil {
		return err
	}
	return t.delete(bucketQueue, key)
}

func day(at time.Time) string { return at.UTC().Format(time.DateOnly) }

func recordsBucket(d string) []byte { return []byte("records-" + d) }

// Record reads the record that came in at pos, at receivedAt; nil when it is
// gone (or was never written). A zero receivedAt means that the day is not known.
func (t *Tx) Record(receivedAt time.Time, pos event.Position) (*event.Record, error) {
	r, err := t.Brief(receivedAt, pos)
	if err != nil || r == nil {
		return nil, err
	}
	return r, t.fill(r)
}

// Brief leaves out labels and alert name, which makes it cheaper; a brief record
// can be put back.
func (t *Tx) Brief(receivedAt time.Time, pos event.Position) (*event.Record, error) {
	days := []string{day(receivedAt)}
	if receivedAt.IsZero() {
		days = recordDays(t.tx)
	}
	for _, d := range slices.Backward(days) {
		switch b, err := t.get(recordsBucket(d), placeKey(pos)); {
		case err != nil:
			return nil, err
		case b != nil:
			return readRecord(pos, b)
		}
	}
	return nil, nil
}

// fill reads what a brief record leaves out.
func (t *Tx) fill(r *event.Record) error {
	if !r.Brief {
		return nil
	}
	labels, err := t.Labels(r.Key)
	give(r, labels)
	return err
}

// give makes a brief record whole with the labels that stand under its key.
func give(r *event.Record, labels map[string]string) {
	r.Brief, r.Labels, r.Alertname = false, labels, labels["alertname"]
}

// PutRecord writes r and keeps the counts by outcome.
func (t *Tx) PutRecord(r *event.Record) error {
	bucket := recordsBucket(day(r.ReceivedAt))
	records, err := t.makeBucket(bucket)
	if err != nil {
		return err
	}
	records.FillPercent = 0.9 // they come in the order of their keys
	key := placeKey(r.Pos)
	var was event.Outcome
	old, err := t.get(bucket, key)
	if old != nil {
		was, err = outcomeOf(old)
	}
	if err != nil {
		return err
	}
	if was != r.Outcome {
		if was != "" {
			t.Count(string(was), -1)
		}
		t.Count(string(r.Outcome), 1)
		t.tally(was, r)
		t.serve(was, r)
	}
	shared, err := t.share(r)
	if err != nil {
		return err
	}
	return t.put(bucket, key, appendRecord(make([]byte, 0, 256), r, shared))
}

// DropRecord forgets one record.
func (t *Tx) DropRecord(r *event.Record) error {
	bucket := recordsBucket(day(r.ReceivedAt))
	records := t.tx.Bucket(bucket)
	if records == nil || records.Get(placeKey(r.Pos)) == nil {
		return nil
	}
	t.Count(string(r.Outcome), -1)
	return t.delete(bucket, placeKey(r.Pos))
}
