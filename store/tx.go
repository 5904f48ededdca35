package store

import (
	"bytes"
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
	state   state
	read    bool // state was read
	dirty   bool
	bad     error                  // damage found where no error can be returned
	minutes map[int64]event.Minute // what happened, by minute since 1970
	served  map[string]Served      // by key
	names   *names                 // nil = not made yet
	scratch []byte                 // for what is only compared
	ops     *ops                   // what is written, of a shared ledger
}

// small is the small state, which a reader decodes when it is asked for.
func (t *Tx) small() *state {
	if !t.write && !t.read {
		t.read = true
		if err := readState(t.tx.Bucket(bucketMeta), &t.state); err != nil {
			t.bad = err
		}
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
	b := t.tx.Bucket(bucketEpisodes).Get([]byte(key))
	if b == nil {
		return nil, nil
	}
	return decodeEpisode([]byte(key), b)
}

func decodeEpisode(k, v []byte) (*Episode, error) {
	v, err := wire.Unseal(k, v)
	if err != nil {
		return nil, err
	}
	return readEpisode(string(k), v)
}

// PutEpisode writes it.
func (t *Tx) PutEpisode(e *Episode) error {
	if t.names != nil {
		t.names.put(e)
	}
	key := []byte(e.Key)
	return t.put(bucketEpisodes, key, wire.Seal(key, appendEpisode(make([]byte, 0, 192), e)))
}

// Labels are those that stand under an incident key: of the first record that
// was written for it. nil when there are none. They are not the caller's.
func (t *Tx) Labels(key string) (map[string]string, error) {
	sealed := t.tx.Bucket(bucketLabels).Get([]byte(key))
	if sealed == nil {
		return nil, nil
	}
	b, err := wire.Unseal([]byte(key), sealed)
	if err != nil {
		return nil, err
	}
	r := wire.Reader{Rest: b}
	m := r.Map()
	return m, r.End("labels")
}

// putLabels puts labels under a key where there are none. It reports whether
// these stand there now: an alert has the same ones as long as it lives.
func (t *Tx) putLabels(key string, labels map[string]string) (bool, error) {
	k, b := []byte(key), t.tx.Bucket(bucketLabels)
	want := wire.Seal(k, wire.AppendMap(t.scratch[:0], labels))
	t.scratch = want
	if have := b.Get(k); have != nil {
		return bytes.Equal(have, want), nil
	}
	return true, t.put(bucketLabels, k, bytes.Clone(want)) // which bbolt keeps until the commit
}

// share reports whether the labels of r stand under its key, and need not be in
// the record.
func (t *Tx) share(r *event.Record) (bool, error) {
	if r.Brief || len(r.Labels) == 0 || r.Key == "" || r.Alertname != r.Labels["alertname"] {
		return r.Brief, nil
	}
	return t.putLabels(r.Key, r.Labels)
}

// Waiting yields the events queued behind a place, in order. It must not be
// changed meanwhile.
func (t *Tx) Waiting(after event.Position) iter.Seq[Waiting] {
	return func(yield func(Waiting) bool) {
		c := t.tx.Bucket(bucketQueue).Cursor()
		key := placeKey(after)
		for k, v := c.Seek(key); k != nil; k, v = c.Next() {
			if bytes.Equal(k, key) {
				continue
			}
			w, err := decodeWaiting(k, v)
			if err != nil {
				t.bad = err
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
	key := placeKey(at)
	v := t.tx.Bucket(bucketQueue).Get(key)
	if v == nil {
		return w, false, nil
	}
	w, err = decodeWaiting(key, v)
	return w, err == nil, err
}

func decodeWaiting(k, v []byte) (Waiting, error) {
	v, err := wire.Unseal(k, v)
	if err != nil {
		return Waiting{}, err
	}
	return readWaiting(positionOf(k), v)
}

// PutWaiting queues an event, or changes it there.
func (t *Tx) PutWaiting(w *Waiting) error {
	t.tx.Bucket(bucketQueue).FillPercent = 0.9 // they come in the order of their keys
	key := placeKey(w.At)
	return t.put(bucketQueue, key, wire.Seal(key, appendWaiting(make([]byte, 0, 128), w)))
}

// DropWaiting takes an event out of the queue. Its record says what became of it.
func (t *Tx) DropWaiting(at event.Position) error { return t.delete(bucketQueue, placeKey(at)) }

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
	key := placeKey(pos)
	for _, d := range slices.Backward(days) {
		if b := t.tx.Bucket(recordsBucket(d)); b != nil {
			if v := b.Get(key); v != nil {
				return decodeRecord(key, v)
			}
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

func decodeRecord(k, v []byte) (*event.Record, error) {
	v, err := wire.Unseal(k, v)
	if err != nil {
		return nil, err
	}
	return readRecord(positionOf(k), v)
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
	if old := records.Get(key); old != nil {
		if was, err = outcomeOf(key, old); err != nil {
			return err
		}
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
	return t.put(bucket, key, wire.Seal(key, appendRecord(make([]byte, 0, 256), r, shared)))
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
