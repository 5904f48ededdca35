package ingest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
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
	Source     string // which PMM server sent it, [a-z0-9-]{1,16}
	ReceivedAt time.Time
	Body       []byte
	Alerts     int // members of its "alerts", unusable ones included
}

// Refused is an error of a Publisher that knows when to try again. Any other error
// is a 503 too, with a Retry-After of our own.
type Refused interface {
	error
	RetryAfter() time.Duration
}

// Observer is told of every answer. Its methods must be quick and safe to call
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

	// Credentials are asked for on every request, so that they can change while
	// we run. A nil function switches its method off. One that returns "" lets
	// nobody in: a secret that got lost must not open the door.
	//
	// A request needs either the token or the user and password, whichever are
	// on, and its signature if HMACSecret is on. With all three nil anybody may
	// send.
	Token      func() string // Authorization: Bearer …
	Basic      func() string // user:password
	HMACSecret func() string // Grafana's HMAC-SHA256 over the body

	// HMACHeader carries the signature; default X-Grafana-Alerting-Signature.
	HMACHeader string
	// HMACTimestampHeader carries the Unix seconds that are signed with the body.
	// Set, every request must have it. Not set, it is
	// X-Grafana-Alerting-Timestamp, and is verified where it is sent.
	HMACTimestampHeader string

	MaxBody        int64         // bytes; default 10 MiB
	PublishTimeout time.Duration // default 8 s: PMM gives up after 10

	Logger   *slog.Logger // default: none
	Observer Observer     // default: none
}

func (c Config) withDefaults() Config {
	if c.HMACHeader == "" {
		c.HMACHeader = "X-Grafana-Alerting-Signature"
	}
	if c.MaxBody == 0 {
		c.MaxBody = 10 << 20
	}
	if c.PublishTimeout == 0 {
		c.PublishTimeout = 8 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Observer == nil {
		c.Observer = silent{}
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.Publisher == nil:
		return errors.New("ingest: no publisher")
	case c.MaxBody < 0:
		return fmt.Errorf("ingest: max body %d is negative", c.MaxBody)
	case c.PublishTimeout < 0:
		return fmt.Errorf("ingest: publish timeout %s is negative", c.PublishTimeout)
	}
	return nil
}

type silent struct{}

func (silent) Webhook(int, time.Duration) {}
func (silent) Stored(string)              {}
func (silent) Truncated(string, int64)    {}

const (
	defaultSource = "pmm"
	storeRetry    = 10 * time.Second // when a Publisher does not say
	stopRetry     = 15 * time.Second // about as long as a restart takes
	keptBuffer    = 1 << 20          // a larger buffer is left to the collector
)

// Handler answers webhooks. It is an http.Handler.
type Handler struct {
	config   Config
	guard    guard
	late     error // the cause of a publish that takes too long
	stopping atomic.Bool
	buffers  sync.Pool // *bytes.Buffer, for a body and then for the answer to it
}

// New returns a Handler that stores what it accepts through c.Publisher.
func New(c Config) (*Handler, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	c.Logger = c.Logger.With("component", "ingest")
	h := &Handler{config: c, guard: newGuard(c), late: fmt.Errorf("not stored within %s", c.PublishTimeout)}
	h.buffers.New = func() any { return new(bytes.Buffer) }
	return h, nil
}

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
		h.log(r, no, time.Since(start))
	}
	h.config.Observer.Webhook(code, time.Since(start))
}

// serve takes a webhook as far as its 202, or says why there is none.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request, now time.Time) *refusal {
	source, no := h.admit(r, now)
	if no != nil {
		return no
	}

	buf := h.buffers.Get().(*bytes.Buffer)
	defer func() {
		if buf.Cap() <= keptBuffer {
			buf.Reset()
			h.buffers.Put(buf)
		}
	}()
	if no := h.read(buf, w, r); no != nil {
		return no
	}
	body := buf.Bytes()
	if reason := h.guard.signature(r.Header, body); reason != "" {
		return refuse(http.StatusUnauthorized, "%s", reason)
	}
	alerts, truncated, err := pmm.Check(body)
	if err != nil {
		return refuse(http.StatusBadRequest, "%s", err)
	}

	// From here the sender's patience no longer matters; see the package comment.
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(r.Context()), h.config.PublishTimeout, h.late)
	defer cancel()
	id, err := h.config.Publisher.Publish(ctx, Notification{Source: source, ReceivedAt: now.UTC(), Body: body, Alerts: alerts})
	if err != nil {
		// It may be on disk all the same. Then the repeat is a duplicate, and
		// duplicates are dropped.
		return unstored(err)
	}

	// The body is on disk: dying before the 202 is out costs a repeat, no alert.
	accepted(w, buf, id, alerts)
	h.config.Observer.Stored(source)
	if truncated > 0 {
		h.config.Observer.Truncated(source, truncated)
		h.config.Logger.Warn("pmm cut alerts off the notification, set max alerts to 0 in its contact point",
			"notification_id", id, "source", source, "alerts", alerts, "truncated", truncated)
	}
	if h.config.Logger.Enabled(ctx, slog.LevelDebug) {
		h.config.Logger.LogAttrs(ctx, slog.LevelDebug, "notification accepted", slog.String("notification_id", id),
			slog.String("source", source), slog.Int("alerts", alerts), slog.Duration("duration", time.Since(now)))
	}
	return nil
}

// admit decides on the header alone and returns the source.
func (h *Handler) admit(r *http.Request, now time.Time) (source string, no *refusal) {
	source, ok := sourceOf(r.URL.Path)
	if !ok {
		return "", refuse(http.StatusNotFound,
			"no such path: webhooks go to /v1/webhook or /v1/webhook/SOURCE, SOURCE being 1 to 16 of a-z, 0-9 and -")
	}
	if r.Method != http.MethodPost && r.Method != http.MethodPut {
		return "", refuse(http.StatusMethodNotAllowed, "method not allowed: send POST or PUT")
	}
	if h.stopping.Load() {
		return "", &refusal{code: http.StatusServiceUnavailable, reason: "stopping", retry: stopRetry}
	}
	if reason := h.guard.header(r.Header, now); reason != "" {
		return "", refuse(http.StatusUnauthorized, "%s", reason)
	}
	if enc := r.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return "", refuse(http.StatusUnsupportedMediaType, "Content-Encoding is not supported: send the body as it is")
	}
	if r.ContentLength > h.config.MaxBody {
		return "", h.tooLarge()
	}
	return source, nil
}

func (h *Handler) tooLarge() *refusal {
	return refuse(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes", h.config.MaxBody)
}

// sourceOf returns the PMM server that path names.
func sourceOf(path string) (source string, ok bool) {
	rest, ok := strings.CutPrefix(path, "/v1/webhook")
	if !ok || rest == "" {
		return defaultSource, ok
	}
	source, ok = strings.CutPrefix(rest, "/")
	return source, ok && ValidSource(source)
}

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

func (h *Handler) read(buf *bytes.Buffer, w http.ResponseWriter, r *http.Request) *refusal {
	// A promised length is no reason to reserve megabytes: the sender may never
	// send them.
	buf.Grow(int(min(max(r.ContentLength, 0), 64<<10)) + bytes.MinRead)
	from := r.Body
	if r.ContentLength < 0 { // else admit has looked at the length, and net/http ends the body there
		from = http.MaxBytesReader(w, from, h.config.MaxBody)
	}
	_, err := buf.ReadFrom(from)
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

// accepted answers 202. An id is plain ASCII, so quoting it as Go does is JSON.
func accepted(w http.ResponseWriter, buf *bytes.Buffer, id string, alerts int) {
	buf.Reset()
	b := strconv.AppendQuote(append(buf.AvailableBuffer(), `{"id":`...), id)
	b = strconv.AppendInt(append(b, `,"alerts":`...), int64(alerts), 10)
	b = append(b, "}\n"...)
	w.Header()["Content-Type"] = contentJSON
	w.WriteHeader(http.StatusAccepted)
	_, _ = w.Write(b) // a sender that is gone repeats
}

var contentJSON = []string{"application/json"} // shared: net/http only reads it

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
	// The body may be unread. Closing spares us reading it only to reuse the
	// connection, which PMM does not do anyway.
	w.Header().Set("Connection", "close")
	writeJSON(w, no.code, struct {
		Error string `json:"error"`
	}{no.reason})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header()["Content-Type"] = contentJSON
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}

func (h *Handler) log(r *http.Request, no *refusal, took time.Duration) {
	level := slog.LevelWarn
	if no.err != nil && no.code == http.StatusServiceUnavailable {
		level = slog.LevelError
	}
	attrs := []slog.Attr{
		slog.Int("http_status", no.code), slog.String("reason", no.reason),
		slog.String("remote", r.RemoteAddr), slog.Duration("duration", took),
	}
	if no.err != nil {
		attrs = append(attrs, slog.Any("err", no.err))
	}
	h.config.Logger.LogAttrs(r.Context(), level, "webhook refused", attrs...)
}
