package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"pmm-callgoose/cmd/internal/admin"
)

// Cluster is the instances on the same NATS. Safe concurrently.
type Cluster interface {
	// Elsewhere reports whether another instance leads, or none does, and how this
	// one is called.
	Elsewhere() (instance string, elsewhere bool)
	// AskLeader brings a question to the instance that leads, whose Answer answers it.
	AskLeader(ctx context.Context, question []byte) ([]byte, error)
	// Instances asks each of them how it is.
	Instances(ctx context.Context) ([]admin.Instance, error)
	// StepDown, at the one that leads, has it stop leading, and returns the number of
	// its term. Snapshot stores the ledger as a whole, and returns up to which entry.
	StepDown() (term uint64, err error)
	Snapshot(ctx context.Context) (entry uint64, err error)
}

// question is a request on its way from a follower to the leader. By is who asked the
// follower, which has checked that.
type question struct {
	Method, URI, Type, By string
	Body                  []byte
}

// verdict is what the leader's handler answered.
type verdict struct {
	Code           int
	Type, Location string
	Body           []byte
}

type askedBy struct{} // the key of who asked another instance, in a request's context

// forwarded is who asked another instance, "" when this one was asked itself.
func forwarded(r *http.Request) string {
	by, _ := r.Context().Value(askedBy{}).(string)
	return by
}

// forLeader reports whether a follower cannot do that: it changes the ledger, or asks
// for a replay, which only the instance knows that does it.
func forLeader(r *http.Request) bool {
	p := strings.TrimPrefix(r.URL.Path, "/api/v1")
	if isSafe(r.Method) {
		return strings.HasPrefix(p, "/replay/")
	}
	return !slices.Contains([]string{"/login", "/logout", "/import", "/filters/test", "/fallback/test", "/probe"}, p)
}

// How long the leader may take for an answer: a comparison takes as long as PMM does, a
// snapshot as long as the ledger is large.
const (
	askWithin     = 5 * time.Second
	askLongWithin = 45 * time.Second
)

func patience(path string) time.Duration {
	if strings.HasSuffix(path, "/reconcile") || strings.HasSuffix(path, "/snapshot") {
		return askLongWithin
	}
	return askWithin
}

// stepDown and snapshot are done by the instance that leads.
func (s *site) stepDown(r *http.Request) (any, error) {
	term, err := s.Cluster.StepDown()
	if err == nil {
		s.did(r, "step down", 1)
	}
	return map[string]uint64{"term": term}, err
}

func (s *site) snapshot(r *http.Request) (any, error) {
	entry, err := s.Cluster.Snapshot(r.Context())
	if err == nil {
		s.did(r, "snapshot", 1)
	}
	return map[string]uint64{"entry": entry}, err
}

// forward has the leader answer what is for it.
func (s *site) forward(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.Cluster == nil || forwarded(r) != "" || !forLeader(r) {
			next.ServeHTTP(w, r)
			return
		}
		instance, elsewhere := s.Cluster.Elsewhere()
		if !elsewhere {
			next.ServeHTTP(w, r)
			return
		}
		v, err := s.ask(w, r, instance)
		if err != nil {
			s.deny(w, r, err)
			return
		}
		w.Header().Set("Content-Type", v.Type)
		if v.Location != "" {
			w.Header().Set("Location", v.Location)
		}
		w.WriteHeader(v.Code)
		_, _ = w.Write(v.Body)
	})
}

func (s *site) ask(w http.ResponseWriter, r *http.Request, instance string) (v verdict, err error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm/2)) // NATS takes messages of 1 MiB
	if err != nil {
		return v, wrong{error: err}
	}
	data, err := json.Marshal(question{r.Method, r.URL.RequestURI(), r.Header.Get("Content-Type"), s.by(r) + " through instance " + instance, body})
	if err != nil {
		return v, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience(r.URL.Path))
	defer cancel()
	if data, err = s.Cluster.AskLeader(ctx, data); err != nil {
		return v, err
	}
	if err := json.Unmarshal(data, &v); err != nil || v.Code < 200 {
		return v, errors.New("the answer of the instance that leads cannot be read: it may be of another version")
	}
	return v, nil
}

// Answer has h, which New made, answer a question that another instance forwarded.
func Answer(ctx context.Context, h http.Handler, data []byte) ([]byte, error) {
	var q question
	if err := json.Unmarshal(data, &q); err != nil {
		return nil, fmt.Errorf("question of another instance: %w", err)
	}
	r, err := http.NewRequestWithContext(context.WithValue(ctx, askedBy{}, q.By), q.Method, q.URI, bytes.NewReader(q.Body))
	if err != nil || q.By == "" {
		return nil, fmt.Errorf("question of another instance: %w", errors.Join(err, errors.ErrUnsupported))
	}
	r.Header.Set("Content-Type", q.Type)
	w := &recorder{header: http.Header{}, code: http.StatusOK}
	h.ServeHTTP(w, r)
	return json.Marshal(verdict{w.code, w.header.Get("Content-Type"), w.header.Get("Location"), w.Bytes()})
}

// recorder keeps an answer.
type recorder struct {
	bytes.Buffer
	header http.Header
	code   int
}

func (w *recorder) Header() http.Header  { return w.header }
func (w *recorder) WriteHeader(code int) { w.code = code }
