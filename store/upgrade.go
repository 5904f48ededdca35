package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"slices"

	"go.etcd.io/bbolt"

	"pmm-callgoose/store/event"
)

// oldest is the oldest format that upgrade knows.
const oldest = 2

// upgrade makes a ledger of format 2 one of today's, in the transaction that
// opens it: if we die before its end, it is still one of format 2. Records stay
// as they are; event.DecodeRecord knows both.
func upgrade(tx *bbolt.Tx) error {
	t := &tx2{tx}
	if err := t.episodes(); err != nil {
		return err
	}
	if err := t.settled(); err != nil {
		return err
	}
	var gone [][]byte
	if err := tx.ForEach(func(name []byte, _ *bbolt.Bucket) error {
		if bytes.HasPrefix(name, []byte("index-")) || bytes.Equal(name, bucketOpen) {
			gone = append(gone, slices.Clone(name))
		}
		return nil
	}); err != nil {
		return err
	}
	for _, name := range gone {
		if err := tx.DeleteBucket(name); err != nil {
			return err
		}
	}
	return tx.Bucket(bucketMeta).Put(keyFormat, binary.AppendUvarint(nil, format))
}

// tx2 reads what format 2 wrote.
type tx2 struct{ *bbolt.Tx }

// replace reads every value of a bucket and puts what fn makes of it.
func (t tx2) replace(name []byte, fn func(k, v []byte) error) error {
	var keys, values [][]byte
	if err := t.Bucket(name).ForEach(func(k, v []byte) error {
		v, err := unseal(k, v)
		keys, values = append(keys, slices.Clone(k)), append(values, slices.Clone(v))
		return err
	}); err != nil {
		return err
	}
	for i := range keys {
		if err := fn(keys[i], values[i]); err != nil {
			return err
		}
	}
	return nil
}

func (t tx2) episodes() error {
	w := &tx{tx: t.Tx}
	return t.replace(bucketEpisodes, func(k, v []byte) error {
		e, err := event.DecodeEpisode(string(k), v)
		if err != nil {
			return err
		}
		var has struct{ Labels map[string]string }
		if err := json.Unmarshal(v, &has); err != nil {
			return err
		}
		if len(has.Labels) > 0 {
			if _, err := w.PutLabels(e.Key, has.Labels); err != nil {
				return err
			}
		}
		return w.PutEpisode(e)
	})
}

// settled: format 2 had a key for each message.
func (t tx2) settled() error {
	w := &tx{tx: t.Tx}
	b := t.Bucket(bucketSettled)
	var seqs []uint64
	if err := t.replace(bucketSettled, func(k, _ []byte) error {
		seqs = append(seqs, binary.BigEndian.Uint64(k))
		return b.Delete(k)
	}); err != nil {
		return err
	}
	for _, seq := range seqs {
		if err := w.Settle(seq); err != nil {
			return err
		}
	}
	return nil
}
