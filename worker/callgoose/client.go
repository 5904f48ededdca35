package callgoose

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
)

// Config says where events go.
type Config struct {
	// URL is the whole address of the process endpoint, without a token.
	URL string
	// From names the source; it becomes the prefix of incident titles.
	From string
	// Token is asked before every request, so that it can change. Required.
	Token func() string
	// Query sends the token as the URL parameter "token" instead of a header.
	Query bool
	// CAFile holds further certificate authorities in PEM, "" = the system's.
	CAFile string
	// Timeout bounds one request, from dialling to the end of the answer. 0 = 15s.
	Timeout time.Duration
	// Concurrency is how many connections are kept open. 0 = 16.
	Concurrency int
	// Transport replaces the network in tests. nil = HTTP with the proxy of the
	// environment (HTTP_PROXY, HTTPS_PROXY, NO_PROXY).
	Transport http.RoundTripper
}

// Client posts events. Safe concurrently.
type Client struct {
	cfg Config
	url url.URL
}

// New checks cfg and reads the CA file. It makes no connection.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" {
		return nil, errors.New("callgoose url: not an absolute URL") // the parser's error would print it
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 15 * time.Second
	}
	if cfg.Concurrency == 0 {
		cfg.Concurrency = 16
	}
	if cfg.Transport == nil {
		t, err := Network(cfg.CAFile)
		if err != nil {
			return nil, err
		}
		t.MaxIdleConnsPerHost = cfg.Concurrency
		t.MaxIdleConns = cfg.Concurrency
		cfg.Transport = t
	}
	q := u.Query()
	q.Set("from", cfg.From)
	u.RawQuery = q.Encode()
	return &Client{cfg: cfg, url: *u}, nil
}

// Network is the transport that a Client has by default: HTTP with the proxy of
// the environment, TLS 1.2 or later, the system's authorities and those in
// caFile ("" = none). It makes no connection.
func Network(caFile string) (*http.Transport, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableCompression = true // no Accept-Encoding: answers are a few bytes
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	t.ForceAttemptHTTP2 = true
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
		return nil, fmt.Errorf("callgoose ca: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("callgoose ca: no certificate in %s", caFile)
	}
	t.TLSClientConfig.RootCAs = pool
	return t, nil
}

// CloseIdle closes connections that are not in use.
func (c *Client) CloseIdle() {
	(&http.Client{Transport: c.cfg.Transport}).CloseIdleConnections()
}

// Reply is the answer to a request that Callgoose processed (2xx).
type Reply struct {
	Status int
	ID     string // of the API call
	// The flags of the answer, all false when it could not be read.
	Created, Resolved, Duplicate bool
	// Readable is false when the answer was not the JSON that is documented.
	Readable bool
}

// Effect is the reply in one word.
func (r Reply) Effect() string {
	switch {
	case r.Created:
		return "created"
	case r.Resolved:
		return "resolved"
	case r.Duplicate:
		return "duplicate"
	case r.Status == http.StatusAccepted:
		return "discarded"
	case !r.Readable:
		return "unknown"
	}
	return "none"
}

// Send posts body once. The error is an *Error, and holds neither the address
// nor the token. Cancel ctx with the cause ErrInterrupted to stop early.
func (c *Client) Send(ctx context.Context, body []byte) (Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	var connected, sent atomic.Bool
	trace := &httptrace.ClientTrace{
		GotConn:      func(httptrace.GotConnInfo) { connected.Store(true) },
		WroteHeaders: func() { sent.Store(true) },
	}
	if _, network := c.cfg.Transport.(*http.Transport); !network {
		connected.Store(true) // no trace: it may have been received
		sent.Store(true)
	}
	token := c.cfg.Token() // asked once: the one that was sent is the one to redact
	req, err := c.request(httptrace.WithClientTrace(ctx, trace), body, token)
	if err != nil {
		return Reply{}, &Error{Step: "connect", text: "cannot build the request"}
	}
	// Not through http.Client, which follows redirects: our POST would become a
	// GET and the event vanish behind a 200. Even when told not to follow, it turns
	// an answer with an unreadable Location into an error that quotes it.
	resp, err := c.cfg.Transport.RoundTrip(req)
	if err != nil {
		return Reply{}, transportError(ctx, err, connected.Load(), sent.Load(), token)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode < 100 { // as unreadable as no status at all
		return Reply{}, &Error{Step: "reset", Sent: true, text: "the answer has no status"}
	}
	if resp.StatusCode < 200 { // 101: its body is the bare connection, which no deadline ends
		return Reply{}, statusError(resp, "", time.Now())
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode > 299 {
		return Reply{}, statusError(resp, oneLine(redact(string(text), token)), time.Now())
	}
	if err != nil && resp.StatusCode == http.StatusAccepted {
		// Discarded, or a duplicate: only the rest would say, and asking again
		// creates nothing. After any other 2xx it could create a second incident.
		return Reply{}, transportError(ctx, err, true, true, token)
	}
	return parseReply(resp.StatusCode, text, token), nil
}

func (c *Client) request(ctx context.Context, body []byte, token string) (*http.Request, error) {
	u := c.url
	if c.cfg.Query {
		q := u.Query()
		q.Set("token", token)
		u.RawQuery = q.Encode()
	}
	// The address was parsed once: it is put in, not parsed again.
	// A repeated POST may open a second incident: the transport must not send it
	// again by itself on a connection that broke. No Idempotency-Key, no GetBody.
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "/", io.NopCloser(bytes.NewReader(body)))
	if err != nil {
		return nil, err
	}
	req.URL, req.Host, req.ContentLength = &u, u.Host, int64(len(body))
	if !c.cfg.Query {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "pmm-callgoose")
	return req, nil
}

// redact takes the token out of a text in which an answer may repeat what we
// sent, in the spellings it may have there, and before the text is cut.
func redact(text, token string) string {
	if token == "" || text == "" {
		return text
	}
	return spellings(token).ReplaceAllString(text, "[redacted]")
}

// pattern finds a token.
type pattern struct {
	token string
	re    *regexp.Regexp
}

// latest is the pattern of the token in use: every answer is looked through.
var latest atomic.Pointer[pattern]

func spellings(token string) *regexp.Regexp {
	if p := latest.Load(); p != nil && p.token == token {
		return p.re
	}
	quoted, _ := json.Marshal(token) // a string always encodes
	plain := quote(token)
	forms := []string{
		token, url.QueryEscape(token), url.PathEscape(token), html.EscapeString(token),
		string(quoted[1 : len(quoted)-1]), string(plain[1 : len(plain)-1]),
	}
	for i, f := range forms {
		forms[i] = regexp.QuoteMeta(f)
	}
	p := &pattern{token, regexp.MustCompile(`(?i)(token=)?(` + strings.Join(forms, "|") + `)`)}
	latest.Store(p)
	return p.re
}

// oneLine is the beginning of an answer as text for an operator.
func oneLine(b string) string {
	const limit = 200
	s := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == '\uFFFD' {
			return ' '
		}
		return r
	}, b[:min(len(b), 4*limit)])
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}

// parseReply reads the documented answer; every field is optional.
func parseReply(status int, text []byte, token string) Reply {
	var a struct {
		ID        json.RawMessage `json:"id"`
		Triggered struct {
			Created   bool `json:"created"`
			Duplicate bool `json:"duplicate"`
		} `json:"triggered"`
		Resolved struct {
			Resolved  bool `json:"resolved"`
			Duplicate bool `json:"duplicate"`
		} `json:"resolved"`
		Duplicate bool `json:"duplicate"`
	}
	r := Reply{Status: status}
	if json.Unmarshal(text, &a) != nil {
		return r
	}
	r.Readable = true
	r.ID = strings.Trim(oneLine(redact(string(a.ID), token)), `"`) // before it is cut
	r.Created, r.Resolved = a.Triggered.Created, a.Resolved.Resolved
	r.Duplicate = a.Triggered.Duplicate || a.Resolved.Duplicate || a.Duplicate
	return r
}
