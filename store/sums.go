package store

import (
	"bytes"
	"time"

	"pmm-callgoose/store/wire"
)

// Some values are numbers to which transactions add: what happened in a minute (History),
// how soon the events of a day were taken (Served), and what a PMM sent in an hour
// (AlertsOfDay). A transaction writes each that it touches once, so that they are as exact
// and as durable as the records.

// sumKey says where the numbers stand.
type sumKey struct{ bucket, key string }

// add adds to the numbers under a key when the transaction ends.
func (t *Tx) add(bucket, key []byte, numbers ...int64) {
	at := sumKey{string(bucket), string(key)}
	if t.sums == nil {
		t.sums = map[sumKey][]int64{}
	}
	for i, n := range t.sums[at] {
		numbers[i] += n
	}
	t.sums[at] = numbers
}

// saveSums writes what the transaction added up.
func (t *Tx) saveSums() {
	now := time.Now()
	for at, numbers := range t.sums {
		bucket, key := []byte(at.bucket), []byte(at.key)
		first, oldest := servedPrefix, oldestServed(now)
		switch {
		case at.bucket == string(bucketHistory):
			first, oldest = nil, minuteKey(now.Add(-keepHistory))
		case bytes.HasPrefix(key, sentPrefix):
			first, oldest = sentPrefix, sentKey(now.Add(-24*time.Hour))
		}
		if bytes.Compare(key, oldest) < 0 {
			continue // an import, or a rebuild
		}
		stored := t.get(bucket, key)
		if stored == nil { // a new minute, or day: time to forget old ones
			c := t.tx.Bucket(bucket).Cursor()
			for k, _ := c.Seek(first); t.err == nil && k != nil && bytes.Compare(k, oldest) < 0; k, _ = c.Seek(first) {
				t.delete(bucket, k)
			}
		}
		sums := make([]int64, len(numbers))
		readSums(stored, sums)
		var c wire.Coder
		for i, n := range numbers {
			sums[i] += n
			wire.Signed(&c, &sums[i])
		}
		t.put(bucket, key, c.B)
	}
}

// sentPrefix begins the keys of meta that count the alerts of an hour, by PMM server.
var sentPrefix = []byte("sent-")

func sentKey(at time.Time) []byte {
	return at.UTC().AppendFormat(bytes.Clone(sentPrefix), "2006-01-02T15-")
}

// CountSent counts an alert of a PMM server.
func (t *Tx) CountSent(source string, receivedAt time.Time) {
	t.add(bucketMeta, append(sentKey(receivedAt), source...), 1)
}

// AlertsOfDay is how many alerts each PMM server sent in the last 24 hours, up to an hour
// more: they are counted by the hour.
func (t *Tx) AlertsOfDay() map[string]int64 {
	now := time.Now()
	list, first, end := map[string]int64{}, sentKey(now.Add(-24*time.Hour)), sentKey(now.Add(time.Hour))
	for k, v := range t.from(bucketMeta, first) {
		if bytes.Compare(k, end) >= 0 {
			break
		}
		var n [1]int64
		readSums(v, n[:])
		list[string(k[len(first):])] += n[0]
	}
	return list
}

// readSums reads numbers, those that do not stand there as zero.
func readSums(b []byte, into []int64) {
	c := wire.Reader(b)
	for i := range into {
		wire.Signed(&c, &into[i])
	}
}
