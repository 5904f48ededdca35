package ingest

import (
	"context"
	"crypto/sha256"
	"slices"
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

// use is what is known of one signature. Webhooks that have it take turns.
type use struct {
	signature  signature
	turn       chan struct{} // holds one while a webhook has the turn
	id, source string        // of the notification, "" = none was stored; for who has the turn
	until      time.Time     // guarded by used.mu
}

// used remembers which signed webhooks were stored, so that none is twice. It
// lives in memory: after a restart each may be used once more. Safe concurrently.
type used struct {
	mu    sync.Mutex
	most  int
	by    map[signature]*use // guarded by mu
	order []*use             // oldest first, those replaced included; guarded by mu
	last  map[string]*use    // what each source sent last; guarded by mu
}

func newUsed(most int) *used {
	return &used{most: most, by: map[signature]*use{}, last: map[string]*use{}}
}

// enter waits for the turn of a webhook with that signature. The caller ends it with
// leave.
func (s *used) enter(ctx context.Context, sig signature, until, now time.Time) (*use, error) {
	u := s.of(sig, until, now)
	select {
	case u.turn <- struct{}{}:
		return u, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (u *use) leave() { <-u.turn }

func (s *used) of(sig signature, until, now time.Time) *use {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.order) > 0 && (len(s.order) >= s.most || !s.order[0].until.After(now)) {
		if u := s.order[0]; s.by[u.signature] == u {
			delete(s.by, u.signature)
		}
		s.order = s.order[1:]
	}
	u := s.by[sig]
	if u == nil || !u.until.After(now) {
		u = &use{signature: sig, turn: make(chan struct{}, 1), until: until}
		s.by[sig] = u
		s.order = append(s.order, u)
	}
	return u
}

// stored notes the notification that a webhook became whose turn it is.
func (s *used) stored(u *use, id, source string, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u.id, u.source, u.until = id, source, until
	s.last[source] = u
}

// repeats reports whether a body with the signature of u, which was stored and is over
// no time, need not be stored again. That is so when it says nothing new: its source said
// nothing else since, or it only ends what ended at a known time. All else may be news,
// and is decided alert by alert once it is stored.
func (s *used) repeats(u *use, body []byte) bool {
	s.mu.Lock()
	latest := s.last[u.source] == u
	s.mu.Unlock()
	if latest {
		return true
	}
	n, err := pmm.Decode(body)
	return err == nil && !slices.ContainsFunc(n.Alerts, func(a pmm.Alert) bool { return a.Firing || a.EndsAt.IsZero() })
}
