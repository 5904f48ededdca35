package worker

import (
	"maps"
	"math"

	"pmm-callgoose/store/event"
)

// index finds open alerts of one source and name by their labels. It is made once
// for each transaction in which a recovery without a fingerprint asks for it.
type index struct {
	pairs map[pair][]*open
	known map[string]bool // keys in it
}

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
func (b *batch) adopt(c *candidate, key string, own *event.Episode) (ep *event.Episode, labels map[string]string, facts event.Facts, err error) {
	none := func() (*event.Episode, map[string]string, event.Facts, error) { return own, c.alert.Labels, facts, nil }
	some := c.alert.Labels
	if len(some) == 0 {
		return none()
	}
	found, several, err := b.openWith(c.note.Source, some)
	if err != nil {
		return nil, nil, facts, err
	}
	if found == nil {
		if own != nil && own.To != "" { // said again after it was adopted
			ep, err := b.tx.Episode(own.To)
			if err != nil || ep != nil && !ep.Open {
				return ep, some, facts, err
			}
		}
		why := "a recovery belongs to no open alert"
		if several {
			why = "a recovery could belong to several open alerts; none is closed by it"
		}
		b.tell(func() { b.log.Warn(why, "alertname", some["alertname"], "notification_id", c.pos.NotificationID()) })
		return none()
	}
	if ep, err = b.tx.Episode(found.key); err != nil || ep == nil {
		return nil, nil, facts, err
	}
	if err := b.tx.PutEpisode(&event.Episode{
		Key: key, Source: c.note.Source, Alertname: some["alertname"], Adopted: true, To: ep.Key, FiringAt: c.note.ReceivedAt,
	}); err != nil {
		return nil, nil, facts, err
	}
	facts.Adopted, facts.Annotations = true, maps.Clone(c.alert.Annotations)
	fired, err := b.notes.at(b.ctx, ep.Firing)
	if err == nil && fired.Err == nil {
		if a := fired.alert(ep.Firing.Item); a != nil {
			facts.Annotations = union(a.Annotations, c.alert.Annotations)
		}
	}
	return ep, union(found.labels, some), facts, nil
}

// openWith is the one open alert whose labels contain some; nil when there are
// none or several.
func (b *batch) openWith(source string, some map[string]string) (found *open, several bool, err error) {
	ix, err := b.indexOf(source, some["alertname"])
	if err != nil {
		return nil, false, err
	}
	var rarest []*open
	least := math.MaxInt
	for k, v := range some {
		if list := ix.pairs[pair{k, v}]; len(list) < least {
			rarest, least = list, len(list)
		}
	}
	if least > adoptMost {
		return nil, true, nil
	}
	for _, o := range rarest {
		ep, err := b.tx.Episode(o.key)
		if err != nil {
			return nil, false, err
		}
		if ep == nil || !ep.Open || !includes(o.labels, some) { // closed meanwhile
			continue
		}
		if found != nil {
			return nil, true, nil
		}
		found = o
	}
	return found, false, nil
}

func (b *batch) indexOf(source, alertname string) (*index, error) {
	name := source + "\x00" + alertname
	ix := b.labels[name]
	if ix == nil {
		ix = &index{pairs: map[pair][]*open{}, known: map[string]bool{}}
		if b.labels == nil {
			b.labels = map[string]*index{}
		}
		b.labels[name] = ix
		for ep := range b.tx.OpenEpisodes(source, alertname) {
			if err := b.note(ix, ep); err != nil {
				return nil, err
			}
		}
	}
	return ix, nil
}

// note puts an open episode into the index.
func (b *batch) note(ix *index, ep *event.Episode) error {
	if ix.known[ep.Key] {
		return nil
	}
	ix.known[ep.Key] = true
	labels, err := b.openLabels(ep)
	if err != nil {
		return err
	}
	o := &open{ep.Key, labels}
	for k, v := range labels {
		ix.pairs[pair{k, v}] = append(ix.pairs[pair{k, v}], o)
	}
	return nil
}

// openLabels are the labels of an open episode.
func (b *batch) openLabels(ep *event.Episode) (map[string]string, error) {
	r, err := b.tx.Record(ep.FiringAt, ep.Firing)
	if err != nil {
		return nil, err
	}
	if r != nil {
		return r.Labels, nil
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
