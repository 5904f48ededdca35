package pmm

import (
	"cmp"
	"context"
	"net/url"
	"slices"
	"strings"
)

// Webhook is what PMM shows of one contact point that leads here, or should. It is
// plain data: the caller decides what is wrong with it.
type Webhook struct {
	Name string
	// Ours reports whether setup made it: identifier and name are ours.
	Ours bool
	Type string // "webhook"; anything else cannot lead here
	// URL is where PMM posts, without user, password and query, which may hold secrets.
	URL string
	// Loopback: the URL means PMM's own machine or container.
	Loopback bool
	// MaxAlerts cuts off further alerts, which are then lost. 0 = none are cut off.
	MaxAlerts int
	// NoResolved: recoveries are not sent ("Disable resolved message").
	NoResolved bool
	// Credentials are the kinds that are set: "bearer" or another scheme in lower
	// case, "basic", "hmac". PMM never shows their values.
	Credentials []string
	// HMACHeader and HMACTimestampHeader are set with "hmac".
	HMACHeader, HMACTimestampHeader string
	// CustomPayload: a template replaces the body (PMM 3.8 and later), and the intake
	// cannot read the result.
	CustomPayload bool
	// Routes lead here. None and Default false: no alert comes.
	Routes []Lead
	// Default: it is the contact point of what no route takes.
	Default bool
}

// Lead is a route to a contact point.
type Lead struct {
	// Matches are the conditions of the route and of those above it; none = all alerts.
	Matches []string
	// Behind names the first route before it, on the same level or one above, that
	// does not continue: what that one takes does not come here. "" = none.
	Behind string
	// Muted: time intervals silence it at times.
	Muted bool
	// GroupInterval is its own or inherited.
	GroupInterval string
}

// Look is what PMM says about itself and about its webhooks to the service.
type Look struct {
	Version Version
	// Webhooks are the contact point with the name asked for, ours, and every other
	// webhook with our path in its URL, in the order of their names.
	Webhooks []Webhook
	// DefaultContactPoint gets what no route takes.
	DefaultContactPoint string
	// Silenced: a route of ours takes what fell to the default contact point, and
	// no default route gives it back. Setup repairs that.
	Silenced bool
	// Straight are contact points that post to Callgoose directly.
	Straight []string
	// Passing are the titles of alert rules that name another contact point themselves,
	// so that they do not come here.
	Passing []string
	// Attempt is PMM's last attempt with the contact point asked for. nil = unknown.
	Attempt *ContactState
}

// Inspect reads the versions, the contact points and the policies, and changes
// nothing. name is that of the contact point, "" = DefaultName.
func (c *Client) Inspect(ctx context.Context, name string) (Look, error) {
	name = cmp.Or(name, DefaultName)
	v, err := c.Version(ctx)
	look := Look{Version: v}
	if err != nil {
		return look, err
	}
	s, err := c.read(ctx, nil)
	if err != nil {
		return look, err
	}
	look.DefaultContactPoint = s.root.text("receiver")
	for _, p := range s.points {
		u, _ := url.Parse(p.settings.text("url"))
		here := u != nil && webhookPath.MatchString(u.Path) && p.text("type") == "webhook"
		if p.name() != name && p.uid() != UID(name) && !here {
			continue
		}
		look.Webhooks = append(look.Webhooks, p.webhook(s.root))
	}
	slices.SortStableFunc(look.Webhooks, func(a, b Webhook) int { return strings.Compare(a.Name, b.Name) })

	ours := isOurs(s.points)
	var others, defaultRoutes []*route
	for _, r := range s.root.children {
		switch {
		case r.isDefault():
			defaultRoutes = append(defaultRoutes, r)
		case !ours(r):
			others = append(others, r)
		}
	}
	if slices.ContainsFunc(s.root.children, ours) {
		terms, err := defaults(others)
		look.Silenced = err == nil && !s.tellsNobody() && !covered(terms, defaultRoutes)
	}
	look.Straight = s.straight()
	// Neither is worth failing for: older versions do not tell, or not everybody.
	if passing, err := c.passing(ctx, name); err == nil {
		look.Passing = passing
	}
	if states, err := c.ContactStates(ctx); err == nil {
		if a, ok := states[name]; ok {
			look.Attempt = &a
		}
	}
	return look, nil
}

func (p *point) webhook(root *route) Webhook {
	s := p.settings
	w := Webhook{
		Name: p.name(), Ours: p.uid() == UID(p.name()), Type: p.text("type"),
		Loopback:  IsLoopback(s.text("url")),
		MaxAlerts: maxAlerts(s), NoResolved: p.flag("disableResolveMessage"),
		CustomPayload: s.filled("payload"),
		Default:       root.text("receiver") == p.name(),
	}
	if u, err := url.Parse(s.text("url")); err == nil {
		u.User, u.RawQuery, u.Fragment = nil, "", ""
		w.URL = u.String()
	}
	if s.text("authorization_credentials") != "" {
		w.Credentials = append(w.Credentials, strings.ToLower(cmp.Or(s.text("authorization_scheme"), "Bearer")))
	}
	if s.text("username") != "" && s.text("password") != "" {
		w.Credentials = append(w.Credentials, "basic")
	}
	if h := readHMAC(s); h.Set {
		w.Credentials = append(w.Credentials, "hmac")
		w.HMACHeader, w.HMACTimestampHeader = h.Header, h.TimestampHeader
	}
	leads(root, p.name(), rootTiming.below(root), nil, "", func(l Lead) { w.Routes = append(w.Routes, l) })
	return w
}

// leads finds the routes below r whose receiver, named or inherited, is the given
// one. The root itself is not among them.
func leads(r *route, receiver string, inherited timing, above []Matcher, behind string, found func(Lead)) {
	for _, c := range r.children {
		own := inherited.below(c)
		all := slices.Concat(above, c.matchers)
		if own.receiver == receiver {
			l := Lead{Behind: behind, Muted: c.muted(), GroupInterval: own.interval}
			for _, m := range sorted(all) {
				if m != mark {
					l.Matches = append(l.Matches, m.String())
				}
			}
			found(l)
		}
		leads(c, receiver, own, all, behind, found)
		if behind == "" && !c.flag("continue") {
			behind = c.label()
		}
	}
}
