package web

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose/filters"
)

// Source is what the handler shows. An id that it does not know is an
// admin.ErrNotFound.
type Source interface {
	Status(ctx context.Context) (admin.Status, error)
	// Ready says why a webhook would not be answered with 202, nil when it would.
	Ready() error
	Events(ctx context.Context, f event.Filter, limit int) ([]*event.Record, error)
	Event(ctx context.Context, id string) (*admin.Detail, error)
	// Incidents lists the open ones that f chooses by label and text, the newest first.
	Incidents(ctx context.Context, f event.Filter, limit int) ([]admin.Incident, error)
	// Incident tells the story of one, ErrNotFound when nothing is known of it.
	Incident(ctx context.Context, key string) (admin.Story, error)
	Settings() any
	// Check looks at everything stored: a second for some 100,000 records.
	Check(ctx context.Context) (admin.Check, error)
	// Forecast says what Callgoose would do with stored events under these filters.
	Forecast(ctx context.Context, set []filters.Filter, since time.Time) (filters.Report, error)
	// TestFallback sends a test message by every other way out. The error says that
	// there is none.
	TestFallback(ctx context.Context) ([]admin.Way, error)
	// Reconcile makes one pass over each PMM, or over those of the keys. It takes as
	// long as PMM does, at most 40 s. An ErrNotFound when a key has no open alert.
	Reconcile(ctx context.Context, r admin.ReconcileRequest) ([]admin.ReconcilePass, error)
	// History lists the minutes since then in which something happened, oldest first.
	History(since time.Time) ([]event.Minute, error)
	// Outages lists when nobody was called, oldest first.
	Outages() ([]event.Outage, error)
	// Changes is another number whenever something was written.
	Changes() uint64
}

// Config is what New needs.
type Config struct {
	Source   Source
	Replayer Replayer
	Carrier  Carrier
	// Cluster is the other instances, of which one does what this one cannot. nil = there
	// is no other one.
	Cluster Cluster
	// Metrics serves /metrics; nil = there is none.
	Metrics http.Handler
	// Token is asked for when it returns something. nil = never (Unix socket).
	Token func() string
	// TokenRefused is told of each wrong token, with a reason: wrong or limited. nil = nobody is.
	TokenRefused func(reason string)
	// Hosts are the names under which the TCP address may be called; empty = any.
	Hosts []string
	// MaxBody bounds one notification of an import, in bytes. 0 = 10 MiB.
	MaxBody int64
	Logger  *slog.Logger
}

// New makes the handler. It is safe concurrently.
func New(cfg Config) http.Handler {
	s := newSite(cfg)
	stream := atOnce(maxStreams)
	mux := http.NewServeMux()
	s.routes(mux)
	mux.HandleFunc("GET /", s.nowhere)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]string{"status": "alive"})
	})
	for pattern, do := range map[string]call{
		"GET /readyz":                    s.ready,
		"GET /api/v1/status":             func(r *http.Request) (any, error) { return s.Source.Status(r.Context()) },
		"GET /api/v1/events/{id}":        func(r *http.Request) (any, error) { return s.Source.Event(r.Context(), r.PathValue("id")) },
		"GET /api/v1/incidents/{key}":    func(r *http.Request) (any, error) { return s.Source.Incident(r.Context(), r.PathValue("key")) },
		"GET /api/v1/config":             func(*http.Request) (any, error) { return s.Source.Settings(), nil },
		"GET /api/v1/check":              func(r *http.Request) (any, error) { return s.Source.Check(r.Context()) },
		"POST /api/v1/fallback/test":     s.testFallback,
		"POST /api/v1/replay":            func(r *http.Request) (any, error) { return s.run(r, s.replayTask(), r.URL.Query(), false) },
		"GET /api/v1/replay/{id}":        func(r *http.Request) (any, error) { return s.replayJob(r) },
		"POST /api/v1/dead-letters/drop": s.drop,
		"POST /api/v1/reconcile":         s.reconcile,
	} {
		mux.Handle(pattern, do)
	}
	if cfg.Cluster != nil {
		mux.Handle("GET /api/v1/cluster", call(func(r *http.Request) (any, error) { return s.Cluster.Instances(r.Context()) }))
		mux.Handle("POST /api/v1/cluster/step-down", call(s.stepDown))
		mux.Handle("POST /api/v1/cluster/snapshot", call(s.snapshot))
	}
	mux.HandleFunc("GET /api/v1/events", s.listEvents)
	mux.HandleFunc("GET /api/v1/incidents", s.listIncidents)
	mux.HandleFunc("GET /api/v1/events/tail", stream(s.tail))
	mux.HandleFunc("POST /api/v1/filters/test", stream(s.forecast))
	mux.HandleFunc("GET /api/v1/export", stream(s.export))
	mux.HandleFunc("POST /api/v1/import", stream(s.doImport))
	if cfg.Metrics != nil {
		mux.Handle("GET /metrics", cfg.Metrics)
	}
	// A page of somebody else in the operator's browser must not send anything.
	return http.NewCrossOriginProtection().Handler(s.guard(s.forward(turns(mux))))
}

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = encoder(w).Encode(v)
}

// wrong is an error of what was asked, not of the service.
type wrong struct {
	error
	code int // 0 = 400
}

// codeOf is the status that an error is answered with.
func codeOf(err error) int {
	if asked, ok := errors.AsType[wrong](err); ok {
		return cmp.Or(asked.code, http.StatusBadRequest)
	}
	if errors.Is(err, admin.ErrNotFound) {
		return http.StatusNotFound
	}
	return http.StatusServiceUnavailable
}

// call is one call of the API. What it returns is the answer.
type call func(r *http.Request) (any, error)

// ServeHTTP implements http.Handler.
func (do call) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v, err := do(r)
	answer(w, v, err)
}

// answer answers with v, or with what is wrong.
func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		fail(w, codeOf(err), err)
		return
	}
	reply(w, http.StatusOK, v)
}

func fail(w http.ResponseWriter, code int, err error) {
	reply(w, code, map[string]string{"error": err.Error()})
}

// by says who asks: through the socket, with the token, from a session, or where
// nothing is asked for; and from which address.
func (s *site) by(r *http.Request) string {
	_, token := credential(r)
	who := "somebody"
	switch {
	case forwarded(r) != "":
		return forwarded(r)
	case local(r):
		return "socket"
	case token:
		who = "token"
	case s.token() != "":
		who = "session"
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	return who + " from " + host
}

// did logs what an operator changed, and who it was: through the socket, with
// the token, from a session, or where nothing is asked for.
func (s *site) did(r *http.Request, action string, count int) {
	by, _, _ := strings.Cut(s.by(r), " ")
	s.Logger.InfoContext(r.Context(), "an operator acted", "component", "admin", "action", action, "count", count, "by", by, "remote", r.RemoteAddr)
}

// nowhere answers for a path that does not exist.
func (s *site) nowhere(w http.ResponseWriter, r *http.Request) {
	if !strings.Contains(r.Header.Get("Accept"), "text/html") { // no browser
		fail(w, http.StatusNotFound, errors.New(admin.NoPath))
		return
	}
	s.refuse(w, r, wrong{errors.New("there is no such page"), http.StatusNotFound})
}

func (s *site) ready(*http.Request) (any, error) {
	return map[string]string{"status": "ready"}, s.Source.Ready()
}

// perRead is how many events are held in memory at once for a list.
const perRead = 1000

// beyond says in the header of a list that there is more than its limit.
func beyond(w http.ResponseWriter, more bool) {
	if more {
		w.Header().Set("X-More", "true")
	}
}

// more reports whether f chooses more than n events.
func (s *site) more(ctx context.Context, f event.Filter, n int) (bool, error) {
	for {
		part := min(n+1, perRead)
		list, err := s.Source.Events(ctx, f, part)
		if n -= len(list); n < 0 || len(list) < part || err != nil {
			return n < 0, err
		}
		f.Before, f.BeforeDay = behind(list[len(list)-1])
	}
}

// listEvents writes the list as it is read, a part at a time.
func (s *site) listEvents(w http.ResponseWriter, r *http.Request) {
	f, left, err := admin.ParseFilter(r.URL.Query())
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	list, err := s.Source.Events(r.Context(), f, min(left+1, perRead))
	more := len(list) > left
	if more {
		list = list[:left]
	} else if len(list) == perRead { // nothing can be said once the list is on its way
		more, err = s.more(r.Context(), f, left)
	}
	if err != nil {
		fail(w, http.StatusServiceUnavailable, err)
		return
	}
	beyond(w, more)
	out := bufio.NewWriter(moving(w))
	enc := encoder(out)
	w.Header().Set("Content-Type", "application/json")
	between := "["
	for {
		for _, rec := range list {
			_, _ = out.WriteString(between)
			between = ","
			if enc.Encode(admin.NewRow(rec)) != nil {
				return // nobody reads any more
			}
		}
		if left -= len(list); left == 0 || len(list) < perRead {
			break
		}
		f.Before, f.BeforeDay = behind(list[len(list)-1])
		if list, err = s.Source.Events(r.Context(), f, min(left, perRead)); err != nil {
			panic(http.ErrAbortHandler) // the head is out: a broken end is the only way to say so
		}
	}
	if between == "[" {
		_, _ = out.WriteString(between)
	}
	_, _ = out.WriteString("]\n")
	_ = out.Flush()
}

// behind is where a list goes on behind r.
func behind(r *event.Record) (event.Position, string) {
	return r.Pos, r.ReceivedAt.UTC().Format(time.DateOnly)
}
