package store

import (
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"pmm-callgoose/store/event"
)

// names is a view of the episodes for those who write: which alerts of a name
// are open, and which incidents show which name. It is made when somebody asks
// for the first time, and follows every write from then on.
type names struct {
	open  map[openName]map[string]time.Time // incident key -> when PMM last named it, zero for one with an incident of its own
	named map[string]openName               // incident key -> where it stands in open
	shown map[string][]string               // shown name -> incident keys, sorted
}

type openName struct{ source, alertname string }

// ShownName is the name by which Callgoose tells the incident of ep from others.
func ShownName(ep *Episode) string {
	return strings.ToLower(ep.Shown + "\x00" + ep.Suffix)
}

func (n *names) put(ep *Episode) {
	name := openName{ep.Source, ep.Alertname}
	if before, ok := n.named[ep.Key]; ok && (!ep.Open || before != name) { // its name may have changed
		delete(n.open[before], ep.Key)
		delete(n.named, ep.Key)
	}
	if ep.Open {
		if n.open[name] == nil {
			n.open[name] = map[string]time.Time{}
		}
		at := ep.NamedAt
		if !ep.ByName {
			at = time.Time{}
		}
		n.open[name][ep.Key], n.named[ep.Key] = at, name
	}
	shown := ShownName(ep)
	if i, there := slices.BinarySearch(n.shown[shown], ep.Key); !there {
		n.shown[shown] = slices.Insert(n.shown[shown], i, ep.Key)
	}
}

func (n *names) forget(shown, key string) {
	left := slices.DeleteFunc(n.shown[shown], func(k string) bool { return k == key })
	if n.shown[shown] = left; len(left) == 0 {
		delete(n.shown, shown)
	}
}

// view is the transaction's names. They lack some where damage fails the transaction.
func (t *Tx) view() *names {
	if t.names != nil {
		return t.names
	}
	n := &names{open: map[openName]map[string]time.Time{}, named: map[string]openName{}, shown: map[string][]string{}}
	for e := range t.allOpen("", "") {
		n.put(e)
	}
	// Beside them those that closed, and whose incident may be open: their recovery is
	// queued, or Callgoose did not take it.
	closed := func(key string) {
		if e := t.Episode(key); e != nil && !e.Open {
			n.put(e)
		}
	}
	for w := range t.Waiting(event.Position{}) {
		if w.Status == event.Resolved {
			closed(w.Key)
		}
	}
	f := event.Filter{Status: event.Resolved, Outcomes: []event.Outcome{event.Dead, event.Discarded, event.Unknown}}
	if slices.ContainsFunc(f.Outcomes, func(o event.Outcome) bool { return t.Counted(string(o)) > 0 }) {
		for r := range t.Records(f) {
			closed(r.Key)
		}
	}
	t.names = n
	return n
}

// OpenNamed is the key of an open alert that shares the incident of that source and
// name, beside the one with this key, and that PMM has named after since; empty when
// there is none.
func (t *Tx) OpenNamed(source, alertname, beside string, since time.Time) string {
	for key, named := range t.view().open[openName{source, alertname}] {
		if key != beside && named.After(since) {
			return key
		}
	}
	return ""
}

// ShownBy yields the episodes whose incident shows a name at Callgoose: those
// open, and those closed whose recovery Callgoose does not have. While a lost ledger is
// rebuilt, one that was settled counts as delivered: the names come out as they were.
func (t *Tx) ShownBy(shown string) iter.Seq[*Episode] {
	return func(yield func(*Episode) bool) {
		n := t.view()
		for _, key := range slices.Clone(n.shown[shown]) { // it changes meanwhile
			ep := t.Episode(key)
			if ep == nil || ShownName(ep) != shown {
				n.forget(shown, key)
				continue
			}
			if !ep.Open && !ep.Dropped() {
				r := t.Brief(ep.RecoveredAt, ep.Recovery)
				if r == nil || r.Outcome == event.Delivered || r.Outcome == event.Suppressed || r.Outcome == event.Collapsed ||
					r.Outcome == event.Unknown && t.Rebuild() != nil {
					n.forget(shown, key)
					continue
				}
			}
			if !yield(ep) {
				return
			}
		}
	}
}

// OpenShown reports whether an open alert beside the one with this key has an incident
// of its own that shows the name.
func (t *Tx) OpenShown(shown, beside string) bool {
	for ep := range t.ShownBy(shown) {
		if ep.Open && !ep.ByName && ep.Key != beside {
			return true
		}
	}
	return false
}

// OpenEpisodes yields the open episodes of a source and an alert name; an
// empty one means all.
func (t *Tx) OpenEpisodes(source, alertname string) iter.Seq[*Episode] {
	if !t.write || source == "" || alertname == "" {
		return t.allOpen(source, alertname)
	}
	return func(yield func(*Episode) bool) {
		for _, key := range slices.Sorted(maps.Keys(t.view().open[openName{source, alertname}])) {
			if e := t.Episode(key); e != nil && e.Open && !yield(e) { // it may have closed meanwhile
				return
			}
		}
	}
}

// allOpen looks at every episode, where OpenEpisodes has a view of them.
func (t *Tx) allOpen(source, alertname string) iter.Seq[*Episode] {
	return func(yield func(*Episode) bool) {
		for k, v := range t.from(bucketEpisodes, nil) {
			if !isOpen(v) {
				continue
			}
			e, err := readEpisode(string(k), v)
			if t.Fail(err); err != nil ||
				(source == "" || e.Source == source) && (alertname == "" || e.Alertname == alertname) && !yield(e) {
				return
			}
		}
	}
}
