//go:build !faultpoint

package faultpoint

import "time"

// Here says that a moment is reached.
func Here(string) {}

// NoSync reports whether the queue should leave out its fsyncs.
func NoSync() bool { return false }

// StaleReads reports whether reads are answered by replicas that lag behind.
func StaleReads() bool { return false }

// Often is a period, shortened in a test that cannot wait for it.
func Often(d time.Duration) time.Duration { return d }
