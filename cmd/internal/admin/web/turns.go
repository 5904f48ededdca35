package web

import (
	"net/http"
	"strings"
	"sync"
)

// maxTurns is how many requests read the ledger at once. Whoever sends many
// requests for much waits for their own, and leaves delivery its processor.
const maxTurns = 2

// turns lets few requests read at once, each until it begins to answer: one whose
// answer is read slowly keeps nobody waiting. The status, health checks, metrics,
// log-in and files cost little; streams have bounds of their own.
func turns(next http.Handler) http.Handler {
	places := make(chan struct{}, maxTurns)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isSafe(r.Method) || cheap(strings.TrimPrefix(r.URL.Path, "/api/v1")) {
			next.ServeHTTP(w, r)
			return
		}
		select {
		case places <- struct{}{}:
		case <-r.Context().Done():
			return
		}
		done := sync.OnceFunc(func() { <-places })
		defer done()
		next.ServeHTTP(&turn{w, done}, r)
	})
}

func cheap(path string) bool {
	switch path {
	case "/status", "/healthz", "/readyz", "/metrics", "/login", "/events/tail", "/export", "/cluster":
		return true
	}
	return strings.HasPrefix(path, "/static/")
}

// turn is a response that ends the turn of its request when it begins.
type turn struct {
	http.ResponseWriter
	done func()
}

// WriteHeader implements http.ResponseWriter.
func (t *turn) WriteHeader(code int) { t.done(); t.ResponseWriter.WriteHeader(code) }

// Write implements io.Writer.
func (t *turn) Write(p []byte) (int, error) { t.done(); return t.ResponseWriter.Write(p) }

// Unwrap is for http.ResponseController.
func (t *turn) Unwrap() http.ResponseWriter { return t.ResponseWriter }
