package store

import (
	"encoding/json"
	"fmt"
	"time"

	"pmm-callgoose/store/event"
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
	b, err := t.get(bucketTold, []byte(key))
	if b == nil {
		return nil, err
	}
	return readTold(key, b)
}

// EachTold calls fn with every note until it returns false. None may be written meanwhile.
func (t *Tx) EachTold(fn func(*Told) bool) error {
	for k, v := range t.from(bucketTold, nil) {
		note, err := readTold(string(k), v)
		if err != nil || !fn(note) {
			return err
		}
	}
	return nil
}

// PutTold writes the note, in place of an older one of its incident key.
func (t *Tx) PutTold(note *Told) error {
	return t.putJSON(bucketTold, []byte(note.Key), note)
}

// DropTold forgets the note of an incident key.
func (t *Tx) DropTold(key string) error { return t.delete(bucketTold, []byte(key)) }

func readTold(key string, b []byte) (*Told, error) {
	note := &Told{Key: key}
	if err := json.Unmarshal(b, note); err != nil {
		return nil, fmt.Errorf("decode the note of %s: %w", key, event.ErrDamaged)
	}
	return note, nil
}
