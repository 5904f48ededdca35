package web

import (
	"fmt"
	"hash/fnv"
	"net/http"
	"time"

	"pmm-callgoose/cmd/internal/admin"
)

// mark names a state, as an ETag: when it is another one, a page that is open is out of date.
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
	return fmt.Sprintf(`"%x"`, h.Sum64())
}

// unchanged reports whether the page that a browser has is that of the present state. One
// that is open asks every two seconds, and takes over what is different.
func (s *site) unchanged(r *http.Request) bool {
	has := r.Header.Get("If-None-Match")
	if has == "" || !s.knows(r) {
		return false
	}
	st, err := s.Source.Status(r.Context())
	return err == nil && has == mark(st, s.Source.Changes())
}
