package pmmtest

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"time"
)

// World is what Grafana's alerting does in time: rules are evaluated, alerts fire and
// recover, the Alertmanager tells, and people silence, pause, delete and restart. It
// has no clock of its own, Step moves it. Not safe concurrently.
//
// What was seen on a real Grafana 12.4.3 and is so here:
//
//   - Each node has its own list of alerts, in memory only: empty after a start until
//     each rule was evaluated. The states come from the database at once, with the
//     zero time as last evaluation.
//   - An alert that is not renewed for 4 evaluations (at least 2 minutes) is resolved by
//     the Alertmanager itself, and told so; renewed, it fires with the same startsAt.
//   - A recovery under a silence or mute is told only within 15 minutes, and by no
//     Grafana that was restarted since. What was told is remembered over restarts, so
//     the next firing is not told either before the repetition is due.
//   - A muted alert is "active" in the list.
//   - A change of the policies acts after up to a minute.
type World struct {
	Now time.Time
	// Tell hands over a webhook for our contact point, and reports whether it was
	// answered with 2xx. nil = nobody listens.
	Tell func(Notice) bool
	// Contact is the contact point that Tell stands for.
	Contact string
	// Muting: the time intervals of muted routes hold now.
	Muting bool
	// Repeat is the repeat interval.
	Repeat time.Duration

	fake    *Fake
	rules   map[string]*Rule
	nodes   []*node
	turn    int               // which node answers the next request
	stored  map[string]*state // the database, by fingerprint
	told    map[string]told
	silent  map[string]time.Time // silences: service_name, until
	hidden  map[string]bool      // folders that the token may not see
	running *route               // the policies as they act
	tries   map[string]attempt
}

type attempt struct {
	at  time.Time
	err string
}

// Notice is one alert in a webhook.
type Notice struct {
	Status, Fingerprint, RuleUID string
	Labels                       map[string]string
	StartsAt, EndsAt             time.Time
}

// Rule is an alert rule with its series.
type Rule struct {
	UID, Title, Folder string
	Interval           time.Duration
	// Template: it is one of PMM's, with percona_alerting.
	Template bool
	// Receiver is its own contact point.
	Receiver string
	Paused   bool
	// Failing: the data source answers with an error. Hanging: it does not answer.
	Failing, Hanging bool
	// Series by service_name: whether they are above the threshold.
	Series map[string]bool
}

type state struct {
	rule     *Rule
	labels   map[string]string
	firing   bool
	startsAt time.Time
}

type listed struct {
	*state
	startsAt, endsAt, resolvedAt time.Time
}

type node struct {
	up        time.Time // answers from then on
	states    map[string]*state
	evaluated map[string]time.Time
	health    map[string]string
	alerts    map[string]*listed
	known     bool // the rest is loaded
}

type told struct {
	firing bool
	at     time.Time
}

// Tick is how far a Step goes.
const Tick = 10 * time.Second

func newWorld(f *Fake) *World {
	w := &World{
		Now: time.Date(2026, 11, 27, 20, 10, 0, 0, time.UTC), Contact: "Callgoose SQIBS", Repeat: 15 * time.Minute, fake: f,
		rules: map[string]*Rule{}, stored: map[string]*state{}, told: map[string]told{}, silent: map[string]time.Time{},
		hidden: map[string]bool{}, tries: map[string]attempt{},
	}
	w.Nodes(1)
	return w
}

// Nodes makes it n Grafanas behind a balancer that asks them in turn.
func (w *World) Nodes(n int) {
	w.nodes = nil
	for range n {
		w.nodes = append(w.nodes, &node{})
	}
}

// AddRule adds a rule and returns it; its fields may be changed between steps.
func (w *World) AddRule(r Rule) *Rule {
	w.rules[r.UID] = &r
	return &r
}

// DeleteRule resolves its alerts.
func (w *World) DeleteRule(uid string) { w.end(uid); delete(w.rules, uid) }

// Pause resolves its alerts, or takes the pause away.
func (w *World) Pause(uid string, paused bool) {
	if r := w.rules[uid]; r != nil {
		if r.Paused = paused; paused {
			w.end(uid)
		}
	}
}

func (w *World) end(uid string) {
	for _, n := range w.nodes {
		for fp, s := range n.states {
			if s.rule.UID == uid {
				n.resolve(fp, w.Now)
				delete(n.states, fp)
			}
		}
	}
	maps.DeleteFunc(w.stored, func(_ string, s *state) bool { return s.rule.UID == uid })
}

// Hide takes a folder out of the token's sight, or gives it back.
func (w *World) Hide(folder string, hidden bool) { w.hidden[folder] = hidden }

// Silence silences a service until then; a time in the past ends it.
func (w *World) Silence(service string, until time.Time) { w.silent[service] = until }

// Restart restarts one node; it answers again after the time.
func (w *World) Restart(i int, takes time.Duration) {
	w.nodes[i%len(w.nodes)] = &node{up: w.Now.Add(takes)}
	clear(w.tries)
}

// Firing reports whether a node evaluates the alert as firing.
func (w *World) Firing(fingerprint string) bool {
	return slices.ContainsFunc(w.nodes, func(n *node) bool {
		s := n.states[fingerprint]
		return s != nil && s.firing
	}) || w.stored[fingerprint] != nil && w.stored[fingerprint].firing
}

// Alerts are the fingerprints of what fires.
func (w *World) Alerts() []string {
	var out []string
	for fp := range w.stored {
		if w.Firing(fp) {
			out = append(out, fp)
		}
	}
	slices.Sort(out)
	return out
}

// Held reports whether a silence, a mute or its route keeps the alert from our contact
// point.
func (w *World) Held(fingerprint string) bool {
	s := w.stored[fingerprint]
	if s == nil {
		return true
	}
	ours, muted := w.way(s)
	return !ours || muted && w.Muting || w.silenced(s)
}

func (w *World) silenced(s *state) bool { return w.Now.Before(w.silent[s.labels["service_name"]]) }

// way says whether the running policies lead the alert to our contact point, and whether
// all that do are muted.
func (w *World) way(s *state) (ours, muted bool) {
	if s.rule.Receiver != "" {
		return s.rule.Receiver == w.Contact, false
	}
	muted = true
	for _, m := range w.running.match(s.labels, route{}) {
		if m.Receiver == w.Contact {
			ours, muted = true, muted && m.Muted
		}
	}
	return ours, ours && muted
}

func (r *Rule) labels(service string) map[string]string {
	l := map[string]string{
		"__alert_rule_uid__": r.UID, "alertname": r.Title, "grafana_folder": r.Folder,
		"service_name": service, "node_name": "node-" + service, "severity": "critical",
	}
	if r.Template {
		l["percona_alerting"] = "1"
	}
	if r.Receiver != "" {
		l["__grafana_autogenerated__"], l["__grafana_receiver__"] = "true", r.Receiver
	}
	return l
}

// fingerprint is prometheus/common's LabelsToSignature.
func fingerprint(labels map[string]string) string {
	h := fnv.New64a()
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		_, _ = h.Write([]byte(name + "\xff" + labels[name] + "\xff"))
	}
	return fmt.Sprintf("%016x", h.Sum64())
}

// Fingerprint is that of one series' alert.
func (r *Rule) Fingerprint(service string) string { return fingerprint(r.labels(service)) }

// Step lets Tick pass.
func (w *World) Step() {
	w.Now = w.Now.Add(Tick)
	if w.running == nil || w.Now.Second() == 0 { // the configuration is polled
		w.running = w.fake.policies()
	}
	for _, n := range w.nodes {
		if w.Now.Before(n.up) {
			continue
		}
		if !n.known {
			n.states, n.evaluated, n.health, n.alerts, n.known = map[string]*state{}, map[string]time.Time{}, map[string]string{}, map[string]*listed{}, true
			for fp, s := range w.stored {
				c := *s
				n.states[fp] = &c
			}
		}
		for _, uid := range slices.Sorted(maps.Keys(w.rules)) {
			if r := w.rules[uid]; w.Now.Unix()%int64(r.Interval.Seconds()) == 0 && !r.Paused && !r.Hanging {
				w.evaluate(n, r)
			}
		}
	}
	w.flush()
}

func (w *World) evaluate(n *node, r *Rule) {
	n.evaluated[r.UID], n.health[r.UID] = w.Now, "ok"
	if r.Failing { // execErrState KeepLast
		n.health[r.UID] = "error"
		for fp, s := range n.states {
			if s.rule == r && s.firing {
				n.renew(fp, s, w.Now)
			}
		}
		return
	}
	for service, firing := range r.Series {
		fp := r.Fingerprint(service)
		s := n.states[fp]
		if s == nil {
			s = &state{rule: r, labels: r.labels(service)}
			n.states[fp] = s
		}
		switch {
		case firing && !s.firing:
			s.firing, s.startsAt = true, w.Now
		case !firing && s.firing:
			s.firing = false
			n.resolve(fp, w.Now)
		}
		if s.firing {
			n.renew(fp, s, w.Now)
		}
		c := *s
		w.stored[fp] = &c
	}
	for fp, s := range n.states {
		if _, there := r.Series[s.labels["service_name"]]; s.rule == r && !there {
			n.resolve(fp, w.Now) // MissingSeries
			delete(n.states, fp)
			delete(w.stored, fp)
		}
	}
}

func (n *node) renew(fp string, s *state, now time.Time) {
	a := n.alerts[fp]
	if a == nil || !a.resolvedAt.IsZero() || a.startsAt != s.startsAt {
		a = &listed{state: s, startsAt: s.startsAt}
		n.alerts[fp] = a
	}
	a.endsAt = now.Add(4 * max(s.rule.Interval, 30*time.Second))
}

func (n *node) resolve(fp string, now time.Time) {
	if a := n.alerts[fp]; a != nil && a.resolvedAt.IsZero() {
		a.resolvedAt, a.endsAt = now, now
	}
}

// flush is the Alertmanager's of the first node that runs: every minute for each alert.
func (w *World) flush() {
	at := slices.IndexFunc(w.nodes, func(n *node) bool { return n.known && !w.Now.Before(n.up) })
	if at < 0 || w.Now.Second() != 30 {
		return
	}
	n := w.nodes[at]
	for _, fp := range slices.Sorted(maps.Keys(n.alerts)) {
		a := n.alerts[fp]
		firing := w.Now.Before(a.endsAt)
		if !firing && w.Now.Sub(a.endsAt) > 15*time.Minute {
			delete(n.alerts, fp)
			continue
		}
		before := w.told[fp]
		ours, muted := w.way(a.state)
		due := firing && (!before.firing || w.Now.Sub(before.at) >= w.Repeat) || !firing && before.firing
		if !due || !ours || muted && w.Muting || w.silenced(a.state) {
			continue
		}
		notice := Notice{"resolved", fp, a.rule.UID, a.labels, a.startsAt, a.endsAt}
		if firing {
			notice.Status, notice.EndsAt = "firing", time.Time{}
		}
		try := attempt{w.Now, "connection refused"}
		if w.Tell != nil && w.Tell(notice) {
			w.told[fp] = told{firing, w.Now}
			try.err = ""
		}
		w.tries[w.Contact] = try
	}
}

// Rules are the rules that there are, in the order of their UIDs.
func (w *World) Rules() []*Rule {
	var out []*Rule
	for _, uid := range slices.Sorted(maps.Keys(w.rules)) {
		out = append(out, w.rules[uid])
	}
	return out
}

// Rearm makes the alert fire on with that startsAt, as one does that was not renewed in
// time and is now.
func (w *World) Rearm(fingerprint string, startsAt time.Time) {
	for _, n := range w.nodes {
		if s := n.states[fingerprint]; s != nil {
			s.firing, s.startsAt = true, startsAt
		}
	}
}
