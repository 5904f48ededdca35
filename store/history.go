package store

import (
	"encoding/binary"
	"time"

	"pmm-callgoose/store/event"
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
	t.add(bucketHistory, minuteKey(at), m.In, m.Out, m.Dead, m.Suppressed, m.Discarded)
}

// minuteKey is the key of a minute: its number since 1970.
func minuteKey(at time.Time) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(max(at.Unix(), 0)/60))
}

// History lists the minutes since then in which something happened, oldest
// first. It reaches back eight days.
func (s *Store) History(since time.Time) (list []event.Minute, err error) {
	err = s.View(func(t *Tx) {
		for k, v := range t.from(bucketHistory, minuteKey(since)) {
			var n [5]int64
			readSums(v, n[:])
			at := time.Unix(int64(binary.BigEndian.Uint64(k))*60, 0).UTC()
			list = append(list, event.Minute{At: at, In: n[0], Out: n[1], Dead: n[2], Suppressed: n[3], Discarded: n[4]})
		}
	})
	return list, err
}
