package store

import (
	"encoding/json"
	"fmt"
	"time"

	"pmm-callgoose/store/event"
	"pmm-callgoose/store/wire"
)

// Told is a note that people were told of an open episode by another way than
// Callgoose. It is written before they are told, so that nobody is told twice.
type Told struct {
	Key     string    `json:"-"`       // incident key
	Episode string    `json:"episode"` // its ID
	At      time.Time `json:"at"`
	Name    string    `json:"name"` // what the alert was called
}

// bucketTold holds them by incident key.
var bucketTold = []byte("told")

// Told reads the note of an incident key, nil when there is none.
func (t *Tx) Told(key string) (*Told, error) {
	v := t.tx.Bucket(bucketTold).Get([]byte(key))
	if v == nil {
		return nil, nil
	}
	return decodeTold([]byte(key), v)
}

// EachTold calls fn with every note until it returns false. None may be written meanwhile.
func (t *Tx) EachTold(fn func(*Told) bool) error {
	c := t.tx.Bucket(bucketTold).Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		note, err := decodeTold(k, v)
		if err != nil {
			return err
		}
		if !fn(note) {
			return nil
		}
	}
	return nil
}

// PutTold writes the note, in place of an older one of its incident key.
func (t *Tx) PutTold(note *Told) error {
	v, err := json.Marshal(note)
	if err != nil {
		return err
	}
	return t.tx.Bucket(bucketTold).Put([]byte(note.Key), wire.Seal([]byte(note.Key), v))
}

// DropTold forgets the note of an incident key.
func (t *Tx) DropTold(key string) error { return t.tx.Bucket(bucketTold).Delete([]byte(key)) }

func decodeTold(k, v []byte) (*Told, error) {
	v, err := wire.Unseal(k, v)
	if err != nil {
		return nil, err
	}
	note := &Told{Key: string(k)}
	if err := json.Unmarshal(v, note); err != nil {
		return nil, fmt.Errorf("decode the note of %s: %w", k, event.ErrDamaged)
	}
	return note, nil
}
