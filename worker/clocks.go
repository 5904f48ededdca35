package worker

import "time"

// clocks compares the wall clock, which is set at times, with the monotonic one.
type clocks struct {
	began time.Time
	wall  time.Time // began, by the wall clock of then
}

// notSetYet is how long after a start the wall clock may be wrong, because the machine was
// booted and nobody has set it yet.
const notSetYet = 10 * time.Minute

func newClocks(now time.Time) clocks { return clocks{now, now.Round(0)} }

// ahead is how far the wall clock at now was set forward since the beginning, negative for back.
func (c clocks) ahead(now time.Time) time.Duration {
	return now.Round(0).Sub(c.wall) - now.Sub(c.began)
}
