package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
)

// callgooseURL takes token= and from= out of the URL, so that from here on it
// can be printed.
func (l *loader) callgooseURL() {
	const name = "callgoose-url"
	c := l.c
	raw := c.CallgooseURL
	c.CallgooseURL = ""
	if raw == "" {
		return
	}
	// None of the errors below quotes the URL, nor what url.Parse says, which does.
	u, err := url.Parse(raw)
	switch {
	case strings.Contains(raw, "#"):
		l.reject(name, "holds a #; inside a token it is written %%23")
		return
	case err != nil, u.Scheme != "https" && u.Scheme != "http", u.Hostname() == "":
		l.reject(name, "is not a URL of the form https://host/path")
		return
	case u.User != nil:
		l.reject(name, "holds a user name, which Callgoose does not use; the token goes into callgoose-token-file")
		return
	}
	token, from, rest, err := takeOut(u.RawQuery)
	if err != nil {
		l.reject(name, "%v", err)
		return
	}
	u.RawQuery, u.ForceQuery = rest, false
	c.CallgooseURL = u.String()
	l.setting(name).Value = c.CallgooseURL

	if from != "" && l.setting("callgoose-from").From == fromDefault {
		c.CallgooseFrom = from
		*l.setting("callgoose-from") = Setting{Name: "callgoose-from", Value: from, From: fromURL}
	}
	if token != "" {
		l.tokenInURL(token)
	}
}

// takeOut finds token= and from= in a query; rest is what else it holds.
func takeOut(query string) (token, from, rest string, err error) {
	var others []string
	for part := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(part, "=")
		key, err1 := url.QueryUnescape(key)
		value, err2 := url.QueryUnescape(value)
		switch key = strings.ToLower(key); {
		case err1 != nil, err2 != nil:
			return "", "", "", errors.New("has a query with a bad % escape")
		case key == "token" && token != "", key == "from" && from != "":
			return "", "", "", fmt.Errorf("holds %s= twice", key)
		case key == "token":
			token = value
		case key == "from":
			from = value
		case part != "":
			others = append(others, part)
		}
	}
	return token, from, strings.Join(others, "&"), nil
}

// tokenInURL takes the token that stood in callgoose-url.
func (l *loader) tokenInURL(token string) {
	const name = "callgoose-url"
	o, _ := find("callgoose-token-file")
	s := l.setting(o.Name)
	if err := o.checkSecret(token); err != nil {
		l.problems.add(l.where(name), "token=: %v", err)
		s.Value = invalid
		return
	}
	if s.Value != "" {
		l.problems.add(l.where(name), "holds token= while there is another token (%s); keep one of them", s.From)
		return
	}
	l.c.CallgooseToken = NewSecret(token)
	s.Value, s.From = redacted, fromURL
	if l.setting(name).From == fromFlag {
		l.warn(l.where(name), "a token on the command line can be seen by everyone on this machine; use callgoose-token-file with callgoose-auth query")
	}
	if auth := l.setting("callgoose-auth"); auth.From == fromDefault {
		l.c.CallgooseAuth = "query"
		auth.Value, auth.From = "query", fromURL
	}
}

// maxBody is what fits, with its envelope, into one record of JetStream, which takes at
// most 32 MiB and would destroy a larger one at the next start.
const maxBody = 30 << 20

// check compares the options with each other.
func (l *loader) check() {
	c := l.c
	anyone := !l.given("ingest-token-file") && !l.given("ingest-basic-auth-file") && !l.given("ingest-hmac-secret-file")
	l.refuse(BeyondLoopback(c.Listen) && !c.AllowUnauthenticated && anyone, "listen", "%s can be reached from other machines and no credentials are asked for; "+
		"set ingest-token-file (or ingest-basic-auth-file, ingest-hmac-secret-file), listen on 127.0.0.1, or set allow-unauthenticated", quote(c.Listen))
	l.refuse(BeyondLoopback(c.AdminListen) && !l.given("admin-token-file"), "admin-listen",
		"%s can be reached from other machines; set admin-token-file, listen on 127.0.0.1, or set it off", quote(c.AdminListen))
	l.refuse(c.AdminListen == c.Listen && !strings.HasSuffix(c.Listen, ":0"), "admin-listen", "is the address of listen; each needs its own")
	l.together("tls-cert", "tls-key")
	l.together("admin-tls-cert", "admin-tls-key")
	l.needs(c.TLSCert != "" && c.TLSKey != "", "tls-cert and tls-key", "tls-client-ca")
	l.needs(l.given("ingest-hmac-secret-file"), "ingest-hmac-secret-file", "ingest-hmac-timestamp-header")
	h := c.IngestHMACTimestampHeader
	l.refuse(!isHeader(h), "ingest-hmac-timestamp-header", "%s is not the name of a header", quote(h))
	l.refuse(c.MaxBody > maxBody, "max-body", "is more than 30MiB")
	l.refuse(c.MaxStore/4 < c.MaxBody, "max-store", "is less than 4 times max-body: such a body might never find room")
	l.refuse(c.MaxConnections < 1, "max-connections", "%d is less than 1", c.MaxConnections)
	l.refuse(c.RetryMin > c.RetryMax, "retry-min", "is longer than retry-max")
	l.refuse(c.Concurrency < 1 || c.Concurrency > 1024, "concurrency", "%d is not between 1 and 1024", c.Concurrency)
	l.refuse(c.ShortLength < 20 || c.ShortLength > 255, "short-length", "%d is not between 20 and 255", c.ShortLength)
	l.needs(c.HollowRecovery == "hold", "hollow-recovery hold", "hollow-match")
	l.needs(l.given("fallback-webhook-file") || l.given("fallback-command"), "fallback-webhook-file or fallback-command: the other way", "fallback-after", "fallback-match")
	for _, name := range []string{"nats-url", "alarm-webhook"} {
		l.refuse(l.given(name) && l.given(name+"-file"), name, "and %s-file are both set; keep one of them", name)
	}
	l.checkCleartext()
	l.checkNATS()
	l.checkPMM()
	l.checkProxies()
	l.strength("listen", c.Listen, c.TLSCert, "ingest-token-file", "ingest-basic-auth-file", "ingest-hmac-secret-file")
	l.strength("admin-listen", c.AdminListen, c.AdminTLSCert, "admin-token-file")
	if !l.in.Serve {
		return
	}
	l.checkFiles()
	if !l.unreadable { // else what is missing may stand in the file
		l.refuse(!l.given("callgoose-url"), "callgoose-url", "is needed: the endpoint of your Callgoose organisation, https://…/v1/process")
		l.refuse(!l.given("callgoose-token-file"), "callgoose-token-file", "is needed: a file with the API token of Callgoose")
	}
}

// refuse reports what is wrong with an option where bad.
func (l *loader) refuse(bad bool, name, format string, args ...any) {
	if bad {
		l.wrong(name, format, args...)
	}
}

// needs refuses options that were given although what they need was not.
func (l *loader) needs(there bool, what string, names ...string) {
	for _, name := range names {
		l.refuse(!there && l.given(name) && l.c.Named(name), name, "needs %s", what)
	}
}

// together refuses one of two options that need each other.
func (l *loader) together(a, b string) {
	l.needs(l.given(b), b, a)
	l.needs(l.given(a), a, b)
}

// checkFiles reads the certificates as serve does later.
func (l *loader) checkFiles() {
	c, pem := l.c, map[string][]byte{}
	for _, o := range table {
		path, ok := o.field(c).(*string)
		holds := o.Name[strings.LastIndex(o.Name, "-")+1:]
		if !ok || *path == "" || o.Kind != KindPath || !slices.Contains([]string{"ca", "cert", "key"}, holds) {
			continue
		}
		text, err := os.ReadFile(*path)
		if err != nil {
			l.wrong(o.Name, "%s cannot be read: %v", *path, pathless(err))
			continue
		}
		pem[o.Name] = text
		if holds == "ca" && !x509.NewCertPool().AppendCertsFromPEM(text) {
			l.wrong(o.Name, "%s holds no PEM certificate", *path)
		}
	}
	for _, name := range []string{"tls", "admin-tls", "nats"} {
		cert, key := pem[name+"-cert"], pem[name+"-key"]
		if cert == nil || key == nil {
			continue
		}
		if _, err := tls.X509KeyPair(cert, key); err != nil {
			l.wrong(name+"-cert", "%s and the key %s do not make a pair: %v", l.setting(name+"-cert").Value, l.setting(name+"-key").Value, err)
		}
	}
}

// BeyondLoopback tells whether other machines can reach a listener at addr.
func BeyondLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && !loopback(host)
}

func isHeader(name string) bool {
	return !strings.ContainsFunc(name, func(r rune) bool {
		return !strings.ContainsRune("!#$%&'*+-.^_`|~", r) && (r < '0' || r > '9') && (r|0x20 < 'a' || r|0x20 > 'z')
	})
}
