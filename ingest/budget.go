package ingest

import "sync"

// smallBody is the size up to which a body may take the last quarter of the
// budget, which is out of reach of larger ones: senders of large and slow bodies
// cannot keep out what PMM usually sends. Buffers of that size are used again.
const smallBody = 64 << 10

// budget bounds the bytes of the bodies in flight, from before the first byte is
// read until the webhook is answered. Safe concurrently.
type budget struct {
	all   int64 // for every body
	large int64 // for bodies above smallBody

	mu   sync.Mutex
	used int64 // guarded by mu
}

// newBudget returns a budget of all bytes that has room for one body of maxBody.
func newBudget(all, maxBody int64) *budget {
	return &budget{all: max(all, maxBody), large: max(all-all/4, maxBody)}
}

// take reserves more bytes for a body that has held ones, and reports whether
// there is room.
func (b *budget) take(held, more int64) bool {
	limit := b.all
	if held+more > smallBody {
		limit = b.large
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used+more > limit {
		return false
	}
	b.used += more
	return true
}

func (b *budget) free(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
}
