package store

import (
	"bytes"
	"slices"
	"strings"

	"go.etcd.io/bbolt"

	"pmm-callgoose/store/event"
)

// Each calls fn with every record chosen, newest first unless asked otherwise,
// until fn returns false. Their labels are not the caller's.
func (s *Store) Each(f event.Filter, fn func(*event.Record) bool) error {
	return s.View(func(t *Tx) error { return t.Each(f, fn) })
}

// Each calls fn with every record chosen, newest first unless asked otherwise,
// until fn returns false. Their labels are not the caller's.
func (t *Tx) Each(f event.Filter, fn func(*event.Record) bool) error {
	days := recordDays(t.tx)
	if !f.OldestFirst {
		slices.Reverse(days)
	}
	for _, d := range days {
		if !f.Since.IsZero() && d < day(f.Since) || !f.Until.IsZero() && d > day(f.Until) {
			continue
		}
		if _, listed := f.DayBefore(d); !listed {
			continue
		}
		more, err := t.eachOfDay(d, &f, fn)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

func (t *Tx) eachOfDay(d string, f *event.Filter, fn func(*event.Record) bool) (more bool, err error) {
	c := t.tx.Bucket(recordsBucket(d)).Cursor()
	first, next := c.Last, c.Prev
	if f.OldestFirst {
		first, next = c.First, c.Next
	}
	if f.OldestFirst && f.After != (event.Position{}) {
		first = func() ([]byte, []byte) { return c.Seek(placeKey(f.After)) }
	}
	if before, _ := f.DayBefore(d); !f.OldestFirst && before != (event.Position{}) {
		first = func() ([]byte, []byte) {
			if k, _ := c.Seek(placeKey(before)); k == nil {
				return c.Last()
			}
			return c.Prev()
		}
	}
	possible := newSieve(f)
	labels := map[string]map[string]string{} // those read last
	for k, v := first(); k != nil; k, v = next() {
		if !possible.lets(v) {
			continue
		}
		r, err := decodeRecord(k, v)
		if err != nil {
			return false, err
		}
		if r.Brief {
			known, ok := labels[r.Key]
			if !ok {
				if known, err = t.Labels(r.Key); err != nil {
					return false, err
				}
				if len(labels) >= 1000 {
					clear(labels)
				}
				labels[r.Key] = known
			}
			give(r, known)
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

// Find reads the record with this id. ErrNotFound when there is none. It looks
// at every record: an index would cost each event a page of its own.
func (s *Store) Find(id string) (r *event.Record, err error) {
	err = s.Each(event.Filter{IDs: []string{id}}, func(found *event.Record) bool {
		r = found
		return false
	})
	if err == nil && r == nil {
		err = ErrNotFound
	}
	return r, err
}
