package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"pmm-callgoose/store/event"
	"pmm-callgoose/store/wire"
)

// The promise that Served counts against.
const (
	// ServedWithin is how soon after its receipt Callgoose should take a firing event.
	ServedWithin = time.Minute
	// ServedDays is how many days are counted, today included.
	ServedDays = 30
	// servedLive leaves out imports: they were received somewhere else, long ago.
	servedLive = time.Hour
)

// Served counts firing events by how soon Callgoose took them.
type Served struct{ Events, InTime int64 }

// servedPrefix begins the keys of meta that hold Served by day of receipt.
var servedPrefix = []byte("served-")

func servedKey(at time.Time) []byte { return append(bytes.Clone(servedPrefix), day(at)...) }

// serve counts a record that changed from old ("" = it is new) to r.
func (t *Tx) serve(old event.Outcome, r *event.Record) {
	if r.Status != event.Firing || !r.IsEvent() {
		return
	}
	var n Served
	switch {
	case old == "" && r.Outcome == event.Queued && r.Reason != event.ReasonStorm && time.Since(r.ReceivedAt) < servedLive: // a storm's are late as was asked for
		n.Events = 1
	case r.Outcome == event.Delivered && timesTaken(r) == 1 && r.SettledAt.Sub(r.ReceivedAt) <= ServedWithin:
		n.InTime = 1
	default:
		return
	}
	if t.served == nil {
		t.served = map[string]Served{}
	}
	key := string(servedKey(r.ReceivedAt))
	sum := t.served[key]
	t.served[key] = Served{sum.Events + n.Events, sum.InTime + n.InTime}
}

// timesTaken is how often Callgoose took an event: a replay is no second success.
func timesTaken(r *event.Record) (n int) {
	for _, a := range r.Attempts {
		if a.Result == string(event.Delivered) {
			n++
		}
	}
	return n
}

// saveServed adds what the transaction counted to what is stored.
func (t *Tx) saveServed() error {
	b := t.tx.Bucket(bucketMeta)
	for name, n := range t.served {
		key := []byte(name)
		v := b.Get(key)
		if v == nil { // a new day: time to forget old ones
			oldest, c := servedKey(time.Now().AddDate(0, 0, 1-ServedDays)), b.Cursor()
			for k, _ := c.Seek(servedPrefix); k != nil && bytes.HasPrefix(k, servedPrefix) && bytes.Compare(k, oldest) < 0; k, _ = c.Seek(servedPrefix) {
				if err := t.delete(bucketMeta, k); err != nil {
					return err
				}
			}
		}
		sum, err := readServed(key, v)
		if err != nil {
			sum = Served{} // a number to look at is no reason to stop
		}
		v = binary.AppendVarint(binary.AppendVarint(nil, sum.Events+n.Events), sum.InTime+n.InTime)
		if err := t.put(bucketMeta, key, wire.Seal(key, v)); err != nil {
			return err
		}
	}
	return nil
}

func readServed(key, v []byte) (n Served, err error) {
	if v == nil {
		return n, nil
	}
	if v, err = wire.Unseal(key, v); err != nil {
		return n, err
	}
	events, used := binary.Varint(v)
	inTime, more := binary.Varint(v[max(used, 0):])
	if used <= 0 || more <= 0 {
		return n, fmt.Errorf("decode %s: %w", key, event.ErrDamaged)
	}
	return Served{events, min(inTime, events)}, nil
}

// Served sums the last ServedDays days, and of them today and yesterday. An event that
// still waits counts as one that was not taken in time.
func (s *Store) Served() (sum, recent Served, err error) {
	err = s.View(func(t *Tx) error {
		now := time.Now()
		c, yesterday := t.tx.Bucket(bucketMeta).Cursor(), servedKey(now.AddDate(0, 0, -1))
		for k, v := c.Seek(servedKey(now.AddDate(0, 0, 1-ServedDays))); k != nil && bytes.HasPrefix(k, servedPrefix); k, v = c.Next() {
			n, err := readServed(k, v)
			if err != nil {
				return err
			}
			sum.Events, sum.InTime = sum.Events+n.Events, sum.InTime+n.InTime
			if bytes.Compare(k, yesterday) >= 0 {
				recent.Events, recent.InTime = recent.Events+n.Events, recent.InTime+n.InTime
			}
		}
		return nil
	})
	return sum, recent, err
}
