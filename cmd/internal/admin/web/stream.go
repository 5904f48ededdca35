package web

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/store/event"
)

// The bounds of the streams of the API: how many there may be at once, and how
// long one may stand still.
const (
	maxStreams = 16
	stillFor   = time.Minute
)

// atOnce lets so many requests at a time through, and refuses the others.
func atOnce(n int) func(http.HandlerFunc) http.HandlerFunc {
	places := make(chan struct{}, n)
	return func(next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			select {
			case places <- struct{}{}:
				defer func() { <-places }()
				next(w, r)
			default:
				w.Header().Set("Retry-After", "10")
				fail(w, http.StatusServiceUnavailable, errors.New("too many streams at once; try again later"))
			}
		}
	}
}

// unhurried lifts the server's deadlines from a request that takes long by its nature.
func unhurried(w http.ResponseWriter) *http.ResponseController {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // net/http reads on, and ends the request with it
	_ = control.SetWriteDeadline(time.Time{})
	return control
}

// mover is the two directions of a request, each of which may take as long as it
// likes while something moves.
type mover struct {
	control *http.ResponseController
	w       io.Writer
	r       io.Reader
}

// moving is w, whose writes fail once a reader takes nothing for stillFor.
func moving(w http.ResponseWriter) mover { return mover{control: unhurried(w), w: w} }

func (m mover) Write(p []byte) (int, error) {
	_ = m.control.SetWriteDeadline(time.Now().Add(stillFor))
	return m.w.Write(p)
}

func (m mover) Read(p []byte) (int, error) {
	_ = m.control.SetReadDeadline(time.Now().Add(stillFor))
	return m.r.Read(p)
}

// encoder writes JSON that may be shown in a terminal.
func encoder(w io.Writer) *json.Encoder {
	enc := json.NewEncoder(text.JSONWriter(w))
	enc.SetEscapeHTML(false)
	return enc
}

// newest is the list of the newest events, read once for all tails whenever
// something changed.
type newest struct {
	mu      sync.Mutex // guards the rest, held while it is read
	list    []*event.Record
	changes uint64 // at the last read
}

// tailEvery is how often a tail looks, tailWindow at how many of the newest events.
const (
	tailEvery  = 300 * time.Millisecond
	tailWindow = 1000
)

// read returns the newest events and the number of changes that they are of.
func (n *newest) read(ctx context.Context, s *site) ([]*event.Record, uint64, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	changes := s.Source.Changes()
	if n.list != nil && n.changes == changes {
		return n.list, changes, nil
	}
	list, err := s.Source.Events(ctx, event.Filter{}, tailWindow)
	if err == nil {
		n.list, n.changes = list, changes
	}
	return list, changes, err
}

// tailed is what a tail has seen of an event.
type tailed struct {
	outcome event.Outcome
	tries   int
}

// tail writes a line for every event that came in, or whose outcome changed,
// since the request began, as long as it is among the newest. With since or
// limit it begins with what is there.
func (s *site) tail(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	f, limit, err := admin.ParseFilter(q)
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	out := moving(w)
	enc := encoder(out)
	w.Header().Set("Content-Type", "application/x-ndjson")
	list, changes, err := s.newest.read(r.Context(), s)
	if err != nil {
		fail(w, http.StatusServiceUnavailable, err)
		return
	}
	seen := states(list)
	if q.Has("since") || q.Has("limit") {
		first, err := s.Source.Events(r.Context(), f, min(limit, tailWindow))
		if err != nil {
			fail(w, http.StatusServiceUnavailable, err)
			return
		}
		for _, rec := range slices.Backward(first) {
			seen[rec.ID] = tailed{rec.Outcome, rec.Tries}
			if enc.Encode(admin.NewRow(rec)) != nil {
				return
			}
		}
	}
	tick := time.NewTicker(tailEvery)
	defer tick.Stop()
	for {
		_ = out.control.SetWriteDeadline(time.Now().Add(stillFor))
		if out.control.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
		list, now, err := s.newest.read(r.Context(), s)
		if err != nil || now == changes {
			continue // between two openings of the store, or nothing is new
		}
		changes = now
		for _, rec := range slices.Backward(list) {
			if seen[rec.ID] == (tailed{rec.Outcome, rec.Tries}) || !f.Match(rec) {
				continue
			}
			if enc.Encode(admin.NewRow(rec)) != nil {
				return
			}
		}
		seen = states(list)
	}
}

func states(list []*event.Record) map[string]tailed {
	m := make(map[string]tailed, len(list))
	for _, r := range list {
		m[r.ID] = tailed{r.Outcome, r.Tries}
	}
	return m
}
