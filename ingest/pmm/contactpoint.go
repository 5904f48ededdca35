package pmm

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DefaultName is what our contact point is called unless told otherwise.
const DefaultName = "Callgoose SQIBS"

const (
	contactPoints = "/graph/api/v1/provisioning/contact-points"
	policies      = "/graph/api/v1/provisioning/policies"
	alertRules    = "/graph/api/v1/provisioning/alert-rules"

	// redacted is what Grafana shows in place of a secret
	// (pkg/services/ngalert/api/tooling/definitions, RedactedValue). Only a person
	// may send it back: Grafana then keeps the old secret in some versions and
	// stores the word itself in others, for nested ones.
	redacted = "[REDACTED]"
)

// Want is what should be in PMM.
type Want struct {
	// Name of the contact point. "" = DefaultName.
	Name string
	// URL is where PMM finds our webhook.
	URL string
	// The credentials that our intake asks for: a bearer token or user:password,
	// and besides the secret to sign with. The token wins over Basic, for Grafana
	// sends only one of them (grafana/alerting:receivers/webhook).
	Token      string
	Basic      string
	HMACSecret string
	// HMACTimestampHeader is the header with the signed time. "" = the usual one.
	HMACTimestampHeader string
	// Matchers narrow the route to the alerts that fulfil them all. Empty = all
	// alerts; nil = as the route is, all alerts for a new one.
	Matchers []Matcher
	// Rotate writes the credentials again. PMM never shows them, so a change of a
	// secret cannot be seen, and without this a second run changes nothing.
	Rotate bool
	// Bare allows credentials that are in PMM to be taken away when there are none here.
	Bare bool
}

func (w Want) secrets() []string {
	_, password, _ := strings.Cut(w.Basic, ":")
	return []string{w.Token, w.Basic, password, w.HMACSecret}
}

// Check reports what is wrong with w, in one line. Plan asks it too.
func (w Want) Check() error {
	u, err := url.Parse(w.URL)
	switch {
	case err != nil, u.Host == "", u.Scheme != "http" && u.Scheme != "https":
		return errors.New("the webhook URL is not of the form http://host:4667/v1/webhook")
	case u.User != nil:
		return errors.New("the webhook URL holds a user name; PMM shows a URL to everybody, so credentials go into the ingest secrets")
	case w.Name != strings.TrimSpace(w.Name):
		return errors.New("the name of the contact point begins or ends with a space")
	}
	return nil
}

var notInUID = regexp.MustCompile(`[^a-z0-9]+`)

// UID is the fixed identifier of the contact point with that name, by which a later run
// recognises it. Grafana allows letters, digits, - and _, 40 of them.
func UID(name string) string {
	slug := strings.Trim(notInUID.ReplaceAllString(strings.ToLower(name), "-"), "-")
	if !strings.HasPrefix(slug, "callgoose") {
		slug = strings.TrimSuffix("callgoose-"+slug, "-")
	}
	if len(slug) > 40 {
		slug = slug[:23] + "-" + Fingerprint(map[string]string{"name": name})
	}
	return slug
}

// Action is what a plan does to an object.
type Action string

// The actions.
const (
	Create Action = "create"
	Change Action = "change"
	Keep   Action = "keep"
)

// Step is one object of a plan, and what happens to it.
type Step struct {
	Object string `json:"object"` // contact point, route, default route
	Name   string `json:"name"`
	Action Action `json:"action"`
	Fields []Edit `json:"fields,omitempty"`
	// Why says what a person should know about it.
	Why string `json:"why,omitempty"`
}

// Edit is a value that changes. Secrets show as "(hidden)".
type Edit struct {
	Name string `json:"name"`
	From string `json:"from"`
	To   string `json:"to"`
}

const (
	hidden = "(hidden)"
	none   = "(none)"
)

// Plan is what Apply would do. It holds no secret that prints.
type Plan struct {
	Version Version  `json:"pmm"`
	Steps   []Step   `json:"steps"`
	Notes   []string `json:"notes"`

	state state
	want  Want
	// What changes the contact point, and the policies; nil = nothing does.
	point, tree *request
}

// Empty reports whether there is nothing to do.
func (p *Plan) Empty() bool { return p.point == nil && p.tree == nil }

// state is what PMM answered.
type state struct {
	points []*point
	// The answers themselves, to see whether anything has changed since.
	rawPoints, rawTree []byte
	root               *route // of the notification policies
}

// point is one contact point of Grafana: one integration. Several with one name
// are shown as one and get their notifications together.
type point struct {
	object
	settings object
}

func (p *point) uid() string  { return p.text("uid") }
func (p *point) name() string { return p.text("name") }

// read asks for all that a plan needs.
func (c *Client) read(ctx context.Context, notes *[]string) (state, error) {
	var s state
	var rawPoints, rawTree json.RawMessage
	var header http.Header
	if err := c.do(ctx, request{doing: "read the contact points", path: contactPoints, out: &rawPoints, header: &header}); err != nil {
		return s, err
	}
	// Grafana 13 marks the API as going away.
	if date := header.Get("X-API-Deprecation-Date"); date != "" && notes != nil {
		*notes = append(*notes, fmt.Sprintf("this Grafana announces the end of the provisioning API that is used here (deprecated since %s); it still works", oneLine(date)))
	}
	if err := c.do(ctx, request{doing: "read the notification policies", path: policies, out: &rawTree}); err != nil {
		return s, err
	}
	s.rawPoints, s.rawTree = compact(rawPoints), compact(rawTree)
	var err error
	if s.points, err = readPoints(rawPoints); err != nil {
		return s, err
	}
	s.root, err = readTree(rawTree)
	return s, err
}

func compact(raw []byte) []byte {
	var b bytes.Buffer
	_ = json.Compact(&b, raw) // it was just decoded
	return b.Bytes()
}

func readPoints(raw []byte) ([]*point, error) {
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, errors.New("the contact points cannot be read: not a list; is this the answer of PMM?")
	}
	var out []*point
	for _, item := range list {
		p := &point{}
		if err := json.Unmarshal(item, &p.object); err != nil {
			return nil, fmt.Errorf("a contact point cannot be read: %w", err)
		}
		if p.filled("settings") {
			if err := json.Unmarshal(p.object["settings"], &p.settings); err != nil {
				return nil, fmt.Errorf("the settings of contact point %q cannot be read: %w", p.name(), err)
			}
		}
		out = append(out, p)
	}
	return out, nil
}

// ours finds our contact point. It is ours when identifier and name are both what
// setup gives it; if only one of them is, it belongs to somebody else, and the error says so.
func (s *state) ours(name string) (*point, error) {
	uid := UID(name)
	for _, p := range s.points {
		switch {
		case p.uid() == uid && p.name() == name:
			if p.text("type") != "webhook" {
				return nil, fmt.Errorf("contact point %q has become one of type %s; remove it in PMM, or choose another name with --contact-point", name, p.text("type"))
			}
			return p, nil
		case p.uid() == uid:
			return nil, fmt.Errorf("the contact point with the identifier %s is called %q; rename it to %q in PMM, or choose another name with --contact-point", uid, p.name(), name)
		}
	}
	for _, p := range s.points {
		if p.name() == name {
			return nil, fmt.Errorf("there is a contact point %q that was not made here, and it stays as it is; choose another name with --contact-point, or remove it in PMM first", name)
		}
	}
	return nil, nil
}

// Plan reads PMM and works out what has to change so that w is there. It changes
// nothing.
func (c *Client) Plan(ctx context.Context, w Want) (*Plan, error) {
	w.Name = cmp.Or(w.Name, DefaultName)
	if err := w.Check(); err != nil {
		return nil, err
	}
	v, err := c.Version(ctx)
	if err != nil {
		return nil, err
	}
	return c.configured(ctx, func() (*Plan, error) { return c.plan(ctx, w, v) })
}

// configured plans again, for at most a minute, until Grafana has a configuration to
// plan for. Without Waiting it plans once.
func (c *Client) configured(ctx context.Context, plan func() (*Plan, error)) (*Plan, error) {
	const patience, pause = time.Minute, 2 * time.Second
	for waited := time.Duration(0); ; waited += pause {
		p, err := plan()
		if e, ok := errors.AsType[*APIError](err); !ok || !e.unconfigured || c.cfg.Waiting == nil || waited >= patience {
			return p, err
		}
		if waited == 0 {
			c.cfg.Waiting(err)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

func (c *Client) plan(ctx context.Context, w Want, v Version) (*Plan, error) {
	p := &Plan{Version: v, want: w, Notes: []string{}}
	if w.HMACSecret != "" && !v.SignsWebhooks() {
		return nil, fmt.Errorf("%s cannot sign webhooks (PMM 3.2 begins to); use --ingest-token-file instead of --ingest-hmac-secret-file", v)
	}
	var err error
	if p.state, err = c.read(ctx, &p.Notes); err != nil {
		return nil, err
	}
	if err := p.planPoint(w); err != nil {
		return nil, err
	}
	if err := p.planRoutes(w); err != nil {
		return nil, err
	}
	if passing, err := c.passing(ctx, w.Name); err != nil {
		p.note("whether alert rules name a contact point of their own could not be read; those that do bypass the notification policies and are not sent here")
	} else if len(passing) > 0 {
		const most = 5
		text := fmt.Sprintf("%d alert rules name", len(passing))
		if len(passing) == 1 {
			text = "1 alert rule names"
		}
		names := strings.Join(passing[:min(len(passing), most)], ", ")
		if len(passing) > most {
			names += ", …"
		}
		p.note("%s a contact point of their own (%s): they bypass the notification policies and are not sent here", text, names)
	}
	p.notice(w)
	return p, nil
}

// passing finds the alert rules that name another contact point than this one
// themselves, and so bypass the policies. That exists since Grafana 10.4.
func (c *Client) passing(ctx context.Context, name string) (titles []string, err error) {
	var list []struct {
		Title    string
		Settings *struct{ Receiver string } `json:"notification_settings"`
	}
	if err := c.do(ctx, request{doing: "read the alert rules", path: alertRules, out: &list}); err != nil {
		return nil, err
	}
	for _, r := range list {
		if r.Settings != nil && r.Settings.Receiver != "" && r.Settings.Receiver != name {
			titles = append(titles, oneLine(r.Title))
		}
	}
	return titles, nil
}

func (p *Plan) note(format string, args ...any) {
	p.Notes = append(p.Notes, fmt.Sprintf(format, args...))
}

// notice adds what is worth knowing though nothing has to change for it.
func (p *Plan) notice(w Want) {
	note := p.note
	for _, other := range p.state.straight() {
		note("contact point %q posts straight to Callgoose: alerts that go there and here open two incidents; remove one of the two", other)
	}
	u, err := url.Parse(w.URL)
	if err != nil {
		return
	}
	if IsLoopback(w.URL) {
		note("%s means PMM itself when PMM runs in a container; right only if both run on one host without containers, or in one pod", u.Host)
	}
	if !webhookPath.MatchString(u.Path) {
		note("the path %s does not end in /v1/webhook or /v1/webhook/NAME, which is where serve listens", cmp.Or(u.Path, "/"))
	}
	if u.RawQuery != "" {
		note("everybody who may read contact points in PMM sees the whole webhook URL, also what follows its ?")
	}
	if w.Token == "" && w.Basic == "" && w.HMACSecret == "" {
		note("no credentials: serve has to run without ingest secrets; name them here as serve gets them (--ingest-token-file)")
	}
}

// straight are the webhooks that post to Callgoose directly, as the Callgoose guide for
// Percona sets them up.
func (s *state) straight() []string {
	var names []string
	for _, p := range s.points {
		u, err := url.Parse(p.settings.text("url"))
		if err == nil && p.text("type") == "webhook" && strings.Contains(strings.ToLower(u.Hostname()), "callgoose.com") && !webhookPath.MatchString(u.Path) {
			names = append(names, p.name())
		}
	}
	return names
}

// tellsNobody reports whether no integration has the default contact point's name. A
// fresh Grafana 12.4 has "empty" there: nothing is taken away from it.
func (s *state) tellsNobody() bool {
	root := s.root.text("receiver")
	return !slices.ContainsFunc(s.points, func(p *point) bool { return p.name() == root })
}

var webhookPath = regexp.MustCompile(`/v1/webhook(/[a-z0-9-]{1,16})?/?$`)

// managed are the settings that setup decides about; all others are left as they are.
// payload would replace the body, and the intake could not read the result.
var managed = []string{
	"url", "httpMethod", "maxAlerts", "authorization_scheme", "authorization_credentials", "username", "password",
	"hmacConfig", "hmacConfig.secret", "payload",
}

// wanted makes the settings of the webhook, and keeps those that setup does not manage.
func (w Want) wanted(old object) (object, error) {
	s := object{}
	for _, k := range slices.Sorted(maps.Keys(old)) {
		if slices.Contains(managed, k) {
			continue
		}
		if bytes.Contains(old[k], []byte(redacted)) {
			return nil, fmt.Errorf("contact point %q has a secret in %s that setup did not put there, and a change would lose it; change the contact point in PMM, or remove that secret first", w.Name, k)
		}
		s[k] = old[k]
	}
	s.set("url", w.URL)
	s.set("httpMethod", http.MethodPost)
	s.set("maxAlerts", "0") // a text in older versions' own pages, a number in newer; both are read
	switch {
	case w.Token != "":
		s.set("authorization_scheme", "Bearer")
		s.set("authorization_credentials", w.Token)
	case w.Basic != "":
		user, password, _ := strings.Cut(w.Basic, ":")
		s.set("username", user)
		s.set("password", password)
	}
	if w.HMACSecret != "" {
		s.set("hmacConfig", map[string]string{
			"secret": w.HMACSecret, "header": SignatureHeader,
			"timestampHeader": cmp.Or(w.HMACTimestampHeader, TimestampHeader),
		})
	}
	return s, nil
}

// shown is what can be seen of a contact point, by field, in the order to print it.
func shown(disableResolve bool, s object) []Edit {
	secret := func(key string) string {
		if s.text(key) == "" {
			return none
		}
		return hidden
	}
	scheme, payload := none, none
	if s.text("authorization_credentials") != "" { // without it the scheme means nothing
		scheme = cmp.Or(s.text("authorization_scheme"), "Bearer")
	}
	if s.filled("payload") {
		payload = "a template of its own"
	}
	return []Edit{
		{Name: "url", To: s.text("url")},
		{Name: "httpMethod", To: cmp.Or(s.text("httpMethod"), http.MethodPost)},
		{Name: "maxAlerts", To: strconv.Itoa(maxAlerts(s))},
		{Name: "disableResolveMessage", To: strconv.FormatBool(disableResolve)},
		{Name: "authorization_scheme", To: scheme},
		{Name: "authorization_credentials", To: secret("authorization_credentials")},
		{Name: "username", To: cmp.Or(s.text("username"), none)},
		{Name: "password", To: secret("password")},
		{Name: "hmacConfig", To: readHMAC(s).String()},
		{Name: "payload", To: payload},
	}
}

// maxAlerts is a number or a text with one; Grafana reads anything else as 0.
func maxAlerts(s object) int {
	n, _ := strconv.Atoi(strings.Trim(string(bytes.TrimSpace(s["maxAlerts"])), `"`))
	return n
}

type signing struct {
	Set                     bool
	Header, TimestampHeader string
}

// readHMAC reads what is shown of the signature. The secret is inside the object, or
// beside it under the name "hmacConfig.secret".
func readHMAC(s object) signing {
	var h struct{ Secret, Header, TimestampHeader string }
	_ = json.Unmarshal(s["hmacConfig"], &h)
	return signing{h.Secret != "" || s.text("hmacConfig.secret") != "", cmp.Or(h.Header, SignatureHeader), h.TimestampHeader}
}

func (h signing) String() string {
	if !h.Set {
		return none
	}
	return fmt.Sprintf("secret %s, header %s, timestamp header %s", hidden, h.Header, cmp.Or(h.TimestampHeader, none))
}

func (p *Plan) planPoint(w Want) error {
	old, err := p.state.ours(w.Name)
	if err != nil {
		return err
	}
	step := Step{Object: "contact point", Name: w.Name, Action: Keep}
	defer func() { p.Steps = append(p.Steps, step) }()
	if old == nil {
		settings, _ := w.wanted(nil)
		step.Action = Create
		step.Fields = slices.DeleteFunc(shown(false, settings), func(f Edit) bool { return f.To == none })
		p.point = &request{
			doing: "create the contact point", method: http.MethodPost, path: contactPoints, body: body(UID(w.Name), w.Name, settings), editable: true,
		}
		return nil
	}
	held := w.Token != "" || w.Basic != "" || w.HMACSecret != ""
	bare, _ := w.wanted(nil)
	now, next := shown(old.flag("disableResolveMessage"), old.settings), shown(false, bare)
	for i, f := range next {
		if f.From = now[i].To; f.From == f.To || f.Name == "username" && f.From == redacted && f.To != none { // a secret in some versions
			continue
		}
		step.Fields = append(step.Fields, f)
		if !held && !w.Bare && slices.Contains([]string{"authorization_credentials", "password", "hmacConfig"}, f.Name) {
			return fmt.Errorf("contact point %q sends credentials, and none are named here; give them as serve gets them (--ingest-token-file), or remove them with --allow-unauthenticated", w.Name)
		}
	}
	if w.Rotate && held && len(step.Fields) == 0 {
		step.Fields = append(step.Fields, Edit{"credentials", hidden, "written again"})
	}
	if len(step.Fields) == 0 {
		if held {
			step.Why = "PMM shows no secrets: if they were changed, write them again with --rotate-credentials"
		}
		return nil
	}
	settings, err := w.wanted(old.settings)
	if err != nil {
		return err
	}
	locked, err := lock(old.text("provenance"), "contact point "+strconv.Quote(w.Name))
	if err != nil {
		return err
	}
	step.Action = Change
	p.point = &request{
		doing: "change the contact point", method: http.MethodPut, path: contactPoints + "/" + url.PathEscape(old.uid()),
		body: body(old.uid(), w.Name, settings), editable: !locked,
	}
	return nil
}

func body(uid, name string, settings object) []byte {
	return encode(map[string]any{"uid": uid, "name": name, "type": "webhook", "disableResolveMessage": false, "settings": settings})
}

// lock says what Grafana's provenance allows. What came from a file is read from it
// again at the next start, although older versions accept a change until then.
func lock(provenance, what string) (locked bool, err error) {
	switch provenance {
	case "":
		return false, nil
	case "file":
		return false, fmt.Errorf("the %s comes from a provisioning file of Grafana, which overwrites every other change; make the change in that file", what)
	}
	return true, nil
}

// ourRoutes sorts the routes of the root: ours, its place, our default routes, all others.
func (s *state) ourRoutes(receiver string) (main *route, at int, defaultRoutes, others []*route, err error) {
	at = -1
	for i, r := range s.root.children {
		switch {
		case r.isDefault():
			if k := r.foreign(); k != "" || r.text("receiver") != "" {
				return nil, 0, nil, nil, fmt.Errorf("the default route that setup made was changed (%s), the one with %s; undo that in PMM's notification policies", cmp.Or(k, "receiver"), mark)
			}
			defaultRoutes = append(defaultRoutes, r)
		case r.text("receiver") == receiver:
			if main != nil {
				return nil, 0, nil, nil, fmt.Errorf("several routes lead to %q: to %s and %s; remove those that you made in PMM's notification policies", receiver, main.label(), r.label())
			}
			main, at = r, i
		default:
			others = append(others, r)
		}
	}
	return main, at, defaultRoutes, others, nil
}

func (p *Plan) planRoutes(w Want) error {
	main, at, oldDefaults, others, err := p.state.ourRoutes(w.Name)
	if err != nil {
		return err
	}
	step := Step{Object: "route", Name: w.Name, Action: Keep}
	front := main == nil // the route has to go before all others
	if main == nil {
		main = newRoute(w.Name, w.Matchers)
		step.Action = Create
		step.Fields = []Edit{{"matches", "", describe(w.Matchers)}, {"continue", "", "true"}, {"group_by", "", "grafana_folder, alertname"}, {"group_wait, group_interval, repeat_interval", "", "10s, 1m, " + repeatInterval}}
		step.Why = "first among the routes; it continues, so those after it get what they got"
	} else if step.Fields, front = p.correct(main, w.Matchers, at); len(step.Fields) > 0 {
		step.Action = Change
	}
	p.Steps = append(p.Steps, step)
	p.timing(main)

	terms, enough, err := p.planDefaults(w, oldDefaults, others)
	if err != nil {
		return err
	}
	p.keepOthers(others)
	if step.Action == Keep && enough {
		return nil
	}
	var routes []*route
	if front {
		routes = append(routes, main)
	}
	for _, r := range p.state.root.children {
		if r == main && !front || slices.Contains(others, r) || enough && slices.Contains(oldDefaults, r) {
			routes = append(routes, r)
		}
	}
	if !enough {
		for _, t := range terms {
			routes = append(routes, newDefault(t))
		}
	}
	return p.write(routes)
}

// write makes these the routes of the policies. A tree that was written through the API
// by somebody who wanted it kept from being edited in Grafana's pages stays so.
func (p *Plan) write(routes []*route) error {
	locked, err := lock(p.state.root.text("provenance"), "tree of notification policies")
	if err == nil {
		p.tree = &request{doing: "write the notification policies", method: http.MethodPut, path: policies, body: p.state.root.with(routes), editable: !locked}
	}
	return err
}

// correct makes our route, which stands at that place, what it should be, and says
// what that changes. front: it has to go before all others.
func (p *Plan) correct(main *route, want []Matcher, at int) (fields []Edit, front bool) {
	if want == nil && len(main.matchers) > 0 {
		want = main.matchers
		p.note("the route keeps its conditions, %s; --match all sends every alert here", describe(main.matchers))
	}
	if main.unread != nil || !sameMatchers(main.matchers, want) {
		from := describe(main.matchers)
		if main.unread != nil {
			from = "unreadable"
		}
		fields = append(fields, Edit{"matches", from, describe(want)})
		for _, k := range []string{"matchers", "match", "match_re"} {
			delete(main.object, k)
		}
		main.set("object_matchers", append([]Matcher{}, sorted(want)...))
	}
	if !main.flag("continue") {
		fields = append(fields, Edit{"continue", "false", "true"})
		main.set("continue", true)
	}
	before := p.state.root.children[:at]
	if i := slices.IndexFunc(before, func(r *route) bool { return !r.flag("continue") }); i >= 0 {
		fields = append(fields, Edit{"position", "after the route to " + before[i].label() + ", which keeps its alerts from this one", "first"})
		front = true
	}
	return fields, front
}

// planDefaults finds the default routes that are needed, and whether those that are
// there are enough.
func (p *Plan) planDefaults(w Want, oldDefaults, others []*route) (terms [][]Matcher, enough bool, err error) {
	terms, err = defaults(slices.DeleteFunc(slices.Clone(others), isOurs(p.state.points)))
	if err != nil {
		return nil, false, err
	}
	last := Step{Object: "default route", Name: p.state.root.text("receiver"), Action: Keep}
	if last.Name == w.Name || p.state.tellsNobody() {
		terms = nil // alerts that come here anyway, or go to nobody, need not be given back
	}
	// More than needed is left alone: to remove it would silence somebody now.
	enough = covered(terms, oldDefaults)
	if enough {
		if len(oldDefaults) == 0 {
			last.Why = "not needed: a route that takes every alert is there, so nothing falls to the default contact point"
			if last.Name == w.Name {
				last.Why = "not needed: the default contact point is this one"
			} else if p.state.tellsNobody() {
				last.Why = "not needed: the default contact point has no integrations, so it tells nobody"
			}
		}
	} else {
		last.Action = Create
		if len(oldDefaults) > 0 {
			last.Action = Change
		}
		for _, t := range terms {
			last.Fields = append(last.Fields, Edit{"matches", "", describe(t) + " (" + mark.Name + " marks what setup made, and is true of every alert)"})
		}
		last.Why = "Grafana gives the default contact point only what no route takes, and the new route takes alerts; this one, last, gives back what it had. What fires now may be notified there once more"
	}
	p.Steps = append(p.Steps, last)
	return terms, enough, nil
}

func (p *Plan) keepOthers(others []*route) {
	ours := isOurs(p.state.points)
	for _, r := range others {
		why := "not ours"
		if ours(r) {
			why = "made here too, for another contact point"
		}
		p.Steps = append(p.Steps, Step{Object: "route", Name: r.label(), Action: Keep, Why: why})
	}
}

// timing notes where the timing of our route, which is its owner's to choose, hurts.
func (p *Plan) timing(main *route) {
	t := rootTiming.below(p.state.root).below(main)
	if d, ok := duration(t.interval); ok && d < time.Minute {
		p.note("the route has a group interval of %s: PMM waits no longer than that for an answer (at least 10s), and after a late answer both sides disagree; 1m is right", t.interval)
	}
	if d, ok := duration(t.repeat); ok && d > 30*time.Minute {
		p.note("the route has a repeat interval of %s: for that long PMM does not repeat an alert whose notification was lost; %s is right, and repeats do not reach Callgoose", t.repeat, repeatInterval)
	}
}

// covered reports whether the default routes give the root all that it needs.
func covered(terms [][]Matcher, have []*route) bool {
	for _, r := range have {
		if !r.flag("continue") {
			return false
		}
	}
	for _, t := range terms {
		if !slices.ContainsFunc(have, func(r *route) bool {
			return !slices.ContainsFunc(r.matchers, func(m Matcher) bool { return !slices.Contains(t, m) })
		}) {
			return false
		}
	}
	return true
}

// isOurs tells whether a route leads to any contact point that was made here.
func isOurs(points []*point) func(*route) bool {
	return func(r *route) bool {
		name := r.text("receiver")
		return name != "" && slices.ContainsFunc(points, func(p *point) bool { return p.name() == name && p.uid() == UID(name) })
	}
}

// ErrChanged is the error of Apply when somebody else changed PMM in between.
var ErrChanged = errors.New("the contact points or notification policies of PMM have changed since the plan was made; look at a new plan")

// HalfDoneError says that Apply did one part and not the other. Doing it again
// does the rest.
type HalfDoneError struct {
	Done string
	err  error
}

func (e *HalfDoneError) Error() string {
	return fmt.Sprintf("%v; done so far: %s; run it again for the rest", e.err, e.Done)
}

func (e *HalfDoneError) Unwrap() error { return e.err }

// Apply does what the plan says. It reads PMM again first and returns ErrChanged if
// anything is no longer as it was: the policies are written whole, so a change that
// somebody made in between would be undone. (The API cannot compare and write in one
// step: a change made in the same instant can still be lost.) Afterwards it reads once
// more, because an answer of 202 does not say that all was kept.
func (c *Client) Apply(ctx context.Context, p *Plan) error {
	if p.Empty() {
		return nil
	}
	now, err := c.read(ctx, nil)
	if err != nil {
		return err
	}
	if !bytes.Equal(now.rawPoints, p.state.rawPoints) || !bytes.Equal(now.rawTree, p.state.rawTree) {
		return ErrChanged
	}
	done := ""
	for _, call := range []*request{p.point, p.tree} {
		if call == nil {
			continue
		}
		call.secrets = p.want.secrets()
		switch err := c.do(ctx, *call); {
		case err != nil && done != "":
			return &HalfDoneError{done, err}
		case err != nil:
			return err
		}
		done = call.doing
	}
	return c.confirm(ctx, p)
}

func (c *Client) confirm(ctx context.Context, p *Plan) error {
	w := p.want
	w.Rotate = false
	left, err := c.plan(ctx, w, p.Version)
	if err != nil {
		return fmt.Errorf("it was written, and reading it again failed: %w", err)
	}
	for _, s := range left.Steps {
		if s.Action == Keep {
			continue
		}
		what := string(s.Action)
		if len(s.Fields) > 0 {
			what += " " + s.Fields[0].Name
		}
		return fmt.Errorf("PMM accepted everything, yet the %s %q is not as it should be (%s); look at it in PMM", s.Object, s.Name, what)
	}
	return nil
}
