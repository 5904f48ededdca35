package worker

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"time"

	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose/callgoosetest"
)

// oracle knows what PMM said, what was answered, and what Callgoose got. It knows
// nothing of the code between them. What it holds the code against:
//
//   - An alert whose latest word is firing has an open incident once nothing waits any
//     more, one whose latest word is resolved has none.
//   - What Callgoose gets of a key PMM said of it. It comes in the order in which it was
//     said, one request at a time, and with the same bytes for the same event.
//   - What was settled more than a minute before a ledger was lost is not sent again
//     because of that.
type oracle struct {
	mu     sync.Mutex // guards all
	n      int        // words so far
	words  map[string][]word
	unsure map[string]int // up to this word of a key, an operator or Callgoose had their own will
	names  map[string]string
	pair   bool // one PMM has two Alertmanagers
	byName bool // one incident for each alert name, as long as this run
	vague  bool // Callgoose may not have all that was settled
	mixed  bool // --incident-by changed: incidents of one alert and of a name are open, with no order within a name
	// Words are sent in their order, if nothing is given up unsent that can be asked for
	// later: by an operator, or, within a name, by PMM.
	ordered, orderedNames bool

	events map[string]*sent
	latest map[string]int // of a key or name, the newest word sent
	busy   map[string]bool
	trims  map[int]string // recoveries without a fingerprint: their own key, which goes out when they close nothing
	losses int
	lostAt time.Time
	asked  time.Time // when an operator asked for events that were sent before
	faults []string
}

// word is what PMM said of an alert.
type word struct {
	n            int
	status       event.Status
	starts, ends time.Time
	began, whole time.Time
	acked        bool // answered 202
	now          bool // no Alertmanager thinks otherwise
	old          bool // said before
}

// sent is an event as Callgoose got it.
type sent struct {
	key       string
	word      int
	hash      uint64
	losses    int       // so many ledgers were lost before
	settled   time.Time // the latest 2xx that arrived; zero = none
	accepted  bool
	discarded bool
}

func newOracle() *oracle {
	return &oracle{
		words: map[string][]word{}, unsure: map[string]int{}, names: map[string]string{}, events: map[string]*sent{},
		latest: map[string]int{}, busy: map[string]bool{}, trims: map[int]string{},
	}
}

func (o *oracle) fault(format string, args ...any) {
	o.faults = append(o.faults, time.Now().Format("15:04:05 ")+fmt.Sprintf(format, args...))
}

// say takes in a word of an alert, and returns its number.
func (o *oracle) say(key, name string, w word) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.n++
	w.n = o.n
	o.words[key] = append(o.words[key], w)
	if name != "" {
		o.names[key] = name
	}
	return w.n
}

// trim says that word n has no fingerprint, and what its own key is.
func (o *oracle) trim(n int, key string) { o.mu.Lock(); o.trims[n] = key; o.mu.Unlock() }

// ack says that the latest word of a key was answered 202.
func (o *oracle) ack(key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	ws := o.words[key]
	ws[len(ws)-1].acked = true
}

// doubt says that up to now somebody else's will counted for a key, "" for all.
func (o *oracle) doubt(key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for k := range o.words {
		if key == "" || k == key {
			o.unsure[k] = o.n
		}
	}
}

// ask is an operator's replay or import.
func (o *oracle) ask() { o.mu.Lock(); o.asked = time.Now(); o.mu.Unlock() }

// posted is what a request says of itself.
type posted struct {
	Key    string       `json:"incident_key"`
	ID     string       `json:"event_id"`
	Status event.Status `json:"status"`
	Alerts []struct {
		Labels      map[string]string `json:"labels"` // with OurLabel: the service's own word
		Annotations struct {
			Word int `json:"word,string"`
		} `json:"annotations"`
	} `json:"alerts"`
}

// lanes are what a request must be alone in, the key first.
func (o *oracle) lanes(p *posted) []string {
	if o.byName && !o.mixed {
		return []string{p.Key, p.Alerts[0].Labels["alertname"]}
	}
	return []string{p.Key}
}

// begins takes in a request.
func (o *oracle) begins(p *posted, body []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, lane := range o.lanes(p) {
		if o.busy[lane] {
			o.fault("two requests of %s at once", lane)
		}
		o.busy[lane] = true
	}
	h := fnv.New64a()
	_, _ = h.Write(body)
	n, e := p.Alerts[0].Annotations.Word, o.events[p.ID]
	if said := slices.ContainsFunc(o.words[p.Key], func(w word) bool { return w.n == n && w.status == p.Status }); !said && o.trims[n] != p.Key && p.Alerts[0].Labels[OurLabel] == "" {
		o.fault("%s %s goes out, made of word %d, which says nothing of it", p.Key, p.Status, n)
	}
	if e == nil {
		for i, lane := range o.lanes(p) {
			if o.latest[lane] > n && (i == 0 && o.ordered || i > 0 && o.orderedNames) {
				o.fault("%s %s, word %d, goes out after word %d of %s", p.Key, p.Status, n, o.latest[lane], lane)
			}
			o.latest[lane] = n
		}
		o.events[p.ID] = &sent{key: p.Key, word: n, hash: h.Sum64(), losses: o.losses}
		return
	}
	if e.hash != h.Sum64() && e.losses == o.losses {
		o.fault("%s %s %s goes out with other bytes", p.Key, p.Status, p.ID)
	}
	e.hash, e.losses = h.Sum64(), o.losses
	if !e.settled.IsZero() && o.lostAt.Sub(e.settled) > time.Minute+5*time.Second && !o.touched(p.Key, e.settled) {
		o.fault("%s %s %s, settled at %s, goes out again because the ledger was lost at %s", p.Key, p.Status, p.ID, e.settled.Format("15:04:05"), o.lostAt.Format("15:04:05"))
	}
}

// touched reports whether anybody asked for an event of a key after a time.
func (o *oracle) touched(key string, after time.Time) bool {
	ws := o.words[key]
	return o.asked.After(after) || len(ws) > 0 && (!ws[len(ws)-1].whole.Before(after) || o.unsure[key] >= ws[len(ws)-1].n)
}

// ends takes in the end of a request: the status that arrived, 0 for none.
func (o *oracle) ends(p *posted, status int) (again bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, lane := range o.lanes(p) {
		delete(o.busy, lane)
	}
	if e := o.events[p.ID]; e != nil && status/100 == 2 {
		again = e.discarded && status != 202
		e.settled, e.accepted, e.discarded = time.Now(), true, status == 202
	}
	return again
}

// dies ends all requests with their process; lost says that its ledger is gone.
func (o *oracle) dies(lost bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.busy)
	if lost {
		o.losses++
		o.lostAt = time.Now()
	}
}

// must is what the incident of a key has to be.
type must int

const (
	nothingMust must = iota
	mustOpen
	mustClosed
)

// state is what PMM's words say of a key.
func (o *oracle) state(key string) must {
	ws := o.words[key]
	var over time.Time // when a recovery came in last, whatever it means
	for _, w := range ws {
		if w.status == event.Resolved && !w.old && w.whole.After(over) {
			over = w.whole
		}
	}
	last := -1
	for i, w := range ws {
		if w.acked && w.n > o.unsure[key] && w.status == event.Firing && w.began.After(over) {
			return mustOpen
		}
		if w.status == event.Resolved && w.now && w.acked && w.n > o.unsure[key] {
			last = i
		}
	}
	if last < 0 || slices.ContainsFunc(ws, func(w word) bool {
		// A peer that is behind opens again what its own recovery closes, or says only that
		// what was before has recovered.
		return w.status == event.Firing && (!w.began.Before(ws[last].began) || o.pair && (w.n > ws[last].n || w.starts.After(ws[last].ends)))
	}) {
		return nothingMust
	}
	return mustClosed
}

// check holds the incidents against what PMM said. fires, where it is given, is which
// keys have fired, and said so, for longer than repeat_interval.
func (o *oracle) check(fake *callgoosetest.Fake, fires map[string]bool) {
	open := fake.OpenByKey()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mixed {
		// The ledger alone knows how --incident-by was then, and what was left open under the other name.
		if o.losses == 0 && !o.vague {
			o.checkKeys(open, fires)
		}
		return
	}
	states := map[string]must{}
	for key := range o.words {
		name := key
		if o.byName {
			name = o.names[key]
			for _, i := range open[key] {
				open[i.Mapped] = append(open[i.Mapped], i)
			}
		}
		st := o.state(key)
		if fires[key] {
			st = mustOpen
		}
		if before, there := states[name]; there && before != st && before != mustOpen && st != mustOpen {
			st = nothingMust
		} else if before == mustOpen {
			st = mustOpen
		}
		states[name] = st
	}
	for name, st := range states {
		switch n := len(open[name]); {
		case st == mustOpen && n == 0:
			o.fault("%s fires, and has no open incident: %s", name, o.story(name))
		case st == mustClosed && n > 0:
			o.fault("%s has recovered, and has an open incident: %s", name, o.story(name))
		}
	}
}

// checkKeys is check where incidents of one alert and of a whole name are open.
func (o *oracle) checkKeys(open map[string][]callgoosetest.Incident, fires map[string]bool) {
	closed := func(key string) bool { return !fires[key] && o.state(key) == mustClosed }
	for key := range o.words {
		if (fires[key] || o.state(key) == mustOpen) && len(open[key]) == 0 {
			o.fault("%s fires, and has no open incident: %s", key, o.story(key))
		}
		for _, i := range open[key] {
			if !slices.ContainsFunc(i.Keys, func(k string) bool { return !closed(k) }) {
				o.fault("%s has recovered, and has an open incident %q: %s", key, i.Mapped, o.story(key))
			}
		}
	}
}

// story is what PMM said of a key or name lately.
func (o *oracle) story(name string) string {
	var list []word
	for key, ws := range o.words {
		if key == name || o.names[key] == name {
			list = append(list, ws...)
		}
	}
	slices.SortFunc(list, func(a, b word) int { return a.n - b.n })
	var b strings.Builder
	for _, w := range list[max(0, len(list)-8):] {
		fmt.Fprintf(&b, "\n    %d %s %s-%s acked %v now %v old %v", w.n, w.status, w.began.Format("15:04:05"), w.whole.Format("15:04:05"), w.acked, w.now, w.old)
	}
	return b.String()
}
