package pmm

import (
	"bytes"
	"cmp"
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
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pmm-callgoose/ingest/outbound"
)

// ClientConfig says which PMM is asked, and as whom.
type ClientConfig struct {
	// URL is where PMM is, https://pmm.example.net. Grafana's path /graph may be
	// part of it. No user or password inside.
	URL string
	// Token is a service account token (PMM 3) or an API key (PMM 2). Either it or
	// Basic, "user:password", is needed; the token wins.
	Token string
	Basic string
	// CAFile holds further certificate authorities in PEM, "" = the system's. It may
	// also hold the very certificate of PMM: that one is then accepted under any
	// name, since the one that PMM makes itself names no host
	// (percona/pmm:build/ansible/roles/nginx/files/ssl).
	CAFile string
	// InsecureSkipVerify accepts any certificate: an attacker on the way can then read
	// the token.
	InsecureSkipVerify bool
	// Timeout bounds one request. 0 = 15s.
	Timeout time.Duration
	// Waiting is called once when Plan has to wait, at most a minute, until Grafana has
	// made the alerting configuration of a new organisation. nil = it does not wait.
	Waiting func(why error)
	// Transport replaces the network in tests. nil = HTTP with the proxy of the
	// environment (HTTP_PROXY, HTTPS_PROXY, NO_PROXY).
	Transport http.RoundTripper
}

// Client asks the HTTP API of one PMM. Safe concurrently.
type Client struct {
	cfg     ClientConfig
	host    string
	base    string // without a slash at the end
	secrets []string
}

// NewClient checks cfg and reads the CA file. It makes no connection.
func NewClient(cfg ClientConfig) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	switch {
	case err != nil, u.Host == "", u.Scheme != "http" && u.Scheme != "https", u.User != nil, u.RawQuery != "", u.Fragment != "":
		return nil, errors.New("the URL of PMM is not of the form https://host; a token or password belongs into a file") // the parser's error would print it
	case cfg.Token == "" && cfg.Basic == "":
		return nil, errors.New("PMM asks for a token, and none is given: make a service account with the role Editor, or Viewer to read only (PMM 2: an API key with the role Admin), and put its token into a file")
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, 15*time.Second)
	if cfg.Transport == nil {
		if cfg.InsecureSkipVerify {
			cfg.CAFile = ""
		}
		t, err := outbound.Transport(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("PMM's CA: %w", err)
		}
		t.TLSClientConfig.InsecureSkipVerify = cfg.InsecureSkipVerify // #nosec G402 -- --pmm-insecure-skip-verify
		if cfg.CAFile != "" {
			underAnyName(t.TLSClientConfig, u.Hostname())
		}
		cfg.Transport = t
	}
	_, password, _ := strings.Cut(cfg.Basic, ":")
	return &Client{
		cfg: cfg, host: u.Host, base: u.Scheme + "://" + u.Host + strings.TrimSuffix(strings.TrimRight(u.EscapedPath(), "/"), "/graph"),
		secrets: []string{cfg.Token, cfg.Basic, password},
	}, nil
}

// underAnyName makes a connection accept a certificate that is itself one of the
// authorities under any name, also when it has expired, and all others as usual.
func underAnyName(t *tls.Config, host string) {
	t.InsecureSkipVerify = true // VerifyConnection does it instead
	t.VerifyConnection = func(cs tls.ConnectionState) error {
		leaf, chain := cs.PeerCertificates[0], x509.NewCertPool()
		for _, c := range cs.PeerCertificates[1:] {
			chain.AddCert(c)
		}
		with := x509.VerifyOptions{Roots: t.RootCAs, Intermediates: chain, CurrentTime: leaf.NotAfter}
		if found, err := leaf.Verify(with); err == nil && len(found[0]) == 1 {
			return nil // the handshake has proved that the other side has its key
		}
		with.CurrentTime, with.DNSName = time.Time{}, cmp.Or(cs.ServerName, host) // the first is empty for an address
		_, err := leaf.Verify(with)
		return err
	}
}

// Host is the host and port that is asked.
func (c *Client) Host() string { return c.host }

// IsLoopback reports whether the host of a URL is the very machine that uses the URL.
func IsLoopback(rawURL string) bool {
	u, err := url.Parse(rawURL)
	if err != nil {
		return false
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	ip := net.ParseIP(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
}

// APIError says which request to PMM failed, and how. Its text is one line and
// holds no credential.
type APIError struct {
	Doing  string // what was tried: "read the contact points"
	Status int    // of the answer, 0 when there was none
	text   string
	// unconfigured: Grafana has no alerting configuration of the organisation yet.
	unconfigured bool
}

func (e *APIError) Error() string { return e.Doing + ": " + e.text }

// ErrTooOld is the error of a PMM whose Grafana has no alerting.
var ErrTooOld = errors.New("needs PMM 2.31 or later, where Grafana's alerting begins; upgrade PMM, or send with a webhook_config of its Alertmanager")

// Version is what PMM says about itself. Either may be empty: PMM's own version
// needs a token that PMM accepts, and Grafana can be configured to hide its version.
type Version struct {
	PMM     string `json:"version"`
	Grafana string `json:"grafana"`
}

func (v Version) String() string {
	switch {
	case v.PMM == "":
		return "PMM of unknown version, Grafana " + v.Grafana
	case v.Grafana == "":
		return "PMM " + v.PMM
	}
	return "PMM " + v.PMM + ", Grafana " + v.Grafana
}

// SignsWebhooks reports whether its Grafana can sign webhooks (HMAC). It begins
// with Grafana 11.6 (grafana/alerting 2acbeef2), that is with PMM 3.2.
func (v Version) SignsWebhooks() bool {
	if v.Grafana != "" {
		return atLeast(v.Grafana, 11, 6)
	}
	return atLeast(v.PMM, 3, 2)
}

// atLeast compares the first two numbers of a version. "2.31.0-rc" is 2.31.
func atLeast(version string, major, minor int) bool {
	first, rest, _ := strings.Cut(version, ".")
	second, _, _ := strings.Cut(rest, ".")
	second, _, _ = strings.Cut(second, "-")
	a, err1 := strconv.Atoi(first)
	b, err2 := strconv.Atoi(second)
	return err1 == nil && err2 == nil && (a > major || a == major && b >= minor)
}

// Version asks for the versions, and refuses a PMM that is too old with ErrTooOld.
//
// PMM 3 answers at /v1/server/version, PMM 2 at /v1/version; both want a token.
// PMM 2 answers 401 "Access denied." to a path it does not know, unless the user is
// Grafana's own administrator (percona/pmm:managed/services/grafana/auth_server.go),
// so only the second refusal counts. Grafana's health answers anybody.
func (c *Client) Version(ctx context.Context) (Version, error) {
	var v Version
	var answer struct {
		Version string `json:"version"`
	}
	err := c.do(ctx, request{doing: "read the version of PMM", path: "/v1/server/version", out: &answer})
	if e, ok := errors.AsType[*APIError](err); ok && e.Status >= 400 && e.Status < 500 {
		err = c.do(ctx, request{doing: "read the version of PMM", path: "/v1/version", out: &answer})
	}
	if err != nil {
		return v, err
	}
	v.PMM = oneLine(answer.Version, c.secrets...)
	if v.PMM != "" && !atLeast(v.PMM, 2, 31) {
		return v, fmt.Errorf("this is PMM %s: %w", v.PMM, ErrTooOld)
	}
	// Without it the version of PMM decides what can be used.
	if v.Grafana, err = c.grafana(ctx); ctx.Err() != nil {
		return v, err
	}
	return v, nil
}

// grafana asks for the version of Grafana, "" where that is hidden.
func (c *Client) grafana(ctx context.Context) (string, error) {
	var answer struct{ Version string }
	err := c.do(ctx, request{doing: "read the version of Grafana", path: "/graph/api/health", out: &answer})
	return oneLine(answer.Version, c.secrets...), err
}

// request is one call of the API.
type request struct {
	doing  string // for errors
	method string // "" = GET
	path   string
	body   []byte
	// editable asks Grafana not to lock the object against changes in its pages.
	editable bool
	secrets  []string // what the body holds and no error may repeat
	out      any      // what the JSON of the answer goes to; nil = ignored
	header   *http.Header
}

// maxAnswer bounds one answer, in bytes: 50,000 alerts are 28 to 40 MB. maxValues bounds
// what it holds, which takes memory however short it is: an alert has thirty to sixty.
const (
	maxAnswer = 64 << 20
	maxValues = 4_000_000
)

func (c *Client) do(ctx context.Context, r request) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	secrets := slices.Concat(c.secrets, r.secrets)
	fail := func(status int, format string, args ...any) *APIError {
		return &APIError{Doing: r.doing, Status: status, text: oneLine(fmt.Sprintf(format, args...), secrets...)}
	}
	req, err := http.NewRequestWithContext(ctx, r.method, c.base+r.path, bytes.NewReader(r.body))
	if err != nil {
		return fail(0, "cannot build the request")
	}
	if c.cfg.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.cfg.Token)
	} else {
		user, password, _ := strings.Cut(c.cfg.Basic, ":")
		req.SetBasicAuth(user, password)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "pmm-callgoose")
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.editable {
		req.Header.Set("X-Disable-Provenance", "true")
	}
	// Not through http.Client: it would carry the token to wherever a redirect leads.
	resp, err := c.cfg.Transport.RoundTrip(req)
	if err != nil {
		return fail(0, "%s", c.why(ctx, err))
	}
	defer func() { _ = resp.Body.Close() }()
	if r.header != nil {
		*r.header = resp.Header
	}
	return r.read(resp, secrets, fail)
}

// read judges an answer, and decodes it.
func (r request) read(resp *http.Response, secrets []string, fail func(status int, format string, args ...any) *APIError) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch status := resp.StatusCode; {
	case status >= 300 && status < 400:
		return fail(status, "PMM answered with a redirect to %s; is this the address of PMM itself, with https?", plainURL(resp.Header.Get("Location")))
	case status < 200 || status > 299:
		said := readRefusal(body, secrets)
		e := fail(status, "PMM answered %d %s%s", status, http.StatusText(status), said.advice(status))
		e.unconfigured = said.id == configMissing
		return e
	case err != nil:
		return fail(status, "the answer of PMM broke off: %s", outbound.Cause(err))
	case len(body) > maxAnswer:
		return fail(status, "the answer of PMM is larger than %d MiB", maxAnswer>>20)
	case bytes.Count(body, []byte(",")) > maxValues:
		return fail(status, "the answer of PMM holds more than %d values", maxValues)
	case r.out == nil:
		return nil
	}
	if err := json.Unmarshal(body, r.out); err != nil {
		if bytes.HasPrefix(bytes.TrimSpace(body), []byte("<")) {
			return fail(resp.StatusCode, "PMM answered with a web page (%s) where JSON was expected; is this the address of PMM itself?", readRefusal(body, secrets).text)
		}
		return fail(resp.StatusCode, "the answer of PMM cannot be read: it is not the JSON that is documented")
	}
	return nil
}

// plainURL is a URL without user and query, which may hold secrets.
func plainURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "an unreadable address"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

var (
	titleTag = regexp.MustCompile(`(?is)<title[^>]*>(.*?)</title>`)
	anyTag   = regexp.MustCompile(`(?s)<[^>]*>`)
)

// refusal is what an answer says for people, and the name that Grafana has for it.
type refusal struct{ text, id string }

// readRefusal reads one. Grafana answers {"message":…}, its access control also
// {"title":…}, pmm-managed {"error":…,"message":…}, nginx a page. Secrets are taken out
// before the text is cut: half of one would not be found.
func readRefusal(body []byte, secrets []string) refusal {
	var a struct{ Message, Error, MessageID string }
	if json.Unmarshal(body, &a) == nil {
		return refusal{oneLine(cmp.Or(a.Message, a.Error), secrets...), a.MessageID}
	}
	text := string(body[:min(len(body), 64<<10)])
	if m := titleTag.FindStringSubmatch(text); m != nil {
		text = m[1]
	}
	return refusal{text: oneLine(html.UnescapeString(anyTag.ReplaceAllString(text, " ")), secrets...)}
}

// advice is what a refusal says and what to do about it.
//
// The permissions that Grafana 12 names to a Viewer hold the word "provenance"
// themselves (alert.provisioning.provenance:write), so what says "Permissions
// needed" is about the role, whatever else it says. An Editor may do all that setup
// does since Grafana 11 (grafana/grafana PR 85022), and a Viewer may read; before,
// the whole API was for the Admin (PR 50366).
func (r refusal) advice(status int) string {
	text := r.text
	if text != "" {
		text = ": " + text
	}
	switch {
	case status == http.StatusUnauthorized:
		return text + " (the token or password is not accepted: wrong, expired, or of another PMM)"
	case status == http.StatusForbidden && strings.Contains(text, "Permissions needed"):
		return text + " (the role of the service account does not allow it: setup pmm needs Editor, in PMM 2 Admin; Viewer is enough for --dry-run, doctor and reconcile)"
	case r.id == "alerting.notifications.invalidProvenance", r.id == "" && strings.Contains(text, "provenance"):
		return text + " (it was made from a file or by another tool, which has to change it)"
	case status == http.StatusForbidden:
		return text + " (the service account needs the role Editor, in PMM 2 Admin)"
	case r.id == configMissing:
		return text + " (Grafana makes the alerting configuration of a new organisation within a minute; try again)"
	case status == http.StatusNotFound:
		return text + " (is this the address of PMM itself, and is alerting switched on in its settings?)"
	case status == http.StatusServiceUnavailable, status == http.StatusBadGateway, status == http.StatusGatewayTimeout:
		return text + " (PMM is starting, being updated, or behind a proxy that cannot reach it; try again)"
	}
	return text
}

// configMissing is what a new organisation answers with 500 until its Alertmanager
// is there (grafana/grafana:pkg/services/ngalert/notifier/legacy_storage/errors.go).
const configMissing = "alerting.notification.configMissing"

// why says in words what an error of the transport means. No header is in its texts.
func (c *Client) why(ctx context.Context, err error) string {
	var (
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		record   tls.RecordHeaderError
	)
	step, text := outbound.Explain(err)
	switch {
	case ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded):
		return "interrupted"
	case step == "proxy":
	case errors.As(err, &unknown):
		return "the authority that signed the certificate of PMM is not known here; give it, or the certificate itself, with --pmm-ca"
	case errors.As(err, &hostname):
		return fmt.Sprintf("the certificate of PMM is for another name: %s; use that name in the URL, or give the certificate itself with --pmm-ca", hostname.Error())
	case errors.As(err, &record), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return fmt.Sprintf("%s does not speak TLS; is it plain http://, or another port?", c.Host())
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("cannot connect to %s: nothing listens there", c.Host())
	case step == "timeout":
		return fmt.Sprintf("no answer from %s in %s", c.Host(), c.cfg.Timeout)
	case step == "" || step == "reset":
		return fmt.Sprintf("the connection to %s failed: %s", c.Host(), outbound.Cause(err))
	}
	return text
}

// oneLine is a text from outside for people, without the secrets that it may repeat.
func oneLine(text string, secrets ...string) string {
	return outbound.Line(text, 600, secrets...)
}
