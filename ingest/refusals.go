package ingest

import (
	"bytes"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Refusals is what operators see of the webhooks that were not accepted.
type Refusals struct {
	LastHour   int        `json:"last_hour"`
	LastAt     *time.Time `json:"last_at"` // nil = none since the start
	LastCode   int        `json:"last_code"`
	LastReason string     `json:"last_reason"`
	LastRemote string     `json:"last_remote"` // address without port
}

// refusals counts refused webhooks, by minute. Safe concurrently.
type refusals struct {
	mu      sync.Mutex
	last    Refusals // guarded by mu, LastHour unused
	minutes [60]struct {
		at int64 // Unix time in minutes
		n  int
	} // by minute modulo 60, guarded by mu
}

func (r *refusals) add(now time.Time, no *refusal, remote string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := now.Unix() / 60
	m := &r.minutes[at%60]
	if m.at != at {
		m.at, m.n = at, 0
	}
	m.n++
	r.last = Refusals{LastAt: new(now.UTC()), LastCode: no.code, LastReason: no.reason, LastRemote: remote}
}

func (r *refusals) read(now time.Time) Refusals {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.last
	for _, m := range r.minutes {
		if m.at > now.Unix()/60-60 {
			out.LastHour += m.n
		}
	}
	return out
}

// Refused reports the webhooks that were refused. Requests that are neither POST nor
// PUT are not webhooks and do not count.
func (h *Handler) Refused() Refusals { return h.refusals.read(time.Now()) }

// maxLines bounds the kinds of log lines that are counted separately within a minute.
const maxLines = 256

// line is one kind of log line that strangers can cause.
type line struct {
	code   int
	reason string
	remote string
}

// lines lets one log line of a kind through each minute and counts the others, so
// that no sender can fill the log. Safe concurrently.
type lines struct {
	log *slog.Logger

	mu    sync.Mutex
	kinds map[line]*burst // guarded by mu
	swept time.Time       // guarded by mu
}

func newLines(log *slog.Logger) *lines { return &lines{log: log, kinds: map[line]*burst{}} }

type burst struct {
	logged time.Time
	held   int // since then
}

// take reports whether a line of that kind may be logged now, and for how many
// events it stands.
func (l *lines) take(k line, now time.Time) (count int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.kinds[k]
	if b == nil && len(l.kinds) >= maxLines {
		k = line{code: k.code, remote: "others"}
		b = l.kinds[k]
	}
	if b == nil {
		b = &burst{}
		l.kinds[k] = b
	}
	b.held++
	if now.Sub(b.logged) < time.Minute {
		return 0, false
	}
	count, b.held, b.logged = b.held, 0, now
	return count, true
}

// sweep forgets the kinds that came to an end, and logs how many lines of each were
// held back.
func (l *lines) sweep(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.swept) < time.Minute {
		return
	}
	l.swept = now
	for k, b := range l.kinds {
		if now.Sub(b.logged) < 2*time.Minute { // the next line of this kind reports them
			continue
		}
		if b.held > 0 {
			l.log.Warn("log lines were held back", "http_status", k.code, "reason", k.reason, "remote", k.remote, "count", b.held)
		}
		delete(l.kinds, k)
	}
}

// kindOf is a reason without its digits, which differ from request to request.
func kindOf(reason string) string {
	return strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return -1
		}
		return r
	}, reason)
}

// hostOf is an address without its port.
func hostOf(remote string) string {
	if host, _, err := net.SplitHostPort(remote); err == nil {
		return host
	}
	return remote
}

// logRefusal writes one line for each reason and address in a minute.
func (h *Handler) logRefusal(r *http.Request, no *refusal, now time.Time) {
	kind := line{code: no.code, remote: hostOf(r.RemoteAddr)}
	if no.code != http.StatusBadRequest { // its reasons quote the body, so that there is no end of them
		kind.reason = kindOf(no.reason)
	}
	count, ok := h.lines.take(kind, now)
	if !ok {
		return
	}
	level := slog.LevelWarn
	if no.err != nil && no.code == http.StatusServiceUnavailable {
		level = slog.LevelError
	}
	attrs := []slog.Attr{
		slog.Int("http_status", no.code), slog.String("reason", no.reason),
		slog.String("remote", r.RemoteAddr), slog.Duration("duration", time.Since(now)), slog.Int("count", count),
	}
	if no.err != nil {
		attrs = append(attrs, slog.Any("err", no.err))
	}
	h.config.Logger.LogAttrs(r.Context(), level, "webhook refused", attrs...)
}

// ErrorLog returns a log for an http.Server, which writes a line for each connection
// that breaks: of each kind of line one goes to l in a minute.
func ErrorLog(l *slog.Logger) *log.Logger { return log.New(quiet{newLines(l)}, "", 0) }

type quiet struct{ *lines }

// Write implements io.Writer.
func (q quiet) Write(p []byte) (int, error) {
	now, text := time.Now(), string(bytes.TrimSpace(p))
	q.sweep(now)
	if count, ok := q.take(line{reason: kindOf(text)}, now); ok {
		q.log.Warn("http server", "detail", text, "count", count)
	}
	return len(p), nil
}
