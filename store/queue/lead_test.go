package queue

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// member is an instance in a simulation.
type member struct {
	standing
	rate    float64 // of its clock
	applied int     // entries that it read
	last    int     // the newest that it knows to be stored, as a leader
	frozen  int     // until when it does not run, ms
}

// world is what the members share: a log that lets one through, on servers that are slow,
// lose acknowledgements and cannot be reached.
type world struct {
	r       *rand.Rand
	now     int   // ms
	log     []int // who appended
	stored  []int // when
	members []*member
	lost    int // take-overs and beats that were stored and not acknowledged
	terms   int
}

func (w *world) clock(m *member) time.Time {
	return time.Unix(0, 0).Add(time.Duration(float64(w.now) * m.rate * float64(time.Millisecond)))
}

func (w *world) append(i int, expected int) (acknowledged, refused bool) {
	switch {
	case w.r.IntN(10) == 0:
		return false, false // not reached
	case len(w.log) != expected:
		return false, true
	}
	w.log, w.stored = append(w.log, i), append(w.stored, w.now)
	if w.r.IntN(10) == 0 {
		w.lost++
		return false, false
	}
	return true, false
}

func (w *world) turn(i int) {
	m := w.members[i]
	now := w.clock(m)
	var do action
	for !m.leads && m.applied < len(w.log) && w.now-w.stored[m.applied] > w.r.IntN(300) {
		m.applied++
		m.standing, _ = m.next(occurrence{kind: occurRead, jitter: time.Duration(w.r.IntN(1000)) * time.Millisecond}, now)
	}
	m.standing, do = m.next(occurrence{}, now)
	switch do {
	case doTakeOver:
		if m.applied != len(w.log) {
			return
		}
		if ok, _ := w.append(i, m.applied); ok {
			w.terms++
			m.last = len(w.log)
			m.standing, _ = m.next(occurrence{kind: occurTookOver, began: now}, now)
		}
	case doBeat:
		switch ok, refused := w.append(i, m.last); {
		case ok:
			m.last = len(w.log)
			m.standing, _ = m.next(occurrence{kind: occurAppended, began: now}, now)
		case refused && m.last < len(w.log) && w.log[m.last] == i: // its acknowledgement was lost
			m.last++
		case refused:
			m.standing, _ = m.next(occurrence{kind: occurLost}, now)
		}
	case doStop:
		m.standing, _ = m.next(occurrence{kind: occurLost}, now)
	}
	if !m.leads {
		m.applied = max(m.applied, m.last)
	}
}

// However long the instances freeze, whatever they hear, and although their clocks run at
// different rates: no two of them hold at the same time, and somebody leads again.
func TestNoTwoInstancesHold(t *testing.T) {
	t.Parallel()
	terms, lost := 0, 0
	for seed := range uint64(40) {
		w := &world{r: rand.New(rand.NewPCG(seed, 2))}
		for range 3 {
			m := &member{rate: 0.95 + w.r.Float64()/10}
			m.rules = rulesOf(0)
			w.members = append(w.members, m)
		}
		leaderless := 0
		for ; w.now < 600_000; w.now += 20 {
			holding := []string{}
			for i, m := range w.members {
				if w.r.IntN(2000) == 0 {
					m.frozen = w.now + w.r.IntN(30_000)
				}
				if w.now >= m.frozen {
					w.turn(i)
				}
				if m.holds(w.clock(m)) {
					holding = append(holding, fmt.Sprint(i))
				}
			}
			if len(holding) > 1 {
				t.Fatalf("seed %d: %v hold at %d ms", seed, holding, w.now)
			}
			if leaderless++; len(holding) > 0 {
				leaderless = 0
			}
			if leaderless*20 > 90_000 {
				t.Fatalf("seed %d: nobody has led for 90 s at %d ms", seed, w.now)
			}
		}
		terms, lost = terms+w.terms, lost+w.lost
	}
	if terms < 200 || lost < 400 {
		t.Errorf("%d terms, %d lost acknowledgements: nothing was tried", terms, lost)
	}
}

func TestWhoStoppedInGoodOrderIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	at := time.Unix(1000, 0)
	for _, c := range []struct {
		name  string
		last  byte
		after time.Duration
		want  action
	}{
		{"a leader that was heard of", occurRead, 12 * time.Second, doNothing},
		{"a leader that was not heard of for long", occurRead, 13 * time.Second, doTakeOver},
		{"a leader that released", occurReleased, 0, doTakeOver},
		{"silence that says nothing", occurUnreadable, 12 * time.Second, doNothing},
	} {
		s := standing{rules: rulesOf(0)}
		s, _ = s.next(occurrence{kind: occurRead}, at.Add(-5*time.Second))
		s, _ = s.next(occurrence{kind: c.last}, at)
		if _, do := s.next(occurrence{}, at.Add(c.after)); do != c.want {
			t.Errorf("%s: %d", c.name, do)
		}
	}
	s := standing{rules: rulesOf(0)}
	s, _ = s.next(occurrence{kind: occurTookOver, began: at}, at)
	s, _ = s.next(occurrence{kind: occurLost}, at)
	if s, _ = s.next(occurrence{kind: occurAppended, began: at}, at); s.leads {
		t.Error("an acknowledgement that comes after the term makes a leader")
	}
}
