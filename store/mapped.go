package store

import "sync/atomic"

// mapped counts how often the ledger's map was looked into, so that keepSmall can
// look in time: each place costs up to 64 KiB, which is what the kernel maps at once.
type mapped struct {
	places atomic.Uint32
	look   chan struct{} // has an element when keepSmall is to look
}

// lookAfter is the number of places after which keepSmall looks, 8 MiB at the most.
const lookAfter = 128

// touched is called for each place that a transaction reads or writes. nil = nobody looks.
func (m *mapped) touched() {
	if m == nil || m.places.Add(1)%lookAfter != 0 {
		return
	}
	select {
	case m.look <- struct{}{}:
	default: // it is about to
	}
}
