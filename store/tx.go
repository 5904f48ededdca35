package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
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
}

func (t *tx) Progress() event.Progress { return t.state.Progress }

func (t *tx) SetProgress(p event.Progress) { t.state.Progress, t.dirty = p, true }

func (t *tx) Circuit() event.Circuit { return t.state.Circuit }

func (t *tx) SetCircuit(c event.Circuit) { t.state.Circuit, t.dirty = c, true }

func (t *tx) Heard() map[string]time.Time { return maps.Clone(t.state.Heard) }

func (t *tx) SetHeard(source string, at time.Time) {
	if !at.After(t.state.Heard[source]) {
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
	b := t.tx.Bucket(bucketEpisodes).Get([]byte(key))
	if b == nil {
		return nil, nil
	}
	e := new(event.Episode)
	b, err := unseal([]byte(key), b)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, e); err != nil {
		return nil, fmt.Errorf("episode %s: %w", key, err)
	}
	return e, nil
}

func (t *tx) PutEpisode(e *event.Episode) error {
	old, err := t.Episode(e.Key)
	if err != nil {
		return err
	}
	open := t.tx.Bucket(bucketOpen)
	if old != nil && old.Open && (!e.Open || old.Alertname != e.Alertname) {
		if err := open.Delete(openKey(old)); err != nil {
			return err
		}
	}
	if e.Open {
		if err := open.Put(openKey(e), seal(openKey(e), nil)); err != nil {
			return err
		}
	}
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return t.tx.Bucket(bucketEpisodes).Put([]byte(e.Key), seal([]byte(e.Key), b))
}

func openKey(e *event.Episode) []byte {
	return append(openPrefix(e.Source, e.Alertname), e.Key...)
}

func openPrefix(source, alertname string) []byte {
	return []byte(source + "\x00" + alertname + "\x00")
}

func (t *tx) OpenEpisodes(source, alertname string) iter.Seq[*event.Episode] {
	prefix := openPrefix(source, alertname)
	switch {
	case source == "":
		prefix = nil
	case alertname == "":
		prefix = []byte(source + "\x00")
	}
	return func(yield func(*event.Episode) bool) {
		c := t.tx.Bucket(bucketOpen).Cursor()
		for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
			e, err := t.Episode(string(k[bytes.LastIndexByte(k, 0)+1:]))
			if err != nil {
				t.bad = err
				return
			}
			if e != nil && !yield(e) {
				return
			}
		}
	}
}

func day(at time.Time) string { return at.UTC().Format(time.DateOnly) }

func recordsBucket(d string) []byte { return []byte("records-" + d) }

func indexBucket(d string) []byte { return []byte("index-" + d) }

func (t *tx) Record(at time.Time, pos event.Position) (*event.Record, error) {
	b := t.tx.Bucket(recordsBucket(day(at)))
	if b == nil {
		return nil, nil
	}
	return decodeRecord(pos.Bytes(), b.Get(pos.Bytes()))
}

func decodeRecord(k, v []byte) (*event.Record, error) {
	if v == nil {
		return nil, nil
	}
	r := &event.Record{}
	v, err := unseal(k, v)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(v, r); err != nil {
		return nil, fmt.Errorf("record %x: %w", k, err)
	}
	r.Pos = event.PositionFrom(k)
	return r, nil
}

func (t *tx) PutRecord(r *event.Record) error {
	d := day(r.ReceivedAt)
	records, err := t.tx.CreateBucketIfNotExists(recordsBucket(d))
	if err != nil {
		return err
	}
	key := r.Pos.Bytes()
	if old := records.Get(key); old != nil {
		if old, err = unseal(key, old); err != nil {
			return err
		}
		was, err := outcomeOf(old)
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
		index, err := t.tx.CreateBucketIfNotExists(indexBucket(d))
		if err != nil {
			return err
		}
		if err := index.Put([]byte(r.ID), seal([]byte(r.ID), slices.Clip(key))); err != nil {
			return err
		}
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return records.Put(key, seal(key, b))
}

// outcomeOf reads the outcome of an encoded record without the rest: it is asked
// for with every write. The last member of that name is the record's own: labels
// come before it, what comes after it has fixed names, and quotes inside of a
// text are escaped.
func outcomeOf(record []byte) (event.Outcome, error) {
	const name = `"outcome":"`
	if i := bytes.LastIndex(record, []byte(name)); i >= 0 {
		if value, _, ok := bytes.Cut(record[i+len(name):], []byte{'"'}); ok && slices.Contains(event.Outcomes, event.Outcome(value)) {
			return event.Outcome(value), nil
		}
	}
	var o struct{ Outcome event.Outcome }
	err := json.Unmarshal(record, &o)
	return o.Outcome, err
}

func (t *tx) Find(id string) (*event.Record, error) {
	days := recordDays(t.tx)
	for _, day := range slices.Backward(days) {
		if sealed := t.tx.Bucket(indexBucket(day)).Get([]byte(id)); sealed != nil {
			key, err := unseal([]byte(id), sealed)
			if err != nil {
				return nil, err
			}
			return decodeRecord(key, t.tx.Bucket(recordsBucket(day)).Get(key))
		}
	}
	return nil, nil
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
	return dropped, nil
}

// dropDay removes a day's records but for those in keep. A day with an event
// that is still queued stays whole.
func (t *tx) dropDay(d string, keep map[event.Position]bool) (bool, error) {
	var kept []*event.Record
	queued, records := false, 0
	if _, err := eachOfDay(t.tx.Bucket(recordsBucket(d)), &event.Filter{OldestFirst: true}, func(r *event.Record) bool {
		records++
		if keep[r.Pos] {
			kept = append(kept, r)
		}
		queued = r.Outcome == event.Queued
		return !queued
	}); err != nil || queued || records == len(kept) {
		return false, err
	}
	for _, name := range [][]byte{recordsBucket(d), indexBucket(d)} {
		if err := t.tx.DeleteBucket(name); err != nil {
			return false, err
		}
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
	d := day(r.ReceivedAt)
	records, index := t.tx.Bucket(recordsBucket(d)), t.tx.Bucket(indexBucket(d))
	if records == nil || records.Get(r.Pos.Bytes()) == nil {
		return nil
	}
	t.Count(string(r.Outcome), -1)
	if err := index.Delete([]byte(r.ID)); err != nil {
		return err
	}
	return records.Delete(r.Pos.Bytes())
}

func seqKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

func (t *tx) Floor() uint64 { return t.state.Floor }

func (t *tx) Settled() iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		c := t.tx.Bucket(bucketSettled).Cursor()
		for k, _ := c.First(); k != nil; k, _ = c.Next() {
			if !yield(binary.BigEndian.Uint64(k)) {
				return
			}
		}
	}
}

func (t *tx) Settle(seq uint64) error {
	if seq <= t.state.Floor {
		return nil
	}
	return t.tx.Bucket(bucketSettled).Put(seqKey(seq), seal(seqKey(seq), nil))
}

func (t *tx) SetFloor(seq uint64) error {
	if seq <= t.state.Floor {
		return nil
	}
	t.state.Floor, t.dirty = seq, true
	c := t.tx.Bucket(bucketSettled).Cursor()
	for k, _ := c.First(); k != nil && binary.BigEndian.Uint64(k) <= seq; k, _ = c.First() {
		if err := c.Delete(); err != nil {
			return err
		}
	}
	return nil
}
