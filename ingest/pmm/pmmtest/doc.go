// Package pmmtest is a fake PMM: its version, and Grafana's provisioning API for
// contact points and notification policies, with their oddities. It knows nothing
// of package pmm, so that the two can disagree.
//
//	PMM:     GET  /v1/server/version, /v1/version
//	Grafana: GET  /graph/api/health
//	         GET, POST        /graph/api/v1/provisioning/contact-points
//	         PUT, DELETE      /graph/api/v1/provisioning/contact-points/{uid}
//	         GET, PUT         /graph/api/v1/provisioning/policies
//	         GET              /graph/api/v1/provisioning/alert-rules
//	         GET              /graph/api/alertmanager/grafana/api/v2/alerts
//	         GET              /graph/api/alertmanager/grafana/config/api/v1/receivers
//	         GET              /graph/api/prometheus/grafana/api/v1/rules
//
// What is odd, and where it was read (G = grafana/grafana:pkg/services/ngalert,
// GA = grafana/alerting, P = percona/pmm):
//
//   - POST, PUT and DELETE answer 202 (G/api/api_provisioning.go); the
//     documentation says 204 for DELETE.
//   - Secrets go inside settings and come back as [REDACTED]. A PUT with that word
//     keeps the old secret at the top level only
//     (G/provisioning/contactpoints.go, UpdateContactPoint).
//   - Before Grafana 11.6 hmacConfig is unknown: it is stored in the clear, shown
//     in the clear, and nothing is signed (GA 2acbeef2).
//   - A contact point whose name is taken joins the one that has it; only the uid is
//     checked, with 409 uidInUse (contactpoints.go).
//   - Basic and Authorization together are a validation error, 400
//     (GA:receivers/webhook/v1/config.go).
//   - Removing one that a route needs: 409 referenced.
//     Removing one that is not there: 202 (contactpoints.go).
//   - Policies are one tree; PUT replaces it. Empty members are left out, matchers
//     come back sorted, a route may leave its receiver out and inherit it
//     (G/provisioning/notification_policies.go, GA:definition).
//   - Provenance: without X-Disable-Provenance an object becomes "api" and is locked
//     in the pages. Changing it back is refused, 403 invalidProvenance. Before 12 a PUT of policies is never refused, even when
//     they come from a file (G/provisioning/validation).
//   - Grafana 13 adds Warning and X-API-Deprecation-Date to the answers.
//   - /graph needs no role in PMM, Grafana judges the token itself; the version does
//     need one. PMM 2 answers 401 "Access denied." for a path that it has no rule for
//     (P:managed/services/grafana/auth_server.go). PMM 3 answers at PMM 2's path too
//     (P:build/ansible/roles/nginx/files/conf.d/pmm.conf).
//   - Roles: since Grafana 11 an Editor may write and a Viewer read what is provisioned
//     (grafana/grafana PR 85022), before it was the Admin alone (PR 50366). The
//     permissions that a refusal names hold the word "provenance" themselves.
//   - A fresh 12.4 has a default contact point "empty" without integrations, which the
//     list of contact points leaves out (real Grafana 12.4.3).
//   - A contact point that a rule names cannot be removed, 409.
//   - nginx answers with pages: 503 in maintenance, 502 while Grafana starts.
//
// What fires is a [World], which moves only when it is stepped.
//
// A [Fake] starts no goroutines and keeps everything in memory. [Fake.Route] walks
// the policies as Alertmanager does (dispatch/route.go).
package pmmtest
