package faulttest

import (
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose/callgoosetest"
)

// Callgoose hangs, resets, is slow, loses its replies, fails, goes away: all in
// turn, in random order, while alerts come in.
func TestBadNetworkTowardsCallgooseLosesNothing(t *testing.T) {
	inSuite(t)
	t.Parallel()
	dice := random(t)
	r := newRig(t, "--timeout", "2s") // a slow machine is none of the faults
	r.start()
	l := r.startLoad(dice)
	faults := []func(){
		func() { r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Hang}) },
		func() { r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Reset}) },
		func() { r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.LoseReply}) },
		func() { r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Slow, Delay: 200 * time.Millisecond}) },
		func() { r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Status, Status: 503}) },
		func() {
			r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Status, Status: 429, RetryAfter: "1"})
		},
		func() { // nobody listens, and what is under way is cut
			if err := r.server.Close(); err != nil {
				t.Error(err)
			}
		},
	}
	for _, i := range dice.Perm(len(faults)) {
		faults[i]()
		time.Sleep(between(dice, 200*time.Millisecond, 500*time.Millisecond))
		r.fake.Fail(callgoosetest.Failure{})
		if err := r.server.Reopen(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(between(dice, 0, 200*time.Millisecond))
	}
	l.finish()
	r.settle(&l.book)
	r.stop()
	// An event whose answer was cut off or came too late is sent again.
	if again := r.account(&l.book); again > len(faults)*concurrency {
		t.Errorf("%d accepted again, more than were under way", again)
	}
}

// A token that is refused holds everything; replacing the file is enough.
func TestRefusedTokenReplacedResumesByItself(t *testing.T) {
	t.Parallel()
	dice := random(t)
	r := newRig(t)
	r.start()
	l := r.startLoad(dice)
	const next = token + "-2"
	time.Sleep(100 * time.Millisecond)
	r.fake.SetTokens(next)
	r.until("held", func(s admin.Status) bool { return s.Callgoose.State == event.Held && s.Queued > 100 })
	before := r.fake.Stats().Requests
	time.Sleep(300 * time.Millisecond)
	if tried := r.fake.Stats().Requests - before; tried > 30 {
		t.Errorf("%d requests within 300ms while everything is held", tried)
	}
	l.stop()
	r.writeToken(next)
	r.until("up", func(s admin.Status) bool { return s.Callgoose.State == event.Up })
	l.finish()
	r.settle(&l.book)
	if s, err := r.status(); err != nil || s.Dead != 0 {
		t.Errorf("%d dead letters, %v", s.Dead, err)
	}
	r.stop()
	if again := r.account(&l.book); again > 0 {
		t.Errorf("%d accepted again", again)
	}
}
