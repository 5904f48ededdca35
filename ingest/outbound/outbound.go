// Package outbound is what requests to the services of others have in common: whom a
// connection trusts, and how a failure reads in one line that holds no secret. Errors of
// net/http print the whole URL, with the user and the query; here they are taken apart
// and put together again without it.
//
// It starts no goroutines. Everything is safe for concurrent use.
package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unicode"

	"pmm-callgoose/store/redact"
)

// MaxAnswer bounds what is read of the head of an answer, and where little is expected of
// its body, in bytes.
const MaxAnswer = 64 << 10

// Transport returns HTTP with the proxy of the environment, TLS 1.2 or later, the
// system's authorities and those in caFile (PEM, "" = none). It makes no connection.
func Transport(caFile string) (*http.Transport, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableCompression = true // no Accept-Encoding: most answers are a few bytes
	t.MaxResponseHeaderBytes = MaxAnswer
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	t.ForceAttemptHTTP2 = true
	// A connection that a firewall forgot while it was idle is found before it is used.
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second}
	t.OnProxyConnectResponse = func(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
		if resp.StatusCode == http.StatusOK {
			return nil
		}
		return &net.OpError{Op: "proxyconnect", Net: "tcp", Err: errors.New("it answered " + resp.Status)}
	}
	if caFile == "" {
		return t, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", caFile)
	}
	t.TLSClientConfig.RootCAs = pool
	return t, nil
}

// Explain says where a request ended that got no answer (dns, proxy, tls, connect,
// timeout or reset), and why, in words without the URL. An error that is none of
// these has no step; what is said of it may quote the other side.
func Explain(err error) (step, text string) {
	var (
		dns      *net.DNSError
		op       *net.OpError
		unknown  x509.UnknownAuthorityError
		invalid  x509.CertificateInvalidError
		hostname x509.HostnameError
		verify   *tls.CertificateVerificationError
		record   tls.RecordHeaderError
		alert    tls.AlertError
		errno    syscall.Errno
	)
	switch {
	case errors.As(err, &dns):
		return "dns", fmt.Sprintf("cannot resolve %s: %s", dns.Name, dns.Err)
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return "proxy", "cannot connect through the proxy: " + Cause(op.Err)
	case errors.As(err, &verify), errors.As(err, &unknown), errors.As(err, &invalid), errors.As(err, &hostname),
		errors.As(err, &record), errors.As(err, &alert):
		return "tls", "TLS handshake failed: " + Cause(err)
	case errors.As(err, &op) && op.Op == "dial" && op.Addr != nil:
		return "connect", fmt.Sprintf("cannot connect to %s: %s", op.Addr, Cause(op.Err))
	case isTimeout(err):
		return "timeout", "no answer in time"
	case errors.As(err, &errno), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "reset", "the connection broke: " + Cause(err)
	}
	return "", Cause(err)
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}

// Cause is what the innermost error says: outer ones can hold the whole URL.
func Cause(err error) string {
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

// Line makes one printable line of at most limit bytes of a text from outside, and takes
// the secrets out of it that an answer may repeat.
func Line(text string, limit int, secrets ...string) string {
	text = clean(text[:min(len(text), 16<<10)], secrets) // before it is cut: half of a secret would not be found
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, text[:min(len(text), 4*limit)])
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "…"
	}
	return text
}

// sent are the secrets of a request, and what takes them out of its answer.
type sent struct {
	secrets []string
	*redact.Redactor
}

// latest are the secrets in use: every answer is looked through.
var latest atomic.Pointer[sent]

// clean takes secrets out of a text, and the name of the parameter of a query beside them.
func clean(text string, secrets []string) string {
	s := latest.Load()
	if s == nil || !slices.Equal(s.secrets, secrets) {
		forms := slices.Clone(secrets)
		for _, secret := range secrets {
			if secret != "" {
				forms = append(forms, "token="+secret)
			}
		}
		s = &sent{slices.Clone(secrets), redact.New(forms...)}
		latest.Store(s)
	}
	return s.String(text)
}
