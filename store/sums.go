package store

import (
	"bytes"
	"time"

	"pmm-callgoose/store/wire"
)

// Some values are numbers to which transactions add: what happened in a minute (History),
// and how soon the events of a day were taken (Served). A transaction writes each that it
// touches once, so that they are as exact and as durable as the records.

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
		if at.bucket == string(bucketHistory) {
			first, oldest = nil, minuteKey(now.Add(-keepHistory))
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

// readSums reads numbers, those that do not stand there as zero.
func readSums(b []byte, into []int64) {
	c := wire.Reader(b)
	for i := range into {
		wire.Signed(&c, &into[i])
	}
}
