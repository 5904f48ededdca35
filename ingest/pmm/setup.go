package pmm

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Want is what should be in PMM.
type Want struct {
	// Name of the contact point. "" = DefaultName.
	Name string
	// URL is where PMM finds our webhook.
	URL string
	// Listens is the address that the service has bound for webhooks. "" = not known.
	Listens string
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
	// Remove takes back what setup made for the contact point; only its Name counts then.
	Remove bool
}

// Credentials reports whether there are any.
func (w Want) Credentials() bool { return w.Token != "" || w.Basic != "" || w.HMACSecret != "" }

func (w Want) secrets() []string {
	_, password, _ := strings.Cut(w.Basic, ":")
	return []string{w.Token, w.Basic, password, w.HMACSecret}
}

// Validate reports what is wrong with w, in one line. Plan calls it too.
func (w Want) Validate() error {
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

// Action is what a plan does to an object.
type Action string

// The actions.
const (
	Create Action = "create"
	Change Action = "change"
	Remove Action = "remove"
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

	label string // object and name for people
}

func (s Step) String() string { return s.label }

// Edit is a value that changes. Secrets show as "(hidden)".
type Edit struct {
	Name string `json:"name"`
	From string `json:"from"`
	To   string `json:"to"`
}

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

func (p *Plan) note(format string, args ...any) {
	p.Notes = append(p.Notes, fmt.Sprintf(format, args...))
}

// Plan reads PMM and works out what has to change so that w is there, or is gone. It
// changes nothing. With Waiting it plans again, for at most a minute, until Grafana has a
// configuration to plan for.
func (c *Client) Plan(ctx context.Context, w Want) (*Plan, error) {
	w.Name = cmp.Or(w.Name, DefaultName)
	if err := w.Validate(); err != nil && !w.Remove {
		return nil, err
	}
	v, err := c.Version(ctx)
	if err != nil {
		return nil, err
	}
	const patience, pause = time.Minute, 2 * time.Second
	for waited := time.Duration(0); ; waited += pause {
		p, err := c.plan(ctx, w, v)
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
	if p.state, err = c.read(ctx); err != nil {
		return nil, err
	}
	if p.state.deprecated != "" {
		p.note("this Grafana announces the end of the provisioning API that is used here (deprecated since %s); it still works", oneLine(p.state.deprecated))
	}
	if w.Remove {
		return p, c.planRemoval(ctx, p)
	}
	if err := p.planPoint(w); err != nil {
		return nil, err
	}
	if err := p.planRoutes(w); err != nil {
		return nil, err
	}
	switch bypass, err := c.bypass(ctx, w.Name); {
	case err != nil:
		p.note("%s; those that do bypass the notification policies and are not sent here", rulesUnread)
	case bypass != "":
		p.note("%s", bypass)
	}
	p.notice(w)
	return p, nil
}

// bypass says which alert rules name another contact point than this one themselves, and
// so bypass the policies; "" = none.
func (c *Client) bypass(ctx context.Context, name string) (string, error) {
	rules, err := c.rulesNaming(ctx, func(receiver string) bool { return receiver != name })
	if rules != "" {
		rules += ": they bypass the notification policies and are not sent here"
	}
	return rules, err
}

const rulesUnread = "whether alert rules name a contact point of their own could not be read"

// rulesNaming says which alert rules name one of these contact points themselves, "" =
// none. That exists since Grafana 10.4.
func (c *Client) rulesNaming(ctx context.Context, one func(receiver string) bool) (string, error) {
	var list []struct {
		Title    string
		Settings *struct{ Receiver string } `json:"notification_settings"`
	}
	if err := c.do(ctx, request{doing: "read the alert rules", path: alertRules, out: &list}); err != nil {
		return "", err
	}
	const most = 5
	var titles []string
	for _, r := range list {
		if r.Settings != nil && r.Settings.Receiver != "" && one(r.Settings.Receiver) {
			titles = append(titles, oneLine(r.Title))
		}
	}
	count := fmt.Sprintf("%d alert rules name", len(titles))
	switch {
	case len(titles) == 0:
		return "", nil
	case len(titles) == 1:
		count = "1 alert rule names"
	case len(titles) > most:
		titles = append(titles[:most], "…")
	}
	return fmt.Sprintf("%s a contact point of their own (%s)", count, strings.Join(titles, ", ")), nil
}

// notice adds what is worth knowing though nothing has to change for it.
func (p *Plan) notice(w Want) {
	for _, other := range p.state.straight() {
		p.note("contact point %q posts straight to Callgoose: alerts that go there and here open two incidents; remove one of the two", other)
	}
	u, err := url.Parse(w.URL)
	if err != nil {
		return
	}
	if IsLoopback(w.URL) {
		p.note("%s means PMM itself when PMM runs in a container; right only if both run on one host without containers, or in one pod", u.Host)
	}
	if m := mismatch(w.URL, w.Listens); m.Text != "" {
		p.note("the contact point %s. %s", m.Text, m.Fix)
	}
	if !webhookPath.MatchString(u.Path) {
		p.note("the path %s does not end in /v1/webhook or /v1/webhook/NAME, which is where serve listens", cmp.Or(u.Path, "/"))
	}
	if u.RawQuery != "" {
		p.note("everybody who may read contact points in PMM sees the whole webhook URL, also what follows its ?")
	}
	if !w.Credentials() {
		p.note("no credentials: serve has to run without ingest secrets; name them here as serve gets them (--ingest-token-file)")
	}
}

// ErrChanged is the error of Apply when somebody else changed PMM in between.
var ErrChanged = errors.New("the contact points or notification policies of PMM have changed since the plan was made; look at a new plan")

// ErrHalfDone is the error of Apply when it did one part and not the other. Doing it
// again does the rest.
var ErrHalfDone = errors.New("run it again for the rest")

// Apply does what the plan says. It reads PMM again first and returns ErrChanged if
// anything is no longer as it was: the policies are written whole, so a change that
// somebody made in between would be undone. (The API cannot compare and write in one
// step: a change made in the same instant can still be lost.) Afterwards it reads once
// more, because an answer of 202 does not say that all was kept.
func (c *Client) Apply(ctx context.Context, p *Plan) error {
	if p.Empty() {
		return nil
	}
	now, err := c.read(ctx)
	if err != nil {
		return err
	}
	if !bytes.Equal(now.rawPoints, p.state.rawPoints) || !bytes.Equal(now.rawTree, p.state.rawTree) {
		return ErrChanged
	}
	calls := []*request{p.point, p.tree}
	if p.want.Remove { // a contact point that a route leads to cannot be removed, and a route needs one
		slices.Reverse(calls)
	}
	done := ""
	for _, call := range calls {
		if call == nil {
			continue
		}
		call.secrets = p.want.secrets()
		if err := c.do(ctx, *call); err != nil {
			if done != "" {
				err = fmt.Errorf("%w; done so far: %s; %w", err, done, ErrHalfDone)
			}
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
		return fmt.Errorf("PMM accepted everything, yet the %s is not as it should be (%s); look at it in PMM", s, what)
	}
	return nil
}
