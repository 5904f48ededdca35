package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/ingest/outbound"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose"
)

// callgoose sends a request that asks for nothing, by the service's own client: where it
// gets no answer, the step that failed is the finding.
func (e *examination) callgoose(ctx context.Context) {
	s := e.Settings
	u, err := url.Parse(s.CallgooseURL)
	if err != nil || u.Host == "" {
		e.skip("callgoose", "no --callgoose-url is set")
		return
	}
	network, err := outbound.Transport(s.CallgooseCA)
	if err != nil {
		e.fail("callgoose tls", fix("Name a file with certificates in PEM form, readable for the service's user, with --callgoose-ca."), "%s", err)
		return
	}
	network.Proxy = e.Proxy
	defer network.CloseIdleConnections()
	proxy, err := e.Proxy(&http.Request{URL: u})
	if err != nil {
		e.fail("callgoose proxy", fix("Correct HTTPS_PROXY or HTTP_PROXY, for example http://proxy.example:3128."), "the proxy's address in the environment is not one")
		return
	}
	way := "without a proxy"
	if proxy != nil {
		way = fmt.Sprintf("through the proxy %s://%s, from the environment here", proxy.Scheme, proxy.Host)
	}
	net, known := &recorder{next: network}, s.CallgooseToken.IsSet()
	client, err := callgoose.New(callgoose.Config{
		URL: s.CallgooseURL, From: s.CallgooseFrom, Query: s.CallgooseAuth == "query", Timeout: max(s.Timeout, timeout), Transport: net,
		Token: func() string { return cmp.Or(s.CallgooseToken.Reveal(), "not-readable-here") },
	})
	if err != nil {
		e.fail("callgoose http", fix("See --callgoose-url."), "%s", err)
		return
	}
	start := time.Now()
	reply, err := client.Send(ctx, []byte(`{"status":"check","source":"pmm-callgoose doctor","title":"pmm-callgoose doctor","description":"asks for nothing"}`))
	took := round(time.Since(start))
	sent, _ := errors.AsType[*callgoose.Error](err)
	switch {
	case err == nil && reply.Effect == "created":
		e.warn("callgoose token", fix("Let the trigger ask for \"status\" / firing: now every request opens an incident, recoveries too. Close the one of this check."),
			"accepted, but a filter opened an incident for a request that is not firing (%d in %s)", reply.Status, took)
	case err == nil && reply.Effect == "unknown":
		e.fail("callgoose http", fix(whole, "Ask the address yourself (curl -i): a proxy, a login page or another server may answer there."),
			"answered %d without anything that Callgoose says: events count as delivered, and nobody knows whether anybody was called", reply.Status)
	case err == nil:
		e.ok("callgoose token", "accepted: %d in %s, %s", reply.Status, took, way)
		e.skip("callgoose filters", "to check them opens an incident and may call people: pmm-callgoose send-test")
	case sent == nil:
		e.fail("callgoose http", fix("See --callgoose-url."), "%s", err)
	case sent.Status == 0:
		e.unanswered(sent, u)
	case !known && (sent.Status == http.StatusUnauthorized || sent.Status == http.StatusForbidden):
		e.ok("callgoose", "answers in %s, %s", took, way)
		e.skip("callgoose token", "the token cannot be read from here; run this as the service's user, or see pmm-callgoose send-test")
	default:
		e.refused(sent)
	}
	e.answer(net)
}

// unanswered says why there was no answer from the host of u, by the step that failed.
func (e *examination) unanswered(err *callgoose.Error, u *url.URL) {
	at := net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), map[string]string{"https": "443", "http": "80"}[u.Scheme]))
	way := map[string][]string{
		"dns": fix("Look for a typing error in the name. Try: getent hosts NAME",
			"Does this machine have a resolver (/etc/resolv.conf) that knows names outside? A container may have none."),
		"proxy": fix("Look at HTTPS_PROXY: is it really an HTTP proxy, and are user and password in it (http://USER:PASSWORD@HOST:PORT)?",
			"The proxy's administrator must allow CONNECT to "+at+". Or, if there is a way without it: NO_PROXY="+u.Hostname()),
		"connect": fix("Something must listen there, and a firewall must let TCP to "+at+" out.", "Is there a proxy for the way out? Set HTTPS_PROXY for the service."),
		"tls": fix("An unknown authority: your own Callgoose, or a proxy that looks into TLS? Name its certificate (PEM) with --callgoose-ca. In a container: are ca-certificates installed?",
			"Another name: use the one of the certificate in --callgoose-url, or another server answers there. Not valid now: look at this machine's clock (timedatectl).",
			"No TLS at all: look at the port and at https:// in --callgoose-url. Compare: openssl s_client -connect "+at),
	}[err.Step]
	if way == nil {
		way = fix("Connections work up to here, the request does not: try again, then look at proxies and firewalls on the way.")
	}
	e.fail("callgoose "+err.Step, way, "%s", err)
	if e.Service != nil && e.Service.Callgoose.State == event.Up {
		e.warn("callgoose", fix("Run doctor with the variables of the service: HTTPS_PROXY, HTTP_PROXY, NO_PROXY (systemctl show -p Environment pmm-callgoose)."),
			"the service does reach it: its way out may differ from the one used here")
	}
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

const whole = "Copy the whole URL, with its path, from API Token in Callgoose into --callgoose-url."

// refused says what an answer that is no success means.
func (e *examination) refused(err *callgoose.Error) {
	switch status := err.Status; {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		e.fail("callgoose token", fix("Is the token revoked, or of another organisation? Put a valid one (a Service token) into "+e.tokenFile(),
			"If Callgoose wants it in the URL: --callgoose-auth query."), "refused: %s", err)
	case status == http.StatusProxyAuthRequired:
		e.fail("callgoose http", fix("Put user and password into HTTPS_PROXY."), "%s", err)
	case err.Foreign:
		e.fail("callgoose http", fix(whole, "The URL is right? Then look at proxies and firewalls on the way (HTTPS_PROXY, NO_PROXY)."), "%s", err)
	case status == http.StatusNotFound, status == http.StatusMethodNotAllowed, status/100 == 3:
		e.fail("callgoose http", fix(whole), "the address is wrong: %s", err)
	case status == http.StatusTooManyRequests:
		e.warn("callgoose http", fix("Lower --rate if this goes on."), "%s", err)
	case status >= 500 || status == http.StatusRequestTimeout:
		e.fail("callgoose http", fix("Nothing to do here: events wait on disk and go out by themselves. If it lasts, tell Callgoose."), "%s", err)
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

// answer checks what else the last answer shows: how long the certificate lasts, and
// Callgoose's clock.
func (e *examination) answer(net *recorder) {
	if !net.ends.IsZero() && time.Until(net.ends) < 3*24*time.Hour {
		e.warn("callgoose tls", fix("Tell those who run it: when it ends, events wait."), "its certificate ends at %s", net.ends.UTC().Format(time.RFC3339))
	}
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

// recorder passes one request after the other on, and notes what answers say of time.
type recorder struct {
	next http.RoundTripper
	date time.Time // of the last answer
	at   time.Time // ours, in the middle of that request
	ends time.Time // of the certificate; zero = there was none
}

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	start := time.Now()
	resp, err := r.next.RoundTrip(req)
	if err != nil {
		return resp, err
	}
	if resp.TLS != nil {
		r.ends = resp.TLS.PeerCertificates[0].NotAfter
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
	var late interface{ Timeout() bool }
	if errors.As(err, &late) && late.Timeout() {
		return "no answer in time"
	}
	return text.Short(200, err.Error())
}
