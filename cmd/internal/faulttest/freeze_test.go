package faulttest

import (
	"syscall"
	"testing"
	"time"
)

// A frozen process (a paused virtual machine) goes on where it was. PMM ran
// out of patience meanwhile and sends again.
func TestFrozenAndThawedNothingIsLostOrDoubled(t *testing.T) {
	t.Parallel()
	dice := random(t)
	r := newRig(t, "--timeout", "1s")
	r.start()
	l := r.startLoad(dice)
	const freezes = 1
	for range freezes {
		time.Sleep(between(dice, 100*time.Millisecond, 400*time.Millisecond))
		if err := r.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		time.Sleep(sendGives + 500*time.Millisecond)
		if err := r.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(100 * time.Millisecond)
	l.finish()
	r.settle(&l.book)
	r.stop()
	// Attempts under way time out although Callgoose has answered.
	if again := r.account(&l.book); again > freezes*concurrency {
		t.Errorf("%d accepted again, more than were under way", again)
	}
}
