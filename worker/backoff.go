package worker

import (
	"math/rand/v2"
	"time"
)

// backoff is the wait before try n+1 of one event (n = 1 after the first):
// exponential with full jitter, between least and most. It is pure but for the
// dice, which are handed in.
func backoff(n int, least, most time.Duration, dice func(time.Duration) time.Duration) time.Duration {
	ceiling := least
	for ; n > 0 && ceiling < most; n-- {
		ceiling *= 2
	}
	return spread(least, min(ceiling, most), dice)
}

// spread is a random time between from and to.
func spread(from, to time.Duration, dice func(time.Duration) time.Duration) time.Duration {
	if to <= from {
		return from
	}
	return from + dice(to-from)
}

func roll(n time.Duration) time.Duration { return rand.N(n) }
