package ingest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"pmm-callgoose/ingest/pmm"
)

// Publisher stores notifications.
type Publisher interface {
	// Publish stores one notification durably: when it returns no error, the
	// bytes are fsynced and the id names them. n.Body is lent: Publish must not
	// keep it, or any part of it, once it has returned.
	Publish(ctx context.Context, n Notification) (id string, err error)
}

// Notification is one webhook body, checked but untouched.
type Notification struct {
	Source     string    // which PMM server sent it, [a-z0-9-]{1,16}
	BeganAt    time.Time // UTC, when the head of its request had been read; see stamps
	ReceivedAt time.Time // UTC, when its body was there whole
	Body       []byte
	Alerts     int  // members of its "alerts", unusable ones included
	Made       bool // made by the intake, to end the alerts of Grafana's Test button
}

// Refused is an error of a Publisher that knows when to try again. Any other error
// is a 503 too, with a Retry-After of ten seconds.
type Refused interface {
	error
	RetryAfter() time.Duration
}

// Observer hears of every answer. Its methods must be quick and safe to call
// from several goroutines.
type Observer interface {
	// Webhook reports an answer and how long the request took.
	Webhook(code int, d time.Duration)
	// Stored reports a notification that is on disk.
	Stored(source string)
	// Truncated reports n alerts that PMM cut off a notification now stored.
	Truncated(source string, n int64)
}

// Config is what New needs. Only Publisher has no default.
type Config struct {
	Publisher Publisher

	// These functions are called for every request, so that the credentials can change
	// while the service runs. A nil function switches its method off. One that returns
	// "" refuses everybody: a lost secret must not let anybody in.
	//
	// A request needs either the token or the user and password, whichever are
	// on, and its signature if HMACSecret is on. With all three nil anybody may
	// send but a browser for the page of another site.
	Token      func() string // Authorization: Bearer …; see TokensOf
	Basic      func() string // user:password
	HMACSecret func() string // Grafana's HMAC-SHA256 over the body

	// HMACTimestampHeader carries the Unix seconds that are signed with the body.
	// Set, every request must have it. Not set, it is
	// X-Grafana-Alerting-Timestamp, and is verified where it is sent.
	HMACTimestampHeader string

	// Loopback says that only this machine can reach the service. Without credentials the
	// Host of a request must then name this machine, so that no web page can reach the
	// service through another name for this machine.
	Loopback bool

	MaxBody int64 // bytes; default 10 MiB
	// Known returns the PMM servers that keep their places. It is called when a new one
	// finds none; a nil map means that all keep theirs. May be nil.
	Known func() map[string]bool

	Logger   *slog.Logger // default: none
	Observer Observer     // default: none
}

func (c Config) withDefaults() Config {
	c.MaxBody = cmp.Or(c.MaxBody, 10<<20)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	c.Observer = cmp.Or[Observer](c.Observer, silent{})
	return c
}

type silent struct{}

func (silent) Webhook(int, time.Duration) {}
func (silent) Stored(string)              {}
func (silent) Truncated(string, int64)    {}

const (
	defaultSource = "pmm"
	storeRetry    = 10 * time.Second // when a Publisher does not say
	busyRetry     = 5 * time.Second  // when too much is in flight
	stopRetry     = 15 * time.Second // about as long as a restart takes
)

const (
	// maxInFlight bounds the bytes of all bodies being read or stored; one of the
	// largest always fits.
	maxInFlight = 64 << 20
	// maxSources bounds the PMM servers, that of /v1/webhook always among them.
	maxSources = 256
	// publishTimeout bounds the storing of a notification: PMM gives up after 10 s.
	publishTimeout = 8 * time.Second
)

// errLate is the cause of a publish that takes too long.
var errLate = fmt.Errorf("not stored within %s", publishTimeout)

// maxUnsized is how many bodies of unknown length are read at once. PMM says how long
// its bodies are; one in chunks of a byte costs a hundred times as much to read.
const maxUnsized = 4

// Handler answers webhooks. It is an http.Handler.
type Handler struct {
	config   Config
	guard    guard
	stopping atomic.Bool
	maxBody  atomic.Int64
	buffers  sync.Pool // *[]byte of smallBody, for a body
	budget   *budget
	unsized  chan struct{} // one for each body of unknown length that is being read
	used     *used
	sources  sources
	stamps   stamps
	refusals refusals
	lines    *lines
	origin   *http.CrossOriginProtection
}

// New returns a Handler that stores what it accepts through c.Publisher.
func New(c Config) (*Handler, error) {
	if c.Publisher == nil || c.MaxBody < 0 {
		return nil, errors.New("ingest: no publisher, or no room for a body")
	}
	c = c.withDefaults()
	c.Logger = c.Logger.With("component", "ingest")
	h := &Handler{
		config: c, guard: newGuard(c),
		unsized: make(chan struct{}, maxUnsized), budget: newBudget(maxInFlight, c.MaxBody+1), used: newUsed(maxUsed), lines: newLines(c.Logger),
		sources: sources{most: maxSources, known: c.Known, names: map[string]time.Time{defaultSource: {}}}, origin: http.NewCrossOriginProtection(),
	}
	h.maxBody.Store(c.MaxBody)
	h.buffers.New = func() any { b := make([]byte, smallBody); return &b }
	return h, nil
}

// LimitBody lowers Config.MaxBody for the requests that follow, to what the store takes.
// Safe concurrently.
func (h *Handler) LimitBody(bytes int64) { h.maxBody.Store(min(bytes, h.config.MaxBody)) }

// Stop makes every later request a 503, so that PMM keeps its alerts. Requests
// under way are finished; http.Server.Shutdown waits for those.
func (h *Handler) Stop() { h.stopping.Store(true) }

// refusal is an answer other than 202.
type refusal struct {
	code   int
	reason string        // for the sender
	retry  time.Duration // Retry-After, when positive
	err    error         // for the log only
}

func refuse(code int, format string, args ...any) *refusal {
	return &refusal{code: code, reason: fmt.Sprintf(format, args...)}
}

// ServeHTTP answers one webhook.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	code := http.StatusAccepted
	if no := h.serve(w, r, start); no != nil {
		code = no.code
		h.answer(w, no)
		if isWebhook(r) {
			h.refusals.add(time.Now(), no, hostOf(r.RemoteAddr))
		}
		h.logRefusal(r, no, start)
	}
	h.lines.sweep(time.Now())
	h.config.Observer.Webhook(code, time.Since(start))
}

func isWebhook(r *http.Request) bool {
	return r.Method == http.MethodPost || r.Method == http.MethodPut
}

// serve answers a webhook with 202, or says why not.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request, start time.Time) *refusal {
	began := h.stamps.begin(start)
	source, no := h.admit(r, start)
	if no != nil {
		return no
	}
	conn, after := r.Context(), worthNothing
	defer func() { worth(conn, after) }()
	if h.guard.secret == nil {
		worth(conn, worthSome)
	}
	body, done, no := h.read(w, r)
	defer done()
	if no != nil {
		return no
	}
	received := time.Now()
	h.stamps.whole(received)
	sig, reason := h.guard.signature(r.Header, body)
	if reason != "" {
		return refuse(http.StatusUnauthorized, "%s", reason)
	}
	worth(conn, worthAll)
	after = worthSome
	alerts, truncated, err := pmm.Check(body)
	if err != nil {
		return refuse(http.StatusBadRequest, "%s", err)
	}
	if !h.sources.admit(source, received) {
		return refuse(http.StatusForbidden, "there are %d sources already: use one of their names, or wait until one was silent for --retention", h.sources.most)
	}

	// From here on it does not matter whether the sender still waits; see the package comment.
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(r.Context()), publishTimeout, errLate)
	defer cancel()
	n := Notification{Source: source, BeganAt: began, ReceivedAt: received.UTC(), Body: body, Alerts: alerts}
	id, repeat, no := h.once(ctx, n, sig, r.Header)
	if no != nil {
		return no
	}

	// The body is on disk: dying before the 202 is out costs a repeat, no alert.
	writeJSON(w, http.StatusAccepted, struct {
		ID     string `json:"id"`
		Alerts int    `json:"alerts"`
	}{id, alerts})
	if !repeat {
		h.report(ctx, id, n, truncated)
	}
	return nil
}

// once stores a notification unless its signature was used already. Then id is
// that of the first use: to a sender that repeats because our answer was lost,
// this is the answer.
func (h *Handler) once(ctx context.Context, n Notification, sig signature, head http.Header) (id string, repeat bool, no *refusal) {
	if h.guard.secret == nil {
		id, no = h.publish(ctx, n)
		return id, false, no
	}
	now := time.Now()
	until, timed := h.guard.until(head, now)
	u, err := h.used.enter(ctx, sig, until, now)
	if err != nil {
		return "", false, unstored(err)
	}
	defer u.leave()
	switch {
	case u.id == "":
	case u.source != n.Source:
		return "", false, refuse(http.StatusUnauthorized, "this signature was used already, for another source")
	case timed || h.used.repeats(u, n.Body):
		return u.id, true, nil
	}
	if id, no = h.publish(ctx, n); no == nil {
		h.used.stored(u, id, n.Source, until)
	}
	return id, false, no
}

// publish stores a notification, and what ends the alerts of Grafana's Test
// button that are in it. When it returns an id, both are on disk.
func (h *Handler) publish(ctx context.Context, n Notification) (id string, no *refusal) {
	id, err := h.config.Publisher.Publish(ctx, n)
	if err != nil {
		// It may be on disk anyway. Then the repeat is a duplicate, and duplicates
		// are dropped.
		return "", unstored(err)
	}
	if recovery, ok := pmm.TestRecovery(n.Body, n.ReceivedAt); ok {
		n.Body, n.Made = recovery, true
		n.Alerts, _, _ = pmm.Check(recovery) // what TestRecovery makes is good
		if _, err := h.config.Publisher.Publish(ctx, n); err != nil {
			return "", unstored(err) // the button can be pressed again
		}
	}
	return id, nil
}

// report tells observer and log of a notification that is on disk.
func (h *Handler) report(ctx context.Context, id string, n Notification, truncated int64) {
	log := h.config.Logger
	h.config.Observer.Stored(n.Source)
	if truncated > 0 {
		h.config.Observer.Truncated(n.Source, truncated)
		if count, ok := h.lines.take(line{reason: "truncated", remote: n.Source}, time.Now()); ok {
			log.Warn("pmm cut alerts off the notification, set max alerts to 0 in its contact point",
				"notification_id", id, "source", n.Source, "alerts", n.Alerts, "truncated", truncated, "count", count)
		}
	}
	if log.Enabled(ctx, slog.LevelDebug) {
		log.LogAttrs(ctx, slog.LevelDebug, "notification accepted", slog.String("notification_id", id),
			slog.String("source", n.Source), slog.Int("alerts", n.Alerts), slog.Duration("duration", time.Since(n.BeganAt)))
	}
}

// admit decides on the header alone and returns the source.
func (h *Handler) admit(r *http.Request, now time.Time) (source string, no *refusal) {
	source, ok := sourceOf(r.URL.Path)
	if !ok {
		return "", refuse(http.StatusNotFound,
			"no such path: webhooks go to /v1/webhook or /v1/webhook/SOURCE, SOURCE being 1 to 16 of a-z, 0-9 and -")
	}
	if !isWebhook(r) {
		return "", refuse(http.StatusMethodNotAllowed, "method not allowed: send POST or PUT")
	}
	if h.stopping.Load() {
		return "", &refusal{code: http.StatusServiceUnavailable, reason: "stopping", retry: stopRetry}
	}
	if h.guard.open() {
		if h.origin.Check(r) != nil {
			return "", refuse(http.StatusForbidden, "a browser sent this for the page of another site")
		}
		if h.config.Loopback && r.Host != "" && !pmm.IsLoopback("http://"+r.Host) { // HTTP/1.0 has none
			return "", refuse(http.StatusForbidden, "the Host header does not name this machine: call localhost or 127.0.0.1, or set an ingest secret")
		}
	}
	if reason := h.guard.header(source, r.Header, now); reason != "" {
		return "", refuse(http.StatusUnauthorized, "%s", reason)
	}
	if enc := r.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return "", refuse(http.StatusUnsupportedMediaType, "Content-Encoding is not supported: send the body as it is")
	}
	if r.ContentLength > h.maxBody.Load() {
		return "", h.tooLarge()
	}
	return source, nil
}

func (h *Handler) tooLarge() *refusal {
	return refuse(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes", h.maxBody.Load())
}

// sourceOf returns the PMM server that path names. People end paths with a slash.
func sourceOf(path string) (source string, ok bool) {
	rest, ok := strings.CutPrefix(path, "/v1/webhook")
	rest = strings.TrimSuffix(rest, "/")
	if !ok || rest == "" {
		return defaultSource, ok
	}
	source, ok = strings.CutPrefix(rest, "/")
	return source, ok && ValidSource(source)
}

// stamps keep the order of requests when the wall clock is set back: what begins after
// another was received whole never seems to have begun before that, so that it is not taken
// for something that was under way. Safe concurrently.
type stamps struct {
	mu     sync.Mutex
	newest time.Time // when a request was received whole, without a monotonic reading; guarded by mu
}

// begin is when a request began that begins at now, by the wall clock or after it.
func (s *stamps) begin(now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now = now.UTC(); now.Before(s.newest) {
		return s.newest
	}
	return now
}

// whole notes that a request is received whole at now.
func (s *stamps) whole(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now = now.UTC(); now.After(s.newest) {
		s.newest = now
	}
}

// sources are the PMM servers that sent something. The ledger remembers each for long,
// so there is a limit. Safe concurrently.
type sources struct {
	most  int
	known func() map[string]bool // see Config.Known

	mu    sync.Mutex
	names map[string]time.Time // when it last sent something, here; guarded by mu
	asked time.Time            // known; guarded by mu
}

// admit reports whether source may send at now: it did before, or there is room.
func (s *sources) admit(source string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.names[source]; !ok && len(s.names) >= s.most && !s.forget(now) {
		return false
	}
	s.names[source] = now
	return true
}

// forget gives up the places of sources that are not known any more, but for those that
// sent something within the hour: the ledger may not know them yet. It reports whether
// there is room then. It needs mu.
func (s *sources) forget(now time.Time) bool {
	if s.known == nil || now.Sub(s.asked) < time.Minute { // strangers may ask for it
		return false
	}
	s.asked = now
	if known := s.known(); known != nil {
		maps.DeleteFunc(s.names, func(source string, at time.Time) bool { return !known[source] && now.Sub(at) > time.Hour })
	}
	return len(s.names) < s.most
}

// Know names a PMM server that may send however many others there are: it sent
// something in an earlier run, or is waited for. Safe concurrently.
func (h *Handler) Know(source string) {
	h.sources.mu.Lock()
	defer h.sources.mu.Unlock()
	if _, ok := h.sources.names[source]; !ok {
		h.sources.names[source] = time.Time{}
	}
}

// Received notes that a notification was received whole at a time, in an earlier run: no
// request of this one began before that. Safe concurrently.
func (h *Handler) Received(at time.Time) { h.stamps.whole(at) }

// ValidSource reports whether a PMM server may be called so: 1 to 16 of a-z,
// 0-9 and -. The name is part of keys and subjects on disk.
func ValidSource(source string) bool {
	for _, c := range []byte(source) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return len(source) >= 1 && len(source) <= 16
}

// read reads the body into memory that is its own until done is called, which
// must be called in any case.
func (h *Handler) read(w http.ResponseWriter, r *http.Request) (body []byte, done func(), no *refusal) {
	small := h.buffers.Get().(*[]byte)
	var held int64
	done = func() {
		h.budget.free(held)
		h.buffers.Put(small)
	}
	take := func(n int64) *refusal {
		if !h.budget.take(held, n) {
			return &refusal{code: http.StatusServiceUnavailable, reason: "too many bytes of webhooks are in flight, send it again", retry: busyRetry}
		}
		held += n
		return nil
	}
	if r.ContentLength >= 0 { // then net/http ends the body there
		if no := take(r.ContentLength); no != nil {
			return nil, done, no
		}
		if body = *small; r.ContentLength > smallBody {
			body = make([]byte, r.ContentLength)
		}
		body = body[:r.ContentLength]
		_, err := io.ReadFull(r.Body, body)
		return body, done, h.unread(err)
	}
	select {
	case h.unsized <- struct{}{}:
		defer func() { <-h.unsized }()
	default:
		_ = http.NewResponseController(w).SetReadDeadline(time.Now()) // net/http would read on, to throw it away
		return nil, done, &refusal{code: http.StatusServiceUnavailable, reason: "too many bodies of unknown length at once: send Content-Length, or send it again", retry: busyRetry}
	}
	most := h.maxBody.Load()
	from := http.MaxBytesReader(w, r.Body, most)
	if no := take(smallBody); no != nil {
		return nil, done, no
	}
	for body = (*small)[:0]; ; {
		n, err := from.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if err == io.EOF {
			return body, done, nil
		} else if err != nil {
			return nil, done, h.unread(err)
		}
		if len(body) == cap(body) {
			size := min(2*int64(cap(body)), most+1) // never filled: the reader stops before
			if no := take(size - held); no != nil {
				return nil, done, no
			}
			body = append(make([]byte, 0, size), body...)
		}
	}
}

// unread says why the body could not be read, nil when it was.
func (h *Handler) unread(err error) *refusal {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return h.tooLarge()
	}
	no := refuse(http.StatusBadRequest, "the body could not be read to its end")
	if errors.Is(err, os.ErrDeadlineExceeded) {
		no = refuse(http.StatusRequestTimeout, "the body came too slowly")
	}
	no.err = err
	return no
}

// unstored keeps the store's own words out of the answer.
func unstored(err error) *refusal {
	no := &refusal{code: http.StatusServiceUnavailable, reason: "the notification could not be stored, send it again", retry: storeRetry, err: err}
	if r, ok := errors.AsType[Refused](err); ok && r.RetryAfter() > 0 {
		no.retry = r.RetryAfter()
	}
	return no
}

func (h *Handler) answer(w http.ResponseWriter, no *refusal) {
	switch no.code {
	case http.StatusUnauthorized:
		for _, c := range h.guard.challenges {
			w.Header().Add("WWW-Authenticate", c)
		}
	case http.StatusMethodNotAllowed:
		w.Header().Set("Allow", "POST, PUT")
	}
	if no.retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(no.retry.Seconds()))))
	}
	// The body may be unread. Closing spares reading it only to reuse the
	// connection, which PMM does not do anyway.
	w.Header().Set("Connection", "close")
	writeJSON(w, no.code, struct {
		Error string `json:"error"`
	}{no.reason})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // a sender that is gone repeats
}
