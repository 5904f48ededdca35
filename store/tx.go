package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"pmm-callgoose/store/event"
)

// tx is one transaction; see event.Tx for what is promised.
type tx struct {
	tx      *bbolt.Tx
	state   state
	dirty   bool
	bad     error                  // damage found where no error can be returned
	minutes map[int64]event.Minute // what happened, by minute since 1970
	open    openEpisodes           // nil = not known, or only read
	opens   func(openEpisodes)     // keeps what was made; nil for those who only read
	pages   *mapped                // nil = nobody looks
}

func (t *tx) Progress() event.Progress { return t.state.Progress }

func (t *tx) SetProgress(p event.Progress) { t.state.Progress, t.dirty = p, true }

func (t *tx) Circuit() event.Circuit { return t.state.Circuit }

func (t *tx) SetCircuit(c event.Circuit) { t.state.Circuit, t.dirty = c, true }

func (t *tx) Heard() map[string]time.Time { return maps.Clone(t.state.Heard) }

func (t *tx) SetHeard(source string, at time.Time) {
	if heard := t.state.Heard[source]; !at.After(heard) && !heard.After(time.Now()) { // a clock may have been ahead
		return
	}
	if t.state.Heard == nil {
		t.state.Heard = map[string]time.Time{}
	}
	t.state.Heard[source], t.dirty = at, true
}

func (t *tx) Count(name string, n int64) {
	t.state.Counts[name] += n
	t.dirty = true
}

func (t *tx) Counts() map[string]int64 { return maps.Clone(t.state.Counts) }

func (t *tx) Episode(key string) (*event.Episode, error) {
	t.pages.touched()
	b := t.tx.Bucket(bucketEpisodes).Get([]byte(key))
	if b == nil {
		return nil, nil
	}
	return decodeEpisode([]byte(key), b)
}

func decodeEpisode(k, v []byte) (*event.Episode, error) {
	v, err := unseal(k, v)
	if err != nil {
		return nil, err
	}
	return event.DecodeEpisode(string(k), v)
}

func (t *tx) PutEpisode(e *event.Episode) error {
	if t.open != nil {
		t.open.put(e)
	}
	key := []byte(e.Key)
	return t.tx.Bucket(bucketEpisodes).Put(key, seal(key, e.Append(make([]byte, 0, 128))))
}

func (t *tx) OpenEpisodes(source, alertname string) iter.Seq[*event.Episode] {
	return func(yield func(*event.Episode) bool) {
		each := t.eachOpen
		if t.opens != nil && source != "" && alertname != "" {
			each = t.eachKnownOpen
		}
		if err := each(source, alertname, yield); err != nil {
			t.bad = err
		}
	}
}

// eachOpen looks at every episode.
func (t *tx) eachOpen(source, alertname string, yield func(*event.Episode) bool) error {
	c := t.tx.Bucket(bucketEpisodes).Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		t.pages.touched()
		if !event.EpisodeOpen(v) {
			continue
		}
		e, err := decodeEpisode(k, v)
		if err != nil {
			return err
		}
		if e.Open && (source == "" || e.Source == source) && (alertname == "" || e.Alertname == alertname) && !yield(e) {
			return nil
		}
	}
	return nil
}

// eachKnownOpen looks at those of one name only.
func (t *tx) eachKnownOpen(source, alertname string, yield func(*event.Episode) bool) error {
	if t.open == nil {
		open := make(openEpisodes)
		if err := t.eachOpen("", "", func(e *event.Episode) bool { open.put(e); return true }); err != nil {
			return err
		}
		t.open = open
		t.opens(open)
	}
	for _, key := range slices.Sorted(maps.Keys(t.open[openName{source, alertname}])) {
		e, err := t.Episode(key)
		if err != nil {
			return err
		}
		if e != nil && e.Open && e.Source == source && e.Alertname == alertname && !yield(e) { // its name may have changed
			return nil
		}
	}
	return nil
}

// openEpisodes are the keys of the open episodes by name: a view of the bucket
// for those who write, made when one of them asks for the first time.
type openEpisodes map[openName]map[string]struct{}

type openName struct{ source, alertname string }

func (o openEpisodes) put(e *event.Episode) {
	name := openName{e.Source, e.Alertname}
	switch {
	case !e.Open:
		delete(o[name], e.Key)
	case o[name] == nil:
		o[name] = map[string]struct{}{e.Key: {}}
	default:
		o[name][e.Key] = struct{}{}
	}
}

// Labels reads the labels that stand under an incident key.
func (t *tx) Labels(key string) (map[string]string, error) {
	sealed := t.tx.Bucket(bucketLabels).Get([]byte(key))
	if sealed == nil {
		return nil, nil
	}
	b, err := unseal([]byte(key), sealed)
	if err != nil {
		return nil, err
	}
	return event.DecodeLabels(b)
}

// PutLabels puts labels under a key where there are none. It reports whether
// these stand there now: an alert has the same ones as long as it lives.
func (t *tx) PutLabels(key string, labels map[string]string) (bool, error) {
	k, b := []byte(key), t.tx.Bucket(bucketLabels)
	want := seal(k, event.AppendLabels(make([]byte, 0, 512), labels))
	if have := b.Get(k); have != nil {
		return bytes.Equal(have, want), nil
	}
	return true, b.Put(k, want)
}

// share reports whether the labels of r stand under its key, and need not be in
// the record.
func (t *tx) share(r *event.Record) (bool, error) {
	if r.Brief || len(r.Labels) == 0 || r.Key == "" || r.Alertname != r.Labels["alertname"] {
		return r.Brief, nil
	}
	return t.PutLabels(r.Key, r.Labels)
}

// dropKeys forgets the labels, and the closed episodes, of keys that have neither a
// record nor an open episode: nothing is left that they could be told from. An
// adopted key never has a record; it goes by its own time.
func (t *tx) dropKeys(before time.Time) error {
	used := map[string]bool{}
	for _, d := range recordDays(t.tx) {
		c := t.tx.Bucket(recordsBucket(d)).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			r, err := decodeRecord(k, v)
			if err != nil {
				return err
			}
			used[r.Key] = true
		}
	}
	for ep := range t.OpenEpisodes("", "") {
		used[ep.Key] = true
	}
	unused := func(k, _ []byte) (bool, error) { return !used[string(k)], nil }
	if err := dropWhere(t.tx.Bucket(bucketLabels), unused); err != nil {
		return err
	}
	if err := dropWhere(t.tx.Bucket(bucketEpisodes), func(k, v []byte) (bool, error) {
		if used[string(k)] {
			return false, nil
		}
		ep, err := decodeEpisode(k, v)
		return err == nil && !(ep.Adopted && ep.FiringAt.After(before)), err
	}); err != nil {
		return err
	}
	return t.bad
}

// dropWhere deletes what is chosen. bbolt allows no deletion while a cursor walks.
func dropWhere(b *bbolt.Bucket, chosen func(k, v []byte) (bool, error)) error {
	var gone [][]byte
	c := b.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		switch yes, err := chosen(k, v); {
		case err != nil:
			return err
		case yes:
			gone = append(gone, k)
		}
	}
	for _, k := range gone {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

func day(at time.Time) string { return at.UTC().Format(time.DateOnly) }

func recordsBucket(d string) []byte { return []byte("records-" + d) }

func (t *tx) Record(at time.Time, pos event.Position) (*event.Record, error) {
	r, err := t.Brief(at, pos)
	if err != nil || r == nil {
		return nil, err
	}
	return r, t.fill(r)
}

func (t *tx) Brief(at time.Time, pos event.Position) (*event.Record, error) {
	days := []string{day(at)}
	if at.IsZero() {
		days = recordDays(t.tx)
	}
	key := pos.Bytes()
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
func (t *tx) fill(r *event.Record) error {
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
	v, err := unseal(k, v)
	if err != nil {
		return nil, err
	}
	return event.DecodeRecord(event.PositionFrom(k), v)
}

func (t *tx) PutRecord(r *event.Record) error {
	t.pages.touched()
	records, err := t.tx.CreateBucketIfNotExists(recordsBucket(day(r.ReceivedAt)))
	if err != nil {
		return err
	}
	records.FillPercent = 0.9 // they come in the order of their keys
	key := r.Pos.Bytes()
	if old := records.Get(key); old != nil {
		if old, err = unseal(key, old); err != nil {
			return err
		}
		was, err := event.RecordOutcome(old)
		if err != nil {
			return fmt.Errorf("record %x: %w", key, err)
		}
		if was != r.Outcome {
			t.Count(string(was), -1)
			t.Count(string(r.Outcome), 1)
			t.tally(was, r)
		}
	} else {
		t.Count(string(r.Outcome), 1)
		t.tally("", r)
	}
	shared, err := t.share(r)
	if err != nil {
		return err
	}
	return records.Put(key, seal(key, r.Append(make([]byte, 0, 256), shared)))
}

func (t *tx) DropDays(before time.Time) (dropped []string, err error) {
	var open map[event.Position]bool // records of open episodes stay
	for _, d := range recordDays(t.tx) {
		if d >= day(before) {
			break
		}
		if open == nil {
			open = map[event.Position]bool{}
			for ep := range t.OpenEpisodes("", "") {
				open[ep.Firing] = true
			}
		}
		if gone, err := t.dropDay(d, open); err != nil {
			return dropped, err
		} else if gone {
			dropped = append(dropped, d)
		}
	}
	if len(dropped) > 0 {
		return dropped, t.dropKeys(before)
	}
	return dropped, nil
}

// dropDay removes a day's records but for those in keep. A day with an event
// that is still queued stays whole.
func (t *tx) dropDay(d string, keep map[event.Position]bool) (bool, error) {
	var kept []*event.Record
	queued, records := false, 0
	if _, err := t.eachOfDay(d, &event.Filter{OldestFirst: true}, func(r *event.Record) bool {
		records++
		if keep[r.Pos] {
			kept = append(kept, r)
		}
		queued = r.Outcome == event.Queued
		return !queued
	}); err != nil || queued || records == len(kept) {
		return false, err
	}
	if err := t.tx.DeleteBucket(recordsBucket(d)); err != nil {
		return false, err
	}
	tallied := t.minutes
	t.minutes = nil
	for _, r := range kept {
		t.Count(string(r.Outcome), -1) // PutRecord takes it for a new one
		if err := t.PutRecord(r); err != nil {
			return false, err
		}
	}
	t.minutes = tallied
	return true, nil
}

func (t *tx) DropRecord(r *event.Record) error {
	records := t.tx.Bucket(recordsBucket(day(r.ReceivedAt)))
	if records == nil || records.Get(r.Pos.Bytes()) == nil {
		return nil
	}
	t.Count(string(r.Outcome), -1)
	return records.Delete(r.Pos.Bytes())
}

func (t *tx) Floor() uint64 { return t.state.Floor }

// marks is how many messages of the events stream share one key of the settled
// bucket: a bit each.
const marks = 512

func marksKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq/marks) }

func (t *tx) Settled() iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		c := t.tx.Bucket(bucketSettled).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			bits, err := unseal(k, v)
			if err != nil {
				t.bad = err
				return
			}
			for n := range uint64(len(bits)) * 8 {
				seq := binary.BigEndian.Uint64(k)*marks + n
				if seq > t.state.Floor && bits[n/8]&(1<<(n%8)) != 0 && !yield(seq) {
					return
				}
			}
		}
	}
}

// marksOf reads the marks of the messages beside seq, nil when there are none.
func (t *tx) marksOf(seq uint64) (key, bits []byte, err error) {
	key = marksKey(seq)
	if sealed := t.tx.Bucket(bucketSettled).Get(key); sealed != nil {
		bits, err = unseal(key, sealed)
	}
	return key, bits, err
}

func (t *tx) IsSettled(seq uint64) (bool, error) {
	if seq <= t.state.Floor {
		return true, nil
	}
	_, bits, err := t.marksOf(seq)
	at := seq % marks / 8
	return at < uint64(len(bits)) && bits[at]&(1<<(seq%8)) != 0, err
}

func (t *tx) Settle(seq uint64) error {
	if seq <= t.state.Floor {
		return nil
	}
	key, bits, err := t.marksOf(seq)
	if err != nil {
		return err
	}
	value := make([]byte, marks/8, marks/8+4)
	copy(value, bits)
	value[seq%marks/8] |= 1 << (seq % 8)
	return t.tx.Bucket(bucketSettled).Put(key, seal(key, value))
}

func (t *tx) SetFloor(seq uint64) error {
	if seq <= t.state.Floor {
		return nil
	}
	t.state.Floor, t.dirty = seq, true
	c := t.tx.Bucket(bucketSettled).Cursor()
	for k, _ := c.First(); k != nil && binary.BigEndian.Uint64(k) < (seq+1)/marks; k, _ = c.First() {
		if err := c.Delete(); err != nil {
			return err
		}
	}
	return nil
}
