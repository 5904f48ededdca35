//go:build !linux

package queue

import "time"

// limitUnsent is for Linux only: elsewhere pings notice a peer that is gone.
func limitUnsent(int, time.Duration) {}
