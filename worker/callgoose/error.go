package callgoose

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
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
	e := &Error{
		Status: r.StatusCode, Sent: true, RetryAfter: retryAfter(r.Header.Get("Retry-After"), time.Now()),
		Foreign: foreign(r, []byte(text)),
	}
	e.text = fmt.Sprintf("callgoose answered %d %s", r.StatusCode, http.StatusText(r.StatusCode))
	if e.Foreign {
		e.text = fmt.Sprintf("a proxy or login page answered %d, not callgoose", r.StatusCode)
	}
	if text = oneLine(clean(text, token)); text != "" {
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

// transportError takes an error of the HTTP client apart. connected says whether
// there was a connection to send on, sent whether the request's head was written.
func transportError(ctx context.Context, err error, connected, sent bool, token string) *Error {
	e := &Error{}
	var (
		dns      *net.DNSError
		op       *net.OpError
		unknown  x509.UnknownAuthorityError
		invalid  x509.CertificateInvalidError
		hostname x509.HostnameError
		verify   *tls.CertificateVerificationError
		record   tls.RecordHeaderError
		alert    tls.AlertError
	)
	switch {
	case errors.Is(context.Cause(ctx), ErrInterrupted):
		e.Step, e.text = "interrupted", "interrupted by the service's own stop"
	case errors.As(err, &dns):
		e.Step, e.text = "dns", fmt.Sprintf("cannot resolve %s: %s", dns.Name, dns.Err)
	case errors.As(err, &op) && op.Op == "proxyconnect":
		e.Step, e.text = "proxy", "cannot connect through the proxy: "+cause(op.Err)
	case errors.As(err, &verify), errors.As(err, &unknown), errors.As(err, &invalid), errors.As(err, &hostname),
		errors.As(err, &record), errors.As(err, &alert), !sent && strings.Contains(err.Error(), "tls: "):
		e.Step, e.text = "tls", "TLS handshake failed: "+tlsCause(err)
	case errors.As(err, &op) && op.Op == "dial":
		e.Step, e.text = "connect", fmt.Sprintf("cannot connect to %s: %s", addr(op), cause(op.Err))
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), isTimeout(err):
		e.Step, e.text = "timeout", "no answer in time"
		if !sent {
			e.Step, e.text = "connect", "cannot connect in time"
		}
	case !connected: // cut off in the handshake, for example
		e.Step, e.text = "connect", "cannot connect: "+cause(err)
	default:
		e.Step, e.text = "reset", "the connection broke: "+cause(err)
	}
	e.text = oneLine(clean(e.text, token)) // a malformed answer is quoted in full
	e.Sent = sent && !e.Unreachable()
	return e
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

func addr(op *net.OpError) string {
	if op.Addr == nil {
		return "callgoose"
	}
	return op.Addr.String()
}

// cause is the innermost error: outer ones can carry the whole URL.
func cause(err error) string {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	if isTimeout(err) {
		return "timeout"
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

// tlsCause keeps the sentence of crypto/x509, which names the reason and no URL.
func tlsCause(err error) string {
	if verify, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return verify.Err.Error()
	}
	return cause(err)
}

// ErrInterrupted is the cause with which the service's own stop cancels an attempt. Such
// an attempt costs nothing.
var ErrInterrupted = errors.New("the service is stopping")
