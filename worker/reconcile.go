package worker

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"pmm-callgoose/ingest/pmm"
	"pmm-callgoose/store/event"
)

// Reconciling compares what PMM's Grafana holds to be firing with the open episodes.
// A recovery can get lost in Grafana for ever (under a silence, by a restart, with a
// deleted rule), an opening hardly; yet a false close is worse than a stale incident.
// So an episode is closed only where two views that do not share their memory agree,
// several times, within one epoch:
//
//	pass ─▶ epoch broken? ─▶ every open episode: listed? ─▶ what its rule says ─▶ ripe? ─┐
//	                    └─▶ every listed alert: open? ──▶ active, ours, due? ─▶ ripe? ───┤
//	                                                  mass guard, brakes ◀───────────────┘
//	                                                     └─▶ decisions, drift, alarms, new state
//
// An epoch is a time in which nothing hints at a restart, a fail-over, another token
// or a listing that is not whole. A new one forgets all that was counted.
//
// Everything here is pure: [PlanReconcile] reads no clock, disk or network. If we die
// before a decision is written, nothing has happened and it is made again.

// ReconcileMode says what is done about a difference.
type ReconcileMode string

// The modes. A difference is reported in each but off.
const (
	ReconcileOff    ReconcileMode = "off"
	ReconcileReport ReconcileMode = "report"
	ReconcileOpen   ReconcileMode = "open"
	ReconcileClose  ReconcileMode = "close"
	ReconcileBoth   ReconcileMode = "both"
)

func (m ReconcileMode) opens() bool  { return m == ReconcileOpen || m == ReconcileBoth }
func (m ReconcileMode) closes() bool { return m == ReconcileClose || m == ReconcileBoth }

// ReconcileConfig is how one source is reconciled. The zero value reports.
type ReconcileConfig struct {
	Source string        // of the incident keys
	Mode   ReconcileMode // "" = report
	// Contact is the name of our contact point. "" = pmm.DefaultName.
	Contact string
	// Every is the time between two passes. 0 = 1m.
	Every time.Duration
	// CloseAfter is how long an alert must be gone, and no webhook have named it,
	// before its episode is closed. 0 = 15m.
	CloseAfter time.Duration
	// Limit is the share of the open episodes that may be closed without a person, if
	// it is more than 3 episodes. 0 = 0.2.
	Limit float64
}

func (c ReconcileConfig) withDefaults() ReconcileConfig {
	c.Mode = cmp.Or(c.Mode, ReconcileReport)
	c.Contact = cmp.Or(c.Contact, pmm.DefaultName)
	c.Every = cmp.Or(c.Every, time.Minute)
	c.CloseAfter = cmp.Or(c.CloseAfter, 15*time.Minute)
	c.Limit = cmp.Or(c.Limit, 0.2)
	return c
}

const (
	reconcilePasses      = 3 // passes, and evaluations, that must agree
	reconcileFew         = 3 // episodes that may always be closed at once
	reconcileMass        = 50
	reconcileCloses      = 5 // a minute
	reconcileOpens       = 20
	reconcileUnknownWait = 12 * time.Minute // group_wait + 2 group intervals + 1m, as Grafana has them
	reconcileAfterRefuse = 2 * time.Minute
	reconcileMaxBackoff  = 10 * time.Minute
	reconcileRevocable   = 24 * time.Hour
)

// ReconcileEpisode is one open episode of the source.
type ReconcileEpisode struct {
	Key         string // the incident key
	Fingerprint string
	// RuleUID as pmm.RuleUID finds it, "" = unknown.
	RuleUID  string
	Title    string // for people: alertname
	StartsAt time.Time
	// HeardAt is when a webhook named the alert last, by our clock.
	HeardAt time.Time
	// Queued: something of its key waits to be split or delivered.
	Queued bool
	// Made: by the service itself (silence, test), so PMM knows nothing of it.
	Made bool
	// Template: it carries percona_alerting="1". Such a rule compares with bool, so
	// that a series that is gone is lost data and no recovery.
	Template bool
	// Labels of an alert whose webhooks have no fingerprint (a custom payload, the
	// guide's bodies): Fingerprint is then not PMM's. nil where it is.
	Labels map[string]string
}

// ReconcileOrder is what a person asked for. It works in every mode.
type ReconcileOrder struct {
	// Yes does what the mass guard and the brakes hold back.
	Yes bool
	// Keys are to be closed though no rule vouches for it. Not if they fire.
	Keys []string
}

// ReconcileInput is what one pass knows.
type ReconcileInput struct {
	Now time.Time
	// View of PMM. nil = it could not be read, and Err says why.
	View *pmm.View
	Err  error
	// Behind: notifications wait to be split.
	Behind bool
	// RefusedAt is when a webhook of the source was last answered with 5xx.
	RefusedAt time.Time
	// Open are the open episodes of the source, read after the view.
	Open  []ReconcileEpisode
	Order ReconcileOrder
	// Jitter in [0,1) spreads the passes by 10 %.
	Jitter float64
}

// ReconcileState is what a source's passes remember. It may be kept in memory only:
// losing it costs an epoch.
type ReconcileState struct {
	// Epoch is when the present one began, and Why.
	Epoch time.Time `json:"epoch"`
	Why   string    `json:"why"`
	// Failures counts consecutive passes without a view.
	Failures int `json:"failures"`
	// Contact is how PMM last fared with our contact point. nil = it has none of that
	// name, or that was not read yet; ContactRead tells which.
	Contact     *pmm.ContactState `json:"contact"`
	ContactRead bool              `json:"contact_read"`

	Seen      reconcileSeen               `json:"seen"`
	Gone      map[string]reconcileGone    `json:"gone"`      // open and not listed, by key
	Missing   map[string]int              `json:"missing"`   // listed and not open: passes, by fingerprint
	Revocable map[string]reconcileRevoked `json:"revocable"` // closed by reconciling, by key
	Closed    []time.Time                 `json:"closed"`    // of the last minute
	Opened    []time.Time                 `json:"opened"`
}

// reconcileSeen is what a later pass is compared with.
type reconcileSeen struct {
	At       time.Time            `json:"at"`
	Now      time.Time            `json:"now"` // by our clock
	Who      string               `json:"who"`
	Version  string               `json:"version"`
	Alerts   int                  `json:"alerts"`
	Rules    map[string]time.Time `json:"rules"`    // last evaluations, by UID
	Attempts map[string]time.Time `json:"attempts"` // last attempts, by contact point
}

// reconcileGone counts, for an open episode that is not listed, what speaks for its
// being over. Whatever speaks against it sets all but Passes back.
type reconcileGone struct {
	Passes      int       `json:"passes"`
	Since       time.Time `json:"since"`
	Agreed      int       `json:"agreed"` // passes in which the rule agreed
	Evaluated   time.Time `json:"evaluated"`
	Evaluations int       `json:"evaluations"`
}

type reconcileRevoked struct {
	StartsAt time.Time `json:"starts_at"`
	At       time.Time `json:"at"`
}

// ReconcileAct is an alert to open, or an episode to close: the one with that StartsAt,
// not one that has begun since.
type ReconcileAct struct {
	Key      string    `json:"incident_key"`
	Title    string    `json:"title"`
	Why      string    `json:"why"` // one sentence
	StartsAt time.Time `json:"-"`
	EndsAt   time.Time `json:"-"` // when it was first found gone, by PMM's clock
	contact  string
	opening  []byte // the notification to write, nil = it is to be closed
}

// Body is the notification to write. firing is the stored member with which the
// episode to close began, nil where it is gone.
func (a ReconcileAct) Body(firing []byte) ([]byte, error) {
	if a.opening != nil {
		return a.opening, nil
	}
	return pmm.RecoveryNotification(a.contact, firing, a.Title, event.Fingerprint(a.Key), a.StartsAt, a.EndsAt)
}

// ReconcileDrift is one difference, whether or not something is done about it.
type ReconcileDrift struct {
	// Kind is stale (closed unless the mode forbids it), hollow, rule_unknown,
	// rule_gone, rule_paused, rule_unhealthy, rule_waits, firing_unlisted,
	// missing (opened unless the mode forbids it), muted, or not_routed.
	Kind     string    `json:"kind"`
	Key      string    `json:"incident_key"`
	Title    string    `json:"title"`
	StartsAt time.Time `json:"starts_at"`
	Why      string    `json:"why"`
}

// ReconcileAlarm is for a person to decide.
type ReconcileAlarm struct {
	Code string `json:"code"` // reconcile_mass, reconcile_missing, pmm_contact_point_failing, pmm_not_routed
	Text string `json:"text"`
	Way  string `json:"way"`
}

// ReconcilePlan is what a pass decided.
type ReconcilePlan struct {
	State ReconcileState
	Open  []ReconcileAct
	Close []ReconcileAct
	Drift []ReconcileDrift
	// Alarms that hold now; one that is not named any more is over.
	Alarms []ReconcileAlarm
	// Refused are the keys of the order that stay open, and why.
	Refused map[string]string
	// Skipped says why the pass saw nothing, "" = it did.
	Skipped string
	// Next is the time until the next pass.
	Next time.Duration
}

// PlanReconcile decides about one pass over one source. It changes nothing of what it
// is given.
func PlanReconcile(cfg ReconcileConfig, old ReconcileState, in ReconcileInput) ReconcilePlan {
	cfg = cfg.withDefaults()
	r := reconciling{cfg: cfg, in: in, plan: ReconcilePlan{State: old, Refused: map[string]string{}}}
	r.plan.Next = time.Duration(float64(cfg.Every) * (0.9 + 0.2*in.Jitter))
	switch {
	case in.View == nil:
		r.failed()
	case in.Behind:
		r.plan.Skipped = "notifications wait to be split"
	case in.Now.Sub(in.RefusedAt) < reconcileAfterRefuse:
		r.plan.Skipped = "a webhook was refused just now, PMM sends it again"
	default:
		r.pass()
		return r.plan
	}
	for _, key := range in.Order.Keys {
		r.plan.Refused[key] = r.plan.Skipped
	}
	return r.plan
}

// reconciling is one pass.
type reconciling struct {
	cfg  ReconcileConfig
	in   ReconcileInput
	plan ReconcilePlan
}

// failed begins a new epoch: nobody knows what happened meanwhile.
func (r *reconciling) failed() {
	s := &r.plan.State
	r.plan.Skipped = "PMM cannot be read"
	if r.in.Err != nil {
		r.plan.Skipped += ": " + r.in.Err.Error()
	}
	s.Failures++
	r.plan.Next = min(r.plan.Next<<min(s.Failures, 10), max(reconcileMaxBackoff, r.cfg.Every))
	s.Gone, s.Missing, s.Seen, s.Why = nil, nil, reconcileSeen{}, r.plan.Skipped
}

func (r *reconciling) pass() {
	s, v := &r.plan.State, r.in.View
	if why := s.Seen.broken(v, r.in.Now); why != "" || s.Seen.At.IsZero() {
		s.Gone, s.Missing, s.Epoch, s.Why = nil, nil, v.At, cmp.Or(why, s.Why, "the first pass")
	}
	s.Failures = 0
	s.Seen = s.Seen.after(v, r.in.Now)
	s.Revocable = maps.Clone(s.Revocable)
	maps.DeleteFunc(s.Revocable, func(_ string, c reconcileRevoked) bool { return v.At.Sub(c.At) > reconcileRevocable })
	r.contact()
	r.openings(r.closings())
}

// broken says why a view does not belong to the epoch of those before it. PMM's clock
// has to go about as fast as ours: in an answer out of a cache it stands still.
func (s reconcileSeen) broken(v *pmm.View, now time.Time) string {
	switch {
	case s.At.IsZero():
		return ""
	case v.Who != s.Who:
		return "another PMM or another token"
	case v.At.Before(s.At), v.At.Sub(s.At) < now.Sub(s.Now)/2-time.Second: // it tells whole seconds
		return "PMM's clock went back or stood still"
	case s.Version != "" && v.Version != "" && v.Version != s.Version:
		return "another version of Grafana"
	// A few may recover at once.
	case s.Alerts-len(v.Alerts) > reconcileFew && len(v.Alerts)*2 <= s.Alerts:
		return "half of the alerts are gone at once"
	case len(v.Rules) < len(s.Rules) && (len(s.Rules)-len(v.Rules))*10 >= len(s.Rules):
		return "a tenth of the rules cannot be seen any more"
	}
	for uid, rule := range v.Rules {
		if rule.LastEvaluation.Before(s.Rules[uid]) {
			return "the evaluations went back: Grafana was restarted, or another node answers"
		}
	}
	for name, contact := range v.Contacts {
		if contact.LastAttempt.IsZero() && !s.Attempts[name].IsZero() {
			return "the attempts of a contact point began anew: Grafana was restarted, or another node answers"
		}
	}
	return ""
}

func (s reconcileSeen) after(v *pmm.View, now time.Time) reconcileSeen {
	next := reconcileSeen{At: v.At, Now: now, Who: v.Who, Version: cmp.Or(v.Version, s.Version), Alerts: len(v.Alerts), Rules: make(map[string]time.Time, len(v.Rules)), Attempts: s.Attempts}
	for uid, rule := range v.Rules {
		next.Rules[uid] = rule.LastEvaluation
	}
	if v.Contacts != nil {
		next.Attempts = make(map[string]time.Time, len(v.Contacts))
		for name, contact := range v.Contacts {
			next.Attempts[name] = contact.LastAttempt
		}
	}
	return next
}

// contact tells how PMM fares with our contact point, and whether it leads to this service.
func (r *reconciling) contact() {
	s, v := &r.plan.State, r.in.View
	if v.Contacts != nil {
		s.Contact, s.ContactRead = nil, true
		if c, ok := v.Contacts[r.cfg.Contact]; ok {
			s.Contact = &c
		}
	}
	alarm := func(code, way, format string, args ...any) {
		r.plan.Alarms = append(r.plan.Alarms, ReconcileAlarm{code, fmt.Sprintf(format, args...), way})
	}
	own := false // a rule names it itself
	for _, rule := range v.Rules {
		own = own || rule.Receiver == r.cfg.Contact
	}
	switch {
	case s.ContactRead && s.Contact == nil:
		alarm("pmm_not_routed", "pmm-callgoose setup pmm makes it; or give its new name with --contact-point.", "PMM has no contact point %q any more", r.cfg.Contact)
	case v.Routing != nil && !v.Routing.Leads && !own:
		alarm("pmm_not_routed", "pmm-callgoose setup pmm adds the route.", "no notification policy of PMM leads to %q any more", r.cfg.Contact)
	case s.Contact != nil && s.Contact.LastError != "":
		alarm("pmm_contact_point_failing", "See that PMM reaches this service; doctor --pmm-url compares both sides.", "PMM's last attempt to reach the service failed: %s", s.Contact.LastError)
	}
}

func (r *reconciling) drift(d ReconcileDrift) { r.plan.Drift = append(r.plan.Drift, d) }

// ordered are the keys that a person named.
func (r *reconciling) ordered() map[string]bool {
	ordered := map[string]bool{}
	for _, key := range r.in.Order.Keys {
		ordered[key] = true
		r.plan.Refused[key] = "no episode of this key is open"
	}
	return ordered
}

// closings looks at every open episode, and returns the fingerprints in PMM's list
// that they are.
func (r *reconciling) closings() map[string]bool {
	s, v := &r.plan.State, r.in.View
	open := make(map[string]bool, len(r.in.Open))
	gone := map[string]reconcileGone{}
	var ripe []ReconcileAct
	ordered, listings := r.ordered(), r.listings()
	for i := range r.in.Open {
		e := &r.in.Open[i]
		listed := listings(e)
		for _, fingerprint := range append(listed, e.Fingerprint) {
			open[fingerprint] = true
		}
		closing := ReconcileAct{Key: e.Key, Title: e.Title, StartsAt: e.StartsAt, EndsAt: v.At, contact: r.cfg.Contact}
		report := func(kind, why string) {
			r.drift(ReconcileDrift{kind, e.Key, e.Title, e.StartsAt, why})
			if ordered[e.Key] {
				r.plan.Refused[e.Key] = why
			}
		}
		if len(listed) > 0 {
			if ordered[e.Key] {
				r.plan.Refused[e.Key] = "PMM lists it as firing"
			}
			if !slices.ContainsFunc(listed, func(fp string) bool { return v.Alerts[fp].Ours }) {
				report("not_routed", "it fires, and PMM does not route it to the service any more")
			}
			continue
		}
		kind, why := e.verdict(v)
		g := s.Gone[e.Key].next(kind == "stale" && !e.Made, v, e.RuleUID)
		gone[e.Key] = g
		closing.EndsAt = g.Since
		closing.Why = fmt.Sprintf("PMM has not listed the alert since %s, and %s", g.Since.UTC().Format(time.DateTime+" UTC"), why)
		switch {
		case ordered[e.Key] && kind != "firing_unlisted" && !e.Queued:
			delete(r.plan.Refused, e.Key)
			closing.Why = "closed by a person: PMM does not list the alert"
			r.plan.Close = append(r.plan.Close, closing)
		case ordered[e.Key] && e.Queued:
			r.plan.Refused[e.Key] = "something of it is still queued"
		case e.Made:
		case g.ripe(r.cfg, v.At) && !e.Queued && r.in.Now.Sub(e.HeardAt).Abs() >= r.cfg.CloseAfter:
			ripe = append(ripe, closing)
			report("stale", closing.Why)
		case g.Passes >= reconcilePasses && kind != "stale":
			report(kind, why)
		case ordered[e.Key]:
			r.plan.Refused[e.Key] = why
		}
	}
	s.Gone = gone
	r.close(ripe)
	return open
}

// close closes what a person ordered and, of what is ripe, what is not held back.
func (r *reconciling) close(ripe []ReconcileAct) {
	s, at := &r.plan.State, r.in.View.At
	most := max(reconcileFew, int(r.cfg.Limit*float64(len(r.in.Open))))
	r.plan.Close = append(r.plan.Close, r.brake(ripe, r.cfg.Mode.closes(), reconcileCloses, &s.Closed, most, ReconcileAlarm{
		"reconcile_mass", fmt.Sprintf("%d of %d open episodes are gone in PMM at once; none was closed", len(ripe), len(r.in.Open)),
		"Look whether PMM sees all of its alerts; then pmm-callgoose reconcile --yes.",
	})...)
	for _, c := range r.plan.Close {
		s.Closed = append(s.Closed, at)
		s.Revocable = put(s.Revocable, c.Key, reconcileRevoked{c.StartsAt, at})
		delete(s.Gone, c.Key)
	}
}

// listings returns what finds an open episode in PMM's list: by its fingerprint, or
// where its webhooks have none by its labels. It stands for every alert that has all
// of these, as its webhooks do, so that none of them is opened a second time.
func (r *reconciling) listings() func(*ReconcileEpisode) []string {
	alerts := r.in.View.Alerts
	var named map[string]map[string]map[string]string // labels, by alertname and fingerprint
	return func(e *ReconcileEpisode) (found []string) {
		if _, ok := alerts[e.Fingerprint]; ok {
			return []string{e.Fingerprint}
		} else if e.Labels["alertname"] == "" {
			return nil
		}
		if named == nil {
			named = map[string]map[string]map[string]string{}
			for fingerprint, a := range alerts {
				named[a.Title] = put(named[a.Title], fingerprint, labelsOf(a.Raw))
			}
		}
		for fingerprint, labels := range named[e.Labels["alertname"]] {
			if includes(labels, e.Labels) {
				found = append(found, fingerprint)
			}
		}
		return found
	}
}

func put[V any](m map[string]V, key string, value V) map[string]V {
	if m == nil {
		m = map[string]V{}
	}
	m[key] = value
	return m
}

// verdict is what the rules' states say of an episode that is not listed: "stale", or
// why it must not be closed. A doubt keeps it open.
func (e *ReconcileEpisode) verdict(v *pmm.View) (kind, why string) {
	rule, visible := v.Rules[e.RuleUID]
	state := v.Instances[e.Fingerprint]
	switch {
	case state != "" && state != "Normal" && !strings.HasPrefix(state, "Normal "):
		return "firing_unlisted", fmt.Sprintf("its rule says %q", state)
	case e.RuleUID == "":
		return "rule_unknown", "the rule that made it is not known"
	case e.Labels != nil && state == "":
		return "rule_unknown", "its webhooks have no fingerprint, so what its rule says of it cannot be found"
	case !visible:
		return "rule_gone", "its rule was deleted, or the token may not see its folder"
	case rule.Paused:
		return "rule_paused", "its rule is paused"
	case !strings.EqualFold(rule.Health, "ok"):
		return "rule_unhealthy", fmt.Sprintf("its rule cannot be evaluated (%s)", rule.Health)
	case rule.LastEvaluation.IsZero():
		return "rule_waits", "its rule was not evaluated since Grafana's start"
	case strings.HasPrefix(state, "Normal "):
		return "hollow", fmt.Sprintf("its rule says %q: the data is gone, and nothing says that the trouble is", state)
	case state == "" && e.Template:
		return "hollow", "its rule has no such series any more: the data is gone, and nothing says that the trouble is"
	case state == "":
		return "stale", "its rule, which is evaluated, has no such series any more"
	}
	return "stale", "its rule evaluates to normal"
}

// next counts one more pass in which the alert was not listed.
func (g reconcileGone) next(agreed bool, v *pmm.View, uid string) reconcileGone {
	g.Passes++
	if !agreed {
		return reconcileGone{Passes: g.Passes, Since: v.At}
	}
	if g.Agreed == 0 {
		g.Since = v.At
	}
	g.Agreed++
	if at := v.Rules[uid].LastEvaluation; at.After(g.Evaluated) {
		g.Evaluated = at
		g.Evaluations++
	}
	return g
}

func (g reconcileGone) ripe(cfg ReconcileConfig, at time.Time) bool {
	return g.Agreed >= reconcilePasses && g.Evaluations >= reconcilePasses && at.Sub(g.Since) >= cfg.CloseAfter
}

// brake holds back what is too much to be true, more than most, with an alarm, and what
// is too much at once: done are the times of what was done, of which aMinute are allowed.
func (r *reconciling) brake(ripe []ReconcileAct, allowed bool, aMinute int, done *[]time.Time, most int, alarm ReconcileAlarm) []ReconcileAct {
	*done = slices.DeleteFunc(slices.Clone(*done), func(t time.Time) bool { return r.in.View.At.Sub(t).Abs() >= time.Minute })
	switch {
	case r.in.Order.Yes:
		return ripe
	case len(ripe) > most:
		r.plan.Alarms = append(r.plan.Alarms, alarm)
		return nil
	case !allowed:
		return nil
	}
	return ripe[:min(len(ripe), max(0, aMinute-len(*done)))]
}

// openings looks at every listed alert without an open episode.
func (r *reconciling) openings(open map[string]bool) {
	s, v := &r.plan.State, r.in.View
	missing := map[string]int{}
	var ripe []ReconcileAct
	for _, fingerprint := range slices.Sorted(maps.Keys(v.Alerts)) {
		a := v.Alerts[fingerprint]
		if open[fingerprint] || !a.Active || !a.Ours || a.Raw == nil || labelsOf(a.Raw)[OurLabel] != "" { // a heartbeat is no event
			continue
		}
		opening := ReconcileAct{Key: event.Key(r.cfg.Source, fingerprint), Title: a.Title, StartsAt: a.StartsAt}
		if closed, ok := s.Revocable[opening.Key]; ok && closed.StartsAt.Equal(a.StartsAt) {
			opening.Why = "PMM lists the alert again: its close by reconciling is revoked"
			r.open(opening, a)
			delete(s.Revocable, opening.Key)
			continue
		}
		missing[fingerprint] = s.Missing[fingerprint] + 1
		settle, muted := r.way(a)
		report := func(kind, why string) { r.drift(ReconcileDrift{kind, opening.Key, a.Title, a.StartsAt, why}) }
		switch {
		case missing[fingerprint] < reconcilePasses || v.At.Sub(a.StartsAt) < settle:
		case muted:
			report("muted", "it fires, and the route to the service has mute timings: whether it is muted now cannot be seen")
		default:
			opening.Why = fmt.Sprintf("PMM lists the alert as firing since %s, and no webhook came", a.StartsAt.UTC().Format(time.DateTime+" UTC"))
			ripe = append(ripe, opening)
			report("missing", opening.Why)
		}
	}
	s.Missing = missing
	for _, o := range r.brake(ripe, r.cfg.Mode.opens(), reconcileOpens, &s.Opened, reconcileMass, ReconcileAlarm{
		"reconcile_missing", fmt.Sprintf("%d alerts fire in PMM of which no webhook came; none was opened", len(ripe)),
		"Look at reconcile --dry-run; then pmm-callgoose reconcile --yes.",
	}) {
		r.open(o, v.Alerts[event.Fingerprint(o.Key)])
		s.Opened = append(s.Opened, v.At)
	}
}

// labelsOf are the labels of a listed alert, nil where it was not kept.
func labelsOf(listed json.RawMessage) map[string]string {
	var l struct{ Labels map[string]string }
	_ = json.Unmarshal(listed, &l) // it was just decoded
	return l.Labels
}

// way is how long the alert's notification may take, and whether the route to the service
// is muted at times.
func (r *reconciling) way(a pmm.ListedAlert) (settle time.Duration, muted bool) {
	rule := r.in.View.Rules[a.RuleUID]
	switch {
	case rule.Receiver == r.cfg.Contact:
		settle, muted = rule.Settle, rule.Muted
	case r.in.View.Routing != nil:
		settle, muted = r.in.View.Routing.Settle, r.in.View.Routing.Muted
	}
	return cmp.Or(settle, reconcileUnknownWait), muted
}

func (r *reconciling) open(o ReconcileAct, listed pmm.ListedAlert) {
	var err error
	if o.opening, err = pmm.FiringNotification(r.cfg.Contact, listed.Raw); err != nil {
		r.plan.Skipped = fmt.Sprintf("incident %s cannot be opened: %s", o.Key, err)
		return
	}
	r.plan.Open = append(r.plan.Open, o)
}
