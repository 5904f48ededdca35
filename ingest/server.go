package ingest

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"net/http"
	"os"
	"sync"
	"time"
)

// Server returns a server for h whose limits keep slow and chatty clients from
// holding it. TLS is off when tlsConfig is nil; else use ServeTLS(l, "", "").
func Server(h http.Handler, tlsConfig *tls.Config) *http.Server {
	srv := &http.Server{
		Handler:           h,
		TLSConfig:         tlsConfig,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second, // PMM gives up then at the latest
		WriteTimeout:      45 * time.Second, // reading, publishing and a little
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ConnContext:       ConnContext,
	}
	// No HTTP/2: a connection is one body at a time, so that a bound on connections
	// bounds those too.
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true)
	if h, ok := h.(*Handler); ok {
		srv.ErrorLog = log.New(quiet{h.lines}, "", 0)
	}
	return srv
}

// TLSConfig returns the TLS settings for a certificate and its key, or nil when no
// file is named. With clientCA a sender must show a certificate that it signed.
//
// When the files change, the next handshake uses the new pair. A pair that cannot
// be read leaves the old one in use; the reason goes to the server's ErrorLog.
// clientCA is read once.
func TLSConfig(cert, key, clientCA string) (*tls.Config, error) {
	if cert == "" && key == "" && clientCA == "" {
		return nil, nil
	}
	p := &keyPair{cert: cert, key: key}
	if err := p.reload(); err != nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: p.get}
	if clientCA == "" {
		return c, nil
	}
	pem, err := os.ReadFile(clientCA)
	if err != nil {
		return nil, fmt.Errorf("client CA: %w", err)
	}
	c.ClientCAs = x509.NewCertPool()
	if !c.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("client CA %s: no PEM certificate in it", clientCA)
	}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	return c, nil
}

// keyPair is a certificate that follows its files.
type keyPair struct {
	cert, key string

	mu      sync.Mutex
	current *tls.Certificate // guarded by mu
	seen    [2]version       // of the files last tried, good or bad; guarded by mu
}

// version tells one state of a file from another.
type version struct {
	modified time.Time
	size     int64
}

func (p *keyPair) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.reload(); err != nil {
		srv, ok := hello.Context().Value(http.ServerContextKey).(*http.Server)
		if ok && srv.ErrorLog != nil {
			srv.ErrorLog.Printf("certificate not reloaded, the old one stays in use: %v", err)
		}
	}
	return p.current, nil
}

// reload reads the pair if its files are not those last tried. The versions are
// taken first, so that a file written meanwhile is read again.
func (p *keyPair) reload() error {
	var found [2]version
	for i, name := range []string{p.cert, p.key} {
		if info, err := os.Stat(name); err == nil {
			found[i] = version{info.ModTime(), info.Size()}
		}
	}
	if found == p.seen && p.current != nil {
		return nil
	}
	p.seen = found
	pair, err := tls.LoadX509KeyPair(p.cert, p.key)
	if err != nil {
		return fmt.Errorf("certificate %s with key %s: %w", p.cert, p.key, err)
	}
	p.current = &pair
	return nil
}
