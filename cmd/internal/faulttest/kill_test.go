package faulttest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"pmm-callgoose/worker/callgoose/callgoosetest"
)

const concurrency = 16

// An attempt under way when we die may have been answered already: that many
// events may come twice, for each time. Claims and records of one more round
// may stand between answer and disk.
const againPerKill = 2 * concurrency

// A disk that loses its power can also take back a commit of the ledger whose
// fsync was under way and returned 0 (see powerCut): that many more were let out
// meanwhile.
const againPerCut = 2 * againPerKill

func TestKilledAtAnyMomentNothingIsLost(t *testing.T) {
	t.Parallel()
	dice := random(t)
	r := newRig(t)
	r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Slow, Delay: 5 * time.Millisecond})
	r.start()
	l := r.startLoad(dice)
	cycles := number(t, "PMM_CALLGOOSE_FAULT_CYCLES", 5)
	for range cycles {
		// Sometimes it dies before it is ready.
		time.Sleep(between(dice, 10*time.Millisecond, 700*time.Millisecond))
		r.kill()
		r.launch()
	}
	r.awaitReady()
	l.finish()
	r.settle(&l.book)
	r.stop()
	if again := r.account(&l.book); again > cycles*againPerKill {
		t.Errorf("%d accepted again, more than %d a kill", again, againPerKill)
	}
	t.Logf("%d kills, %d webhooks sent again", cycles, l.repeats.Load())
}

// The ledger is a view: deleted between two runs, it costs repeats and no alert.
func TestKilledAndTheLedgerDeletedNothingIsLost(t *testing.T) {
	t.Parallel()
	dice := random(t)
	r := newRig(t)
	r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Slow, Delay: 5 * time.Millisecond})
	r.start()
	l := r.startLoad(dice)
	cycles := max(2, number(t, "PMM_CALLGOOSE_FAULT_CYCLES", 5)/2)
	for range cycles {
		time.Sleep(between(dice, 100*time.Millisecond, 700*time.Millisecond))
		r.kill()
		if dice.IntN(3) > 0 {
			if err := os.Remove(filepath.Join(r.data, "ledger.db")); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
		r.launch()
	}
	r.awaitReady()
	l.finish()
	r.settle(&l.book)
	r.account(&l.book)
	r.stop()
}
