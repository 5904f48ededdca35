package doctor

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/ingest/pmm"
)

// PMM says how PMM's own side is looked at.
type PMM struct {
	Clients map[string]*pmm.Client // by source; empty = it is not looked at
	Name    string                 // of the contact point; "" = pmm.DefaultName
	// Asks are the credentials that the intake asks for: bearer, basic, hmac.
	// Bearer and basic are alternatives.
	Asks []string
}

// again is the way out of most that can be wrong in PMM.
const again = "pmm-callgoose setup pmm corrects it, if it made it (--dry-run shows what would change)."

// pmm looks at PMM's contact points and routes that lead here.
func (e *examination) pmm(ctx context.Context) {
	e.reconciled()
	if len(e.PMM.Clients) == 0 {
		e.skip("pmm", "PMM's contact point is looked at with --pmm-url and --pmm-token-file")
	}
	for _, source := range slices.Sorted(maps.Keys(e.PMM.Clients)) {
		e.pmmOf(ctx, e.PMM.Clients[source])
	}
}

func (e *examination) pmmOf(ctx context.Context, client *pmm.Client) {
	look, err := client.Inspect(ctx, e.PMM.Name)
	if err != nil {
		e.fail("pmm", fix("See --pmm-url and the token: a service account of role Viewer or higher (PMM 2: Admin)."), "%s", text.Short(200, err.Error()))
		return
	}
	e.ok("pmm", "%s at %s", text.Short(200, look.Version.String()), client.Host())
	if len(look.Webhooks) == 0 {
		e.fail("pmm contact point", fix("pmm-callgoose setup pmm makes one; or see the README, \"Point PMM at it\"."), "no contact point leads here")
	}
	for i := range look.Webhooks {
		e.contactPoint(&look.Webhooks[i])
	}
	e.besides(look)
	if look.Silenced {
		e.warn("pmm policies", fix("pmm-callgoose setup pmm gives it back; or add a route without conditions to it, last."),
			"the route to here takes all alerts, so the default contact point %s gets none any more", quoted(look.DefaultContactPoint))
	}
}

// reconciled says what the service itself found when it compared with PMM.
func (e *examination) reconciled() {
	if e.Service == nil {
		return
	}
	for _, s := range e.Service.Sources {
		r := s.Reconcile
		if r == nil {
			continue
		}
		check := "reconcile " + s.Name
		switch {
		case r.LastPassAt == nil:
			e.skip(check, "no pass was made yet")
		case r.Failures > 0:
			e.fail(check, fix("See --pmm-url and the token: a service account of role Viewer (PMM 2: Admin). Delivery is not affected."), "%s", text.Short(200, r.Skipped))
		case len(r.Differences)+len(r.Alarms) == 0: // else the service has said so
			e.ok(check, "PMM and the open incidents agree, %s", text.Ago(*r.LastPassAt, time.Now()))
		}
	}
}

// besides tells what goes wrong around the contact point.
func (e *examination) besides(look pmm.Look) {
	if a := look.Attempt; a != nil && a.LastError != "" {
		e.fail("pmm deliveries", fix("See that PMM reaches the URL of the contact point, and that its credentials are those of serve."),
			"PMM's last attempt to reach the service, at %s, failed: %s", a.LastAttempt.UTC().Format("2006-01-02 15:04:05 UTC"), text.Short(200, a.LastError))
	}
	for _, name := range look.Straight {
		e.warn("pmm contact point", fix("Remove its route, or the one to the service: an alert that goes both ways opens two incidents."), "%s posts straight to Callgoose", quoted(name))
	}
	if n := len(look.Passing); n > 0 {
		e.warn("pmm policies", fix("Is that intended? The rules name another contact point themselves."), "%d alert rules bypass the route to the service, such as %s", n, quoted(look.Passing[0]))
	}
}

// contactPoint tells everything that is wrong with one.
func (e *examination) contactPoint(w *pmm.Webhook) {
	const check = "pmm contact point"
	before := e.Report.Warnings + e.Failed
	name := quoted(w.Name)
	fail := func(way, format string, args ...any) {
		e.fail(check, fix(way), "%s: %s", name, fmt.Sprintf(format, args...))
	}
	if w.Type != "webhook" {
		fail("Make it a webhook, or choose another name with --contact-point.", "is of type %s", text.Short(200, w.Type))
		return
	}
	e.webhookURL(w, name)
	if w.MaxAlerts > 0 {
		fail("Set Max alerts to 0. "+again, "cuts a notification off after %d alerts, and the rest is lost", w.MaxAlerts)
	}
	if w.NoResolved {
		fail("Switch \"Disable resolved message\" off. "+again, "sends no recoveries: incidents stay open")
	}
	if w.CustomPayload {
		fail("Remove the custom payload.", "sends a body of its own making, which the service cannot read")
	}
	e.credentials(w, fail)
	switch {
	case len(w.Routes) == 0 && !w.Default:
		fail("Add a route to it under Notification policies. "+again, "no notification policy leads to it: no alert comes")
	case len(w.Routes) > 0 && !w.Default:
		e.routes(w, name)
	}
	if e.Report.Warnings+e.Failed == before {
		e.ok(check, "%s posts to %s, with %s", name, text.Short(200, w.URL), cmp.Or(strings.Join(w.Credentials, ", "), "no credentials"))
	}
}

// webhookURL compares where it posts with where the service listens.
func (e *examination) webhookURL(w *pmm.Webhook, name string) {
	const check = "pmm contact point"
	if w.Loopback {
		way := fix("From a container, the host is host.docker.internal or host.containers.internal; from another machine, its name. See the table in the README.")
		if e.Service != nil && len(e.Service.Sources) > 0 {
			e.warn(check, way, "%s posts to %s, which means PMM's own machine or container; something arrives here anyway", name, text.Short(200, w.URL))
		} else {
			e.fail(check, way, "%s posts to %s, which means PMM's own machine or container", name, text.Short(200, w.URL))
		}
	}
	if e.Service == nil {
		return
	}
	theirs, err1 := url.Parse(w.URL)
	ours, err2 := url.Parse(e.Service.WebhookURL)
	if err1 != nil || err2 != nil || ours.Host == "" {
		return
	}
	switch port := port(theirs); {
	case port == ours.Port() && !w.Loopback && pmm.IsLoopback(e.Service.WebhookURL):
		e.fail(check, fix("Start serve with --listen and an address that PMM reaches."), "%s posts to %s, and the service listens on %s, which only this machine's own processes reach", name, text.Short(200, theirs.Host), ours.Host)
	case port != ours.Port():
		e.warn(check, fix("Right if a proxy or a published port is in between; else correct the URL."), "%s posts to port %s, and the service listens on %s", name, port, ours.Port())
	case theirs.Scheme != ours.Scheme:
		e.fail(check, fix(fmt.Sprintf("Write %s:// into its URL.", ours.Scheme)), "%s posts by %s, and the service listens with %s", name, text.Short(200, theirs.Scheme), ours.Scheme)
	}
}

// credentials compares what it sends with what the intake asks for. PMM never
// shows the values, only that there are some.
func (e *examination) credentials(w *pmm.Webhook, fail func(way, format string, args ...any)) {
	has := func(kind string) bool { return slices.Contains(w.Credentials, kind) }
	var either []string
	for _, kind := range e.PMM.Asks {
		if kind != "hmac" {
			either = append(either, kind)
		}
	}
	if len(either) > 0 && !slices.ContainsFunc(either, has) {
		fail("Set the Authorization header: scheme Bearer, and the content of the ingest token's file. "+again,
			"sends %s, and the service asks for %s: PMM gets 401", cmp.Or(text.Short(200, strings.Join(w.Credentials, ", ")), "no credentials"), strings.Join(either, " or "))
	}
	if !slices.Contains(e.PMM.Asks, "hmac") {
		return
	}
	if has("hmac") && w.HMACTimestampHeader == "" {
		e.warn("pmm contact point", fix("Write "+pmm.TimestampHeader+" as timestamp header. "+again), "%s signs without the time: a recorded webhook can be sent again", quoted(w.Name))
	}
	ourTime := e.Settings.IngestHMACTimestampHeader
	switch {
	case !has("hmac"):
		fail("Set its HMAC signature (PMM 3.2 and later). "+again, "does not sign, and the service asks for a signature: PMM gets 401")
	case !strings.EqualFold(cmp.Or(w.HMACHeader, pmm.SignatureHeader), pmm.SignatureHeader):
		fail("Leave the header's name empty.", "puts its signature into the header %s", text.Short(200, w.HMACHeader))
	case ourTime != "" && !strings.EqualFold(w.HMACTimestampHeader, ourTime),
		ourTime == "" && w.HMACTimestampHeader != "" && !strings.EqualFold(w.HMACTimestampHeader, pmm.TimestampHeader):
		fail("Write the same name here (--ingest-hmac-timestamp-header) and there.", "signs with the time in the header %s, and the service looks into %s",
			cmp.Or(text.Short(200, w.HMACTimestampHeader), "(none)"), cmp.Or(ourTime, pmm.TimestampHeader))
	}
}

// routes tells what may keep alerts from the routes that lead to it.
func (e *examination) routes(w *pmm.Webhook, name string) {
	before := e.Report.Warnings
	var leads []string
	for _, r := range w.Routes {
		leads = append(leads, cmp.Or(text.Short(200, strings.Join(r.Matches, ", ")), "all alerts"))
		which := "its route"
		if len(r.Matches) > 0 {
			which += " for " + text.Short(200, strings.Join(r.Matches, ", "))
		}
		if r.Behind != "" {
			e.warn("pmm policies", fix("Set \"Continue matching\" on the route before it, or move the one to here up."), "%s: %s stands behind %s, which keeps what it takes", name, which, text.Short(200, r.Behind))
		}
		if d, err := time.ParseDuration(r.GroupInterval); err == nil && d < time.Minute {
			e.warn("pmm policies", fix("Set the group interval of the route to 1m."), "%s: %s has a group interval of %s, which is also how long PMM waits for the service's answer", name, which, text.Short(200, r.GroupInterval))
		}
		if r.Muted {
			e.warn("pmm policies", fix("Is that intended? See the mute timings of the route."), "%s: %s is muted at times", name, which)
		}
	}
	if e.Report.Warnings == before {
		e.ok("pmm policies", "%s gets %s", name, strings.Join(leads, "; and "))
	}
}

func quoted(s string) string { return "\"" + text.Short(200, s) + "\"" }
