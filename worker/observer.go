package worker

import (
	"time"

	"pmm-callgoose/store/event"
)

// Observer is told what delivery does. Its methods must be quick and safe to
// call from several goroutines. The zero Observers of the configurations are
// none.
type Observer interface {
	// Attempt reports one request to Callgoose and what came of it: a.Result and,
	// when it was taken, a.Effect. step names what failed when there was no answer, as
	// in callgoose.Error.
	Attempt(a event.Attempt, step string)
	// Settled reports that an event has its outcome, durably, and how long it was
	// queued: from the receipt of its alert, or from being queued again.
	Settled(outcome event.Outcome, waited time.Duration)
	// FirstTaken reports that Callgoose took a firing event, durably and for the first time,
	// and how long after the beginning of its alert (startsAt): 0 where PMM's clock is ahead.
	FirstTaken(age time.Duration)
	// Circuit reports that the state of Callgoose's side changed.
	Circuit(state string)
}

type silent struct{}

func (silent) Attempt(event.Attempt, string)        {}
func (silent) Settled(event.Outcome, time.Duration) {}
func (silent) FirstTaken(time.Duration)             {}
func (silent) Circuit(string)                       {}
