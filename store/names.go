package store

import (
	"cmp"
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
	alone map[string][]string               // likewise, of those open that have an incident of their own
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
	add(n.shown, shown, ep.Key)
	if ep.Open && !ep.ByName {
		add(n.alone, shown, ep.Key)
	}
}

func add(keys map[string][]string, shown, key string) {
	if i, there := slices.BinarySearch(keys[shown], key); !there {
		keys[shown] = slices.Insert(keys[shown], i, key)
	}
}

func forget(keys map[string][]string, shown, key string) {
	left := slices.DeleteFunc(keys[shown], func(k string) bool { return k == key })
	if keys[shown] = left; len(left) == 0 {
		delete(keys, shown)
	}
}

// view is the transaction's names.
func (t *Tx) view() (*names, error) {
	if t.names != nil {
		return t.names, nil
	}
	n := &names{open: map[openName]map[string]time.Time{}, named: map[string]openName{}, shown: map[string][]string{}, alone: map[string][]string{}}
	if err := t.eachOpen("", "", func(e *Episode) bool { n.put(e); return true }); err != nil {
		return nil, err
	}
	if err := t.eachLeftOpen(n.put); err != nil {
		return nil, err
	}
	t.names = n
	return n, nil
}

// eachLeftOpen gives those that closed, and whose incident may be open: their recovery
// is queued, or Callgoose did not take it. One may come twice.
func (t *Tx) eachLeftOpen(fn func(*Episode)) (err error) {
	closed := func(key string) bool {
		var ep *Episode
		if ep, err = t.Episode(key); err == nil && ep != nil && !ep.Open {
			fn(ep)
		}
		return err == nil
	}
	for w := range t.Waiting(event.Position{}) {
		if w.Status == event.Resolved && !closed(w.Key) {
			return err
		}
	}
	f := event.Filter{Status: event.Resolved, Outcomes: []event.Outcome{event.Dead, event.Discarded, event.Unknown}}
	if !slices.ContainsFunc(f.Outcomes, func(o event.Outcome) bool { return t.Counted(string(o)) > 0 }) {
		return nil
	}
	return cmp.Or(t.Each(f, func(r *event.Record) bool { return closed(r.Key) }), err)
}

// OpenNamed is the key of an open alert that shares the incident of that source and
// name, beside the one with this key, and that PMM has named after since; empty when
// there is none.
func (t *Tx) OpenNamed(source, alertname, beside string, since time.Time) (string, error) {
	n, err := t.view()
	if err != nil {
		return "", err
	}
	for key, named := range n.open[openName{source, alertname}] {
		if key != beside && named.After(since) {
			return key, nil
		}
	}
	return "", nil
}

// ShownBy yields the episodes whose incident shows a name at Callgoose: those
// open, and those closed whose recovery Callgoose does not have. While a lost ledger is
// rebuilt, one that was settled counts as delivered: the names come out as they were.
func (t *Tx) ShownBy(shown string) iter.Seq[*Episode] {
	return func(yield func(*Episode) bool) {
		n, err := t.view()
		if err != nil {
			t.bad = err
			return
		}
		for _, key := range slices.Clone(n.shown[shown]) { // it changes meanwhile
			ep, err := t.Episode(key)
			if err != nil {
				t.bad = err
				return
			}
			if ep == nil || ShownName(ep) != shown {
				forget(n.shown, shown, key)
				continue
			}
			if !ep.Open && !ep.Dropped() {
				r, err := t.Brief(ep.RecoveredAt, ep.Recovery)
				if err != nil {
					t.bad = err
					return
				}
				if r == nil || r.Outcome == event.Delivered || r.Outcome == event.Suppressed || r.Outcome == event.Collapsed ||
					r.Outcome == event.Unknown && t.Rebuild() != nil {
					forget(n.shown, shown, key)
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
func (t *Tx) OpenShown(shown, beside string) (bool, error) {
	n, err := t.view()
	if err != nil {
		return false, err
	}
	for _, key := range slices.Clone(n.alone[shown]) {
		ep, err := t.Episode(key)
		switch {
		case err != nil:
			return false, err
		case ep == nil || !ep.Open || ep.ByName || ShownName(ep) != shown:
			forget(n.alone, shown, key)
		case key != beside:
			return true, nil
		}
	}
	return false, nil
}

// OpenEpisodes yields the open episodes of a source and an alert name; an
// empty one means all.
func (t *Tx) OpenEpisodes(source, alertname string) iter.Seq[*Episode] {
	return func(yield func(*Episode) bool) {
		each := t.eachOpen
		if t.write && source != "" && alertname != "" {
			each = t.eachNamed
		}
		if err := each(source, alertname, yield); err != nil {
			t.bad = err
		}
	}
}

// eachOpen looks at every episode.
func (t *Tx) eachOpen(source, alertname string, yield func(*Episode) bool) error {
	c := t.tx.Bucket(bucketEpisodes).Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if !isOpen(v) {
			continue
		}
		e, err := decodeEpisode(k, v)
		if err != nil {
			return err
		}
		if e.Open && (source == "" || e.Source == source) && (alertname == "" || e.Alertname == alertname) && !yield(e) {
			return nil
		}
	}
	return nil
}

// eachNamed looks at those of one name only.
func (t *Tx) eachNamed(source, alertname string, yield func(*Episode) bool) error {
	n, err := t.view()
	if err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(n.open[openName{source, alertname}])) {
		e, err := t.Episode(key)
		if err != nil {
			return err
		}
		if e != nil && e.Open && !yield(e) { // it may have closed meanwhile
			return nil
		}
	}
	return nil
}
