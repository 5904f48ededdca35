package store

import (
	"time"

	"pmm-callgoose/store/event"
)

// mostOutages bounds how many are kept, the newest, of those that history covers.
const mostOutages = 200

// keyOutages is the key of meta that holds them.
var keyOutages = []byte("outages")

// NoteOutage writes down that nobody is called from now on, and why; an empty state says
// that it is over. It changes nothing where that is known.
func (t *Tx) NoteOutage(state string, now time.Time) {
	list := t.outages()
	if n := len(list); n > 0 && list[n-1].Until.IsZero() {
		if list[n-1].State == state {
			return
		}
		list[n-1].Until = now.UTC()
	} else if state == "" {
		return
	}
	if state != "" {
		list = append(list, event.Outage{From: now.UTC(), State: state})
	}
	list = list[max(0, len(list)-mostOutages):]
	for len(list) > 0 && !list[0].Until.IsZero() && now.Sub(list[0].Until) > keepHistory {
		list = list[1:]
	}
	t.putJSON(bucketMeta, keyOutages, list)
}

func (t *Tx) outages() []event.Outage {
	return read(t, bucketMeta, keyOutages, readJSON[[]event.Outage])
}

// Outages lists when nobody was called, the oldest first. It reaches back as far as History.
func (s *Store) Outages() (list []event.Outage, err error) {
	err = s.View(func(t *Tx) { list = t.outages() })
	return list, err
}
