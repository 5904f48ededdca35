package callgoose

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"pmm-callgoose/ingest/outbound"
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
	// MayWrite is asked before anything is written to a connection; nil = always. With
	// it, what a connection could not deliver within Timeout is thrown away.
	MayWrite func() bool
	// Transport replaces the network in tests. nil = HTTP with the proxy of the
	// environment (HTTP_PROXY, HTTPS_PROXY, NO_PROXY).
	Transport http.RoundTripper
}

// Client posts events. Safe concurrently.
type Client struct {
	cfg Config
	url url.URL
	// network is replaced when a connection failed: a pool that goes on may hand
	// out the same dead connection, or another to the same dead peer, for minutes.
	network atomic.Pointer[http.RoundTripper]
}

// New checks cfg and reads the CA file. It makes no connection.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" {
		return nil, errors.New("callgoose url: not an absolute URL") // the parser's error would print it
	}
	cfg.Timeout, cfg.Concurrency = cmp.Or(cfg.Timeout, 15*time.Second), cmp.Or(cfg.Concurrency, 16)
	if cfg.Transport == nil {
		t, err := outbound.Transport(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("callgoose ca: %w", err)
		}
		t.MaxIdleConnsPerHost = cfg.Concurrency
		t.MaxIdleConns = cfg.Concurrency
		if cfg.MayWrite != nil {
			t.DialContext = guarded(cfg.MayWrite, cfg.Timeout)
		}
		cfg.Transport = t
	}
	q := u.Query()
	q.Set("from", cfg.From)
	u.RawQuery = q.Encode()
	c := &Client{cfg: cfg, url: *u}
	c.network.Store(&cfg.Transport)
	return c, nil
}

// Renew makes the requests that begin from now on look the name up again and dial
// a new connection. Requests under way finish on the one they have. Call it before
// a probe: a kept connection may lead to a peer that has been replaced. Without
// effect when [Config.Transport] is not an *http.Transport.
func (c *Client) Renew() { c.replace(c.network.Load()) }

// replace puts a network without connections in the place of old, unless another
// request has done so.
func (c *Client) replace(old *http.RoundTripper) {
	t, ok := (*old).(*http.Transport)
	if !ok {
		return
	}
	var fresh http.RoundTripper = t.Clone()
	if c.network.CompareAndSwap(old, &fresh) {
		t.CloseIdleConnections() // those in use are closed when they become idle
	}
}

// Reply is the answer to a request that Callgoose processed (2xx).
type Reply struct {
	Status int
	ID     string // of the API call
	// Effect is the answer in one word: created, resolved, duplicate, discarded (202),
	// none, or unknown where it was no JSON object with one of the documented keys.
	Effect string
}

// Send posts body once. The error is an *Error, and holds neither the address
// nor the token. Cancel ctx with the cause ErrInterrupted to stop early. After a
// timeout or a broken connection, requests that begin later use a new connection.
func (c *Client) Send(ctx context.Context, body []byte) (Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	var connected, sent atomic.Bool
	trace := &httptrace.ClientTrace{
		GotConn:      func(httptrace.GotConnInfo) { connected.Store(true) },
		WroteHeaders: func() { sent.Store(true) },
	}
	network := c.network.Load()
	if _, traced := (*network).(*http.Transport); !traced {
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
	resp, err := (*network).RoundTrip(req)
	if err != nil {
		c.replace(network)
		return Reply{}, transportError(ctx, err, connected.Load(), sent.Load(), token)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode < 100 { // as unreadable as no status at all
		return Reply{}, &Error{Step: "reset", Sent: true, text: "the answer has no status"}
	}
	if resp.StatusCode < 200 { // 101: its body is the bare connection, which no deadline ends
		return Reply{}, statusError(resp, "", token)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, outbound.MaxAnswer))
	if err != nil {
		c.replace(network)
	}
	text = bytes.TrimLeftFunc(text, invisible)
	if resp.StatusCode > 299 || foreign(resp, text) {
		return Reply{}, statusError(resp, string(text), token)
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

// foreign reports whether an answer that would settle the event is a page, which
// Callgoose never sends: a proxy, a login page or a firewall answered in its place.
func foreign(r *http.Response, text []byte) bool {
	switch r.StatusCode {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
	default:
		if r.StatusCode < 200 || r.StatusCode > 299 {
			return false // means the same whoever says it
		}
	}
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(kind), "text/html") || bytes.HasPrefix(text, []byte("<"))
}

// parseReply reads the documented answer; every field is optional, and one of
// another type hides none of the others.
func parseReply(status int, text []byte, token string) Reply {
	type part struct{ Created, Resolved, Duplicate bool }
	var a struct {
		ID                  json.RawMessage
		Triggered, Resolved *part
		Duplicate           bool
	}
	err := json.Unmarshal(text, &a)
	r := Reply{Status: status, ID: strings.Trim(oneLine(string(a.ID), token), `"`), Effect: "none"}
	silent := a.ID == nil && a.Triggered == nil && a.Resolved == nil // {"status":"error"}, of whoever answered
	triggered, resolved := cmp.Or(a.Triggered, &part{}), cmp.Or(a.Resolved, &part{})
	switch {
	case triggered.Created:
		r.Effect = "created"
	case resolved.Resolved:
		r.Effect = "resolved"
	case triggered.Duplicate || resolved.Duplicate || a.Duplicate:
		r.Effect = "duplicate"
	case status == http.StatusAccepted:
		r.Effect = "discarded"
	case err != nil || text[0] != '{' || silent:
		r.Effect = "unknown"
	}
	return r
}
