package store

import (
	"bytes"
	"encoding/binary"
	"time"
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
			for k, _ := c.Seek(first); k != nil && bytes.Compare(k, oldest) < 0; k, _ = c.Seek(first) {
				t.delete(bucket, k)
			}
		}
		sum := make([]int64, len(numbers))
		readSums(stored, sum)
		var v []byte
		for i, n := range numbers {
			v = binary.AppendVarint(v, sum[i]+n)
		}
		t.put(bucket, key, v)
	}
}

// readSums reads as many numbers as there is room for.
func readSums(b []byte, into []int64) {
	for i := range into {
		n, used := binary.Varint(b)
		if used <= 0 {
			return
		}
		into[i], b = n, b[used:]
	}
}
