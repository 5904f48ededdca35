// Package web is the operators' side of a running service: a JSON API, and the
// pages of a browser. The same handler serves the Unix socket in the data
// directory (whoever may open it is trusted: mode 0600) and the TCP address,
// where a token is asked for beyond loopback and the Host header is checked, so
// that a web page cannot reach it through somebody's browser. Beyond loopback
// any name is accepted: a page that leads here by a false name has neither the
// token nor, for that name, a session.
//
// Programs send the token. A browser shows it once, to /login, and then has a
// session, which counts for pages only. A call that changes something must, over
// TCP, come with the token, with the header admin.Intent, which neither a form
// nor a webhook sends, or from a page of this service, as the browser says. Where no
// token is asked for it must also come from root or the service's own user on this
// machine, as the kernel says: a header is no proof of that.
//
//	GET /                      overview
//	GET /events, /events/{id}  the list, one event; its bodies as files below it
//	GET /dead-letters          with forms that lead to the two previews
//	GET /replay                preview of a replay; POST begins it
//	GET /replay/{id}           how far it has come
//	GET /dead-letters/drop     preview of a drop; POST does it
//
//	GET /healthz               the process is alive
//	GET /readyz                a webhook would be answered with 202
//	GET /api/v1/status         admin.Status
//	GET /api/v1/events         []admin.Row, newest first
//	GET /api/v1/events/{id}    admin.Detail
//	GET /api/v1/events/tail    admin.Row, one JSON object a line, as they change
//	POST /api/v1/filters/test  filters.Report: what stored events would do under other filters
//	POST /api/v1/fallback/test []admin.Way: a test message by the other way out
//	POST /api/v1/replay        admin.Plan: queue events again, or only count (dry_run)
//	GET /api/v1/replay/{id}    admin.Job: how far it has come
//	POST /api/v1/dead-letters/drop  forget dead letters
//	GET /api/v1/export         admin.Carried, one JSON object a line
//	POST /api/v1/import        admin.Imported: takes such lines
//	GET /metrics               for Prometheus; the token may be a Basic password here
//	GET /api/v1/check          admin.Check: do queue and dedupe state agree
//	GET /api/v1/config         effective settings, nothing secret in them
//
// What a stranger can make it hold is bounded: streams, sessions, the addresses
// of those who guess the token, the lines of an import.
package web
