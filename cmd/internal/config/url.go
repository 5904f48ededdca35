package config

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Cleartext tells whether what is sent to a URL can be read on the way to another
// machine: plain http is for loopback, or needs --allow-http.
func Cleartext(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && u.Scheme == "http" && !loopback(u.Hostname())
}

// hideURL shows scheme and host of a URL, or of several, and not what may be secret: a
// password, a token in the query, a path nobody should guess.
func hideURL(text string) string {
	parts := strings.Split(text, ",") // NATS takes several
	for i, part := range parts {
		p, err := url.Parse(strings.TrimSpace(part))
		if err != nil || p.Host == "" {
			parts[i] = redacted
			continue
		}
		shown := p.Scheme + "://"
		if p.User != nil {
			shown += redacted + "@"
		}
		shown += p.Host
		if strings.Trim(p.Path, "/") != "" || p.RawQuery != "" || p.Fragment != "" {
			shown += "/" + redacted
		}
		parts[i] = shown
	}
	return strings.Join(parts, ",")
}

// urlParts are the pieces that hideURL leaves out.
func urlParts(text string) (out []string) {
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		p, err := url.Parse(part)
		if err != nil || p.Host == "" {
			out = append(out, part)
			continue
		}
		if password, ok := p.User.Password(); ok {
			out = append(out, password, p.User.String())
		} else if p.User != nil {
			out = append(out, p.User.Username()) // NATS takes a token there
		}
		if strings.Trim(p.Path, "/") != "" {
			out = append(out, p.RequestURI(), strings.Trim(p.Path, "/"))
			for segment := range strings.SplitSeq(p.Path, "/") {
				if len(segment) >= 12 { // a word such as "services" is no secret
					out = append(out, segment)
				}
			}
		}
		for _, values := range p.Query() {
			out = append(out, values...)
		}
	}
	return out
}

func checkURL(text string, schemes ...string) error {
	p, err := url.Parse(text)
	// The error is not passed on: it quotes pieces of the URL.
	if err != nil || p.Hostname() == "" || !slices.Contains(schemes, p.Scheme) {
		return fmt.Errorf("is not a URL with a host and one of the schemes %s", strings.Join(schemes, ", "))
	}
	return nil
}

// checkURLs checks several, separated by commas.
func checkURLs(text string, schemes ...string) error {
	for part := range strings.SplitSeq(text, ",") {
		if err := checkURL(strings.TrimSpace(part), schemes...); err != nil {
			return err
		}
	}
	return nil
}

// checkCleartext refuses to show the secrets in the URLs of others on the way there.
func (l *loader) checkCleartext() {
	const why = "is plain http, which shows its secrets to everyone on the way; use https, or set allow-http"
	l.refuse(Cleartext(l.c.CallgooseURL) && !l.c.AllowHTTP, "callgoose-url", why)
	for _, s := range []*Secret{l.c.AlarmWebhook, l.c.PingURL, l.c.FallbackWebhook} {
		if Cleartext(s.Reveal()) && !l.c.AllowHTTP {
			l.wrong(s.of.Name, why)
		}
	}
}

// checkNATS checks the options about external servers, and about the instances on them.
func (l *loader) checkNATS() {
	c := l.c
	l.needs(c.NATS() != "", "nats-url", "nats-creds-file", "nats-user-file", "nats-ca", "nats-cert", "nats-key", "nats-monitor",
		"nats-name", "nats-replicas", "instance", "takeover-after", "accept-loss")
	l.together("nats-cert", "nats-key")
	l.refuse(c.NATSReplicas != 1 && c.NATSReplicas != 3 && c.NATSReplicas != 5, "nats-replicas", "%d is not 1, 3 or 5", c.NATSReplicas)
	l.refuse(len(c.NATSName) > 32 || strings.Trim(c.NATSName, "abcdefghijklmnopqrstuvwxyz0123456789-") != "",
		"nats-name", "%s is not at most 32 of a-z, 0-9 and -", quote(c.NATSName))
	l.refuse(c.TakeOverAfter < 6*time.Second || c.TakeOverAfter > 5*time.Minute, "takeover-after", "is not between 6s and 5m")
	var ways []string
	inURL, cleartext := false, false
	for part := range strings.SplitSeq(c.NATS(), ",") {
		u, err := url.Parse(strings.TrimSpace(part))
		if err != nil {
			continue
		}
		inURL = inURL || u.User != nil
		cleartext = cleartext || (u.Scheme == "nats" || u.Scheme == "ws") && !loopback(u.Hostname())
	}
	if inURL {
		ways = append(ways, "a user or token inside the URL")
	}
	for _, name := range []string{"nats-creds-file", "nats-user-file"} {
		if l.given(name) {
			ways = append(ways, name)
		}
	}
	l.refuse(len(ways) > 1, "nats-url", "has two ways to log in: %s; keep one of them", strings.Join(ways, " and "))
	if cleartext && (inURL || c.NATSUser.IsSet()) && c.NATSCA == "" && c.NATSCert == "" {
		l.warn("nats-url", "its password can be read on the way unless that server demands TLS; tls:// demands it from here")
	}
}

// exposedURLs warns of secrets inside URLs that stand where others may see them.
func (l *loader) exposedURLs() {
	for _, name := range []string{"nats-url", "alarm-webhook", "callgoose-url"} {
		secret := l.setting("callgoose-token-file").From == fromURL
		if name != "callgoose-url" {
			o, _ := find(name)
			secret = len(urlParts((*o.field(l.c).(**Secret)).Reveal())) > 0
		}
		from := l.setting(name).From
		if !secret || from == fromDefault {
			continue
		}
		if name != "callgoose-url" { // its token= is what Callgoose gives people to copy
			l.warn(l.where(name), "holds a secret, which others may see there; put it into a file and name that with %s-file", name)
		}
		if from != fromFlag && from != fromEnv && exposed(l.path) {
			l.warn(l.path, "holds a secret (%s) and other users of this machine may read it; chmod 600 would stop that", name)
		}
	}
}

// proxyVariables are those that net/http follows.
var proxyVariables = []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"}

// checkProxies refuses what net/http would ignore, and then connect directly, or
// take for the name of another host.
func (l *loader) checkProxies() {
	for _, name := range proxyVariables {
		if value := l.env[name]; value != "" {
			if err := checkProxy(value); err != nil {
				l.problems.add(name, "%v", err)
			}
		}
	}
}

// checkProxy says what is wrong with the address of a proxy, without quoting it.
func checkProxy(value string) error {
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	if err != nil || u.Hostname() == "" {
		return errors.New(`is not the address of a proxy, such as http://user:password@host:3128; in user and password \ # % / : and @ are written as %5C %23 %25 %2F %3A and %40`)
	}
	if !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) {
		return errors.New("is not the address of a proxy: the scheme is none of http, https, socks5 and socks5h")
	}
	if _, err := strconv.ParseUint(u.Port(), 10, 16); u.Port() != "" && err != nil {
		return errors.New("is not the address of a proxy: the port is not a number from 0 to 65535")
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return errors.New(`is not the address of a proxy: something follows the host; in user and password # / and ? are written as %23 %2F and %3F`)
	}
	return nil
}
