package pmm

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Intake is the service's side, by which PMM's is judged.
type Intake struct {
	// ContactPoint is the name of ours. "" = DefaultName.
	ContactPoint string
	// URL is where the service takes webhooks, "" = unknown.
	URL string
	// Heard: notifications arrive there.
	Heard bool
	// Asks are the credentials that it asks for: bearer, basic, hmac. Bearer and basic
	// are alternatives.
	Asks []string
	// TimestampHeader is the only one that it takes a signed time from. "" = the usual
	// one, where it is sent.
	TimestampHeader string
}

// Finding is one thing that is right or wrong in PMM.
type Finding struct {
	Part string // what it is about: contact point, policies or deliveries
	Text string
	Fix  string // what to do about it, "" = it is right
	Lost bool   // because of it alerts, recoveries or all webhooks do not arrive
}

// Inspect says whether what is in PMM brings alerts and recoveries to the service: our
// contact point, every other webhook with a path of the intake's, and the policies. It
// changes nothing, and no finding holds a secret.
func (c *Client) Inspect(ctx context.Context, in Intake) (Version, []Finding, error) {
	in.ContactPoint = cmp.Or(in.ContactPoint, DefaultName)
	v, err := c.Version(ctx)
	if err != nil {
		return v, nil, err
	}
	s, err := c.read(ctx)
	if err != nil {
		return v, nil, err
	}
	i := &inspection{in: in, state: s}
	slices.SortStableFunc(s.points, func(a, b *point) int { return strings.Compare(a.name(), b.name()) })
	for _, p := range s.points {
		if p.name() == in.ContactPoint || p.uid() == UID(in.ContactPoint) || p.leadsHere() {
			i.contactPoint(p)
		}
	}
	if len(i.findings) == 0 {
		i.lost(onPoint, `pmm-callgoose setup pmm makes one; deploy/docs/pmm.md#by-hand says how to do it by hand.`, "no contact point leads here")
	}
	// Older versions do not answer these two requests, or not to a Viewer: an error is no finding.
	if states, err := c.ContactStates(ctx); err == nil && states[in.ContactPoint].LastError != "" {
		a := states[in.ContactPoint]
		i.lost("deliveries", "See that PMM reaches the URL of the contact point, and that its credentials are those of serve.",
			"PMM's last attempt to reach the service, at %s, failed: %s", a.LastAttempt.UTC().Format("2006-01-02 15:04:05 UTC"), a.LastError)
	}
	for _, name := range s.straight() {
		i.warn(onPoint, "Remove its route, or the one to the service: an alert that goes both ways opens two incidents.", "%q posts straight to Callgoose", name)
	}
	if bypass, err := c.bypass(ctx, in.ContactPoint); err == nil && bypass != "" {
		i.warn(onPolicies, "Is that intended? See the contact point in these rules.", "%s", bypass)
	}
	ours, defaults, others := s.routes()
	if terms, _, err := s.defaults(in.ContactPoint, others); err == nil && len(ours) > 0 && !covered(terms, defaults) {
		i.warn(onPolicies, "pmm-callgoose setup pmm adds one; or add a route without conditions to that contact point, last.",
			"the route to here takes alerts from the default contact point %q, and no route gives them back", s.root.receiver)
	}
	return v, i.findings, nil
}

// The parts of the findings.
const (
	onPoint    = "contact point"
	onPolicies = "policies"
)

// again is the way out of most that can be wrong.
const again = "pmm-callgoose setup pmm corrects it, if it made it (--dry-run shows what would change)."

type inspection struct {
	in       Intake
	state    state
	findings []Finding
}

func (i *inspection) add(part, fix string, lost bool, format string, args ...any) {
	i.findings = append(i.findings, Finding{Part: part, Text: fmt.Sprintf(format, args...), Fix: fix, Lost: lost})
}

func (i *inspection) ok(part, format string, args ...any) { i.add(part, "", false, format, args...) }

func (i *inspection) warn(part, fix, format string, args ...any) {
	i.add(part, fix, false, format, args...)
}

func (i *inspection) lost(part, fix, format string, args ...any) {
	i.add(part, fix, true, format, args...)
}

// contactPoint finds everything that is wrong with one.
func (i *inspection) contactPoint(p *point) {
	name, before := p.name(), len(i.findings)
	if kind := p.text("type"); kind != "webhook" {
		i.lost(onPoint, "Make it a webhook, or choose another name with --contact-point.", "%q is of type %s", name, kind)
		return
	}
	i.address(p)
	if n := p.maxAlerts(); n > 0 {
		i.lost(onPoint, "Set Max alerts to 0. "+again, "%q cuts a notification off after %d alerts, and the rest is lost", name, n)
	}
	if p.flag("disableResolveMessage") {
		i.lost(onPoint, `Switch "Disable resolved message" off. `+again, "%q sends no recoveries: incidents stay open", name)
	}
	if p.settings.filled("payload") {
		i.lost(onPoint, "Remove the custom payload.", "%q sends a body of its own making, which the service cannot read", name)
	}
	sent := p.credentials()
	i.credentials(p, sent)
	if i.state.root.receiver != name {
		i.routes(name)
	}
	if !slices.ContainsFunc(i.findings[before:], func(f Finding) bool { return f.Fix != "" }) {
		i.ok(onPoint, "%q posts to %s, with %s", name, plainURL(p.settings.text("url")), cmp.Or(strings.Join(sent, ", "), "no credentials"))
	}
}

// credentials are the kinds that are set: "bearer" or another scheme in lower case,
// "basic", "hmac". PMM never shows their values.
func (p *point) credentials() (kinds []string) {
	if scheme := p.scheme(); scheme != "" {
		kinds = append(kinds, strings.ToLower(scheme))
	}
	if p.settings.text("username") != "" && p.settings.text("password") != "" {
		kinds = append(kinds, "basic")
	}
	if _, _, on := p.signing(); on {
		kinds = append(kinds, "hmac")
	}
	return kinds
}

// address compares where it posts with where the service listens.
func (i *inspection) address(p *point) {
	text, name := p.settings.text("url"), p.name()
	loopback := IsLoopback(text)
	if loopback {
		said := fmt.Sprintf("%q posts to %s, which means PMM's own machine or container", name, plainURL(text))
		if i.in.Heard {
			said += "; something arrives here anyway"
		}
		i.add(onPoint, "From a container, the host is host.docker.internal or host.containers.internal; from another machine, its name. The table deploy/docs/install.md#urls-for-pmm has all of them.", !i.in.Heard, "%s", said)
	}
	if m := mismatch(text, i.in.URL); m.Text != "" {
		i.add(onPoint, m.Fix, m.Lost, "%q %s", name, m.Text)
	}
}

// mismatch says what keeps a contact point that posts to one URL from a service that
// listens at the other, without a text where nothing does or one of them is not known.
func mismatch(posts, listens string) (f Finding) {
	theirs, err := url.Parse(posts)
	ours, err2 := url.Parse(listens)
	if err != nil || err2 != nil || theirs.Host == "" || ours.Host == "" {
		return f
	}
	port := cmp.Or(theirs.Port(), map[string]string{"https": "443", "http": "80"}[theirs.Scheme])
	switch {
	case port == ours.Port() && !IsLoopback(posts) && IsLoopback(listens):
		f.Lost, f.Fix = true, "Start serve with --listen and an address that PMM reaches."
		f.Text = fmt.Sprintf("posts to %s, and the service listens on %s, which only this machine's own processes reach", theirs.Host, ours.Host)
	case port != ours.Port():
		f.Fix = "Right if a proxy or a published port is in between; else correct the URL."
		f.Text = fmt.Sprintf("posts to port %s, and the service listens on %s", port, ours.Port())
	case theirs.Scheme != ours.Scheme:
		f.Lost, f.Fix = true, "Write "+ours.Scheme+":// into its URL."
		f.Text = fmt.Sprintf("posts by %s, and the service listens with %s", theirs.Scheme, ours.Scheme)
	}
	return f
}

// credentials compares the kinds that are sent with those that the intake asks for.
func (i *inspection) credentials(p *point, sent []string) {
	name, asks := p.name(), i.in.Asks
	has := func(kind string) bool { return slices.Contains(sent, kind) }
	either := slices.DeleteFunc(slices.Clone(asks), func(kind string) bool { return kind == "hmac" })
	if len(either) > 0 && !slices.ContainsFunc(either, has) {
		i.lost(onPoint, "Set the Authorization header: scheme Bearer, and the content of the ingest token's file. "+again,
			"%q sends %s, and the service asks for %s: PMM gets 401", name, cmp.Or(strings.Join(sent, ", "), "no credentials"), strings.Join(either, " or "))
	}
	if !slices.Contains(asks, "hmac") {
		return
	}
	header, theirs, on := p.signing()
	if on && theirs == "" {
		i.warn(onPoint, "Write "+TimestampHeader+" as timestamp header. "+again, "%q signs without the time: a recorded webhook can be sent again", name)
	}
	ours := cmp.Or(i.in.TimestampHeader, TimestampHeader)
	switch {
	case !on:
		i.lost(onPoint, "Set its HMAC signature (PMM 3.2 and later). "+again, "%q does not sign, and the service asks for a signature: PMM gets 401", name)
	case !strings.EqualFold(header, SignatureHeader):
		i.lost(onPoint, "Leave the header's name empty.", "%q puts its signature into the header %s", name, header)
	case !strings.EqualFold(theirs, ours) && (theirs != "" || i.in.TimestampHeader != ""):
		i.lost(onPoint, "Write the same name here (--ingest-hmac-timestamp-header) and there.", "%q signs with the time in the header %s, and the service looks into %s",
			name, cmp.Or(theirs, none), ours)
	}
}

// routes finds what may keep alerts from the routes that lead to a contact point.
func (i *inspection) routes(receiver string) {
	leading, before := i.state.root.leadingTo(receiver), len(i.findings)
	if len(leading) == 0 {
		i.lost(onPoint, "Add a route to it under Notification policies. "+again, "%q: no notification policy leads to it: no alert comes", receiver)
		return
	}
	var takes []string
	for _, r := range leading {
		conditions := describe(slices.DeleteFunc(slices.Clone(r.conditions), func(m Matcher) bool { return m == mark }))
		takes = append(takes, conditions)
		if r.behind != "" {
			i.warn(onPolicies, `Set "Continue matching" on the route before it, or move the one to here up.`, "%q: its route for %s stands behind %s, which keeps what it takes", receiver, conditions, r.behind)
		}
		if r.hasty() {
			i.warn(onPolicies, "Set the group interval of the route to 1m.", "%q: its route for %s has a group interval of %s, which is also how long PMM waits for the service's answer", receiver, conditions, r.interval)
		}
		if r.muted() {
			i.warn(onPolicies, "Is that intended? See the mute timings of the route.", "%q: its route for %s is muted at times", receiver, conditions)
		}
	}
	if len(i.findings) == before {
		i.ok(onPolicies, "%q gets %s", receiver, strings.Join(takes, "; and "))
	}
}
