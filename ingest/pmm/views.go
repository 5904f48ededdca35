package pmm

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"time"

	"pmm-callgoose/ingest/outbound"
)

// What PMM's Grafana believes to be firing is read from two of its parts. They keep
// separate state, so one of them can be wrong:
//
//   - the Alertmanager's list, alertmanager/grafana/api/v2/alerts: what is firing
//     now, silenced or not, with fingerprint and startsAt of the webhook and the
//     contact points it goes to. Memory only: after a restart it is 200 and "[]"
//     until each rule was evaluated (54 s with rules of 60 s, real Grafana 12.4.3).
//     A muted alert is "active", without a mark.
//   - the rules' states, prometheus/grafana/api/v1/rules: per rule when it was last
//     evaluated and how that went, per instance its state and the reason. Warmed from
//     the database at a start (grafana/grafana issue 47215), lastEvaluation is then
//     the zero time. Rules in folders that the token may not see are left out, with
//     200. It has no fingerprints; they are computed, see instance.fingerprints.
//
// Neither pages unless asked, and neither is filtered here: a receiver= that names
// nobody is 200 and "[]" too. A Viewer may read both.

const (
	alertsPath    = "/graph/api/alertmanager/grafana/api/v2/alerts"
	rulesPath     = "/graph/api/prometheus/grafana/api/v1/rules?includeInternalLabels=true"
	receiversPath = "/graph/api/alertmanager/grafana/config/api/v1/receivers"
)

// View is what one pass over PMM saw. It is complete: every answer was whole and of
// the documented form. Times are PMM's.
type View struct {
	// At is PMM's clock (the Date header) when the last answer was given.
	At time.Time
	// Who changes when another PMM is asked, or with another token.
	Who string
	// Version of Grafana, "" until it was read.
	Version string
	// Alerts are those in the first or the second listing, by fingerprint.
	Alerts map[string]ListedAlert
	// Rules are those that the token may see, by UID.
	Rules map[string]RuleState
	// Instances are the states of the open episodes' instances, by fingerprint:
	// "Normal", "Alerting (Error)", "Normal (MissingSeries)".
	Instances map[string]string
	// Contacts are the contact points by name. nil = not read in this pass.
	Contacts map[string]ContactState
	// Routing is how the policies lead to our contact point, as last read. nil =
	// they cannot be read.
	Routing *Routing
}

// ListedAlert is one alert of the Alertmanager's list.
type ListedAlert struct {
	StartsAt time.Time
	// Active: in both listings, and not suppressed by a silence in either.
	Active bool
	// Ours: our contact point is among those it goes to.
	Ours    bool
	RuleUID string
	Title   string // its alertname
	// Raw is the element itself, kept only where no episode is open.
	Raw json.RawMessage
}

// RuleState is one alert rule.
type RuleState struct {
	Title          string
	LastEvaluation time.Time // zero = not since Grafana's start
	Health         string    // ok, nodata, error
	Paused         bool
	// Receiver is the contact point that the rule names itself, passing the policies.
	Receiver string
	// Muted and Settle are as in Routing, for a rule with its own contact point.
	Muted  bool
	Settle time.Duration
}

// Routing says how alerts come to our contact point.
type Routing struct {
	// Leads: a policy leads to it.
	Leads bool
	// Muted: one of those policies has mute or active timings. Whether it is muted
	// now cannot be seen in the list.
	Muted bool
	// Settle is how long after startsAt the notification must have come: group_wait,
	// two group intervals and a minute, of the slowest of those policies.
	Settle time.Duration
}

// ContactState is what Grafana says of its last attempt with one contact point. The
// zero LastAttempt means none since Grafana's start.
type ContactState struct {
	LastAttempt time.Time `json:"last_attempt"`
	// LastError of the last attempt, one line; "" = it succeeded.
	LastError string `json:"last_error,omitempty"`
	// Integrations is how many it has. A contact point without any notifies nobody.
	Integrations int `json:"integrations"`
}

// Viewer reads views of one PMM. Not safe concurrently.
type Viewer struct {
	client  *Client
	name    string
	passes  int
	version string
	routing *Routing
}

// NewViewer makes a viewer for the contact point with that name, "" = DefaultName.
// Give the client a Timeout of 10 s.
func NewViewer(c *Client, name string) *Viewer {
	return &Viewer{client: c, name: cmp.Or(name, DefaultName)}
}

// Read asks for a view with four requests at most. open tells whether an episode
// with that fingerprint is open; it decides only what is kept in memory. An error
// means that nothing can be said: the view is not complete.
//
// Between the listings it reads the policies and the contact points in turn, and in
// their place now and then the version.
func (v *Viewer) Read(ctx context.Context, open func(fingerprint string) bool) (View, error) {
	view := View{
		Who: v.client.who(), Alerts: map[string]ListedAlert{}, Rules: map[string]RuleState{}, Instances: map[string]string{},
	}
	between := v.policies
	switch {
	case v.passes%20 == 3:
		between = v.grafana
	case v.passes%2 == 1:
		between = v.contacts
	}
	v.passes++
	first, err := v.alerts(ctx, &view, open)
	if err != nil {
		return View{}, err
	}
	if err := v.rules(ctx, &view, open); err != nil {
		return View{}, err
	}
	if err := between(ctx, &view); err != nil {
		return View{}, err
	}
	second, err := v.alerts(ctx, &view, open)
	if err != nil {
		return View{}, err
	}
	maps.Copy(view.Alerts, first)
	maps.Copy(view.Alerts, second)
	for fingerprint, a := range view.Alerts {
		a.Active = first[fingerprint].Active && second[fingerprint].Active
		view.Alerts[fingerprint] = a
	}
	view.Version, view.Routing = v.version, v.routing
	return view, nil
}

// incomplete is the error of an answer that is JSON and says too little.
func incomplete(doing, format string, args ...any) error {
	return &APIError{Doing: doing, Status: http.StatusOK, text: "the answer of PMM is not complete: " + oneLine(fmt.Sprintf(format, args...))}
}

// alerts reads the Alertmanager's list, by fingerprint, and PMM's clock.
func (v *Viewer) alerts(ctx context.Context, view *View, open func(string) bool) (map[string]ListedAlert, error) {
	const doing = "read the alerts"
	var header http.Header
	var list []json.RawMessage
	if err := v.client.do(ctx, request{doing: doing, path: alertsPath, header: &header, out: &list}); err != nil {
		return nil, err
	} else if list == nil {
		return nil, incomplete(doing, "null in place of a list")
	}
	out := make(map[string]ListedAlert, len(list))
	for _, raw := range list {
		var l struct {
			Fingerprint string
			StartsAt    time.Time
			Status      struct{ State string }
			Receivers   *[]struct{ Name string }
			Labels      map[string]string
		}
		if err := json.Unmarshal(raw, &l); err != nil {
			return nil, incomplete(doing, "%s", outbound.Cause(err))
		}
		if l.Fingerprint == "" || l.StartsAt.IsZero() || l.Status.State == "" || l.Receivers == nil {
			return nil, incomplete(doing, "an alert without fingerprint, startsAt, status or receivers")
		}
		a := ListedAlert{StartsAt: l.StartsAt, Active: l.Status.State == "active", RuleUID: l.Labels[ruleLabel]}
		for _, r := range *l.Receivers {
			a.Ours = a.Ours || r.Name == v.name || r.Name == regexp.QuoteMeta(v.name)
		}
		if !open(l.Fingerprint) {
			a.Raw, a.Title = raw, l.Labels["alertname"]
		}
		out[l.Fingerprint] = a
	}
	var err error
	if view.At, err = http.ParseTime(header.Get("Date")); err != nil {
		return nil, incomplete(doing, "it has no Date")
	}
	return out, nil
}

// ruleLabel and folderLabel are the private labels of every state; the fingerprint
// covers the first one only (real Grafana 12.4.3, five of five), and no empty label
// (grafana/alerting:notify/grafana_alertmanager.go, PutAlerts).
const (
	ruleLabel   = "__alert_rule_uid__"
	folderLabel = "__alert_rule_namespace_uid__"
)

// instance is the state of one instance of a rule.
type instance struct {
	Labels map[string]string
	State  string
}

// fingerprints are those that webhooks of this instance can carry: of its labels,
// and of the alerts that Grafana makes of it when there is no data or an error, where
// the rule's name moves to "rulename" (grafana/grafana:pkg/services/ngalert/state/
// compat.go). Which of them is meant follows from the state that it had when it
// fired, so all three are compared.
func (i *instance) fingerprints(rule string) [3]string {
	maps.DeleteFunc(i.Labels, func(name, value string) bool { return name == folderLabel || value == "" })
	i.Labels[ruleLabel] = rule
	var out [3]string
	out[0] = Fingerprint(i.Labels)
	i.Labels["rulename"] = i.Labels["alertname"]
	for n, name := range []string{"DatasourceNoData", "DatasourceError"} {
		i.Labels["alertname"] = name
		out[n+1] = Fingerprint(i.Labels)
	}
	return out
}

// listedRule is a rule in the list. Its UID is "" in an older Grafana, which gives it
// with the instances only.
type listedRule struct {
	UID, Name, Health    string
	LastEvaluation       time.Time
	IsPaused             bool
	NotificationSettings *struct {
		Receiver            string
		GroupWait           string   `json:"group_wait"`
		GroupInterval       string   `json:"group_interval"`
		MuteTimeIntervals   []string `json:"mute_time_intervals"`
		ActiveTimeIntervals []string `json:"active_time_intervals"`
		MuteTimings         []string `json:"mute_timings"`
	}
	Alerts []instance
}

func (v *Viewer) rules(ctx context.Context, view *View, open func(string) bool) error {
	const doing = "read the rules"
	var answer struct {
		Status string
		Data   struct {
			Groups         []struct{ Rules []listedRule }
			GroupNextToken string
		}
	}
	err := v.client.do(ctx, request{doing: doing, path: rulesPath, out: &answer})
	switch {
	case err != nil:
		return err
	case answer.Status != "success":
		return incomplete(doing, "its status is %q", answer.Status)
	case len(answer.Data.Groups) == 0:
		return incomplete(doing, "no rules: there are none, or the token may not see any")
	case answer.Data.GroupNextToken != "":
		return incomplete(doing, "further pages follow")
	}
	for _, g := range answer.Data.Groups {
		for _, r := range g.Rules {
			if err := view.take(r, open); err != nil {
				return incomplete(doing, "%s", err)
			}
		}
	}
	return nil
}

// take adds one rule, and what is said of the open episodes among its instances.
func (view *View) take(r listedRule, open func(string) bool) error {
	for _, i := range r.Alerts {
		if i.Labels == nil {
			return errors.New("an instance without labels")
		}
		r.UID = cmp.Or(i.Labels[ruleLabel], r.UID)
		for n, fingerprint := range i.fingerprints(r.UID) {
			// A plain Normal says that the alert itself is over, and nothing of the others.
			if open(fingerprint) && (n == 0 || i.State != "Normal") {
				view.Instances[fingerprint] = i.State
			}
		}
	}
	if r.UID == "" {
		return nil
	}
	state := RuleState{Title: r.Name, LastEvaluation: r.LastEvaluation, Health: r.Health, Paused: r.IsPaused}
	if own := r.NotificationSettings; own != nil {
		state.Receiver = own.Receiver
		state.Muted = len(own.MuteTimeIntervals)+len(own.ActiveTimeIntervals)+len(own.MuteTimings) > 0
		state.Settle = settle(own.GroupWait, own.GroupInterval)
	}
	view.Rules[r.UID] = state
	return nil
}

func (v *Viewer) contacts(ctx context.Context, view *View) error {
	var err error
	view.Contacts, err = v.client.ContactStates(ctx)
	return err
}

func (v *Viewer) grafana(ctx context.Context, _ *View) error {
	version, err := v.client.grafana(ctx)
	v.version = cmp.Or(version, v.version)
	return err
}

// policies reads how the policies lead to our contact point. A token that may not read
// them, as a Viewer's of an older PMM, is no reason to read nothing else.
func (v *Viewer) policies(ctx context.Context, _ *View) error {
	v.routing = nil
	var raw json.RawMessage
	err := v.client.do(ctx, request{doing: "read the notification policies", path: policies, out: &raw})
	if e, ok := errors.AsType[*APIError](err); ok && e.Status == http.StatusForbidden {
		return nil
	}
	if err != nil {
		return err
	}
	root, err := readTree(raw)
	if err != nil {
		return err
	}
	v.routing = new(root.routing(v.name))
	return nil
}

// ContactStates asks for Grafana's last attempt with each contact point, by name, and
// its error.
func (c *Client) ContactStates(ctx context.Context) (map[string]ContactState, error) {
	var list []struct {
		Name         string
		Integrations []struct {
			LastNotifyAttempt      time.Time
			LastNotifyAttemptError string
		}
	}
	if err := c.do(ctx, request{doing: "read the contact points' last attempts", path: receiversPath, out: &list}); err != nil {
		return nil, err
	}
	out := make(map[string]ContactState, len(list))
	for _, p := range list {
		s := ContactState{Integrations: len(p.Integrations)}
		for _, i := range p.Integrations {
			if i.LastNotifyAttempt.After(s.LastAttempt) {
				s.LastAttempt = i.LastNotifyAttempt
			}
			s.LastError = cmp.Or(s.LastError, oneLine(i.LastNotifyAttemptError, c.secrets...))
		}
		out[p.Name] = s
	}
	return out, nil
}

// who changes with PMM and the token. A token of a service account is random, so its
// keyed hash gives nothing away; of a user with a password only the name is taken.
func (c *Client) who() string {
	user, _, _ := strings.Cut(c.cfg.Basic, ":")
	mac := hmac.New(sha256.New, []byte(c.base+"\n"+user+"\n"))
	mac.Write([]byte(c.cfg.Token))
	return fmt.Sprintf("%x", mac.Sum(nil)[:8])
}

// RuleUID is the rule that made an alert: as the webhook names it (Grafana 12.4), or
// from the path of its generator URL, …/alerting/grafana/UID/view. "" = unknown.
func RuleUID(ruleUID, generatorURL string) string {
	if ruleUID != "" {
		return ruleUID
	}
	if m := generatorPath.FindStringSubmatch(generatorURL); m != nil {
		return m[1]
	}
	return ""
}

var generatorPath = regexp.MustCompile(`/alerting/grafana/([A-Za-z0-9_-]{1,40})/view(?:[?#].*)?$`)
