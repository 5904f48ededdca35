package web

import (
	"fmt"
	"hash/fnv"
	"net/http"
	"time"

	"pmm-callgoose/cmd/internal/admin"
)

// The bounds of live: how many streams there may be (the others ask every few
// seconds), how often one looks for a change, how often it speaks in any case,
// so that a dead connection is noticed.
const (
	maxLive    = 64
	lookEvery  = 500 * time.Millisecond
	speakEvery = 15 * time.Second
)

// mark names a state: when it is another one, a page that is open is out of date.
func mark(st admin.Status, changes uint64) string {
	h := fnv.New64a()
	unix := func(t *time.Time) int64 {
		if t == nil {
			return 0
		}
		return t.UnixNano()
	}
	if st.Ping != nil {
		fmt.Fprintln(h, unix(st.Ping.LastAt))
	}
	if st.Fallback != nil {
		fmt.Fprintln(h, unix(st.Fallback.LastAt))
	}
	fmt.Fprintln(h, changes, st.StartedAt.UnixNano(), st.Queued, st.InFlight > 0, st.Callgoose.State, unix(st.Callgoose.Since),
		unix(st.Callgoose.NextProbe), st.Store.Accepting, st.Store.Problem, st.Headline, st.Refused.LastHour, st.WaitingBySeverity)
	return fmt.Sprintf("%x", h.Sum64())
}

// live streams the mark, now and whenever it changes. What changed is not said:
// the page loads itself again and takes over what is different, so that there
// is one way only to make it.
func (s *site) live(w http.ResponseWriter, r *http.Request) {
	out := moving(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would hold it back
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	last, spoke := "", time.Time{}
	for {
		if !s.knows(r) {
			return // logged out, or another token
		}
		st, err := s.Source.Status(r.Context())
		if now := mark(st, s.Source.Changes()); err == nil && (now != last || time.Since(spoke) > speakEvery) {
			last, spoke = now, time.Now()
			if _, err := fmt.Fprintf(out, "retry: 2000\nevent: mark\ndata: %s\n\n", now); err != nil {
				return
			}
			if out.control.Flush() != nil {
				return
			}
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}
