package store

import (
	"bytes"
	"maps"
	"time"

	"pmm-callgoose/store/event"
)

// DropDays removes the records of whole days that end before the time given,
// but for days with an event that is still queued, and the records of open
// episodes.
func (t *Tx) DropDays(before time.Time) error {
	dropped := false
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
		gone, err := t.dropDay(d, open)
		if err != nil {
			return err
		}
		dropped = dropped || gone
	}
	if dropped {
		return t.dropKeys(before)
	}
	return nil
}

// DropSources forgets the PMM servers that were not heard of since the time given, and of
// which nothing is open or queued.
func (t *Tx) DropSources(before time.Time) error {
	silent := t.Heard()
	maps.DeleteFunc(silent, func(_ string, heard time.Time) bool { return !heard.Before(before) })
	if len(silent) == 0 {
		return nil
	}
	for ep := range t.OpenEpisodes("", "") {
		delete(silent, ep.Source)
	}
	for w := range t.Waiting(event.Position{}) {
		delete(silent, w.Source)
	}
	for source := range silent {
		delete(t.state.Heard, source)
		t.dirty = true
		if err := t.delete(bucketStorms, []byte(source)); err != nil {
			return err
		}
	}
	return t.bad
}

// dropDay removes a day's records but for those in keep. A day with an event
// that is still queued stays whole.
func (t *Tx) dropDay(d string, keep map[event.Position]bool) (bool, error) {
	type entry struct{ key, value []byte }
	var kept []entry
	records, bucket := 0, recordsBucket(d)
	for k, v := range t.from(bucket, nil) {
		outcome, err := outcomeOf(v)
		if err != nil || outcome == event.Queued {
			return false, err
		}
		if records++; keep[positionOf(k)] {
			kept = append(kept, entry{bytes.Clone(k), bytes.Clone(v)})
		}
	}
	if t.bad != nil || records == len(kept) {
		return false, t.bad
	}
	if err := t.dropBucket(bucket); err != nil || len(kept) == 0 {
		return err == nil, err
	}
	_, err := t.makeBucket(bucket)
	for i := 0; i < len(kept) && err == nil; i++ {
		err = t.put(bucket, kept[i].key, kept[i].value)
	}
	return err == nil, err
}

// dropKeys forgets the labels, and the closed episodes, of keys that have neither a
// record nor an open episode: nothing is left that they could be told from. An
// adopted key never has a record; it goes by its own time, as the first of an alert
// name does.
func (t *Tx) dropKeys(before time.Time) error {
	used := map[string]bool{}
	for _, d := range recordDays(t.tx) {
		for k, v := range t.from(recordsBucket(d), nil) {
			r, err := readRecord(positionOf(k), v)
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
	if err := t.dropWhere(bucketLabels, unused); err != nil {
		return err
	}
	if err := t.dropWhere(bucketEpisodes, func(k, v []byte) (bool, error) {
		if used[string(k)] {
			return false, nil
		}
		ep, err := readEpisode(string(k), v)
		return err == nil && !(ep.Adopted && ep.FiringAt.After(before)), err
	}); err != nil {
		return err
	}
	t.names = nil // made again without them
	return t.dropWhere(bucketFirsts, func(_, v []byte) (bool, error) {
		first, err := readFirst(v)
		return err == nil && first.ReceivedAt.Before(before), err
	})
}

// dropWhere deletes what is chosen. bbolt allows no deletion while a cursor walks.
func (t *Tx) dropWhere(bucket []byte, chosen func(k, v []byte) (bool, error)) error {
	var gone [][]byte
	for k, v := range t.from(bucket, nil) {
		switch yes, err := chosen(k, v); {
		case err != nil:
			return err
		case yes:
			gone = append(gone, k)
		}
	}
	for _, k := range gone {
		if err := t.delete(bucket, k); err != nil {
			return err
		}
	}
	return t.bad
}
