package store

import (
	"bytes"
	"slices"
	"strings"

	"go.etcd.io/bbolt"

	"pmm-callgoose/store/event"
	"pmm-callgoose/store/wire"
)

// Each calls fn with every record chosen, as that of Tx does.
func (s *Store) Each(f event.Filter, fn func(*event.Record) bool) error {
	return s.View(func(t *Tx) error { return t.Each(f, fn) })
}

// Each calls fn with every record chosen, until fn returns false: by day and the
// newest first, or all of them in the order of arrival. Their labels are not the
// caller's.
func (t *Tx) Each(f event.Filter, fn func(*event.Record) bool) error {
	days := slices.DeleteFunc(recordDays(t.tx), func(d string) bool {
		_, listed := f.DayBefore(d)
		return !listed || !f.Since.IsZero() && d < day(f.Since) || !f.Until.IsZero() && d > day(f.Until)
	})
	if f.OldestFirst {
		_, err := t.inOrder(days, &f, fn)
		return err
	}
	l := t.lister(&f, fn)
	for _, d := range slices.Backward(days) {
		more, err := l.backwards(d)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// inOrder calls fn with the records of these days in the order of arrival. What was
// imported stands under an earlier day than what came in before it, so the days are
// merged: each has a cursor, and the one that is behind moves.
func (t *Tx) inOrder(days []string, f *event.Filter, fn func(*event.Record) bool) (more bool, err error) {
	type place struct {
		cursor *bbolt.Cursor
		k, v   []byte
	}
	var places []place
	for _, d := range days {
		c := t.tx.Bucket(recordsBucket(d)).Cursor()
		if k, v := c.Seek(placeKey(f.After)); k != nil {
			places = append(places, place{c, k, v})
		}
	}
	l := t.lister(f, fn)
	for len(places) > 0 {
		slices.SortFunc(places, func(a, b place) int { return bytes.Compare(a.k, b.k) })
		p := &places[0]
		for p.k != nil && (len(places) == 1 || bytes.Compare(p.k, places[1].k) < 0) {
			if more, err := l.take(p.k, p.v); err != nil || !more {
				return more, err
			}
			p.k, p.v = p.cursor.Next()
		}
		if p.k == nil {
			places = places[1:]
		}
	}
	return true, nil
}

// lister gives the records that a filter chooses to fn.
type lister struct {
	*Tx
	f        *event.Filter
	fn       func(*event.Record) bool
	possible *sieve
	labels   map[string]map[string]string // those read last
}

func (t *Tx) lister(f *event.Filter, fn func(*event.Record) bool) *lister {
	return &lister{t, f, fn, newSieve(f), map[string]map[string]string{}}
}

// backwards lists a day, the newest first.
func (l *lister) backwards(d string) (more bool, err error) {
	c := l.tx.Bucket(recordsBucket(d)).Cursor()
	k, v := []byte(nil), []byte(nil)
	if before, _ := l.f.DayBefore(d); before != (event.Position{}) {
		k, _ = c.Seek(placeKey(before))
	}
	if k == nil {
		k, v = c.Last()
	} else {
		k, v = c.Prev()
	}
	for ; k != nil; k, v = c.Prev() {
		if more, err := l.take(k, v); err != nil || !more {
			return more, err
		}
	}
	return true, nil
}

// take gives an encoded record to fn if it is chosen.
func (l *lister) take(k, v []byte) (more bool, err error) {
	if !l.possible.lets(v) {
		return true, nil
	}
	b, err := wire.Unseal(k, v)
	if err != nil {
		return false, err
	}
	r, err := readRecord(positionOf(k), b)
	if err != nil {
		return false, err
	}
	if r.Brief {
		known, ok := l.labels[r.Key]
		if !ok {
			if known, err = l.Labels(r.Key); err != nil {
				return false, err
			}
			if len(l.labels) >= 1000 {
				clear(l.labels)
			}
			l.labels[r.Key] = known
		}
		give(r, known)
	}
	return !l.f.Match(r) || l.fn(r), nil
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
