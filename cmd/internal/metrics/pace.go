package metrics

import (
	"math"
	"sync"
	"time"
)

// paceOver is how far back a pace looks, in seconds.
const paceOver = 5

// pace is how often something happens in a second: the past counts less the
// longer ago it is. Safe concurrently.
type pace struct {
	mu sync.Mutex
	at time.Time // guarded by mu
	v  float64   // at that time; guarded by mu
}

func (p *pace) add(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.v, p.at = p.fade(now)+1./paceOver, now
}

func (p *pace) rate(now time.Time) float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fade(now)
}

func (p *pace) fade(now time.Time) float64 {
	return p.v * math.Exp(-max(now.Sub(p.at), 0).Seconds()/paceOver)
}
