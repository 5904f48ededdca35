package callgoose

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"html"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/worker/callgoose/callgoosetest"
)

// noSecret looks for the token, in every spelling, and for our URL's query.
func noSecret(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	inJSON, _ := json.Marshal(hostile)
	bad := []string{
		hostile, url.QueryEscape(hostile), url.PathEscape(hostile), strings.ToLower(url.QueryEscape(hostile)), html.EscapeString(hostile),
		string(inJSON[1 : len(inJSON)-1]), "token=", "from=", "s3cr3t", "pr0xyp4ss", inBase64(hostile), inPHP(hostile),
		base64.StdEncoding.EncodeToString([]byte("user:pr0xyp4ss")),
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		text := fmt.Sprintf(format, err)
		for _, b := range bad {
			if strings.Contains(text, b) {
				t.Errorf("%s of the error holds %q:\n%s", format, b, text)
			}
		}
	}
}

// inBase64 is what base64 makes of s, without the letters that depend on what follows.
func inBase64(s string) string {
	return strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(s)), "=")
}

// inPHP is s inside of a JSON string as PHP writes it.
func inPHP(s string) string {
	quoted, _ := json.Marshal(s)
	return strings.ReplaceAll(string(quoted[1:len(quoted)-1]), "/", `\/`)
}

// authority makes certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	c := a.issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "Test CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-1000 * time.Hour), NotAfter: time.Now().Add(time.Hour),
	})
	a.cert, a.key = c.Leaf, c.PrivateKey.(*ecdsa.PrivateKey)
	return a
}

func (a *authority) issue(t *testing.T, c *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// leaf is a certificate of a server on the loopback.
func (a *authority) leaf(t *testing.T, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	c := &x509.Certificate{
		Subject: pkix.Name{CommonName: "callgoose"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(c)
	}
	return a.issue(t, c)
}

func serveTLS(t *testing.T, cfg *tls.Config) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) }))
	s.TLS = cfg
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL + "/v1/process"
}

func TestCustomCAIsAcceptedBesidesTheSystems(t *testing.T) {
	ca := newAuthority(t)
	url := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}})
	if _, err := send(t, newClient(t, Config{URL: url, CAFile: caFile(t, ca.cert.Raw)})); err != nil {
		t.Error(err)
	}
}

// start serves a fake that fails.
func start(t *testing.T, f callgoosetest.Failure) string {
	t.Helper()
	fake := callgoosetest.New(callgoosetest.Config{})
	fake.Fail(f)
	s, err := fake.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s.URL()
}

// resolver asks a name server that knows no name, or that says nothing.
func resolver(t *testing.T, answers bool) *net.Resolver {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			if answers && n > 3 {
				buf[2], buf[3] = buf[2]|0x84, 0x83 // an authoritative answer: NXDOMAIN
				_, _ = server.WriteTo(buf[:n], from)
			}
		}
	}()
	t.Cleanup(func() { _ = server.Close(); <-done })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

func refused(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// scene is what a failure needs.
type scene struct {
	cfg    Config
	change func(*http.Transport)
	ctx    context.Context // nil = the test's
}

// What never connects need not be given time; what shall connect first, on a busy
// machine too, needs some.
const (
	soon  = 300 * time.Millisecond
	later = 1500 * time.Millisecond
)

func proxied(t *testing.T, target, proxy string) scene {
	t.Helper()
	u, err := url.Parse("http://user:pr0xyp4ss@" + proxy)
	if err != nil {
		t.Fatal(err)
	}
	return scene{cfg: Config{URL: target}, change: func(tr *http.Transport) { tr.Proxy = http.ProxyURL(u) }}
}

// echo is a page that repeats all that we sent, in many spellings, with the
// token at every distance from the places where texts are cut.
func echo(pad int, r *http.Request) string {
	inJSON, _ := json.Marshal(hostile)
	return strings.Repeat("x", pad) + hostile + " " + r.URL.RequestURI() + " " + r.URL.String() + " " + r.Header.Get("Authorization") + " " +
		string(inJSON) + " " + html.EscapeString(hostile) + " " + url.PathEscape(hostile) + " " + strings.ToLower(url.QueryEscape("token="+hostile)) + " " +
		inPHP(hostile) + " " + inBase64("Bearer "+hostile) + " " + inBase64(hostile)
}

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "16") // failures are waited for more than computed
	os.Exit(m.Run())
}

func TestFailures(t *testing.T) {
	ca := newAuthority(t)
	withCert := func(t *testing.T, change func(*x509.Certificate)) scene {
		return scene{cfg: Config{URL: serveTLS(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, change)}}), CAFile: caFile(t, ca.cert.Raw)}}
	}
	for _, c := range []struct {
		name  string
		step  string
		sent  bool
		text  string // is part of the error
		stage func(t *testing.T) scene
	}{
		{"the name does not exist", "dns", false, "cannot resolve callgoose.invalid: no such host", func(t *testing.T) scene {
			return scene{cfg: Config{URL: "https://callgoose.invalid/v1/process"}, change: func(tr *http.Transport) {
				tr.DialContext = (&net.Dialer{Resolver: resolver(t, true)}).DialContext
			}}
		}},
		// Our own limit was shorter than the resolver's: all we know is that there is
		// no connection.
		{"the name server is silent", "connect", false, "cannot connect in time", func(t *testing.T) scene {
			return scene{cfg: Config{URL: "https://callgoose.invalid/v1/process", Timeout: soon}, change: func(tr *http.Transport) {
				tr.DialContext = (&net.Dialer{Resolver: resolver(t, false)}).DialContext
			}}
		}},
		{"refused", "connect", false, "connection refused", func(t *testing.T) scene {
			return scene{cfg: Config{URL: "http://" + refused(t) + "/v1/process"}}
		}},
		{"no answer to the SYN", "connect", false, "in time", func(*testing.T) scene {
			return scene{cfg: Config{URL: "http://192.0.2.1/v1/process", Timeout: soon}, change: func(tr *http.Transport) {
				tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
			}}
		}},
		{"never accepted, so that the TLS handshake hangs", "connect", false, "cannot connect in time", func(t *testing.T) scene {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
			return scene{cfg: Config{URL: "https://" + l.Addr().String(), Timeout: soon}}
		}},
		// The kernel shakes hands and takes the request: nobody can tell whether
		// the process would still read it.
		{"never accepted, plain HTTP", "timeout", true, "no answer in time", func(t *testing.T) scene {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
			return scene{cfg: Config{URL: "http://" + l.Addr().String(), Timeout: later}}
		}},
		{"accepted, then the TLS handshake hangs", "connect", false, "cannot connect in time", func(t *testing.T) scene {
			u := raw(t, func(_ int, conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
			return scene{cfg: Config{URL: strings.Replace(u, "http:", "https:", 1), Timeout: soon}}
		}},
		{"the handshake's own time limit", "connect", false, "cannot connect in time", func(t *testing.T) scene {
			u := raw(t, func(_ int, conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
			return scene{cfg: Config{URL: strings.Replace(u, "http:", "https:", 1)}, change: func(tr *http.Transport) { tr.TLSHandshakeTimeout = soon }}
		}},
		{"closed in the TLS handshake", "connect", false, "cannot connect: EOF", func(t *testing.T) scene {
			u := raw(t, func(_ int, conn net.Conn) { _, _ = conn.Read(make([]byte, 4096)); _ = conn.(*net.TCPConn).CloseWrite() })
			return scene{cfg: Config{URL: strings.Replace(u, "http:", "https:", 1)}}
		}},
		{"reset in the TLS handshake", "connect", false, "cannot connect: connection reset by peer", func(t *testing.T) scene {
			u := raw(t, func(_ int, conn net.Conn) {
				_, _ = conn.Read(make([]byte, 4096))
				_ = conn.(*net.TCPConn).SetLinger(0)
				_ = conn.Close()
			})
			return scene{cfg: Config{URL: strings.Replace(u, "http:", "https:", 1)}}
		}},
		{"unknown authority", "tls", false, "certificate signed by unknown authority", func(t *testing.T) scene {
			return scene{cfg: Config{URL: serveTLS(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}})}}
		}},
		{"authority of another CA file", "tls", false, "certificate signed by unknown authority", func(t *testing.T) scene {
			s := withCert(t, nil)
			s.cfg.CAFile = caFile(t, newAuthority(t).cert.Raw)
			return s
		}},
		{"expired certificate", "tls", false, "certificate has expired or is not yet valid", func(t *testing.T) scene {
			return withCert(t, func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
			})
		}},
		{"certificate of tomorrow", "tls", false, "certificate has expired or is not yet valid", func(t *testing.T) scene {
			return withCert(t, func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = time.Now().Add(24*time.Hour), time.Now().Add(48*time.Hour)
			})
		}},
		{"certificate for another address", "tls", false, "certificate is valid for 127.0.0.99, not 127.0.0.1", func(t *testing.T) scene {
			return withCert(t, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 99)} })
		}},
		{"certificate for another name", "tls", false, "certificate is valid for other.example, not callgoose.invalid", func(t *testing.T) scene {
			s := withCert(t, func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"other.example"} })
			u, err := url.Parse(s.cfg.URL)
			if err != nil {
				t.Fatal(err)
			}
			s.cfg.URL = "https://callgoose.invalid/v1/process"
			s.change = func(tr *http.Transport) {
				tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
					return (&net.Dialer{}).DialContext(ctx, "tcp", u.Host)
				}
			}
			return s
		}},
		{"certificate for clients only", "tls", false, "incompatible key usage", func(t *testing.T) scene {
			return withCert(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
		}},
		{"TLS 1.1 only", "tls", false, "protocol version not supported", func(t *testing.T) scene {
			s := withCert(t, nil)
			s.cfg.URL = serveTLS(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
			return s
		}},
		{"a client certificate is wanted, TLS 1.2", "tls", false, "tls: ", func(t *testing.T) scene {
			s := withCert(t, nil)
			s.cfg.URL = serveTLS(t, &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, nil)}, MaxVersion: tls.VersionTLS12, ClientAuth: tls.RequireAnyClientCert})
			return s
		}},
		{"plain HTTP where TLS is expected", "tls", false, "first record does not look like a TLS handshake", func(t *testing.T) scene {
			u := serve(t, func(http.ResponseWriter, *http.Request) {})
			return scene{cfg: Config{URL: strings.Replace(u, "http:", "https:", 1)}}
		}},
		{"the proxy is down", "proxy", false, "cannot connect through the proxy: connection refused", func(t *testing.T) scene {
			return proxied(t, "https://callgoose.invalid/v1/process", refused(t))
		}},
		{"the proxy is down, plain HTTP", "proxy", false, "cannot connect through the proxy: connection refused", func(t *testing.T) scene {
			return proxied(t, "http://callgoose.invalid/v1/process", refused(t))
		}},
		{"the proxy wants other credentials", "proxy", false, "cannot connect through the proxy: it answered 407 Proxy Authentication Required", func(t *testing.T) scene {
			u := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusProxyAuthRequired)
				_, _ = io.WriteString(w, r.Header.Get("Proxy-Authorization"))
			})
			return proxied(t, "https://callgoose.invalid/v1/process", strings.TrimSuffix(strings.TrimPrefix(u, "http://"), "/v1/process"))
		}},
		{"the proxy cannot reach Callgoose", "proxy", false, "cannot connect through the proxy: it answered 502 Bad Gateway", func(t *testing.T) scene {
			u := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
			return proxied(t, "https://callgoose.invalid/v1/process", strings.TrimSuffix(strings.TrimPrefix(u, "http://"), "/v1/process"))
		}},
		{"a proxy that hangs", "connect", false, "cannot connect in time", func(t *testing.T) scene {
			u := raw(t, func(_ int, conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
			s := proxied(t, "https://callgoose.invalid/v1/process", strings.TrimSuffix(strings.TrimPrefix(u, "http://"), "/v1/process"))
			s.cfg.Timeout = soon
			return s
		}},
		{"no answer", "timeout", true, "no answer in time", func(t *testing.T) scene {
			return scene{cfg: Config{URL: start(t, callgoosetest.Failure{Mode: callgoosetest.Hang}), Timeout: later}}
		}},
		{"an answer's head that never ends", "timeout", true, "no answer in time", func(t *testing.T) scene {
			return scene{cfg: Config{Timeout: later, URL: raw(t, func(_ int, conn net.Conn) {
				readRequest(conn)
				_, _ = io.WriteString(conn, "HTTP/1.1 201 Created\r\nX-Echo: "+hostile)
			})}}
		}},
		{"reset after the request", "reset", true, "the connection broke: ", func(t *testing.T) scene {
			return scene{cfg: Config{URL: start(t, callgoosetest.Failure{Mode: callgoosetest.Reset})}}
		}},
		{"closed without an answer", "reset", true, "the connection broke: EOF", func(t *testing.T) scene {
			return scene{cfg: Config{URL: start(t, callgoosetest.Failure{Mode: callgoosetest.LoseReply})}}
		}},
		{"an answer that is not HTTP", "reset", true, "malformed HTTP", func(t *testing.T) scene {
			return scene{cfg: Config{URL: raw(t, func(_ int, conn net.Conn) {
				readRequest(conn)
				_, _ = io.WriteString(conn, "220 mail ESMTP token="+hostile+" "+url.QueryEscape(hostile)+"\r\n\r\n")
				_ = conn.(*net.TCPConn).CloseWrite()
			})}}
		}},
		{"a megabyte that is not HTTP", "reset", true, "the connection broke: ", func(t *testing.T) scene {
			return scene{cfg: Config{URL: raw(t, func(_ int, conn net.Conn) {
				readRequest(conn)
				_, _ = io.WriteString(conn, strings.Repeat(hostile, 1<<15)+"\r\n\r\n")
				_ = conn.(*net.TCPConn).CloseWrite()
			})}}
		}},
		{"interrupted before it began", "interrupted", false, "interrupted by the service's own stop", func(t *testing.T) scene {
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(ErrInterrupted)
			return scene{cfg: Config{URL: start(t, callgoosetest.Failure{})}, ctx: ctx}
		}},
		{"interrupted while Callgoose worked", "interrupted", true, "interrupted by the service's own stop", func(t *testing.T) scene {
			ctx, cancel := context.WithCancelCause(t.Context())
			return scene{ctx: ctx, cfg: Config{URL: serve(t, func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				cancel(ErrInterrupted)
				<-r.Context().Done()
			})}}
		}},
		{"interrupted while the answer came", "interrupted", true, "interrupted by the service's own stop", func(t *testing.T) scene {
			ctx, cancel := context.WithCancelCause(t.Context())
			return scene{ctx: ctx, cfg: Config{URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				w.Header().Set("Content-Length", "100")
				w.WriteHeader(http.StatusAccepted)
				_ = http.NewResponseController(w).Flush()
				cancel(ErrInterrupted)
				<-r.Context().Done()
			})}}
		}},
		{"a token that no header can carry", "connect", false, "invalid header", func(t *testing.T) scene {
			return scene{cfg: Config{URL: start(t, callgoosetest.Failure{}), Token: func() string { return hostile + "\n" }}}
		}},
		{"from that no URL can carry is escaped, 400", "", true, "answered 400", func(t *testing.T) scene {
			return scene{cfg: Config{From: "a\nb&token=" + hostile, URL: start(t, callgoosetest.Failure{Mode: callgoosetest.Status, Status: 400})}}
		}},
	} {
		for _, query := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, query=%v", c.name, query), func(t *testing.T) {
				t.Parallel()
				if query && strings.HasPrefix(c.name, "a token that") {
					t.Skip("a URL carries it, escaped")
				}
				s := c.stage(t)
				s.cfg.Query = query
				client := newClient(t, s.cfg)
				if s.change != nil {
					s.change(client.cfg.Transport.(*http.Transport))
				}
				ctx := t.Context()
				if s.ctx != nil {
					ctx = s.ctx
				}
				_, err := sendCtx(ctx, t, client)
				if err == nil {
					t.Fatal("no error")
				}
				if err.Step != c.step || err.Sent != c.sent {
					t.Errorf("step %q, sent %v; want %q, %v\n%v", err.Step, err.Sent, c.step, c.sent, err)
				}
				if err.Unreachable() && err.Sent {
					t.Error("unreachable, and yet sent")
				}
				if !strings.Contains(err.Error(), c.text) {
					t.Errorf("the text is %q, want %q", err, c.text)
				}
				if len(err.Error()) > 300 || strings.ContainsAny(err.Error(), "\n\r\t") {
					t.Errorf("%d bytes: %q", len(err.Error()), err)
				}
				noSecret(t, err)
			})
		}
	}
}

func TestEchoedTokenIsRedactedWhereverTheTextIsCut(t *testing.T) {
	pad := 0
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", hostile)
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, strings.ReplaceAll(echo(pad, r), "from=", "f="))
	})
	for _, query := range []bool{false, true} {
		c := newClient(t, Config{URL: u, Query: query})
		for pad = range 260 {
			_, err := send(t, c)
			if err == nil || err.Status != http.StatusUnauthorized {
				t.Fatalf("got %v", err)
			}
			noSecret(t, err)
			if pad < 150 && !strings.Contains(err.Error(), "[redacted]") {
				t.Errorf("nothing redacted: %v", err)
			}
		}
		for _, pad = range []int{700, 780, 790, 800, 801, 1<<16 - 10, 1 << 17} {
			_, err := send(t, c)
			noSecret(t, err)
		}
	}
}

// Callgoose answers 401 because the token has just been changed: the one that
// was sent must not be in the text either.
func TestTokenThatWasReplacedMeanwhileIsRedacted(t *testing.T) {
	token := hostile
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		token = "new-token"
		http.Error(w, "no such token: "+r.Header.Get("Authorization"), http.StatusUnauthorized)
	})
	_, err := send(t, newClient(t, Config{URL: u, Token: func() string { return token }}))
	if err == nil || !strings.Contains(err.Error(), "Bearer [redacted]") {
		t.Errorf("got %v", err)
	}
	noSecret(t, err)
}

// A transport that is not Go's own tells nothing about what was written: the
// request may have been received.
func TestUnknownTransportCountsAsSent(t *testing.T) {
	fake := callgoosetest.New(callgoosetest.Config{})
	fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Reset})
	tr := fake.RoundTripper()
	c := newClient(t, Config{URL: "https://callgoose.test/v1/process", Transport: tr})
	if _, err := send(t, c); err == nil || !err.Sent || err.Step != "reset" {
		t.Errorf("reset: %+v", err)
	}
	tr.Refuse(true)
	if _, err := send(t, c); err == nil || err.Sent || !err.Unreachable() {
		t.Errorf("refused: %+v", err)
	}
}
