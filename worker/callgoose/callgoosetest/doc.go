// Package callgoosetest is a fake Callgoose: it implements the process endpoint
// as far as its documentation goes, and can be told to fail.
//
//	POST …/process -> failure mode -> path, method, token -> filters -> incidents
//	                      |                                      |
//	    status, page, hang, reset, slow,                201 / 200 / 202 and JSON
//	    lose-reply, hook; for all or what matches
//
// What the documentation leaves open (which code a duplicate gets, what a second
// trigger does while an incident is open, ...) is a switch in [Config]: a sender
// has to be right under every setting.
//
// Everything received is remembered, and [Fake.Check] compares it with what
// should have arrived: missing, doubled, overtaken, changed, overlapping.
//
// A [Fake] starts no goroutines and uses only the time package and the context of
// the request, so it works in a testing/synctest bubble through [Fake.RoundTripper]
// (make the Fake inside the bubble). [Fake.Start] serves it on a real socket; that
// [Server] owns one goroutine until Close. Nothing is persisted.
//
// The paths below /_fake/ inspect and control a fake in another process. They ask
// for no credentials: a fake holds nothing worth protecting. The tokens themselves
// are never recorded, answered or logged.
//
//	GET  /_fake/received    what came in, []Request (a body is base64)
//	GET  /_fake/incidents   []Incident; ?open=1 only the open ones
//	GET  /_fake/stats       Stats
//	POST /_fake/fail        {"mode":"503","retry_after":"7","delay":"1s","count":3,"next":false}; with "key" or
//	                         "text" only what matches; the modes are those of ParseFailure
//	POST /_fake/reset       forget everything, stop failing
package callgoosetest
