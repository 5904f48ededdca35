package store

import (
	"bytes"
	"time"

	"pmm-callgoose/store/event"
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

func oldestServed(now time.Time) []byte { return servedKey(now.AddDate(0, 0, 1-ServedDays)) }

// serve counts a record that changed from old ("" = it is new) to r.
func (t *Tx) serve(old event.Outcome, r *event.Record) {
	if r.Status != event.Firing || !r.IsEvent() {
		return
	}
	events, inTime := int64(0), int64(0)
	switch {
	case old == "" && r.Outcome == event.Queued && r.Reason != ReasonStorm && time.Since(r.ReceivedAt) < servedLive: // a storm's are late as was asked for
		events = 1
	case r.Outcome == event.Delivered && r.TimesTaken() == 1 && r.SettledAt.Sub(r.ReceivedAt) <= ServedWithin:
		inTime = 1
	default:
		return
	}
	t.add(bucketMeta, servedKey(r.ReceivedAt), events, inTime)
}

// Served sums the last ServedDays days, and of them today and yesterday. An event that
// still waits counts as one that was not taken in time.
func (s *Store) Served() (sum, recent Served, err error) {
	err = s.View(func(t *Tx) {
		now := time.Now()
		yesterday := servedKey(now.AddDate(0, 0, -1))
		for k, v := range t.from(bucketMeta, oldestServed(now)) {
			if !bytes.HasPrefix(k, servedPrefix) {
				break
			}
			var n [2]int64
			readSums(v, n[:])
			n[1] = min(n[1], n[0])
			sum.Events, sum.InTime = sum.Events+n[0], sum.InTime+n[1]
			if bytes.Compare(k, yesterday) >= 0 {
				recent.Events, recent.InTime = recent.Events+n[0], recent.InTime+n[1]
			}
		}
	})
	return sum, recent, err
}
