package store

import (
	"bytes"
	"slices"
	"strings"

	"go.etcd.io/bbolt"

	"pmm-callgoose/store/event"
)

// Each calls fn with every record chosen, newest first unless asked otherwise,
// until fn returns false.
func (s *Store) Each(f event.Filter, fn func(*event.Record) bool) error {
	return s.notice(s.db.View(func(btx *bbolt.Tx) error { return (&tx{tx: btx}).Each(f, fn) }))
}

func (t *tx) Each(f event.Filter, fn func(*event.Record) bool) error {
	days := recordDays(t.tx)
	if !f.OldestFirst {
		slices.Reverse(days)
	}
	for _, d := range days {
		if !f.Since.IsZero() && d < day(f.Since) || !f.Until.IsZero() && d > day(f.Until) {
			continue
		}
		more, err := eachOfDay(t.tx.Bucket(recordsBucket(d)), &f, fn)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

func eachOfDay(b *bbolt.Bucket, f *event.Filter, fn func(*event.Record) bool) (more bool, err error) {
	c := b.Cursor()
	first, next := c.Last, c.Prev
	if f.OldestFirst {
		first, next = c.First, c.Next
	}
	if f.OldestFirst && f.After != (event.Position{}) {
		first = func() ([]byte, []byte) { return c.Seek(f.After.Bytes()) }
	}
	for k, v := first(); k != nil; k, v = next() {
		r, err := decodeRecord(k, v)
		if err != nil {
			return false, err
		}
		if f.Match(r) && !fn(r) {
			return false, nil
		}
	}
	return true, nil
}

// recordDays lists the days with records, oldest first: bbolt sorts its names.
func recordDays(btx *bbolt.Tx) (days []string) {
	prefix := recordsBucket("")
	c := btx.Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		days = append(days, strings.TrimPrefix(string(k), string(prefix)))
	}
	return days
}

// Find reads the record with this id. ErrNotFound when there is none.
func (s *Store) Find(id string) (r *event.Record, err error) {
	err = s.db.View(func(btx *bbolt.Tx) error {
		r, err = (&tx{tx: btx}).Find(id)
		return err
	})
	if err == nil && r == nil {
		err = ErrNotFound
	}
	return r, s.notice(err)
}
