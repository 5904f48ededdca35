// Package bench puts load on the intake of a forwarder, and measures throughput
// and latency. Absolute figures say as much about the machine as about the
// program.
//
// The alerts of a bench have a source and incident keys of their own, the same
// in every run, and each that fired is resolved again at the end.
//
// Every function that starts a goroutine waits for it.
package bench
