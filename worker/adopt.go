package worker

import (
	"maps"
	"math"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
)

// index finds open alerts of one source and name by their labels. It is made when
// a recovery without a fingerprint asks for it, and kept while there is more to
// decide on. It may hold alerts that are closed, or were never committed: whoever
// uses one looks.
type index struct {
	pairs map[pair][]*open
	known map[string]bool // keys in it
}

// indexMost bounds the names that are indexed at a time.
const indexMost = 16

type pair struct{ name, value string }

type open struct {
	key    string
	labels map[string]string
}

// adoptMost bounds the open alerts looked at for one recovery: where its rarest
// label is that of so many, it belongs to none for certain.
const adoptMost = 64

// adopt finds the one open alert of the same source that a recovery can mean to
// which PMM gave no fingerprint, as in the samples of Callgoose's guide. With none
// or several it means none: a wrong close is worse than a stale incident. own is
// the state of the recovery's own key, which remembers what it closed.
func (b *batch) adopt(c *candidate, key string, own *store.Episode) (ep *store.Episode, labels map[string]string, facts event.Facts) {
	some := c.alert.Labels
	if len(some) == 0 {
		return own, some, facts
	}
	found, several := b.openWith(c.note.Source, some)
	if found == nil {
		if own != nil && own.To != "" { // said again after it was adopted
			if ep := b.tx.Episode(own.To); ep != nil && !ep.Open {
				return ep, some, facts
			}
		}
		b.tell(func() {
			b.log.Warn("a recovery without a fingerprint closes no open alert", "fit", map[bool]string{true: "several", false: "none"}[several],
				"alertname", some["alertname"], "notification_id", c.pos.NotificationID())
		})
		return own, some, facts
	}
	if ep = b.tx.Episode(found.key); ep == nil {
		return own, some, facts
	}
	b.tx.PutEpisode(&store.Episode{
		Key: key, Source: c.note.Source, Alertname: some["alertname"], Adopted: true, To: ep.Key, FiringAt: c.note.ReceivedAt,
	})
	facts.Adopted, facts.Annotations = true, maps.Clone(c.alert.Annotations)
	fired, err := b.notes.at(b.ctx, ep.Firing)
	if err == nil && fired.Err == nil {
		if a := fired.alert(ep.Firing.Item); a != nil {
			facts.Annotations = union(a.Annotations, c.alert.Annotations)
		}
	}
	facts.Annotations = noted(facts.Annotations)
	return ep, union(found.labels, some), facts
}

// listed finds the open episode of a firing without a fingerprint, where that has exactly
// its labels under another key: one opened from PMM's list, whose fingerprint covers
// labels that no webhook has.
func (b *batch) listed(c *candidate) *store.Episode {
	found, _ := b.openWith(c.note.Source, c.alert.Labels)
	if found == nil || len(found.labels) != len(c.alert.Labels) {
		return nil
	}
	return b.tx.Episode(found.key)
}

// openWith is the one open alert whose labels contain some; nil when there are
// none or several.
func (b *batch) openWith(source string, some map[string]string) (found *open, several bool) {
	ix := b.indexOf(source, some["alertname"])
	var rarest pair
	least := math.MaxInt
	for k, v := range some {
		if n := len(ix.pairs[pair{k, v}]); n < least {
			rarest, least = pair{k, v}, n
		}
	}
	list := ix.pairs[rarest]
	still := list[:0]
	for i, o := range list {
		if !isOpen(b.tx.Episode(o.key)) { // closed meanwhile
			delete(ix.known, o.key)
			continue
		}
		still = append(still, o)
		if includes(o.labels, some) {
			several = found != nil && found.key != o.key
			found = o
		}
		if several || len(still) > adoptMost {
			still = append(still, list[i+1:]...)
			break
		}
	}
	ix.pairs[rarest] = still
	if several = several || len(still) > adoptMost; several {
		found = nil
	}
	return found, several
}

func (b *batch) indexOf(source, alertname string) *index {
	name := source + "\x00" + alertname
	ix := b.opened[name]
	if ix == nil {
		ix = &index{pairs: map[pair][]*open{}, known: map[string]bool{}}
		if len(b.opened) >= indexMost {
			clear(b.opened)
		}
		b.opened[name] = ix
		for ep := range b.tx.OpenEpisodes(source, alertname) {
			ix.put(ep.Key, b.openLabels(ep))
		}
	}
	return ix
}

// opens puts an episode that begins into the index of its name, where there is one.
func (b *batch) opens(ep *store.Episode, labels map[string]string) {
	if ix := b.opened[ep.Source+"\x00"+ep.Alertname]; ix != nil {
		ix.put(ep.Key, labels)
	}
}

func (ix *index) put(key string, labels map[string]string) {
	if ix.known[key] {
		return
	}
	ix.known[key] = true
	o := &open{key, labels}
	for k, v := range labels {
		ix.pairs[pair{k, v}] = append(ix.pairs[pair{k, v}], o)
	}
}

// openLabels are the labels of an open episode.
func (b *batch) openLabels(ep *store.Episode) map[string]string {
	if r := b.tx.Record(ep.FiringAt, ep.Firing); r != nil {
		return r.Labels
	}
	return b.tx.Labels(ep.Key) // its day is over
}

func includes(all, some map[string]string) bool {
	for k, v := range some {
		if got, ok := all[k]; !ok || got != v {
			return false
		}
	}
	return true
}

func union(under, over map[string]string) map[string]string {
	out := maps.Clone(under)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, over)
	return out
}
