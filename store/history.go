package store

import (
	"encoding/binary"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"pmm-callgoose/store/event"
	"pmm-callgoose/store/wire"
)

// keepHistory is how long the counts by minute are kept.
const keepHistory = 8 * 24 * time.Hour

// tally counts a record that changed from old ("" = it is new) to r, in the
// minute in which that happened.
func (t *Tx) tally(old event.Outcome, r *event.Record) {
	at, m := r.SettledAt, event.Minute{}
	switch r.Outcome {
	case event.Queued:
		m.In = 1
		if at = r.ReceivedAt; old != "" {
			at = time.Now()
		}
	case event.Suppressed:
		m.Suppressed = 1
	case event.Unknown: // settled once before
		return
	case event.Dead:
		if m.Dead = 1; old == "" {
			m.In = 1
		}
	case event.Discarded:
		m.Discarded = 1
	default:
		m.Out = 1
	}
	if t.minutes == nil {
		t.minutes = map[int64]event.Minute{}
	}
	minute := at.Unix() / 60
	sum := t.minutes[minute]
	sum.Add(m)
	t.minutes[minute] = sum
}

// saveHistory adds what the transaction tallied to what is stored: one small
// write for each minute touched, so one for a commit as a rule. It is as exact
// and as durable as the records themselves.
func (t *Tx) saveHistory() error {
	if len(t.minutes) == 0 {
		return nil
	}
	b := t.tx.Bucket(bucketHistory)
	oldest := time.Now().Add(-keepHistory).Unix() / 60
	for minute, m := range t.minutes {
		if minute < oldest {
			continue // an import, or a rebuild
		}
		key := minuteKey(minute)
		stored := b.Get(key)
		if stored == nil { // a new minute: time to forget old ones
			c := b.Cursor()
			for k, _ := c.First(); k != nil && int64(binary.BigEndian.Uint64(k)) < oldest; k, _ = c.First() {
				if err := t.delete(bucketHistory, k); err != nil {
					return err
				}
			}
		}
		sum, err := decodeMinute(key, stored)
		if err != nil {
			sum = event.Minute{} // a picture is no reason to stop
		}
		sum.Add(m)
		if err := t.put(bucketHistory, key, wire.Seal(key, encodeMinute(sum))); err != nil {
			return err
		}
	}
	return nil
}

func minuteKey(minute int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(minute)) }

func encodeMinute(m event.Minute) (b []byte) {
	for _, n := range []int64{m.In, m.Out, m.Dead, m.Suppressed, m.Discarded} {
		b = binary.AppendVarint(b, n)
	}
	return b
}

// decodeMinute reads what is stored, and takes nil for a minute in which nothing happened. Further
// numbers, of a newer program, are left alone.
func decodeMinute(key, b []byte) (m event.Minute, err error) {
	m.At = time.Unix(int64(binary.BigEndian.Uint64(key))*60, 0).UTC()
	if b == nil {
		return m, nil
	}
	if b, err = wire.Unseal(key, b); err != nil {
		return m, err
	}
	for _, into := range []*int64{&m.In, &m.Out, &m.Dead, &m.Suppressed, &m.Discarded} {
		n, used := binary.Varint(b)
		if used <= 0 {
			return m, fmt.Errorf("history of %s: %w", m.At.Format(time.RFC3339), event.ErrDamaged)
		}
		*into, b = n, b[used:]
	}
	return m, nil
}

// History lists the minutes since then in which something happened, oldest
// first. It reaches back eight days.
func (s *Store) History(since time.Time) (list []event.Minute, err error) {
	err = s.db.View(func(btx *bbolt.Tx) error {
		c := btx.Bucket(bucketHistory).Cursor()
		for k, v := c.Seek(minuteKey(since.Unix() / 60)); k != nil; k, v = c.Next() {
			if m, err := decodeMinute(k, v); err == nil {
				list = append(list, m)
			}
		}
		return nil
	})
	return list, err
}
