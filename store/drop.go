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
func (t *Tx) DropDays(before time.Time) {
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
		dropped = t.dropDay(d, open) || dropped
	}
	if dropped {
		t.dropKeys(before)
	}
}

// DropSources forgets the PMM servers that were not heard of since the time given, and of
// which nothing is open or queued.
func (t *Tx) DropSources(before time.Time) {
	silent := t.Heard()
	maps.DeleteFunc(silent, func(_ string, heard time.Time) bool { return !heard.Before(before) })
	if len(silent) == 0 {
		return
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
		t.delete(bucketStorms, []byte(source))
	}
}

// dropDay removes a day's records but for those in keep. A day with an event
// that is still queued stays whole. It reports whether it removed some.
func (t *Tx) dropDay(d string, keep map[event.Position]bool) bool {
	type entry struct{ key, value []byte }
	var kept []entry
	records, bucket := 0, recordsBucket(d)
	for k, v := range t.from(bucket, nil) {
		outcome, err := outcomeOf(v)
		if t.Fail(err); err != nil || outcome == event.Queued {
			return false
		}
		if records++; keep[positionOf(k)] {
			kept = append(kept, entry{bytes.Clone(k), bytes.Clone(v)})
		}
	}
	if records == len(kept) {
		return false
	}
	t.dropBucket(bucket)
	for _, e := range kept {
		t.makeBucket(bucket)
		t.put(bucket, e.key, e.value)
	}
	return true
}

// dropKeys forgets the labels, and the closed episodes, of keys that have neither a
// record nor an open episode: nothing is left that they could be told from. An
// adopted key never has a record; it goes by its own time, as the first of an alert
// name does.
func (t *Tx) dropKeys(before time.Time) {
	used := map[string]bool{}
	for _, d := range recordDays(t.tx) {
		for r := range each(t, recordsBucket(d), nil, recordAt) {
			used[r.Key] = true
		}
	}
	for ep := range t.OpenEpisodes("", "") {
		used[ep.Key] = true
	}
	t.dropWhere(bucketLabels, func(k, _ []byte) bool { return !used[string(k)] })
	t.dropWhere(bucketEpisodes, func(k, v []byte) bool {
		if used[string(k)] {
			return false
		}
		ep, err := readEpisode(string(k), v)
		t.Fail(err)
		return err == nil && !(ep.Adopted && ep.FiringAt.After(before))
	})
	t.names = nil // made again without them
	t.dropWhere(bucketFirsts, func(_, v []byte) bool {
		first, err := readFirst(v)
		t.Fail(err)
		return first.ReceivedAt.Before(before)
	})
}

// dropWhere deletes what is chosen. bbolt allows no deletion while a cursor walks.
func (t *Tx) dropWhere(bucket []byte, chosen func(k, v []byte) bool) {
	var gone [][]byte
	for k, v := range t.from(bucket, nil) {
		if chosen(k, v) {
			gone = append(gone, k)
		}
	}
	for _, k := range gone {
		t.delete(bucket, k)
	}
}
