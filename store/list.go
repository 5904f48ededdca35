package store

import (
	"bytes"
	"iter"
	"slices"
	"strings"

	"go.etcd.io/bbolt"

	"pmm-callgoose/store/event"
	"pmm-callgoose/store/wire"
)

// Each calls fn with every record chosen, until it returns false, as Records of Tx
// yields them.
func (s *Store) Each(f event.Filter, fn func(*event.Record) bool) error {
	return s.View(func(t *Tx) { t.Records(f)(fn) })
}

// Records yields every record chosen: by day and the newest first, or all of them in the
// order of arrival. Their labels are not the caller's.
func (t *Tx) Records(f event.Filter) iter.Seq[*event.Record] {
	return func(yield func(*event.Record) bool) {
		days := slices.DeleteFunc(recordDays(t.tx), func(d string) bool {
			_, listed := f.DayBefore(d)
			return !listed || !f.Since.IsZero() && d < day(f.Since) || !f.Until.IsZero() && d > day(f.Until)
		})
		l := &lister{t, &f, yield, newSieve(&f), map[string]map[string]string{}}
		if f.OldestFirst {
			l.inOrder(days)
			return
		}
		for _, d := range slices.Backward(days) {
			if !l.backwards(d) {
				return
			}
		}
	}
}

// lister gives the records that a filter chooses to fn.
type lister struct {
	*Tx
	f        *event.Filter
	fn       func(*event.Record) bool
	possible *sieve
	labels   map[string]map[string]string // those read last
}

// inOrder gives the records of these days in the order of arrival. What was imported
// stands under an earlier day than what came in before it, so the days are merged: each
// has a cursor, and the one that is behind moves.
func (l *lister) inOrder(days []string) {
	type place struct {
		cursor *bbolt.Cursor
		k, v   []byte
	}
	var places []place
	for _, d := range days {
		c := l.tx.Bucket(recordsBucket(d)).Cursor()
		if k, v := c.Seek(placeKey(l.f.After)); k != nil {
			places = append(places, place{c, k, v})
		}
	}
	for len(places) > 0 {
		slices.SortFunc(places, func(a, b place) int { return bytes.Compare(a.k, b.k) })
		p := &places[0]
		for p.k != nil && (len(places) == 1 || bytes.Compare(p.k, places[1].k) < 0) {
			if !l.take(p.k, p.v) {
				return
			}
			p.k, p.v = p.cursor.Next()
		}
		if p.k == nil {
			places = places[1:]
		}
	}
}

// backwards lists a day, the newest first. It reports whether fn wants more.
func (l *lister) backwards(d string) (more bool) {
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
		if !l.take(k, v) {
			return false
		}
	}
	return true
}

// take gives an encoded record to fn if it is chosen.
func (l *lister) take(k, v []byte) (more bool) {
	if !l.possible.lets(v) {
		return true
	}
	b, err := wire.Unseal(k, v)
	var r *event.Record
	if err == nil {
		r, err = recordAt(k, b)
	}
	if l.Fail(err); err != nil {
		return false
	}
	if r.Brief {
		known, ok := l.labels[r.Key]
		if !ok {
			known = l.Labels(r.Key)
			if len(l.labels) >= 1000 {
				clear(l.labels)
			}
			l.labels[r.Key] = known
		}
		give(r, known)
	}
	return !l.f.Match(r) || l.fn(r)
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
