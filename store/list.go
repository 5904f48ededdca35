package store

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"

	"go.etcd.io/bbolt"

	"pmm-callgoose/store/event"
)

// Each calls fn with every record chosen, newest first unless asked otherwise,
// until fn returns false.
func (s *Store) Each(f event.Filter, fn func(*event.Record) bool) error {
	return s.notice(s.db.View(func(btx *bbolt.Tx) error { return (&tx{tx: btx}).Each(f, fn) }))
}

func (t *tx) Each(f event.Filter, fn func(*event.Record) bool) error {
	if len(f.IDs) > 0 {
		return t.eachByID(f, fn)
	}
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

// eachByID looks the ids up instead of reading every record.
func (t *tx) eachByID(f event.Filter, fn func(*event.Record) bool) error {
	var list []*event.Record
	for _, d := range recordDays(t.tx) {
		index, records := t.tx.Bucket(indexBucket(d)), t.tx.Bucket(recordsBucket(d))
		for _, id := range f.IDs {
			sealed := index.Get([]byte(id))
			if sealed == nil {
				continue
			}
			key, err := unseal([]byte(id), sealed)
			if err != nil {
				return err
			}
			r, err := decodeRecord(key, records.Get(key))
			if err != nil {
				return err
			}
			if r != nil && f.Match(r) && !slices.ContainsFunc(list, func(o *event.Record) bool { return o.Pos == r.Pos }) {
				list = append(list, r)
			}
		}
	}
	slices.SortFunc(list, func(a, b *event.Record) int {
		c := cmp.Or(cmp.Compare(day(a.ReceivedAt), day(b.ReceivedAt)), a.Pos.Compare(b.Pos))
		if !f.OldestFirst {
			c = -c
		}
		return c
	})
	for _, r := range list {
		if !fn(r) {
			break
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
	if !f.OldestFirst && f.Before != (event.Position{}) {
		first = func() ([]byte, []byte) {
			if k, _ := c.Seek(f.Before.Bytes()); k == nil {
				return c.Last()
			}
			return c.Prev()
		}
	}
	possible := sieve(f)
	for k, v := first(); k != nil; k, v = next() {
		if !possible(v) {
			continue
		}
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

// sieve tells, without decoding it, which stored record Match cannot choose: a
// filter that chooses little would otherwise decode everything. It may let
// through too much, never too little. It relies on how encoding/json writes a
// member, and that a quote inside a string is always written with a backslash:
// what looks like a member is one, of the record or of its labels.
func sieve(f *event.Filter) func(v []byte) bool {
	var all [][]byte // every one of them is in the record
	member := func(name, value string) {
		if plain(name) && plain(value) {
			all = append(all, []byte(quoted(name)+":"+quoted(value)))
		}
	}
	if f.Status != "" {
		member("status", string(f.Status))
	}
	if f.Incident != "" {
		member("incident_key", f.Incident)
	}
	for k, v := range f.Labels {
		member(k, v)
	}
	var outcomes [][]byte // one of them is
	for _, o := range f.Outcomes {
		outcomes = append(outcomes, []byte(quoted("outcome")+":"+quoted(string(o))))
	}
	var text []byte
	if plain(f.Text) {
		q := quoted(f.Text)
		text = []byte(strings.ToLower(q[1 : len(q)-1]))
	}
	var folded []byte // used again for each record
	since, until := "", "~"
	if !f.Since.IsZero() {
		since = f.Since.UTC().Format(seconds)
	}
	if !f.Until.IsZero() {
		until = f.Until.UTC().Format(seconds)
	}
	in := func(v []byte) func([]byte) bool {
		return func(part []byte) bool { return bytes.Contains(v, part) }
	}
	return func(v []byte) bool {
		for _, part := range all {
			if !bytes.Contains(v, part) {
				return false
			}
		}
		if len(outcomes) > 0 && !slices.ContainsFunc(outcomes, in(v)) {
			return false
		}
		if len(text) > 0 {
			if folded = appendLower(folded[:0], v); !bytes.Contains(folded, text) {
				return false
			}
		}
		if !f.Since.IsZero() || !f.Until.IsZero() {
			at := receivedAt(v)
			return at == "" || at >= since && at <= until
		}
		return true
	}
}

// appendLower appends v in lower case: bytes.ToLower, but without an allocation
// for what is ASCII.
func appendLower(to, v []byte) []byte {
	for i, c := range v {
		switch {
		case c >= utf8.RuneSelf:
			return append(to[:len(to)-i], bytes.ToLower(v)...)
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		}
		to = append(to, c)
	}
	return to
}

// seconds is how a time in UTC begins when it is written to JSON.
const seconds = "2006-01-02T15:04:05"

// receivedAt finds the time of receipt, to the second; "" when it is not
// written in UTC. No label comes behind it, so it is the last that looks so.
func receivedAt(v []byte) string {
	mark := []byte(`"received_at":"`)
	i := bytes.LastIndex(v, mark)
	if i < 0 {
		return ""
	}
	at, _, _ := bytes.Cut(v[i+len(mark):], []byte{'"'})
	if len(at) <= len(seconds) || at[len(at)-1] != 'Z' {
		return ""
	}
	return string(at[:len(seconds)])
}

// plain tells that s is written in one way only: the replacement character
// stands for itself, and for bytes that are no text.
func plain(s string) bool { return !strings.ContainsRune(s, utf8.RuneError) }

// quoted is s as encoding/json writes it.
func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string can always be written
	}
	return string(b)
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
