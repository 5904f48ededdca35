package worker

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
)

// mostUnrecorded is how many events Callgoose may have and our disk does not know yet:
// what a crash can double.
const mostUnrecorded = 32

// Bodies above largeBody take room of their own, and no more than half of the places:
// some dozens of the largest that intake takes would not fit into memory, and a Callgoose
// that hangs on them would keep all others waiting.
const (
	largeBody = 1 << 20
	largeRoom = 48 << 20 // bytes of large bodies under way, at least one
)

// large is size, or 0 for a body that is not large.
func large(size int) int {
	if size <= largeBody {
		return 0
	}
	return size
}

// gate alone answers whether an event may be sent now. Safe concurrently; only the
// loop enters, so that who is asked first goes first.
type gate struct {
	concurrency int
	limit       *rate.Limiter
	changed     func() // tells the loop that a place came free; must not block

	mu         sync.Mutex
	circuit    *circuit
	pause      *store.Pause
	resumes    time.Time // when a pause with an end is over at the latest, on a clock that does not jump
	halted     bool
	requests   int // under way
	unrecorded int // sent, or about to be, and not recorded
	larges     int // of the requests, those with a large body
	room       int // that they take, bytes
}

func newGate(c *circuit, concurrency int, perSecond float64, changed func()) *gate {
	limit := rate.NewLimiter(rate.Inf, 1)
	if perSecond > 0 {
		limit = rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond/10)))
	}
	return &gate{concurrency: concurrency, limit: limit, changed: changed, circuit: c}
}

// ask says what may be sent at now, from which turn on lanes failed since an event was accepted,
// and when to ask again: zero means that only an event changes the answer.
func (g *gate) ask(now time.Time) (p permit, since uint64, again time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.halted:
		return nothing, 0, time.Time{}
	case g.paused(now):
		return nothing, 0, g.pause.Until
	}
	p, again = g.circuit.allow(now)
	if p == everything && g.limit.Limit() != rate.Inf {
		if missing := 1 - g.limit.TokensAt(now); missing > 0 { // a probe does not wait for --rate
			wait := time.Duration(missing / float64(g.limit.Limit()) * float64(time.Second))
			return nothing, 0, now.Add(wait + 1) // cut off to zero it would be asked again at the same moment, for ever
		}
	}
	return p, g.circuit.since, again
}

func (g *gate) paused(now time.Time) bool {
	return g.pause != nil && (g.pause.Until.IsZero() || now.Before(g.pause.Until) && now.Before(g.resumes))
}

// full reports whether there is no place for another request.
func (g *gate) full() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.fullLocked()
}

func (g *gate) fullLocked() bool {
	return g.requests >= g.concurrency || g.unrecorded >= max(mostUnrecorded, g.concurrency)
}

// fits reports whether there is room for a body of this size. A lane whose body has none
// uses neither a place nor a token of --rate.
func (g *gate) fits(size int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return size == 0 || g.larges == 0 || g.larges < g.concurrency/2 && g.room+size <= largeRoom
}

// short reports whether places run out for what is not recorded.
func (g *gate) short() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.unrecorded > mostUnrecorded/2
}

// pass is a place among the requests, and among what is not recorded.
type pass struct {
	g     *gate
	lane  *lane
	item  *item // its head: events are added to the lane meanwhile
	probe bool
}

// enter takes a place for the head of l, when what ask said still holds.
func (g *gate) enter(now time.Time, l *lane, probe bool) (*pass, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	allowed, _ := g.circuit.allow(now)
	if g.fullLocked() || g.halted || allowed == nothing || probe != (allowed != everything) || !probe && !g.limit.AllowN(now, 1) {
		return nil, false
	}
	if probe {
		g.circuit.probing = true
	}
	p := &pass{g: g, lane: l, item: l.head(), probe: probe}
	p.takes(1)
	g.unrecorded++
	return p, true
}

// takes counts the request, n = 1, or its end, -1. It needs the lock.
func (p *pass) takes(n int) {
	p.g.requests += n
	if p.item.size > 0 {
		p.g.larges += n
		p.g.room += n * p.item.size
	}
}

// answered gives the place among the requests back, and says what the answer means. key
// is that of the event.
func (p *pass) answered(key string, v verdict, status int, text string) ruling {
	p.g.mu.Lock()
	waited := p.g.fullLocked() || p.item.size > 0 || p.g.circuit.State != event.Up || v.class != accepted
	r := p.g.circuit.observe(time.Now(), p.lane, p.item, key, p.probe, v, status, text)
	p.takes(-1)
	p.g.mu.Unlock()
	if waited { // else nobody waits for the place, or for this answer
		p.g.changed()
	}
	return r
}

// recorded gives the other place back: our disk knows what Callgoose may have.
func (p *pass) recorded() {
	p.g.mu.Lock()
	p.g.unrecorded--
	p.g.mu.Unlock()
}

// unused gives both back: nothing was sent.
func (p *pass) unused() {
	p.g.mu.Lock()
	if p.probe {
		p.g.circuit.probing = false
	}
	p.takes(-1)
	p.g.unrecorded--
	p.g.mu.Unlock()
}

// halt lets nothing pass from now on.
func (g *gate) halt() {
	g.mu.Lock()
	g.halted = true
	g.mu.Unlock()
}

// kick allows a probe at once: the token or the world may have changed.
func (g *gate) kick() {
	g.mu.Lock()
	g.circuit.probeAt, g.circuit.asked = time.Time{}, false
	g.mu.Unlock()
}

// hold pauses delivery by hand, and resumes it with nil.
func (g *gate) hold(p *store.Pause) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := time.Now(); p != nil && (g.pause == nil || !p.Since.Equal(g.pause.Since)) {
		g.resumes = now.Add(min(p.Until.Sub(now), p.Until.Sub(p.Since)))
	}
	g.pause = p
}

// standing is the state of the gate.
type standing struct {
	Circuit               // as it is shown: paused when it is
	pause    *store.Pause // nil when it is not
	seen     string       // the state of Callgoose's side, also while paused
	probeAt  time.Time
	failedAt time.Time
	requests int
	halted   bool
}

func (g *gate) stand(now time.Time) standing {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := standing{
		Circuit: g.circuit.Circuit, seen: g.circuit.State, probeAt: g.circuit.probeAt, failedAt: g.circuit.failedAt,
		requests: g.requests, halted: g.halted,
	}
	if g.paused(now) {
		s.pause, s.State, s.Since = g.pause, event.Paused, g.pause.Since
	}
	return s
}
