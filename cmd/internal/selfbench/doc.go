// Package selfbench measures a whole forwarder from outside, a binary that it
// starts itself between its own load and its own sink. It is tests only:
//
//	go test -run TestEverything -v -timeout 2h ./cmd/internal/selfbench -args -program ./pmm-callgoose
//	go test -run TestOrdinaryLoad -v ./cmd/internal/selfbench -args -program ./pmm-callgoose
//
// Absolute figures say as much about the machine as about the program. So each
// run of TestEverything also measures, on the same machine, in the same minute,
// with the same client: an HTTP server that throws the bodies away, one fsync for
// each webhook, and a bare HTTP client towards the sink. Two binaries are compared
// by running both on a quiet machine.
package selfbench
