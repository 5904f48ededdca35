// Package pmm holds all we know about Percona Monitoring and Management: what its
// webhook bodies look like and which deviations are accepted, and how its HTTP API is
// made to send them here.
//
// # Bodies
//
//	body ──survey──▶ top-level members ──▶ Envelope
//	                   └─ "alerts" ──each──▶ member ──fault──┬─▶ Alerts
//	                                                         └─▶ Unusable
//
// [Decode] never fails on a body [Check] let through, never panics, and keeps every
// byte of a member, usable or not. It touches neither disk nor network.
//
// # Setting up
//
//	Version ─▶ contact points, policies ─▶ [Plan] ──Apply──▶ read again, unchanged? ─▶ write ─▶ read again
//
// [Client.Plan] reads and decides, [Client.Apply] writes, [Client.Inspect] judges what is there.
// What they promise:
//
//   - A second run writes nothing. Credentials are the exception that cannot be seen:
//     Grafana hides them, so they are written again only when asked for ([Want].Rotate).
//     Nothing about them is kept here, as setup may run on any machine.
//   - Nobody loses a notification: see policy.go, and the test that walks trees made
//     at random before and after.
//   - What others made is never changed. Our contact point is known by its identifier
//     and its name together, our route by leading there, our default routes by a
//     matcher that is true of every alert. The values of members that we do
//     not know are written back byte for byte.
//   - A lock of Grafana's (provenance) stays: what is made here can be edited in its
//     pages (X-Disable-Provenance), what came through the API stays locked, and what
//     comes from a file is refused.
//   - No error, plan or note holds a credential.
//
// If the process dies between the two writes, there is a contact point without a
// route: the next run does the rest.
//
// # Looking
//
//	alerts ─▶ rules ─▶ policies or contact points ─▶ alerts again ─▶ [View], whole or an error
//
// [Viewer.Read] says what PMM holds to be firing, from two parts of Grafana of which
// each can be wrong; see views.go for what each is worth. [FiringNotification] and
// [RecoveryNotification] make the webhook that PMM should have sent.
//
// No part of the package starts goroutines.
//
// # Versions
//
//   - PMM 2.31 to 3.x, bodies of Grafana 9.1 to 12.4: "version" is "1".
//   - PMM before 2.31 and any Alertmanager 0.21 to 0.34: "version" is "4".
//   - The samples of the Callgoose guide: no version, fingerprint or startsAt.
//
// # Quirks, and where each was seen
//
//   - "values" is null for NoData, Error and test alerts, because NaN is not
//     JSON (grafana/grafana:pkg/services/ngalert/state/compat.go). Members that
//     are not needed here are therefore kept, never decoded.
//   - The end of a firing alert is 0001-01-01T00:00:00Z, a Go zero time
//     (grafana/alerting:templates/template_data.go). Year 1 is "no time".
//   - Grafana's fingerprint covers labels it does not show, such as
//     __alert_rule_uid__, so the one sent always wins over [Fingerprint].
//   - Resolved alerts can return with startsAt == endsAt (grafana/grafana PR
//     88938; testdata/webhook/grafana-resend-resolved-startsAt-changed.json).
//   - The Test button sends one firing alert, never its end; only the group key
//     tells (grafana/alerting:notify/test_receivers.go). See [Alert.Test].
//   - maxAlerts cuts alerts off after they were logged as sent, so those are
//     lost; truncatedAlerts is the only trace (grafana/alerting truncateAlerts).
//   - From Grafana 12.0 the body may be any template's output, JSON or not.
//     Numbers and booleans among labels then count as their text.
package pmm
