package callgoose

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"pmm-callgoose/ingest/outbound"
)

// Error says how one request failed.
type Error struct {
	// Status is the HTTP status, 0 when there was no answer.
	Status int
	// Step names what failed when there was no answer: dns, connect, tls, proxy,
	// timeout, reset, interrupted.
	Step string
	// RetryAfter is how long Callgoose asked to wait, 0 when it did not.
	RetryAfter time.Duration
	// Sent reports whether Callgoose may have received the request.
	Sent bool
	// Foreign reports that a proxy, a login page or a firewall answered with a page
	// where Callgoose's answer would have settled the event: Status is 2xx, 400, 413,
	// 415 or 422, and says nothing about the event.
	Foreign bool
	text    string
}

func (e *Error) Error() string { return e.text }

// Unreachable reports whether no connection could be made: no event would get through.
func (e *Error) Unreachable() bool {
	switch e.Step {
	case "dns", "connect", "tls", "proxy":
		return true
	}
	return false
}

// statusError is the error of an answer that is not a success of Callgoose's. The
// beginning of the answer's text helps the operator, cleaned of the token.
func statusError(r *http.Response, text, token string) *Error {
	now, err := http.ParseTime(r.Header.Get("Date")) // a date in Retry-After is by the same clock
	if err != nil {
		now = time.Now()
	}
	e := &Error{
		Status: r.StatusCode, Sent: true, RetryAfter: retryAfter(r.Header.Get("Retry-After"), now),
		Foreign: foreign(r, []byte(text)),
	}
	e.text = fmt.Sprintf("callgoose answered %d %s", r.StatusCode, http.StatusText(r.StatusCode))
	if e.Foreign {
		e.text = fmt.Sprintf("a proxy or login page answered %d, not callgoose", r.StatusCode)
	}
	if text = oneLine(text, token); text != "" {
		e.text += ": " + text
	}
	if e.RetryAfter > 0 {
		e.text += fmt.Sprintf(" (Retry-After %s)", e.RetryAfter)
	}
	return e
}

// maxRetryAfter bounds how long a wrong header can delay a try.
const maxRetryAfter = time.Hour

// retryAfter reads both forms of the header (RFC 9110, section 10.2.3).
func retryAfter(v string, now time.Time) time.Duration {
	v = strings.TrimSpace(v)
	if v == "" {
		return 0
	}
	if strings.Trim(v, "0123456789") == "" {
		s, err := strconv.ParseUint(v, 10, 32)
		if err != nil { // too many digits
			return maxRetryAfter
		}
		return min(time.Duration(s)*time.Second, maxRetryAfter)
	}
	if at, err := http.ParseTime(v); err == nil {
		return min(max(at.Sub(now), 0), maxRetryAfter)
	}
	return 0
}

// transportError is the error of a request without an answer. connected says whether
// there was a connection to send on, sent whether the request's head was written.
func transportError(ctx context.Context, err error, connected, sent bool, token string) *Error {
	step, text := outbound.Explain(err)
	switch {
	case errors.Is(context.Cause(ctx), ErrInterrupted):
		step, text = "interrupted", "interrupted by the service's own stop"
	case step == "" && !sent && strings.Contains(err.Error(), "tls: "):
		step, text = "tls", "TLS handshake failed: "+text
	case step == "timeout" && !sent:
		step, text = "connect", "cannot connect in time"
	case !connected && (step == "" || step == "reset"): // cut off in the handshake, for example
		step, text = "connect", "cannot connect: "+outbound.Cause(err)
	case step == "":
		step, text = "reset", "the connection broke: "+text
	}
	e := &Error{Step: step, text: oneLine(text, token)} // a malformed answer is quoted in full
	e.Sent = sent && !e.Unreachable()
	return e
}

// oneLine is the beginning of a text, which may repeat what was sent, for an operator.
func oneLine(text, token string) string { return outbound.Line(text, 200, token) }

// ErrInterrupted is the cause with which the service's own stop cancels an attempt. Such
// an attempt costs nothing.
var ErrInterrupted = errors.New("the service is stopping")
