package store

import (
	"iter"
	"time"
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
func (t *Tx) Told(key string) *Told {
	return read(t, bucketTold, []byte(key), func(b []byte) (*Told, error) { return readTold([]byte(key), b) })
}

// AllTold yields every note. None may be written meanwhile.
func (t *Tx) AllTold() iter.Seq[*Told] { return each(t, bucketTold, nil, readTold) }

// PutTold writes the note, in place of an older one of its incident key.
func (t *Tx) PutTold(note *Told) { t.putJSON(bucketTold, []byte(note.Key), note) }

// DropTold forgets the note of an incident key.
func (t *Tx) DropTold(key string) { t.delete(bucketTold, []byte(key)) }

func readTold(key, b []byte) (*Told, error) {
	note, err := readJSON[Told](b)
	note.Key = string(key)
	return &note, err
}
