package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/worker/callgoose"
)

// callgoose takes the way of an event step by step, and stops at the one that
// fails: its name is the finding.
func (e *examination) callgoose(ctx context.Context) {
	s := e.Settings
	u, err := url.Parse(s.CallgooseURL)
	if err != nil || u.Host == "" {
		e.skip("callgoose", "no --callgoose-url is set")
		return
	}
	network, err := callgoose.Network(s.CallgooseCA)
	if err != nil {
		e.fail("callgoose tls", fix("Name a file with certificates in PEM form, readable for the service's user, with --callgoose-ca."), "%s", err)
		return
	}
	network.Proxy = e.Proxy
	defer network.CloseIdleConnections()
	if e.connect(ctx, u, network.Clone()) {
		e.token(ctx, &recorder{next: network})
		return
	}
	e.skip("callgoose token", "not reached")
	if e.Service != nil && e.Service.Callgoose.State == "up" {
		e.warn("callgoose", fix("Run doctor with the variables of the service: HTTPS_PROXY, HTTP_PROXY, NO_PROXY (systemctl show -p Environment pmm-callgoose)."),
			"the service does reach it: its way out differs from the one used here")
	}
}

// port is that of a URL, named or usual.
func port(u *url.URL) string {
	return cmp.Or(u.Port(), map[string]string{"https": "443", "http": "80", "socks5": "1080", "socks5h": "1080"}[u.Scheme])
}

// connect makes the service's own transport connect, and tells each step of it: the name,
// TCP, the proxy's tunnel, TLS. It reports whether a request could be sent.
func (e *examination) connect(ctx context.Context, u *url.URL, network *http.Transport) bool {
	ctx, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	target := net.JoinHostPort(u.Hostname(), port(u))
	proxy, err := e.Proxy(&http.Request{URL: u})
	if err != nil {
		e.fail("callgoose proxy", fix("Correct HTTPS_PROXY or HTTP_PROXY, for example http://proxy.example:3128."), "the proxy's address in the environment is not one")
		return false
	}
	first, role := u, "Callgoose"
	if proxy == nil {
		e.ok("callgoose proxy", "none for %s", u.Hostname())
	} else {
		e.ok("callgoose proxy", "%s://%s for %s, from the environment here", proxy.Scheme, proxy.Host, u.Hostname())
		first, role = proxy, "the proxy"
	}
	network.OnProxyConnectResponse = func(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
		e.tunnel(resp, proxy, target)
		return nil // any other than 200 is an error anyway
	}
	before, start := e.Failed, time.Now()
	var reached sync.Once // of several addresses, in goroutines side by side
	met := false
	conn, err := network.NewClientConn(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		DNSDone: func(found httptrace.DNSDoneInfo) {
			var addrs []string
			for _, a := range found.Addrs {
				addrs = append(addrs, a.String())
			}
			if start = time.Now(); found.Err == nil {
				e.ok("callgoose dns", "%s is %s", first.Hostname(), strings.Join(addrs, ", "))
			}
		},
		ConnectDone: func(_, addr string, err error) {
			if err == nil {
				reached.Do(func() {
					met = true
					e.ok("callgoose tcp", "%s answers in %s", addr, round(time.Since(start)))
				})
			}
		},
		TLSHandshakeDone: func(state tls.ConnectionState, err error) { e.handshake(state, err, u.Hostname()) },
	}), u.Scheme, target)
	switch {
	case err == nil:
		if u.Scheme != "https" {
			e.ok("callgoose tls", "none: the URL is plain http")
		}
		_ = conn.Close()
	case e.Failed > before: // the step has said why
	case met:
		e.fail("callgoose connect", fix("Is that really an HTTP proxy? See HTTPS_PROXY."), "%s gave no usable answer: %s", role, plain(err))
	default:
		e.unreached(err, first, role)
	}
	return err == nil
}

// unreached says why there is not even a TCP connection to the host of a URL.
func (e *examination) unreached(err error, to *url.URL, role string) {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		e.fail("callgoose dns", fix("Look for a typing error in the name. Try: getent hosts "+dns.Name,
			"Does this machine have a resolver (/etc/resolv.conf) that knows names outside? A container may have none."), "the name of %s, %s, cannot be resolved: %s", role, dns.Name, dns.Err)
		return
	}
	at := net.JoinHostPort(to.Hostname(), port(to))
	way := "A firewall must let TCP to " + at + " out."
	if errors.Is(err, syscall.ECONNREFUSED) {
		way = "Nothing listens there, or a firewall refuses: look at the port, and let TCP to " + at + " out."
	}
	e.fail("callgoose tcp", fix(way, "Is there a proxy for the way out? Set HTTPS_PROXY for the service."), "%s at %s cannot be connected to: %s", role, at, plain(err))
}

// tunnel judges the proxy's answer to CONNECT.
func (e *examination) tunnel(resp *http.Response, proxy *url.URL, target string) {
	switch resp.StatusCode {
	case http.StatusOK:
		e.ok("callgoose connect", "the proxy made a tunnel to %s", target)
	case http.StatusProxyAuthRequired:
		e.fail("callgoose connect", fix("Put user and password into HTTPS_PROXY: http://USER:PASSWORD@"+proxy.Host), "the proxy %s wants credentials (407)", proxy.Host)
	default:
		host, _, _ := net.SplitHostPort(target)
		e.fail("callgoose connect", fix("The proxy's administrator must allow CONNECT to "+target+".", "Or, if there is a way without it: NO_PROXY="+host),
			"the proxy %s answered %d %s to CONNECT %s", proxy.Host, resp.StatusCode, http.StatusText(resp.StatusCode), target)
	}
}

// handshake judges how TLS with host ended.
func (e *examination) handshake(state tls.ConnectionState, err error, host string) {
	if err != nil {
		what, way := tlsTrouble(err, host)
		e.fail("callgoose tls", way, "%s", what)
		return
	}
	leaf := state.PeerCertificates[0]
	what := fmt.Sprintf("%s; certificate of %s until %s", tls.VersionName(state.Version), text.Short(200, cmp.Or(leaf.Issuer.CommonName, leaf.Issuer.String())), leaf.NotAfter.UTC().Format(time.DateOnly))
	if time.Until(leaf.NotAfter) < 3*24*time.Hour {
		e.warn("callgoose tls", fix("Tell those who run it: when it ends, events wait."), "%s", what)
		return
	}
	e.ok("callgoose tls", "%s", what)
}

func tlsTrouble(err error, host string) (what string, way []string) {
	var (
		unknown  x509.UnknownAuthorityError
		invalid  x509.CertificateInvalidError
		hostname x509.HostnameError
		record   tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &unknown):
		issuer := ""
		if unknown.Cert != nil {
			issuer = text.Short(200, unknown.Cert.Issuer.String())
		}
		return "its certificate is signed by an authority that this machine does not know: " + issuer,
			fix("Is it your own Callgoose, or a proxy that looks into TLS? Get the authority's certificate (PEM) and name it with --callgoose-ca.",
				"In a container: are ca-certificates installed?")
	case errors.As(err, &hostname):
		names := []string(nil)
		if hostname.Certificate != nil {
			names = hostname.Certificate.DNSNames
		}
		return fmt.Sprintf("its certificate is not for %s but for %s", host, cmp.Or(text.Short(200, strings.Join(names, ", ")), "no name")),
			fix("Use the name of the certificate in --callgoose-url. If you do, another server answers there (a captive portal, a proxy).")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its certificate is not valid now: " + text.Short(200, invalid.Detail),
			fix("Look at this machine's clock first (timedatectl). If it is right, those who run that server must renew the certificate.")
	case errors.As(err, &record):
		return "what answers there does not speak TLS", fix("Look at the port and at https:// in --callgoose-url. A proxy that answers by itself looks the same.")
	}
	return "the TLS handshake failed: " + plain(err), fix("A firewall or proxy that looks into TLS may cut it off. Compare: openssl s_client -connect " + host + ":443")
}

// token sends a request that asks for nothing: it shows whether address and
// token are right.
func (e *examination) token(ctx context.Context, net *recorder) {
	if !e.Settings.CallgooseToken.IsSet() {
		e.skip("callgoose token", "the token cannot be read from here; run this as the service's user, or see pmm-callgoose send-test")
		return
	}
	s := e.Settings
	client, err := callgoose.New(callgoose.Config{
		URL: s.CallgooseURL, From: s.CallgooseFrom, Token: s.CallgooseToken.Reveal, Query: s.CallgooseAuth == "query",
		Timeout: max(s.Timeout, e.Timeout), Transport: net,
	})
	if err != nil {
		e.fail("callgoose http", fix("See --callgoose-url."), "%s", err)
		return
	}
	start := time.Now()
	reply, err := client.Send(ctx, []byte(`{"status":"check","source":"pmm-callgoose doctor","title":"pmm-callgoose doctor","description":"asks for nothing"}`))
	took := round(time.Since(start))
	defer e.clock(net)
	if err == nil {
		if reply.Created {
			e.warn("callgoose token", fix("Let the trigger ask for \"status\" / firing: now every request opens an incident, recoveries too. Close the one of this check."),
				"accepted, but a filter opened an incident for a request that is not firing (%d in %s)", reply.Status, took)
			return
		}
		e.ok("callgoose token", "accepted: %d in %s", reply.Status, took)
		e.skip("callgoose filters", "to check them opens an incident and may call people: pmm-callgoose send-test")
		return
	}
	sent, ok := errors.AsType[*callgoose.Error](err)
	if !ok {
		e.fail("callgoose http", fix("See --callgoose-url."), "%s", err)
		return
	}
	e.refused(sent)
}

// tokenFile says where a new token goes, and how it comes to the service. systemd hands
// over a copy made at the start, and restarts the service when the original changes.
func (e *examination) tokenFile() string {
	file := e.Settings.CallgooseToken.File()
	switch {
	case file == "":
		return "the file of --callgoose-token-file, and restart."
	case strings.HasPrefix(file, "/run/credentials/"), strings.HasPrefix(file, config.Etc+"/credentials/"):
		return config.Etc + "/credentials/callgoose-token: the service restarts with it by itself (else: sudo systemctl restart pmm-callgoose)."
	}
	return file + ": the service reads it again by itself."
}

// refused says what an answer that is no success means.
func (e *examination) refused(err *callgoose.Error) {
	const whole = "Copy the whole URL, with its path, from API Token in Callgoose into --callgoose-url."
	switch status := err.Status; {
	case status == 0:
		e.fail("callgoose http", fix("Connections work up to here, the request does not: try again, then look at proxies and firewalls on the way."), "%s", err)
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		e.fail("callgoose token", fix("Is the token revoked, or of another organisation? Put a valid one (a Service token) into "+e.tokenFile(),
			"If Callgoose wants it in the URL: --callgoose-auth query."), "refused: %s", err)
	case status == http.StatusProxyAuthRequired:
		e.fail("callgoose http", fix("Put user and password into HTTPS_PROXY."), "%s", err)
	case status == http.StatusNotFound, status == http.StatusMethodNotAllowed, status/100 == 3:
		e.fail("callgoose http", fix(whole), "the address is wrong: %s", err)
	case status == http.StatusTooManyRequests:
		e.warn("callgoose http", fix("Lower --rate if this goes on."), "%s", err)
	case status >= 500 || status == http.StatusRequestTimeout:
		e.fail("callgoose http", fix("Nothing to be done here: events wait on disk and go out by themselves. If it lasts, tell Callgoose."), "%s", err)
	default:
		e.warn("callgoose token", fix("An empty check may be refused where events are not: see pmm-callgoose send-test."), "not certain: %s", err)
	}
}

// The clocks may differ by so much before it matters. Grafana's signed time is
// refused beyond the second.
const (
	skewed  = 2 * time.Minute
	maxSkew = 5 * time.Minute
)

// clock compares this machine's with the Date of the last answer.
func (e *examination) clock(net *recorder) {
	skew := net.at.Sub(net.date) // how far ours is ahead, to the second
	way := fix("Switch on NTP: timedatectl set-ntp true. Compare PMM's clock too.")
	switch {
	case net.date.IsZero():
		e.skip("clock", "no answer carried a usable date")
	case skew.Abs() > maxSkew && e.Settings.IngestHMACSecret.IsSet():
		e.fail("clock", way, "this machine's clock is %s off Callgoose's, and PMM's signature is refused beyond %s", skew.Round(time.Second), maxSkew)
	case skew.Abs() > skewed:
		e.warn("clock", way, "this machine's clock is %s off Callgoose's: lateness, signatures and certificates are judged by it", skew.Round(time.Second))
	default:
		e.ok("clock", "within %s of Callgoose's", max(skew.Abs().Round(time.Second), time.Second))
	}
}

// recorder passes one request after the other on, and notes what the answers say of the
// time.
type recorder struct {
	next http.RoundTripper
	date time.Time // of the last answer
	at   time.Time // ours, in the middle of that request
}

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	start := time.Now()
	resp, err := r.next.RoundTrip(req)
	if err != nil {
		return resp, err
	}
	if date, perr := http.ParseTime(resp.Header.Get("Date")); perr == nil {
		r.date, r.at = date, start.Add(time.Since(start)/2)
	}
	return resp, nil
}

// plain is the innermost error, without addresses and paths that are said already.
func plain(err error) string {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return dns.Err
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return "no answer in time"
	}
	return text.Short(200, err.Error())
}
