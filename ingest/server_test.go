package ingest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose connections are net.Pipes, which work in a bubble.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	if c, ok := <-p.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.conns) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// dial starts a Server for h in the bubble of t and connects to it.
func dial(t *testing.T, h *Handler) (net.Conn, *http.Server) {
	t.Helper()
	srv, l := Server(h, nil), &pipes{conns: make(chan net.Conn)}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(l) })
	client, server := net.Pipe()
	l.conns <- server
	t.Cleanup(func() {
		_ = client.Close()
		_ = srv.Close()
		wg.Wait()
		time.Sleep(time.Second) // net/http lingers half a second after a refusal
	})
	return client, srv
}

const head = "POST /v1/webhook HTTP/1.1\r\nHost: x\r\n"

func TestSlowAndRudeClients(t *testing.T) {
	for _, tt := range []struct {
		name   string
		send   string
		answer string // beginning of the status line; "" for none
		after  time.Duration
	}{
		{"a head that never ends", head, "", 5 * time.Second},
		{"a body that never comes", head + "Authorization: Bearer " + token + "\r\nContent-Length: 99\r\n\r\n{", "HTTP/1.1 408", 30 * time.Second},
		{"no credentials and a body that never comes", head + "Content-Length: 99\r\n\r\n", "HTTP/1.1 401", 0},
		{"too much announced", head + "Authorization: Bearer " + token + "\r\nContent-Length: 99999999999\r\n\r\n", "HTTP/1.1 413", 0},
		{"too much in the head", head + "X: " + strings.Repeat("x", 32<<10), "HTTP/1.1 431", 0},
		{"no HTTP", "hello\r\n\r\n", "HTTP/1.1 400", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &shelf{}
				conn, _ := dial(t, newHandler(t, s, Config{Token: is(token)}))
				start := time.Now()
				go func() { _, _ = io.WriteString(conn, tt.send) }()
				var got [12]byte
				n, err := io.ReadFull(conn, got[:])
				if string(got[:n]) != tt.answer || tt.answer == "" && err == nil {
					t.Errorf("answer %q, want %q", got[:n], tt.answer)
				}
				if took := time.Since(start); took != tt.after {
					t.Errorf("answer after %s, want %s", took, tt.after)
				}
				if len(s.stored) != 0 {
					t.Error("something was stored")
				}
			})
		})
	}
}

func TestAnUploadThatBreaksOffIsNotStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{}
		conn, _ := dial(t, newHandler(t, s, Config{}))
		fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n%s", head, len(body)+1, body)
		_ = conn.Close()
		synctest.Wait()
		if len(s.stored) != 0 || fmt.Sprint(s.codes) != "[400]" {
			t.Errorf("stored %v, observed %v", s.stored, s.codes)
		}
	})
}

// issuer makes certificates.
type issuer struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue writes a certificate and its key to name.crt and name.key.
func (ca *issuer) issue(dir, name string) (cert, key string) {
	ca.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ca.must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA:        ca.cert == nil, BasicConstraintsValid: true,
	}
	parent, signer := ca.cert, ca.key
	if parent == nil {
		parent, signer = template, private
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, private.Public(), signer)
	ca.must(err)
	if ca.cert == nil {
		ca.key = private
		ca.cert, err = x509.ParseCertificate(der)
		ca.must(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	ca.must(err)
	cert, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	ca.must(os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	ca.must(os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
	return cert, key
}

func (ca *issuer) must(err error) {
	ca.t.Helper()
	if err != nil {
		ca.t.Fatal(err)
	}
}

func TestTLSWithClientCertificatesAndReload(t *testing.T) {
	dir, ca := t.TempDir(), &issuer{t: t}
	caFile, _ := ca.issue(dir, "ca")
	cert, key := ca.issue(dir, "server")
	config, err := TLSConfig(cert, key, caFile)
	ca.must(err)

	var logged bytes.Buffer
	var mu sync.Mutex
	logger := slog.New(slog.NewTextHandler(writer(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return logged.Write(p)
	}), nil))
	srv := Server(newHandler(t, &shelf{}, Config{Logger: logger}), config)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	ca.must(err)
	done := make(chan error)
	go func() { done <- srv.ServeTLS(l, "", "") }()
	defer func() {
		_ = srv.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()

	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	// send posts one webhook over a new connection and returns the serial number
	// of the certificate it was shown.
	send := func(client ...tls.Certificate) (*big.Int, error) {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: client}, DisableKeepAlives: true}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+l.Addr().String()+"/v1/webhook", strings.NewReader(body))
		ca.must(err)
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != 202 {
			return nil, fmt.Errorf("answer %d", resp.StatusCode)
		}
		return resp.TLS.PeerCertificates[0].SerialNumber, nil
	}
	client, err := tls.LoadX509KeyPair(ca.issue(dir, "client"))
	ca.must(err)
	stranger, err := tls.LoadX509KeyPair((&issuer{t: t}).issue(dir, "stranger"))
	ca.must(err)

	if _, err := send(); err == nil {
		t.Error("let in without a certificate")
	}
	if _, err := send(stranger); err == nil {
		t.Error("let in with a certificate of another CA")
	}
	first, err := send(client)
	ca.must(err)
	ca.issue(dir, "server")
	second, err := send(client)
	ca.must(err)
	if first.Cmp(second) == 0 {
		t.Error("the new certificate is not used")
	}
	ca.must(os.WriteFile(key, []byte("half a ke"), 0o600))
	third, err := send(client)
	ca.must(err)
	if third.Cmp(second) != 0 {
		t.Error("a broken key took the old pair out of use")
	}
	mu.Lock()
	defer mu.Unlock()
	if !strings.Contains(logged.String(), "certificate not reloaded") {
		t.Errorf("the broken key is not reported: %s", &logged)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func TestTLSConfigErrors(t *testing.T) {
	dir, ca := t.TempDir(), &issuer{t: t}
	cert, key := ca.issue(dir, "ca")
	if c, err := TLSConfig("", "", ""); c != nil || err != nil {
		t.Errorf("no files: %v, %v", c, err)
	}
	for _, files := range [][3]string{{cert, "", ""}, {"", key, ""}, {"", "", cert}, {cert, dir, ""}, {cert, key, dir}, {cert, key, key}} {
		if _, err := TLSConfig(files[0], files[1], files[2]); err == nil {
			t.Errorf("TLSConfig(%q) is content", files)
		}
	}
}

func TestShutdownLetsRequestsUnderWayFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{publish: func(context.Context) error { time.Sleep(3 * time.Second); return nil }}
		h := newHandler(t, s, Config{})
		conn, srv := dial(t, h)
		fmt.Fprintf(conn, "%sConnection: close\r\nContent-Length: %d\r\n\r\n%s", head, len(body), body)
		synctest.Wait()
		h.Stop()
		down := make(chan error)
		go func() { down <- srv.Shutdown(t.Context()) }()
		answer, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 202 ") || !strings.HasSuffix(string(answer), `{"id":"n-1","alerts":2}`+"\n") {
			t.Errorf("answer %q, %v", answer, err)
		}
		if err := <-down; err != nil {
			t.Error(err)
		}
	})
}
