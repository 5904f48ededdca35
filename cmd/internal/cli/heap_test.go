package cli

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestTheHeapGrowsByAnAmountNotByAShare(t *testing.T) {
	for live, want := range map[uint64]int{0: 400, 1 << 20: 400, 16 << 20: 200, 64 << 20: 50, 128 << 20: 25, 1 << 30: 15} {
		if got := gcPercent(live); got != want {
			t.Errorf("%d bytes live: GOGC %d, want %d", live, got, want)
		}
	}
}

func TestGOGCFollowsTheHeap(t *testing.T) {
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	percent := func() int {
		p := debug.SetGCPercent(100)
		debug.SetGCPercent(p)
		return p
	}
	paceHeap()
	runtime.GC()
	held := make([]byte, 128<<20)
	for end := time.Now().Add(30 * time.Second); percent() > 40; runtime.GC() {
		if time.Now().After(end) {
			t.Fatalf("GOGC is %d with 128 MiB live", percent())
		}
	}
	runtime.KeepAlive(held)
}
