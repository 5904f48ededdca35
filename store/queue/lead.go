package queue

import (
	"time"

	"pmm-callgoose/store/faultpoint"
)

// Who can append to LEDGER leads. The leader believes itself for hold after the beginning
// of its last acknowledged append; a follower waits longer than that after it received the
// last entry, and then appends that it takes over, behind the last entry that it knows. No
// two clocks are compared, only their rates.

// rules are the times of leading.
type rules struct {
	beat time.Duration // the leader appends something when it has not for so long
	hold time.Duration // how long the leader believes itself
	take time.Duration // how long a follower waits
}

// The take-over time by default, and the shares of it: the hold ends well before it, and
// an election inside NATS, which takes up to 9 s, fits into the hold.
const defaultTake = 13 * time.Second

func rulesOf(take time.Duration) rules {
	if take == 0 {
		take = defaultTake
	}
	return rules{beat: take * 2 / 13, hold: take * 11 / 13, take: take}
}

// standing is what an instance knows of who leads. Its only way from one to the next is
// the method next.
type standing struct {
	rules
	leads bool
	// Of a follower: when it received the newest entry, or when the servers could not be
	// read, and how long it waits from then on.
	heard time.Time
	wait  time.Duration
	// Of a leader: the beginning of its newest acknowledged append.
	acked time.Time
}

// occurrence is something that changes a standing.
type occurrence struct {
	kind   byte
	began  time.Time     // of what was acknowledged: when it was tried first
	jitter time.Duration // of occurRead and occurLost: what to wait beyond the rules
}

const (
	occurNothing    byte = iota // time goes by
	occurRead                   // an entry of somebody else was received
	occurReleased               // it says that its leader stopped
	occurUnreadable             // the servers cannot be read: silence says nothing
	occurTookOver               // our take-over was acknowledged
	occurAppended               // another entry of ours was
	occurLost                   // an append was refused or given up, or the term ended
)

// action is what to do next.
type action byte

const (
	doNothing  action = iota
	doTakeOver        // append that we take over, if nothing else was stored meanwhile
	doBeat            // append that we live
	doStop            // the hold is over: send nothing, append nothing
)

// holds reports whether a leader may act at now.
func (s standing) holds(now time.Time) bool {
	return s.leads && (now.Before(s.acked.Add(s.hold)) || faultpoint.Without("hold"))
}

func (s standing) next(o occurrence, now time.Time) (standing, action) {
	switch o.kind {
	case occurRead:
		s.heard, s.wait = now, s.take+o.jitter
	case occurReleased:
		s.heard, s.wait = now, 0
	case occurUnreadable:
		s.heard = now
	case occurTookOver:
		s.leads, s.acked = true, o.began
	case occurAppended:
		if s.leads { // else the term ended meanwhile
			s.acked = o.began
		}
	case occurLost:
		s.leads, s.heard, s.wait = false, now, s.take+o.jitter
	}
	switch {
	case !s.leads && now.Sub(s.heard) >= s.wait:
		return s, doTakeOver
	case !s.leads:
		return s, doNothing
	case !s.holds(now):
		return s, doStop
	case now.Sub(s.acked) >= s.beat:
		return s, doBeat
	}
	return s, doNothing
}
