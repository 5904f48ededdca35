package doctor

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"pmm-callgoose/cmd/internal/text"
)

// intake checks the address that PMM posts to.
func (e *examination) intake(ctx context.Context) {
	if e.Service == nil {
		e.intakeToBe(ctx)
		return
	}
	if why := e.Service.NotReady; why != "" {
		e.fail("intake", fix("PMM gets 503 and keeps its alerts. See the line store of pmm-callgoose status, and the service's log."), "a webhook would be refused: %s", why)
	}
	u, err := url.Parse(e.Service.WebhookURL)
	if err != nil || u.Host == "" {
		e.skip("intake", "the service does not say where it takes webhooks")
		return
	}
	host := u.Hostname()
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	conn, err := (&net.Dialer{Timeout: timeout}).DialContext(ctx, "tcp", net.JoinHostPort(host, u.Port()))
	if err != nil {
		e.fail("intake", fix("The service runs, so a firewall of this machine may be in the way (lo is often forgotten)."), "%s cannot be connected to: %s", e.Service.WebhookURL, plain(err))
		return
	}
	_ = conn.Close()
	if e.Service.NotReady == "" {
		e.ok("intake", "%s answers, and a webhook would be stored", e.Service.WebhookURL)
	}
}

// intakeToBe checks what the intake will need once it is started.
func (e *examination) intakeToBe(ctx context.Context) {
	s := e.Settings
	for _, a := range []struct{ flag, addr string }{{"--listen", s.Listen}, {"--admin-listen", s.AdminListen}} {
		if a.addr == "" {
			continue
		}
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", a.addr)
		if err != nil {
			e.fail("intake", fix("See who listens there (ss -ltnp), or choose another "+a.flag+"."), "%s %s cannot be bound: %s", a.flag, a.addr, plain(err))
			continue
		}
		_ = l.Close()
		e.ok("intake", "%s %s is free", a.flag, a.addr)
	}
}

// soon is how long before its end a certificate is worth a warning.
const soon = 21 * 24 * time.Hour

// served is a certificate that the service shows to others.
type served struct {
	check, file, flag string
	refused           string // what happens without a good one
	url               string // where a name of it has to stand
}

// certificates checks those of the service, which reads the files again when they change.
func (e *examination) certificates() {
	for _, s := range []served{
		{"intake tls", e.Settings.TLSCert, "--tls-cert", "PMM refuses it", "PMM's URL"},
		{"operators tls", e.Settings.AdminTLSCert, "--admin-tls-cert", "browsers and commands refuse it", "--admin-url"},
	} {
		if s.file == "" {
			continue
		}
		if leaf, err := readLeaf(s.file); err != nil {
			e.fail(s.check, fix("Check "+s.flag+": a PEM chain, the service's own certificate first."), "%s cannot be used: %s", s.file, plain(err))
		} else {
			e.certificate(s, leaf)
		}
	}
}

// readLeaf reads the first certificate of a chain in PEM.
func readLeaf(file string) (*x509.Certificate, error) {
	chain, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(chain)
	if block == nil {
		return nil, errors.New("it is not PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}

// certificate says until when a certificate of the service is good, and for whom.
func (e *examination) certificate(s served, c *x509.Certificate) {
	names := c.DNSNames
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	whom := "no name at all: " + s.refused + " unless the check is skipped"
	if len(names) > 0 {
		whom = strings.Join(names, ", ") + ": " + s.url + " must use one of these names"
	}
	left := time.Until(c.NotAfter)
	until := c.NotAfter.UTC().Format(time.DateOnly)
	renew := fix("Put a new pair into " + s.flag + " and its key; they are read again without a restart.")
	switch {
	case time.Now().Before(c.NotBefore):
		e.fail(s.check, fix("Check this machine's clock, and the certificate."), "the certificate is not valid before %s", c.NotBefore.UTC().Format(time.RFC3339))
	case left <= 0:
		e.fail(s.check, renew, "the certificate ended on %s: %s", until, s.refused)
	case left < soon:
		e.warn(s.check, renew, "the certificate ends on %s, in %.0f days", until, left.Hours()/24)
	default:
		e.ok(s.check, "certificate until %s, for %s", until, text.Short(200, whom))
	}
}
