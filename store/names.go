package store

import (
	"iter"
	"slices"
	"strings"
	"time"

	"pmm-callgoose/store/event"
)

// names finds episodes for those who write: the open ones of an alert name, and those
// whose incident shows a name. It is made when somebody asks for the first time, and
// follows every write from then on. Under a name stand the incident keys that may have
// it, sorted: whoever finds one looks, and forgets those that have it no more.
type names map[string][]string

// named and shown are what names has keys under.
func named(source, alertname string) string { return "named\x00" + source + "\x00" + alertname }
func shown(name string) string              { return "shown\x00" + name }

// ShownName is the name by which Callgoose tells the incident of ep from others.
func ShownName(ep *Episode) string {
	return strings.ToLower(ep.Shown + "\x00" + ep.Suffix)
}

func (n names) put(ep *Episode) {
	n.add(shown(ShownName(ep)), ep.Key)
	if ep.Open {
		n.add(named(ep.Source, ep.Alertname), ep.Key)
	}
}

func (n names) add(name, key string) {
	if i, there := slices.BinarySearch(n[name], key); !there {
		n[name] = slices.Insert(n[name], i, key)
	}
}

// view is the transaction's names. They lack some where damage fails the transaction.
func (t *Tx) view() names {
	if t.names != nil {
		return t.names
	}
	n := names{}
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

// find yields the episodes under a name that have it. None may be written meanwhile.
func (t *Tx) find(name string, has func(*Episode) bool) iter.Seq[*Episode] {
	return func(yield func(*Episode) bool) {
		n := t.view()
		var gone []string
		for _, key := range n[name] {
			ep := t.Episode(key)
			if ep == nil || !has(ep) {
				gone = append(gone, key)
			} else if !yield(ep) {
				break
			}
		}
		left := slices.DeleteFunc(n[name], func(key string) bool {
			_, is := slices.BinarySearch(gone, key)
			return is
		})
		if n[name] = left; len(left) == 0 {
			delete(n, name)
		}
	}
}

// OpenNamed is the key of an open alert that shares the incident of that source and
// name, beside the one with this key, and that PMM has named after since; empty when
// there is none.
func (t *Tx) OpenNamed(source, alertname, beside string, since time.Time) string {
	for ep := range t.openOf(source, alertname) {
		if ep.ByName && ep.Key != beside && ep.NamedAt.After(since) {
			return ep.Key
		}
	}
	return ""
}

// openOf yields the open episodes of a name.
func (t *Tx) openOf(source, alertname string) iter.Seq[*Episode] {
	return t.find(named(source, alertname), func(ep *Episode) bool {
		return ep.Open && ep.Source == source && ep.Alertname == alertname
	})
}

// ShownBy yields the episodes whose incident shows a name at Callgoose: those
// open, and those closed whose recovery Callgoose does not have. While a lost ledger is
// rebuilt, one that was settled counts as delivered: the names come out as they were.
func (t *Tx) ShownBy(name string) iter.Seq[*Episode] {
	return t.find(shown(name), func(ep *Episode) bool {
		switch {
		case ShownName(ep) != name:
			return false
		case ep.Open || ep.Dropped():
			return true
		}
		r := t.Brief(ep.RecoveredAt, ep.Recovery)
		return r != nil && r.Outcome != event.Delivered && r.Outcome != event.Suppressed && r.Outcome != event.Collapsed &&
			(r.Outcome != event.Unknown || t.Rebuild() == nil)
	})
}

// OpenShown reports whether an open alert beside the one with this key has an incident
// of its own that shows the name.
func (t *Tx) OpenShown(name, beside string) bool {
	for ep := range t.ShownBy(name) {
		if ep.Open && !ep.ByName && ep.Key != beside {
			return true
		}
	}
	return false
}

// OpenEpisodes yields the open episodes of a source and an alert name; an
// empty one means all.
func (t *Tx) OpenEpisodes(source, alertname string) iter.Seq[*Episode] {
	if t.write && source != "" && alertname != "" {
		return t.openOf(source, alertname)
	}
	return t.allOpen(source, alertname)
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
