//go:build !faultpoint

package faultpoint

import "time"

// Here says that a moment is reached.
func Here(string) {}

// Without reports whether a check is left out.
func Without(string) bool { return false }

// Often is a period, shortened in a test that cannot wait for it.
func Often(d time.Duration) time.Duration { return d }

// Few is an amount, smaller in a test that cannot make so much.
func Few(n int64) int64 { return n }
