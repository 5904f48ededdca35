package store

import (
	"encoding/binary"
	"slices"
	"time"
)

// Act is what an operator did, as it is told in the story of an incident.
type Act struct {
	At     time.Time `json:"at"`
	By     string    `json:"by"`   // socket, token, session, and from which address
	What   string    `json:"what"` // replay, drop, park, close, pause, resume
	Keys   []string  `json:"incident_keys,omitempty"`
	Count  int       `json:"count,omitempty"` // of events
	Reason string    `json:"reason,omitempty"`
}

const (
	// keepActs bounds how many acts are kept: the newest.
	keepActs = 1000
	// MaxActKeys bounds the incidents that one act names.
	MaxActKeys = 200
)

// AddAct keeps an act, and forgets the oldest ones beyond the bound.
func (t *Tx) AddAct(a Act) {
	b := t.tx.Bucket(bucketActs)
	a.Keys = slices.Clip(a.Keys[:min(len(a.Keys), MaxActKeys)])
	n := uint64(1)
	if newest, _ := b.Cursor().Last(); newest != nil {
		n += binary.BigEndian.Uint64(newest)
	}
	key := binary.BigEndian.AppendUint64(nil, n)
	if n > keepActs {
		t.delete(bucketActs, binary.BigEndian.AppendUint64(nil, n-keepActs))
	}
	t.putJSON(bucketActs, key, a)
}

// Acts lists what operators did to an incident, the oldest first; with an empty
// key everything.
func (t *Tx) Acts(incident string) (list []Act) {
	for a := range each(t, bucketActs, nil, func(_, b []byte) (Act, error) { return readJSON[Act](b) }) {
		if incident == "" || slices.Contains(a.Keys, incident) {
			list = append(list, a)
		}
	}
	return list
}
