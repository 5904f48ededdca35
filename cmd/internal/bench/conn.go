package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"pmm-callgoose/ingest/pmm"
)

// Conn sends webhooks over one connection, one after the other, and connects again
// when the server closed it. An http.Client does the same for twice the processor
// time, in three goroutines, and on a small machine that time is the server's.
// One caller at a time.
type Conn struct {
	target *Target
	req    *http.Request
	conn   net.Conn // nil = not made yet
	ended  func() bool
	r      *bufio.Reader
	w      *bufio.Writer
}

// answerWithin bounds one webhook.
const answerWithin = 60 * time.Second

// NewConn connects with the first Post. The error is that of a bad URL.
func NewConn(t *Target) (*Conn, error) {
	req, err := http.NewRequest(http.MethodPost, t.URL, nil) //nolint:noctx // Post has one
	if err != nil {
		return nil, err
	}
	req.Header = t.Header.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	req.Header.Set("Content-Type", "application/json")
	return &Conn{target: t, req: req}, nil
}

// Post sends one body and reads the whole answer. Once ctx has ended, the connection is closed.
func (c *Conn) Post(ctx context.Context, body []byte) (code int, err error) {
	if c.conn == nil {
		if err := c.dial(ctx); err != nil {
			return 0, err
		}
	}
	code, keep, err := c.post(body)
	if err != nil || !keep {
		c.Close()
	}
	return code, err
}

func (c *Conn) post(body []byte) (code int, keep bool, err error) {
	now := time.Now()
	if err := c.conn.SetDeadline(now.Add(answerWithin)); err != nil {
		return 0, false, err
	}
	if t := c.target; t.HMACSecret != "" {
		pmm.Sign(c.req.Header, t.HMACSecret, t.HMACTimestamp, body, now)
	}
	c.req.Body, c.req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	if err := c.req.Write(c.w); err != nil {
		return 0, false, err
	}
	if err := c.w.Flush(); err != nil {
		return 0, false, err
	}
	resp, err := http.ReadResponse(c.r, c.req)
	if err != nil {
		return 0, false, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, !resp.Close, errors.Join(err, resp.Body.Close())
}

func (c *Conn) dial(ctx context.Context) error {
	u, port := c.req.URL, "80"
	dial := (&net.Dialer{}).DialContext
	if u.Scheme == "https" {
		port, dial = "443", (&tls.Dialer{Config: c.target.TLS}).DialContext
	}
	if u.Port() != "" {
		port = u.Port()
	}
	conn, err := dial(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return err
	}
	c.conn, c.ended = conn, context.AfterFunc(ctx, func() { _ = conn.Close() })
	c.r, c.w = bufio.NewReader(conn), bufio.NewWriterSize(conn, 64<<10)
	return nil
}

// Close closes the connection, if there is one. Post makes another.
func (c *Conn) Close() {
	if c.conn != nil {
		c.ended()
		_ = c.conn.Close()
		c.conn = nil
	}
}
