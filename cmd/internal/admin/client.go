package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/redact"
	"pmm-callgoose/worker/callgoose/filters"
)

// Intent is the header that a call over TCP needs which changes something and
// does not show the operators' token. A form cannot send it, nor do webhooks.
const Intent = "X-Pmm-Callgoose"

// ErrNoService says that nothing answers there.
var ErrNoService = errors.New("no running service")

// ErrSilent says that a service is there and answers nothing.
var ErrSilent = errors.New("does not answer")

// NoPath is what a service answers with 404 for a path that it does not have.
const NoPath = "no such path"

// silentAfter is how long a service may take to say that it is alive.
const silentAfter = 5 * time.Second

// ErrNotFound says that no event has this id.
var ErrNotFound = errors.New("no such event")

// Client asks a running service. Safe concurrently.
type Client struct {
	base  string
	token string
	where string
	http  http.Client
}

// NewSocketClient asks through the socket in the data directory.
func NewSocketClient(dataDir string) *Client {
	path := filepath.Join(dataDir, SocketName)
	return &Client{base: "http://admin", where: path, http: http.Client{CheckRedirect: stay, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			short, done, err := shortPath(path)
			if err != nil {
				return nil, err
			}
			defer done()
			var d net.Dialer
			return d.DialContext(ctx, "unix", short)
		},
	}}}
}

// NewURLClient asks the service at base, with the operators' token. ca is a PEM file
// of the authorities that its certificate must come from; "" = those of the system.
func NewURLClient(base, token, ca string) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("--admin-url is not an http(s) URL such as http://127.0.0.1:4668")
	}
	c := &Client{base: strings.TrimSuffix(base, "/"), token: token, where: u.Scheme + "://" + u.Host, http: http.Client{CheckRedirect: stay}}
	if ca == "" {
		return c, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("--admin-ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--admin-ca: %s holds no PEM certificate", ca)
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	c.http.Transport = t
	return c, nil
}

// stay follows no redirect: it would lead the token, or the call, elsewhere.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Event asks for one event.
func (c *Client) Event(ctx context.Context, id string) (*Detail, error) {
	d := &Detail{Row: Row{Record: &event.Record{}}}
	if err := c.call(ctx, http.MethodGet, "/api/v1/events/"+url.PathEscape(id), nil, nil, d); err != nil {
		return nil, err
	}
	// The row's own fields hide those of the record when it is read, too.
	d.Record.Labels = d.Row.Labels
	if d.Row.SettledAt != nil {
		d.Record.SettledAt = *d.Row.SettledAt
	}
	return d, nil
}

// Tail calls fn with every event that comes in or changes, until ctx ends.
func (c *Client) Tail(ctx context.Context, q url.Values, fn func(*event.Record) error) error {
	resp, err := c.do(ctx, http.MethodGet, "/api/v1/events/tail", q, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	dec := json.NewDecoder(resp.Body)
	for {
		r := &event.Record{}
		switch err := dec.Decode(r); {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("%w any more at %s", ErrNoService, c.where)
		}
		if err := fn(r); err != nil {
			return err
		}
	}
}

// Ask asks one thing of the API, such as "GET /api/v1/status", with these parameters,
// and returns the answer.
func Ask[T any](ctx context.Context, c *Client, what string, q url.Values) (answer T, err error) {
	method, path, _ := strings.Cut(what, " ")
	err = c.call(ctx, method, path, q, nil, &answer)
	return answer, err
}

// Status asks for the state of the service.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return Ask[Status](ctx, c, "GET /api/v1/status", nil)
}

func (c *Client) call(ctx context.Context, method, path string, q url.Values, body io.Reader, into any) error {
	resp, err := c.do(ctx, method, path, q, body)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	most := int64(maxAnswer)
	if large.MatchString(path) {
		most = maxEvents
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, most)).Decode(into)
	if _, ok := errors.AsType[*json.SyntaxError](err); ok {
		return c.another()
	}
	if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("the answer of %s cannot be read: it is another program, or of another version than this command", c.where)
	}
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.where, err)
	}
	return nil
}

// The bounds of what is read of one answer: a list has at most MaxLimit events,
// a detail the body that PMM sent and the one made of it.
const (
	maxAnswer = 4 << 20
	maxEvents = 256 << 20
)

var large = regexp.MustCompile(`^/api/v1/(events|incidents|filters)\b`)

// do sends a request. How long an answer may take depends on what is asked, so it asks
// first whether the service is alive: one that is stopped or stuck takes connections,
// and would be waited for without end.
func (c *Client) do(ctx context.Context, method, path string, q url.Values, body io.Reader) (*http.Response, error) {
	short, cancel := context.WithTimeout(ctx, silentAfter)
	defer cancel()
	alive, err := c.send(short, http.MethodGet, "/healthz", nil, nil)
	if err == nil {
		_ = alive.Body.Close()
	} else if errors.Is(err, ErrSilent) {
		return nil, err
	}
	return c.send(ctx, method, path, q, body)
}

func (c *Client) send(ctx context.Context, method, path string, q url.Values, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path+"?"+q.Encode(), body)
	if err != nil {
		return nil, err
	}
	req.Header.Set(Intent, "1")
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, fmt.Errorf("the service at %s %w", c.where, ErrSilent)
		}
		if unread, ok := errors.AsType[*fs.PathError](err); ok && body != nil {
			return nil, unread // what is to be sent: a directory, a disk that fails
		}
		if errors.Is(err, os.ErrPermission) {
			return nil, fmt.Errorf("no permission to ask the service at %s: run this as its user", c.where)
		}
		if _, ok := errors.AsType[*net.DNSError](err); ok {
			return nil, fmt.Errorf("%w at %s: there is no such host", ErrNoService, c.where)
		}
		if bad, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
			return nil, fmt.Errorf("the certificate of %s is not trusted (%w); --admin-ca names the file of its authority, or of the certificate itself", c.where, bad.Err)
		}
		return nil, fmt.Errorf("%w at %s", ErrNoService, c.where)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct{ Error string }
	said, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if json.Unmarshal(said, &answer) != nil || answer.Error == "" {
		if resp.StatusCode == http.StatusNotFound {
			return nil, c.another()
		}
		answer.Error = "status " + strconv.Itoa(resp.StatusCode)
	}
	if to := resp.Header.Get("Location"); resp.StatusCode/100 == 3 && to != "" {
		answer.Error += ", a redirect, which is not followed, to " + to
	}
	answer.Error = text.Short(1000, redact.New(c.token).String(answer.Error)) // whoever answers knows the token, and may show it
	if resp.StatusCode == http.StatusNotFound && answer.Error == ErrNotFound.Error() {
		return nil, fmt.Errorf("%w: %s (settled events go after --retention)", ErrNotFound, strings.TrimPrefix(path, "/api/v1/events/"))
	}
	if resp.StatusCode == http.StatusNotFound && answer.Error == NoPath {
		return nil, fmt.Errorf("the service at %s does not know this yet: it is of another version than this command (pmm-callgoose version, and status)", c.where)
	}
	if resp.StatusCode == http.StatusNotFound && strings.HasPrefix(answer.Error, "no such path: webhooks") {
		return nil, fmt.Errorf("%s is the address for PMM's webhooks; operators have one of their own (--admin-listen)", c.where)
	}
	return nil, errors.New(answer.Error)
}

// another is the error when some other program answers.
func (c *Client) another() error {
	return fmt.Errorf("%w at %s: what answers there is another program", ErrNoService, c.where)
}

// Forecast asks what Callgoose would do under filters, given as the text of their
// file, with the stored events since a time (see ParseTime).
func (c *Client) Forecast(ctx context.Context, file []byte, since string) (r filters.Report, err error) {
	return r, c.call(ctx, http.MethodPost, "/api/v1/filters/test", url.Values{"since": {since}}, bytes.NewReader(file), &r)
}

// Check says whether what waits, what is remembered and what is stored agree, and whether
// the settings are those of a start now.
type Check struct {
	// Problems is empty when all is well.
	Problems []string `json:"problems"`
	Records  int      `json:"records"`
	Queued   int      `json:"queued"`
	Open     int      `json:"open_alerts"`

	Changed []config.Change `json:"changed_settings"`
	Refused config.Problems `json:"next_start_refuses"` // why there would be none
}
