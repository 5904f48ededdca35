package web

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"pmm-callgoose/store/event"
)

// blocked is a Source whose events come when it is let go.
type blocked struct {
	*memory
	now   atomic.Int64
	letGo chan struct{}
}

func (b *blocked) Events(ctx context.Context, f event.Filter, limit int) ([]*event.Record, error) {
	b.now.Add(1)
	defer b.now.Add(-1)
	<-b.letGo
	return b.memory.Events(ctx, f, limit)
}

// However many lists are asked for, few are read at once, and health and status are
// answered meanwhile.
func TestFewListsAreReadAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &blocked{memory: some(3), letGo: make(chan struct{})}
		h := New(Config{Source: src, Replayer: src})
		ask := func(path string) int {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
			return w.Code
		}
		var wg sync.WaitGroup
		var answered atomic.Int64
		for range 60 {
			wg.Go(func() {
				if ask("/api/v1/events") == http.StatusOK {
					answered.Add(1)
				}
			})
		}
		synctest.Wait()
		if n := src.now.Load(); n != maxTurns {
			t.Errorf("%d lists are read at once, want %d", n, maxTurns)
		}
		for _, path := range []string{"/healthz", "/readyz", "/api/v1/status"} {
			if code := ask(path); code != http.StatusOK {
				t.Errorf("%s beside them: %d", path, code)
			}
		}
		close(src.letGo)
		wg.Wait()
		if answered.Load() != 60 {
			t.Errorf("%d of 60 were answered", answered.Load())
		}
	})
}

// An answer that nobody reads gives up its turn.
func TestASlowReaderHoldsNoTurn(t *testing.T) {
	m := some(3)
	h := New(Config{Source: m, Replayer: m})
	var wg sync.WaitGroup
	letGo := make(chan struct{})
	var writing sync.WaitGroup
	for range 3 * maxTurns {
		writing.Add(1)
		wg.Go(func() {
			w := &stuck{ResponseRecorder: httptest.NewRecorder(), begun: sync.OnceFunc(writing.Done), letGo: letGo}
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/events", nil))
		})
	}
	writing.Wait() // all of them
	close(letGo)
	wg.Wait()
}

type stuck struct {
	*httptest.ResponseRecorder
	begun func()
	letGo chan struct{}
}

func (s *stuck) Write(p []byte) (int, error) {
	s.begun()
	<-s.letGo
	return s.ResponseRecorder.Write(p)
}
