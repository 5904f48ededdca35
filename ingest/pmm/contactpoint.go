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
)

// DefaultName is the name of our contact point where none is given.
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

// state is what PMM answered.
type state struct {
	points []*point
	root   *route // of the notification policies
	// The answers themselves, to see whether anything has changed since.
	rawPoints, rawTree json.RawMessage
	// deprecated is since when Grafana announces the end of the API, "" = it does not.
	deprecated string
}

// point is one contact point of Grafana: one integration. Several with one name
// are shown as one and get their notifications together.
type point struct {
	object
	settings object
}

func (p *point) uid() string  { return p.text("uid") }
func (p *point) name() string { return p.text("name") }

// made reports whether setup made it.
func (p *point) made() bool { return p.uid() == UID(p.name()) }

// read asks for the contact points and the policies.
func (c *Client) read(ctx context.Context) (s state, err error) {
	var header http.Header
	if err := c.do(ctx, request{doing: "read the contact points", path: contactPoints, out: &s.rawPoints, header: &header}); err != nil {
		return s, err
	}
	s.deprecated = header.Get("X-API-Deprecation-Date") // Grafana 13 and later
	if err := c.do(ctx, request{doing: "read the notification policies", path: policies, out: &s.rawTree}); err != nil {
		return s, err
	}
	if s.points, err = readPoints(s.rawPoints); err != nil {
		return s, err
	}
	s.root, err = readTree(s.rawTree)
	return s, err
}

func readPoints(raw []byte) (points []*point, err error) {
	var list []object
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, errors.New("the contact points cannot be read: not a list of objects; is this the answer of PMM?")
	}
	for _, item := range list {
		p := &point{object: item}
		if p.filled("settings") {
			if err := json.Unmarshal(p.object["settings"], &p.settings); err != nil {
				return nil, fmt.Errorf("the settings of contact point %q cannot be read: %w", p.name(), err)
			}
		}
		points = append(points, p)
	}
	return points, nil
}

// ours finds our contact point. It is ours when identifier and name are both what
// setup gives it; if only one of them is, it belongs to somebody else, and the error says so.
func (s *state) ours(name string) (*point, error) {
	taken := false
	for _, p := range s.points {
		switch uid := UID(name); {
		case p.uid() == uid && p.name() != name:
			return nil, fmt.Errorf("the contact point with the identifier %s is called %q; rename it to %q in PMM, or choose another name with --contact-point", uid, p.name(), name)
		case p.uid() == uid && p.text("type") != "webhook":
			return nil, fmt.Errorf("contact point %q has become one of type %s; remove it in PMM, or choose another name with --contact-point", name, p.text("type"))
		case p.uid() == uid:
			return p, nil
		}
		taken = taken || p.name() == name
	}
	if taken {
		return nil, fmt.Errorf("there is a contact point %q that was not made here, and it stays as it is; choose another name with --contact-point, or remove it in PMM first", name)
	}
	return nil, nil
}

var webhookPath = regexp.MustCompile(`/v1/webhook(/[a-z0-9-]{1,16})?/?$`)

// url is where a webhook posts; nil for what is no webhook or has no readable URL.
func (p *point) url() *url.URL {
	u, err := url.Parse(p.settings.text("url"))
	if err != nil || p.text("type") != "webhook" {
		return nil
	}
	return u
}

// leadsHere reports whether it posts to a path of the intake's.
func (p *point) leadsHere() bool {
	u := p.url()
	return u != nil && webhookPath.MatchString(u.Path)
}

// straight are the names of the webhooks that post to Callgoose directly, as the
// Callgoose guide for Percona sets them up.
func (s *state) straight() (names []string) {
	for _, p := range s.points {
		if u := p.url(); u != nil && strings.Contains(strings.ToLower(u.Hostname()), "callgoose.com") && !p.leadsHere() {
			names = append(names, p.name())
		}
	}
	return names
}

// maxAlerts is a number or a text with one; Grafana reads anything else as 0.
func (p *point) maxAlerts() int {
	n, _ := strconv.Atoi(strings.Trim(string(bytes.TrimSpace(p.settings["maxAlerts"])), `"`))
	return n
}

// signing is what is shown of the signature. The secret is inside the object, or
// beside it under the name "hmacConfig.secret".
func (p *point) signing() (header, timestampHeader string, on bool) {
	var h struct{ Secret, Header, TimestampHeader string }
	_ = json.Unmarshal(p.settings["hmacConfig"], &h)
	return cmp.Or(h.Header, SignatureHeader), h.TimestampHeader, h.Secret != "" || p.settings.text("hmacConfig.secret") != ""
}

// scheme is that of the Authorization header, "" when there are no credentials for it:
// without them the setting means nothing.
func (p *point) scheme() string {
	if p.settings.text("authorization_credentials") == "" {
		return ""
	}
	return cmp.Or(p.settings.text("authorization_scheme"), "Bearer")
}

const (
	hidden = "(hidden)"
	none   = "(none)"
)

// shown is what can be seen of a contact point, by field, in the order to print it. Setup
// decides about these fields; all others are left as they are. payload would replace the
// body, and the intake could not read the result.
func (p *point) shown() []Edit {
	s := p.settings
	secret := func(key string) string {
		if s.text(key) == "" {
			return none
		}
		return hidden
	}
	signature, payload := none, none
	if header, timestampHeader, on := p.signing(); on {
		signature = fmt.Sprintf("secret %s, header %s, timestamp header %s", hidden, header, cmp.Or(timestampHeader, none))
	}
	if s.filled("payload") {
		payload = "a template of its own"
	}
	return []Edit{
		{Name: "url", To: s.text("url")},
		{Name: "httpMethod", To: cmp.Or(s.text("httpMethod"), http.MethodPost)},
		{Name: "maxAlerts", To: strconv.Itoa(p.maxAlerts())},
		{Name: "disableResolveMessage", To: strconv.FormatBool(p.flag("disableResolveMessage"))},
		{Name: "authorization_scheme", To: cmp.Or(p.scheme(), none)},
		{Name: "authorization_credentials", To: secret("authorization_credentials")},
		{Name: "username", To: cmp.Or(s.text("username"), none)},
		{Name: "password", To: secret("password")},
		{Name: "hmacConfig", To: signature},
		{Name: "payload", To: payload},
	}
}

// point is the webhook that is wanted, with the settings of an old one that setup does
// not manage.
func (w Want) point(old object) (*point, error) {
	s := object{}
	for _, k := range slices.Sorted(maps.Keys(old)) {
		name, _, _ := strings.Cut(k, ".") // also hmacConfig.secret
		if slices.ContainsFunc(new(point).shown(), func(f Edit) bool { return f.Name == name }) {
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
	p := &point{object: object{}, settings: s}
	p.set("uid", UID(w.Name))
	p.set("name", w.Name)
	p.set("type", "webhook")
	p.set("disableResolveMessage", false)
	p.set("settings", s)
	return p, nil
}

func (p *Plan) planPoint(w Want) error {
	old, err := p.state.ours(w.Name)
	if err != nil {
		return err
	}
	step := Step{Object: "contact point", Name: w.Name, label: fmt.Sprintf("contact point %q", w.Name), Action: Keep}
	defer func() { p.Steps = append(p.Steps, step) }()
	fresh, _ := w.point(nil) // fails for an old one only
	if old == nil {
		step.Action = Create
		step.Fields = slices.DeleteFunc(fresh.shown(), func(f Edit) bool { return f.To == none })
		p.point = &request{doing: "create the contact point", method: http.MethodPost, path: contactPoints, body: encode(fresh.object), editable: true}
		return nil
	}
	now := old.shown()
	for i, f := range fresh.shown() {
		if f.From = now[i].To; f.From == f.To || f.Name == "username" && f.From == redacted && f.To != none { // a secret in some versions
			continue
		}
		step.Fields = append(step.Fields, f)
		if !w.Credentials() && !w.Bare && slices.Contains([]string{"authorization_credentials", "password", "hmacConfig"}, f.Name) {
			return fmt.Errorf("contact point %q sends credentials, and none are named here; give them as serve gets them (--ingest-token-file), or remove them with --allow-unauthenticated", w.Name)
		}
	}
	if w.Rotate && w.Credentials() && len(step.Fields) == 0 {
		step.Fields = append(step.Fields, Edit{"credentials", hidden, "written again"})
	}
	if len(step.Fields) == 0 {
		if w.Credentials() {
			step.Why = "PMM shows no secrets: if they were changed, write them again with --rotate-credentials"
		}
		return nil
	}
	next, err := w.point(old.settings)
	if err != nil {
		return err
	}
	locked, err := lock(old.text("provenance"), "contact point "+strconv.Quote(w.Name))
	if err != nil {
		return err
	}
	step.Action = Change
	p.point = &request{doing: "change the contact point", method: http.MethodPut, path: contactPoints + "/" + url.PathEscape(old.uid()), body: encode(next.object), editable: !locked}
	return nil
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
