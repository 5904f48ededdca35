package cli

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// The heap is collected whenever this much was allocated, and not, as GOGC has
// it, when it grew by a share of itself: a service with little in line is spared
// a collection every few milliseconds under load, and one with a million events
// in line a third of its memory. (The measured price of GOGC=40: a quarter of the
// CPU time under load. A collection also costs JetStream the blocks that it has
// cached and is not using just then.)
const spareHeap = 32 << 20

// gcPercent is GOGC for a heap of so many live bytes.
func gcPercent(live uint64) int {
	const least, most = 15, 400 // beyond: collecting all the time; much memory for nothing
	return int(min(max(spareHeap*100/max(live, 1), least), most))
}

// paceHeap sets GOGC anew after each collection, for the rest of the process.
func paceHeap() {
	p := &heapPace{sample: []metrics.Sample{{Name: "/gc/heap/live:bytes"}}}
	p.set()
	runtime.SetFinalizer(p, (*heapPace).collected)
}

// heapPace is garbage all the time: its finalizer runs after each collection.
type heapPace struct {
	sample  []metrics.Sample
	percent int
}

func (p *heapPace) collected() {
	p.set()
	runtime.SetFinalizer(p, (*heapPace).collected)
}

func (p *heapPace) set() {
	metrics.Read(p.sample)
	percent := gcPercent(p.sample[0].Value.Uint64())
	if change := percent - p.percent; 8*max(change, -change) > p.percent { // it stops the world for a moment
		p.percent = percent
		debug.SetGCPercent(percent)
	}
}
