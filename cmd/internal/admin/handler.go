package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"pmm-callgoose/store/event"
)

// ErrNotFound is a Source's answer for an id that it does not know.
var ErrNotFound = errors.New("no such event")

// Source is what the handler shows.
type Source interface {
	Status(ctx context.Context) (Status, error)
	// Ready says why a webhook would not be answered with 202, nil when it would.
	Ready() error
	Events(ctx context.Context, f event.Filter, limit int) ([]*event.Record, error)
	Event(ctx context.Context, id string) (*Detail, error)
	Settings() any
}

// Config is what New needs.
type Config struct {
	Source   Source
	Replayer Replayer
	Carrier  Carrier
	// Metrics serves /metrics; nil = there is none.
	Metrics http.Handler
	// Token is asked for when it returns something. nil = never (Unix socket).
	Token func() string
	// Hosts are the names under which the TCP address may be called; empty = any.
	Hosts  []string
	Logger *slog.Logger
	// Pages is what only the pages for operators need.
	Pages Pages
}

// DefaultLimit and MaxLimit bound one answer with events.
const (
	DefaultLimit = 100
	MaxLimit     = 100_000
)

// New makes the handler. It is safe concurrently.
func New(cfg Config) http.Handler {
	h := handler{cfg, newSite(cfg)}
	mux := http.NewServeMux()
	h.site.routes(mux)
	mux.HandleFunc("GET /", h.nowhere)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]string{"status": "alive"})
	})
	mux.HandleFunc("GET /readyz", h.ready)
	mux.HandleFunc("GET /api/v1/status", h.status)
	mux.HandleFunc("GET /api/v1/events", h.events)
	mux.HandleFunc("GET /api/v1/events/tail", h.tail)
	mux.HandleFunc("GET /api/v1/events/{id}", h.event)
	mux.HandleFunc("GET /api/v1/config", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, cfg.Source.Settings()) })
	mux.HandleFunc("GET /api/v1/check", h.check)
	mux.HandleFunc("POST /api/v1/replay", h.replay)
	mux.HandleFunc("GET /api/v1/replay/{id}", h.replayJob)
	mux.HandleFunc("POST /api/v1/dead-letters/drop", h.drop)
	mux.HandleFunc("GET /api/v1/export", h.export)
	mux.HandleFunc("POST /api/v1/import", h.doImport)
	if cfg.Metrics != nil {
		mux.Handle("GET /metrics", cfg.Metrics)
	}
	// A page of somebody else in the operator's browser must not send anything.
	return http.NewCrossOriginProtection().Handler(h.guard(mux))
}

type handler struct {
	Config
	site *site
}

// guard checks the Host header against DNS rebinding, and the token. The two
// health checks need no token: they say nothing but yes or no.
func (h handler) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Security-Policy", contentPolicy)
		w.Header().Set("Referrer-Policy", referrerPolicy)
		if len(h.Hosts) > 0 && !h.knownHost(r.Host) {
			fail(w, http.StatusForbidden, fmt.Errorf("unknown Host header; call this address by one of %s", strings.Join(h.Hosts, ", ")))
			return
		}
		if h.Token != nil && r.URL.Path != "/healthz" && r.URL.Path != "/readyz" {
			if want := h.Token(); want != "" && !bearer(r, want) && !scraper(r, want) && !h.site.admits(r, want) {
				if isPage(r.URL.Path) {
					h.site.askLogin(w, r)
					return
				}
				w.Header().Set("WWW-Authenticate", `Bearer realm="pmm-callgoose"`)
				fail(w, http.StatusUnauthorized, errors.New("the operators' token is missing or wrong (Authorization: Bearer …, --admin-token-file)"))
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func (h handler) knownHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	for _, known := range h.Hosts {
		if strings.EqualFold(host, known) {
			return true
		}
	}
	return false
}

func bearer(r *http.Request, want string) bool {
	scheme, got, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.EqualFold(scheme, "Bearer") && same(got, want)
}

// scraper lets /metrics be read with the token as password too, under any user
// name: pmm-admin can send nothing else.
func scraper(r *http.Request, want string) bool {
	_, password, ok := r.BasicAuth()
	return ok && r.URL.Path == "/metrics" && same(password, want)
}

// same compares in a time that depends on neither content nor length.
func same(got, want string) bool {
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v)
}

func fail(w http.ResponseWriter, code int, err error) {
	reply(w, code, map[string]string{"error": err.Error()})
}

// nowhere answers for a path that does not exist.
func (h handler) nowhere(w http.ResponseWriter, r *http.Request) {
	if !strings.Contains(r.Header.Get("Accept"), "text/html") { // no browser
		fail(w, http.StatusNotFound, errors.New("no such path"))
		return
	}
	h.site.problem(w, r, http.StatusNotFound, errors.New("there is no such page"))
}

func (h handler) ready(w http.ResponseWriter, _ *http.Request) {
	if err := h.Source.Ready(); err != nil {
		fail(w, http.StatusServiceUnavailable, err)
		return
	}
	reply(w, http.StatusOK, map[string]string{"status": "ready"})
}

func (h handler) status(w http.ResponseWriter, r *http.Request) {
	s, err := h.Source.Status(r.Context())
	if err != nil {
		fail(w, http.StatusServiceUnavailable, err)
		return
	}
	reply(w, http.StatusOK, s)
}

func (h handler) events(w http.ResponseWriter, r *http.Request) {
	f, limit, err := ParseFilter(r.URL.Query())
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	list, err := h.Source.Events(r.Context(), f, limit)
	if err != nil {
		fail(w, http.StatusServiceUnavailable, err)
		return
	}
	reply(w, http.StatusOK, NewRows(list))
}

func (h handler) event(w http.ResponseWriter, r *http.Request) {
	d, err := h.Source.Event(r.Context(), r.PathValue("id"))
	switch {
	case errors.Is(err, ErrNotFound):
		fail(w, http.StatusNotFound, err)
	case err != nil:
		fail(w, http.StatusServiceUnavailable, err)
	default:
		reply(w, http.StatusOK, d)
	}
}

// tailEvery is how often the tail looks, tailWindow how far back.
const (
	tailEvery  = 300 * time.Millisecond
	tailWindow = 1000
)

// tail writes a line for every event that came in, or whose outcome changed,
// since the request began. With since or limit it begins with what is there.
func (h handler) tail(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	f, first, err := ParseFilter(q)
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	if !q.Has("since") && !q.Has("limit") {
		first = 0
	}
	control := unhurried(w)
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	type state struct {
		outcome event.Outcome
		tries   int
	}
	var seen map[string]state
	// look writes what is news. It returns false when nobody reads any more.
	look := func(ctx context.Context) bool {
		list, err := h.Source.Events(ctx, f, tailWindow)
		if err != nil {
			return true // between two openings of the store
		}
		next := make(map[string]state, len(list))
		for i, rec := range slices.Backward(list) {
			now := state{rec.Outcome, rec.Tries}
			next[rec.ID] = now
			if old, known := seen[rec.ID]; seen == nil && i >= first || known && old == now {
				continue
			}
			if enc.Encode(NewRow(rec)) != nil {
				return false
			}
		}
		seen = next
		return true
	}
	var changes uint64 // at the last look
	tick := time.NewTicker(tailEvery)
	defer tick.Stop()
	for {
		// Looking costs as much as there is to look through.
		if now := h.changes(); now != changes || seen == nil || h.Pages == nil {
			if changes = now; !look(r.Context()) {
				return
			}
		}
		if control.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

func (h handler) changes() uint64 {
	if h.Pages == nil {
		return 0
	}
	return h.Pages.Changes()
}

// unhurried lifts the server's deadlines from a request that takes long by its nature.
func unhurried(w http.ResponseWriter) *http.ResponseController {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // net/http reads on, and ends the request with it
	_ = control.SetWriteDeadline(time.Time{})
	return control
}

// ParseFilter reads the filters of a query: since, until, status, outcome,
// match (label=value, repeated), incident, text, id, limit. Times are RFC 3339,
// or a duration such as 2h or 3d for "that long ago".
func ParseFilter(q url.Values) (f event.Filter, limit int, err error) {
	limit = DefaultLimit
	for name, values := range q {
		for _, v := range values {
			if err := setFilter(&f, &limit, name, v); err != nil {
				return f, limit, err
			}
		}
	}
	if !f.Until.IsZero() && !f.Since.Before(f.Until) {
		return f, limit, errors.New("until is not later than since: nothing is between them")
	}
	return f, limit, nil
}

func setFilter(f *event.Filter, limit *int, name, v string) (err error) {
	switch name {
	case "since", "until":
		at := map[string]*time.Time{"since": &f.Since, "until": &f.Until}[name]
		if *at, err = ParseTime(v, time.Now()); err != nil {
			err = fmt.Errorf("%s %w", name, err)
		}
	case "status":
		f.Status = event.Status(v)
		if f.Status != event.Firing && f.Status != event.Resolved {
			err = fmt.Errorf("status %q is neither firing nor resolved", v)
		}
	case "outcome":
		for o := range strings.SplitSeq(v, ",") {
			if !known(event.Outcome(o)) {
				return fmt.Errorf("outcome %q is not one of %s", o, outcomes())
			}
			f.Outcomes = append(f.Outcomes, event.Outcome(o))
		}
	case "match":
		k, val, ok := strings.Cut(v, "=")
		if !ok || k == "" {
			return fmt.Errorf("match %q is not label=value", v)
		}
		if other, twice := f.Labels[k]; twice && other != val {
			return fmt.Errorf("match asks for label %q to be both %q and %q", k, other, val)
		}
		if f.Labels == nil {
			f.Labels = map[string]string{}
		}
		f.Labels[k] = val
	case "incident":
		f.Incident = v
	case "text":
		f.Text = v
	case "id":
		f.IDs = append(f.IDs, v)
	case "limit":
		*limit, err = strconv.Atoi(v)
		if err != nil || *limit < 1 || *limit > MaxLimit {
			err = fmt.Errorf("limit %q is not a number from 1 to %d", v, MaxLimit)
		}
	default:
		err = fmt.Errorf("unknown filter %q", name)
	}
	return err
}

func outcomes() string {
	var names []string
	for _, o := range event.Outcomes {
		names = append(names, string(o))
	}
	return strings.Join(names, ", ")
}

func known(o event.Outcome) bool {
	return slices.Contains(event.Outcomes, o)
}

// ParseTime reads RFC 3339, a date with or without a time (UTC), or a duration
// before now, of days too: 90m, 2h, 3d.
func ParseTime(v string, now time.Time) (time.Time, error) {
	if days, ok := strings.CutSuffix(v, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.Add(-time.Duration(n) * 24 * time.Hour), nil
		}
	}
	if d, err := time.ParseDuration(v); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02 15:04:05Z07:00", time.DateTime, time.DateOnly} {
		// An offset can lead out of the years that RFC 3339 can write.
		if t, err := time.Parse(layout, v); err == nil && t.UTC().Year() >= 0 && t.UTC().Year() <= 9999 {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time: say how long ago (90m, 2h, 3d), or when (2026-01-31T03:00:00Z, 2026-01-31 03:00 for UTC)", v)
}
