package worker

import (
	"net/http"
	"time"

	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose"
)

// verdict is what an attempt means, for its event and for everybody else.
type verdict struct {
	result  string        // for the attempt's record
	outcome event.Outcome // "" = not settled: try again
	reason  string        // why, for outcomes that need one
	class   class
	wait    time.Duration // Retry-After, of answers that are about Callgoose and not about the event
	// refused: an answer that may be final for this event. It is given up after a number
	// of them when others are accepted meanwhile.
	refused bool
}

// class is what an attempt says about Callgoose itself.
type class int

const (
	accepted    class = iota // it took the event
	rejected                 // it works, and will never take this event
	trouble                  // this attempt failed; others may get through
	unreachable              // no event would get through
	misconfig                // token or address are wrong for every event
	interrupted              // the service's own stop; says nothing
)

// classify is the one place that decides what an answer means. It is pure.
func classify(r callgoose.Reply, err *callgoose.Error) verdict {
	if err == nil {
		if r.Status == http.StatusAccepted && r.Effect != "duplicate" { // a duplicate wins over 202: Callgoose has it
			return verdict{
				result: "discarded", outcome: event.Discarded,
				reason: "callgoose answered 202: no filter matched this event",
			}
		}
		return verdict{result: "delivered", outcome: event.Delivered}
	}
	switch s := err.Status; {
	case err.Step == "interrupted":
		return verdict{result: "interrupted", class: interrupted}
	case s == 0 && err.Unreachable():
		return verdict{result: "retry", class: unreachable}
	case s == 0:
		return verdict{result: "retry", class: trouble}
	case err.Foreign, s >= 300 && s < 400, s == http.StatusUnauthorized, s == http.StatusForbidden,
		s == http.StatusNotFound, s == http.StatusMethodNotAllowed, s == http.StatusProxyAuthRequired:
		return verdict{result: "held", class: misconfig, refused: true}
	case s == http.StatusBadRequest, s == http.StatusRequestEntityTooLarge,
		s == http.StatusUnsupportedMediaType, s == http.StatusUnprocessableEntity:
		return verdict{result: "dead", outcome: event.Dead, reason: err.Error(), class: rejected}
	case s == http.StatusRequestTimeout, s == http.StatusTooEarly, s == http.StatusTooManyRequests, s >= 500:
		return verdict{result: "retry", class: trouble, wait: err.RetryAfter}
	}
	// A 4xx that nobody has documented. It may be this event or the address: an
	// event that waits can still be delivered, one that was given up cannot.
	return verdict{result: "retry", class: trouble, refused: true}
}
