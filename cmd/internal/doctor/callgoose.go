package doctor

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
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
	if e.connect(ctx, u, network.TLSClientConfig.RootCAs) {
		e.token(ctx, &recorder{next: network})
		return
	}
	e.skip("callgoose token", "not reached")
	if e.Service != nil && e.Service.Callgoose.State == "up" {
		e.warn("callgoose", fix("Run doctor with the variables of the service: HTTPS_PROXY, HTTP_PROXY, NO_PROXY (systemctl show -p Environment pmm-callgoose)."),
			"the service does reach it: its way out is another one than that from here")
	}
}

// connect goes as far as a connection on which a request could be sent.
func (e *examination) connect(ctx context.Context, u *url.URL, roots *x509.CertPool) bool {
	host, port := u.Hostname(), u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	target := net.JoinHostPort(host, port)
	proxy, err := e.Proxy(&http.Request{URL: u})
	if err != nil {
		e.fail("callgoose proxy", fix("Correct HTTPS_PROXY or HTTP_PROXY, for example http://proxy.example:3128."), "the proxy's address in the environment is not one")
		return false
	}
	first, role := target, "Callgoose"
	if proxy == nil {
		e.ok("callgoose proxy", "none for %s", host)
	} else {
		e.ok("callgoose proxy", "%s://%s for %s, as the environment here says", proxy.Scheme, proxy.Host, host)
		role = "the proxy"
		first = net.JoinHostPort(proxy.Hostname(), cmp.Or(proxy.Port(), map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[proxy.Scheme]))
	}
	conn, ok := e.reach(ctx, first, role)
	if !ok {
		return false
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(e.Timeout))
	if proxy != nil {
		if proxy.Scheme != "http" || u.Scheme != "https" {
			return true // the request itself will tell
		}
		if !e.throughProxy(conn, proxy, target) {
			return false
		}
	}
	if u.Scheme != "https" {
		e.ok("callgoose tls", "none: the URL is plain http")
		return true
	}
	return e.handshake(ctx, conn, host, roots)
}

// reach resolves and dials one address.
func (e *examination) reach(ctx context.Context, addr, role string) (net.Conn, bool) {
	host, port, _ := net.SplitHostPort(addr)
	addrs := []string{host}
	if net.ParseIP(host) == nil {
		looking, cancel := context.WithTimeout(ctx, e.Timeout)
		defer cancel()
		var err error
		if addrs, err = net.DefaultResolver.LookupHost(looking, host); err != nil {
			e.fail("callgoose dns", fix("Look for a typing error in the name. Try: getent hosts "+host,
				"Does this machine have a resolver (/etc/resolv.conf) that knows names outside? A container may have none."), "the name of %s, %s, cannot be resolved: %s", role, host, plain(err))
			return nil, false
		}
		e.ok("callgoose dns", "%s is %s", host, strings.Join(addrs, ", "))
	}
	var err error
	for _, ip := range addrs {
		start := time.Now()
		var conn net.Conn
		if conn, err = e.dial(ctx, net.JoinHostPort(ip, port)); err == nil {
			e.ok("callgoose tcp", "%s answers in %s", net.JoinHostPort(ip, port), round(time.Since(start)))
			return conn, true
		}
	}
	way := "A firewall must let TCP to " + addr + " out."
	if errors.Is(err, syscall.ECONNREFUSED) {
		way = "Nothing listens there, or a firewall refuses: look at the port, and let TCP to " + addr + " out."
	}
	e.fail("callgoose tcp", fix(way, "Is there a proxy for the way out? Set HTTPS_PROXY for the service."), "%s at %s cannot be connected to: %s", role, addr, plain(err))
	return nil, false
}

// throughProxy asks the proxy for a tunnel.
func (e *examination) throughProxy(conn net.Conn, proxy *url.URL, target string) bool {
	req := "CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n"
	if user := proxy.User; user != nil {
		password, _ := user.Password()
		req += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)) + "\r\n"
	}
	_, err := conn.Write([]byte(req + "\r\n"))
	var resp *http.Response
	if err == nil {
		resp, err = http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: http.MethodConnect})
	}
	if err != nil {
		e.fail("callgoose connect", fix("Is that really an HTTP proxy? See HTTPS_PROXY."), "the proxy %s gave no usable answer to CONNECT: %s", proxy.Host, plain(err))
		return false
	}
	_ = resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		e.ok("callgoose connect", "the proxy made a tunnel to %s", target)
		return true
	case http.StatusProxyAuthRequired:
		e.fail("callgoose connect", fix("Put user and password into HTTPS_PROXY: http://USER:PASSWORD@"+proxy.Host), "the proxy %s wants credentials (407)", proxy.Host)
	default:
		host, _, _ := net.SplitHostPort(target)
		e.fail("callgoose connect", fix("The proxy's administrator must allow CONNECT to "+target+".", "Or, if there is a way without it: NO_PROXY="+host),
			"the proxy %s answered %d %s to CONNECT %s", proxy.Host, resp.StatusCode, http.StatusText(resp.StatusCode), target)
	}
	return false
}

// handshake makes TLS on conn as the service does.
func (e *examination) handshake(ctx context.Context, conn net.Conn, host string, roots *x509.CertPool) bool {
	client := tls.Client(conn, &tls.Config{ServerName: host, RootCAs: roots, MinVersion: tls.VersionTLS12})
	ctx, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	if err := client.HandshakeContext(ctx); err != nil {
		what, way := tlsTrouble(err, host)
		e.fail("callgoose tls", way, "%s", what)
		return false
	}
	state := client.ConnectionState()
	leaf := state.PeerCertificates[0]
	what := fmt.Sprintf("%s; certificate of %s until %s", tls.VersionName(state.Version), text.Short(200, cmp.Or(leaf.Issuer.CommonName, leaf.Issuer.String())), leaf.NotAfter.UTC().Format(time.DateOnly))
	if time.Until(leaf.NotAfter) < 3*24*time.Hour {
		e.warn("callgoose tls", fix("Tell those who run it: when it ends, events wait."), "%s", what)
		return true
	}
	e.ok("callgoose tls", "%s", what)
	return true
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
			fix("Use the name of the certificate in --callgoose-url. If you do: somebody else answers there (a captive portal, a proxy).")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its certificate is not valid now: " + text.Short(200, invalid.Detail),
			fix("Look at this machine's clock first (timedatectl). If it is right, those who run that server must renew the certificate.")
	case errors.As(err, &record):
		return "what answers there does not speak TLS", fix("Look at the port and at https:// in --callgoose-url. A proxy that answers itself looks so, too.")
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
	client, err := e.client(net)
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
		e.skip("callgoose filters", "checking them opens an incident and may call somebody: pmm-callgoose send-test")
		return
	}
	sent, ok := errors.AsType[*callgoose.Error](err)
	if !ok {
		e.fail("callgoose http", fix("See --callgoose-url."), "%s", err)
		return
	}
	e.refused(sent)
}

func (e *examination) client(net *recorder) (*callgoose.Client, error) {
	s := e.Settings
	return callgoose.New(callgoose.Config{
		URL: s.CallgooseURL, From: s.CallgooseFrom, Token: s.CallgooseToken.Reveal, Query: s.CallgooseAuth == "query",
		Timeout: max(s.Timeout, e.Timeout), Transport: net,
	})
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
	skew, ok := net.skew()
	way := fix("Switch on NTP: timedatectl set-ntp true. Compare PMM's clock too.")
	switch {
	case !ok:
		e.skip("clock", "no answer carried a usable date")
	case skew.Abs() > maxSkew && e.Settings.IngestHMACSecret.IsSet():
		e.fail("clock", way, "this machine's clock is %s off Callgoose's, and PMM's signature is refused beyond %s", skew.Round(time.Second), maxSkew)
	case skew.Abs() > skewed:
		e.warn("clock", way, "this machine's clock is %s off Callgoose's: lateness, signatures and certificates are judged by it", skew.Round(time.Second))
	default:
		e.ok("clock", "within %s of Callgoose's", max(skew.Abs().Round(time.Second), time.Second))
	}
}

// recorder passes requests on and notes what the answers say of the time.
type recorder struct {
	next http.RoundTripper

	mu   sync.Mutex // guards the rest
	date time.Time  // of the last answer
	at   time.Time  // ours, in the middle of that request
}

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	start := time.Now()
	resp, err := r.next.RoundTrip(req)
	if err != nil {
		return resp, err
	}
	if date, perr := http.ParseTime(resp.Header.Get("Date")); perr == nil {
		r.mu.Lock()
		r.date, r.at = date, start.Add(time.Since(start)/2)
		r.mu.Unlock()
	}
	return resp, nil
}

// skew is how far our clock is ahead of theirs, to the second.
func (r *recorder) skew() (time.Duration, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at.Sub(r.date), !r.date.IsZero()
}

// plain is the innermost error, without addresses that are said already.
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
