package faulttest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strconv"
	"syscall"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/worker/callgoose/callgoosetest"
)

func needFaultpoints(t *testing.T) {
	t.Helper()
	if !faultpoints {
		t.Skip("the fault points are not compiled in: go test -tags faultpoint")
	}
}

// step is a moment to die at (see store/faultpoint).
type step struct {
	name string
	most int // it dies there at one of the first so many times
	// bring makes it happen; nil when the load or the start does.
	bring func(*rig)
}

// dieAt runs the steps, in random order, several deaths at each, under load.
func (r *rig) dieAt(dice *rand.Rand, steps []step) (l *load, deaths int) {
	r.t.Helper()
	each := max(1, number(r.t, "PMM_CALLGOOSE_FAULT_CYCLES", 5)/5)
	r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Slow, Delay: 5 * time.Millisecond})
	r.start()
	l = r.startLoad(dice)
	time.Sleep(200 * time.Millisecond) // something to recover
	r.kill()
	for range each {
		for _, i := range dice.Perm(len(steps)) {
			s := steps[i]
			r.env = []string{fmt.Sprintf("FAULTPOINT=%s@%d", s.name, 1+dice.IntN(s.most))}
			if s.bring == nil {
				r.launch()
			} else {
				r.start()
				s.bring(r)
			}
			r.awaitDeath()
			deaths++
		}
	}
	r.env = nil
	r.start()
	l.finish()
	r.settle(&l.book)
	r.stop()
	return l, deaths
}

// Every place where something was made durable, or is about to be, and every
// step of the start, the stop and a replay.
func TestKilledAtEveryStepNothingIsLost(t *testing.T) {
	needFaultpoints(t)
	t.Parallel()
	dice := random(t)
	r := newRig(t)
	stop := func(r *rig) {
		time.Sleep(between(dice, 50*time.Millisecond, 300*time.Millisecond))
		_ = r.cmd.Process.Signal(syscall.SIGTERM)
	}
	const most = 300
	replayed := 0
	replay := func(r *rig) {
		// Only recoveries: a firing event sent again after its recovery opens an
		// incident that stays open, as it must.
		c := admin.NewSocketClient(r.data)
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			p, err := admin.Ask[admin.Plan](context.Background(), c, "POST /api/v1/replay", url.Values{"outcome": {"delivered"}, "status": {"resolved"}, "limit": {strconv.Itoa(most)}})
			if err != nil {
				replayed += most // it may have been queued
			}
			replayed += p.Events
			if err != nil || p.Events > 0 {
				return
			}
		}
		r.t.Error("nothing to replay")
	}
	l, deaths := r.dieAt(dice, []step{
		{"notification-sent", 30, nil},   // the disk is being written, PMM waits
		{"notification-stored", 30, nil}, // fsynced, and nobody was told
		{"decided", 20, nil},             // queued, and nobody was woken
		{"claimed", 60, nil},             // claimed, not sent
		{"answered", 60, nil},            // Callgoose has it, we have no record
		{"recorded", 60, nil},            // settled, and nobody was told
		{"start-ledger", 1, nil},
		{"start-queue", 1, nil},
		{"start-done", 1, nil},
		{"stop-begun", 1, stop},
		{"stop-queue", 1, stop},
		{"requeue-stored", 1, replay}, // a replay: in the stream, not in the ledger
	})
	if again := r.account(&l.book); again > deaths*againPerKill+replayed {
		t.Errorf("%d accepted again, more than %d a kill and %d replayed", again, againPerKill, replayed)
	}
	t.Logf("%d kills, %d webhooks sent again, at most %d events replayed", deaths, l.repeats.Load(), replayed)
}

// Retention removes what is settled while alerts come in.
func TestKilledWhileRetentionCutsNothingIsLost(t *testing.T) {
	needFaultpoints(t)
	t.Parallel()
	dice := random(t)
	r := newRig(t, "--max-body", "64KiB", "--max-store", "512KiB")
	l, deaths := r.dieAt(dice, []step{
		{"prune-stream-cut", 3, nil}, // cut, and the room is not known
		{"prune-cut", 2, nil},        // the ledger still has their records
	})
	if again := r.account(&l.book); again > deaths*againPerKill {
		t.Errorf("%d accepted again, more than %d a kill", again, againPerKill)
	}
	t.Logf("%d kills, %d webhooks sent again, %d refused", deaths, l.repeats.Load(), l.refused.Load())
}
