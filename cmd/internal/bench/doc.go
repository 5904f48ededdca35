// Package bench measures a forwarder: load on its intake, and, for a forwarder
// that it starts itself, everything from the webhook to a sink.
//
// Absolute figures say as much about the machine as about the program. So each
// run also measures what the figures are compared with, on the same machine, in
// the same minute, with the same client: an HTTP server that throws the bodies
// away, one fsync for each webhook, and a bare HTTP client towards the sink.
//
// The alerts of a bench have a source and incident keys of their own, the same
// in every run, and each that fired is resolved again at the end.
//
// Every function that starts a goroutine or a process waits for it.
package bench
