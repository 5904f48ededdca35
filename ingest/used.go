package ingest

import (
	"crypto/sha256"
	"sync"
	"time"

	"pmm-callgoose/ingest/pmm"
)

const (
	// maxUsed bounds the signatures remembered, each of some 200 bytes. Beyond it
	// the oldest are forgotten first.
	maxUsed = 1 << 15
	// untimedFor is how long a signature without a time is remembered: long enough
	// for a sender that repeats because our answer was lost. PMM signs later
	// repeats of an alert that still fires with the very same signature, and an
	// alert that it resolved by mistake fires again with it.
	untimedFor = time.Minute
)

type signature [sha256.Size]byte

// use is one signed webhook that is stored or being stored.
type use struct {
	signature signature
	source    string
	until     time.Time
	timed     bool          // the signature is over a time too
	done      chan struct{} // closed when id is set
	id        string        // of the notification, "" = it was not stored
}

// used remembers which signed webhooks were stored, so that none is twice. It
// lives in memory: after a restart each may be used once more. Safe concurrently.
type used struct {
	mu    sync.Mutex
	most  int
	by    map[signature]*use // guarded by mu
	order []*use             // oldest first, those forgotten included; guarded by mu
	last  map[string]*use    // what each source sent last; guarded by mu
}

func newUsed(most int) *used {
	return &used{most: most, by: map[signature]*use{}, last: map[string]*use{}}
}

// claim returns u when nobody uses its signature, and it is then the caller's to
// store and to finish; else it returns the use there is.
func (s *used) claim(u *use, now time.Time) *use {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.order) > 0 && (len(s.order) >= s.most || !s.order[0].until.After(now)) {
		s.forget(s.order[0])
		s.order = s.order[1:]
	}
	if other := s.by[u.signature]; other != nil {
		if other.until.After(now) {
			return other
		}
		s.forget(other)
	}
	u.done = make(chan struct{})
	s.by[u.signature] = u
	s.order = append(s.order, u)
	return u
}

// finish ends a claim: with the notification's id, or "" when it was not stored.
func (s *used) finish(u *use, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u.id = id
	if id == "" {
		s.forget(u)
	} else {
		s.last[u.source] = u
	}
	close(u.done)
}

// release forgets a use that does not stand in the way of another.
func (s *used) release(u *use) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(u)
}

// forget needs mu.
func (s *used) forget(u *use) {
	if s.by[u.signature] == u {
		delete(s.by, u.signature)
	}
}

// repeats reports whether a body with the signature of u, which was stored, need
// not be stored again. Without a signed time that is so when it says nothing new:
// its source said nothing else since, or it only ends what ended at a known time.
// All else may be news, and is decided alert by alert once it is stored.
func (s *used) repeats(u *use, body []byte) bool {
	if u.timed {
		return true
	}
	s.mu.Lock()
	latest := s.last[u.source] == u
	s.mu.Unlock()
	if latest {
		return true
	}
	n, err := pmm.Decode(body)
	if err != nil {
		return false
	}
	for _, a := range n.Alerts {
		if a.Firing || a.EndsAt.IsZero() {
			return false
		}
	}
	return true
}
