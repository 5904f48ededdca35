package pmm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/ingest/pmm/pmmtest"
)

func TestClientsThatCannotWork(t *testing.T) {
	for _, tt := range []struct {
		want string
		cfg  ClientConfig
	}{
		{"not of the form", ClientConfig{URL: "pmm.example.net", Token: "s3cret"}},
		{"not of the form", ClientConfig{URL: "https://admin:s3cret@pmm", Token: "s3cret"}},
		{"not of the form", ClientConfig{URL: "https://pmm/?auth_token=s3cret", Token: "s3cret"}},
		{"asks for a token", ClientConfig{URL: "https://pmm"}},
		{"no such file", ClientConfig{URL: "https://pmm", Token: "s3cret", CAFile: "/nonexistent"}},
		{"no certificate in", ClientConfig{URL: "https://pmm", Token: "s3cret", CAFile: "client_test.go"}},
	} {
		want, cfg := tt.want, tt.cfg
		_, err := NewClient(cfg)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%+v: %v", cfg.URL, err)
		}
	}
}

func TestErrorsSayTheWayOutAndNoSecret(t *testing.T) {
	echo := func(status int, contentType string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"message":%q}`, "you sent "+r.Header.Get("Authorization")+" \x1b[31m\n and "+ingestToken)
		}
	}
	fake := pmmtest.New(pmmtest.Config{None: "glsa_n0body-t0ken"})
	maintenance := pmmtest.New(pmmtest.Config{})
	maintenance.Page(http.StatusServiceUnavailable)
	for name, c := range map[string]struct {
		handler http.Handler
		token   string
		want    string
	}{
		"wrong token":  {fake, "glsa_wr0ng-t0ken", "read the version of PMM: PMM answered 401 Unauthorized: Invalid API key (the token or password is not accepted"},
		"no role":      {fake, "glsa_n0body-t0ken", "setup pmm needs Editor, in PMM 2 Admin"},
		"maintenance":  {maintenance, pmmtest.Token, "PMM answered 503 Service Unavailable: 503 Service Unavailable (PMM is starting"},
		"echo":         {echo(500, "application/json"), "glsa_ech0-t0ken", "you sent Bearer [redacted]"},
		"a list":       {echo(200, "application/json"), "glsa_ech0-t0ken", "notification policies"},
		"to the login": {http.RedirectHandler("https://user:pw@elsewhere/login?token=x", http.StatusFound), "glsa_redir-t0ken", "redirect to https://elsewhere/login;"},
		"a web page": {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "<!DOCTYPE html><title>Percona &amp; more</title><body>")
		}), "glsa_page-t0ken", "a web page (Percona & more)"},
		"not JSON": {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "[1") }), "glsa_page-t0ken", "not the JSON"},
		"cut off": {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "{")
		}), "glsa_cut-t0ken", "broke off"},
		"cut off early": {http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), "glsa_cut-t0ken", "the connection to 127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(c.handler)
			defer s.Close()
			client, err := NewClient(ClientConfig{URL: s.URL, Token: c.token})
			if err != nil {
				t.Fatal(err)
			}
			_, err = client.Plan(t.Context(), want())
			if name == "a list" { // an object where a list should be
				if err == nil {
					t.Error("no error")
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("the error is %v, want one with %q", err, c.want)
			}
			for _, bad := range []string{c.token, "\n", "\x1b", "pw@"} {
				if strings.Contains(err.Error(), bad) {
					t.Errorf("the error holds %q: %v", bad, err)
				}
			}
		})
	}
}

// A list of 32 MiB that says nothing would take a gigabyte.
func TestAnAnswerOfMillionsOfValuesIsRefused(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"version": "3.1.0", "groups": [`+strings.Repeat("{},", maxValues+1)+`{}]}`)
	}))
	defer s.Close()
	c, err := NewClient(ClientConfig{URL: s.URL, Token: pmmtest.Token})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := c.Version(t.Context()); err == nil || !strings.Contains(err.Error(), "more than 4000000 values") {
		t.Errorf("it was read: %s, %v", v, err)
	}
}

// Whoever answers does not choose how much memory that takes.
func TestLittleIsReadOfTheHeadOfAnAnswer(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for i := range 1000 {
			w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", 100))
		}
		_, _ = io.WriteString(w, `{"version": "3.1.0"}`)
	}))
	defer s.Close()
	c, err := NewClient(ClientConfig{URL: s.URL, Token: pmmtest.Token})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := c.Version(t.Context()); err == nil {
		t.Errorf("it was read: %s", v)
	}
}

func TestSecretsThatGrafanaRepeatsAreHidden(t *testing.T) {
	f := pmmtest.New(pmmtest.Config{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			f.ServeHTTP(w, r)
			return
		}
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"message": "no good: " + ingestToken + " and hm4c\"s"})
	}))
	defer s.Close()
	c, err := NewClient(ClientConfig{URL: s.URL, Token: pmmtest.Token})
	if err != nil {
		t.Fatal(err)
	}
	w := want()
	w.HMACSecret = `hm4c"s`
	p, err := c.Plan(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	err = c.Apply(t.Context(), p)
	if err == nil || !strings.Contains(err.Error(), "no good: [redacted] and [redacted]") {
		t.Errorf("the error is %v", err)
	}
	if text := fmt.Sprintf("%+v %v", p.Steps, p.Notes); strings.Contains(text, ingestToken) || strings.Contains(text, "hm4c") {
		t.Errorf("the plan holds a secret: %s", text)
	}
	if b, _ := json.Marshal(p); strings.Contains(string(b), ingestToken) || strings.Contains(string(b), "hm4c") {
		t.Errorf("the plan holds a secret: %s", b)
	}
}

func TestTLS(t *testing.T) {
	// An authority, a certificate of it for another name, and one as PMM makes it
	// itself: signed by nobody, and no name but the common one.
	authority, authorityKey := certificate(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "Authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	proper, properKey := certificate(t, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, authority, authorityKey)
	other, otherKey := certificate(t, &x509.Certificate{DNSNames: []string{"pmm.example.net"}}, authority, authorityKey)
	own, ownKey := certificate(t, &x509.Certificate{Subject: pkix.Name{CommonName: "localhost"}}, nil, nil)
	old, oldKey := certificate(t, &x509.Certificate{NotAfter: time.Now().Add(-time.Minute), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, authority, authorityKey)

	for name, c := range map[string]struct {
		cert     *x509.Certificate
		key      *ecdsa.PrivateKey
		ca       *x509.Certificate
		insecure bool
		want     string // in the error, "" = none
	}{
		"signed by an unknown authority":   {proper, properKey, nil, false, "is not known here; give it, or the certificate itself, with --pmm-ca"},
		"its authority is named":           {proper, properKey, authority, false, ""},
		"for another name":                 {other, otherKey, authority, false, "for another name"},
		"for another name, named itself":   {other, otherKey, other, false, ""},
		"PMM's own":                        {own, ownKey, nil, false, "certificate"},
		"PMM's own, named":                 {own, ownKey, own, false, ""},
		"expired":                          {old, oldKey, authority, false, "expired"},
		"expired, named itself":            {old, oldKey, old, false, ""},
		"PMM's own, while another is held": {own, ownKey, authority, false, "certificate"},
		"PMM's own, not looked at":         {own, ownKey, nil, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewUnstartedServer(pmmtest.New(pmmtest.Config{}))
			s.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that fail are the point
			s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{c.cert.Raw}, PrivateKey: c.key}}}
			s.StartTLS()
			defer s.Close()
			cfg := ClientConfig{URL: s.URL, Token: pmmtest.Token, InsecureSkipVerify: c.insecure}
			if c.ca != nil {
				cfg.CAFile = filepath.Join(t.TempDir(), "ca.pem")
				if err := os.WriteFile(cfg.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.ca.Raw}), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			client, err := NewClient(cfg)
			if err != nil {
				t.Fatal(err)
			}
			_, err = client.Version(t.Context())
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v, want one with %q", err, c.want)
			}
		})
	}
}

// certificate makes one, signed by the given authority or by itself.
func certificate(t *testing.T, c, authority *x509.Certificate, authorityKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber, c.NotBefore = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour)
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(time.Hour)
	}
	if authority == nil {
		authority, authorityKey = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, authority, &key.PublicKey, authorityKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func TestNobodyThere(t *testing.T) {
	s := httptest.NewServer(pmmtest.New(pmmtest.Config{}))
	version := func(url string) error {
		c, err := NewClient(ClientConfig{URL: url, Token: pmmtest.Token})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Version(t.Context())
		return err
	}
	if err := version(strings.Replace(s.URL, "http:", "https:", 1)); err == nil || !strings.Contains(err.Error(), "does not speak TLS") {
		t.Errorf("no TLS there: %v", err)
	}
	s.Close()
	if err := version(s.URL); err == nil || !strings.Contains(err.Error(), "nothing listens there") {
		t.Errorf("nobody there: %v", err)
	}
}

func TestNoAnswer(t *testing.T) {
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer s.Close()
	defer close(release)
	c, err := NewClient(ClientConfig{URL: s.URL, Token: "t0ken", Timeout: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Version(t.Context()); err == nil || !strings.Contains(err.Error(), "no answer from 127.0.0.1") {
		t.Errorf("the error is %v", err)
	}
}

func TestProxyIsHonoured(t *testing.T) {
	c, err := NewClient(ClientConfig{URL: "https://pmm", Token: "t0ken"})
	if err != nil {
		t.Fatal(err)
	}
	if c.cfg.Transport.(*http.Transport).Proxy == nil {
		t.Error("the proxy of the environment is ignored")
	}
}

func TestLoopback(t *testing.T) {
	for u, want := range map[string]bool{
		"http://127.0.0.1:8080": true, "http://[::1]": true, "http://localhost": true, "https://a.localhost.": true,
		"http://pmm:8080": false, "http://127.0.0.1.example.net": false,
	} {
		if IsLoopback(u) != want {
			t.Errorf("%s is this machine: %v", u, !want)
		}
	}
}

func TestVersions(t *testing.T) {
	for v, want := range map[string]bool{"2.31.0": true, "2.30.9": false, "3.0.0-rc": true, "2.31-dev": true, "1.17": false, "10.0": true, "x": false, "": false, "2": false} {
		if atLeast(v, 2, 31) != want {
			t.Errorf("%q is at least 2.31: %v", v, !want)
		}
	}
}

// FuzzAnswers: whatever PMM answers, nothing panics, and members that we do not
// know come through as they were.
func FuzzAnswers(f *testing.F) {
	f.Add(`[{"uid":"callgoose-sqibs","name":"Callgoose SQIBS","type":"webhook","settings":{"url":"http://x","maxAlerts":1e9}}]`,
		`{"receiver":"r","x":1.50,"routes":[{"object_matchers":[["a","=","b"]],"continue":true,"new":{"<":[]}},{"match":{"a":"b"}}]}`)
	f.Add(`[{"settings":null},{}]`, `{"receiver":"r","routes":null}`)
	f.Add(`null`, `{"receiver":"r","routes":[{"receiver":"Callgoose SQIBS","routes":[{}]},{"continue":true,"object_matchers":[["pmm_callgoose_route","!=","default"]]}]}`)
	f.Fuzz(func(t *testing.T, points, policies string) {
		mux := http.NewServeMux()
		say := func(path, text string) {
			mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) })
		}
		say("/v1/server/version", `{"version":"3.8.0"}`)
		say("/graph/api/health", `{"version":"12.4.1"}`)
		say("/graph/api/v1/provisioning/contact-points", points)
		say("/graph/api/v1/provisioning/policies", policies)
		c, err := NewClient(ClientConfig{URL: "http://pmm", Token: "t0ken", Transport: roundTrip(func(r *http.Request) *http.Response {
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, r)
			return w.Result()
		})})
		if err != nil {
			t.Fatal(err)
		}
		_, _, _ = c.Inspect(t.Context(), Intake{})
		p, err := c.Plan(t.Context(), Want{URL: "http://x/v1/webhook", Token: "t"})
		if err != nil || p.tree == nil {
			return
		}
		var before, after map[string]json.RawMessage
		if err := json.Unmarshal([]byte(policies), &before); err != nil {
			t.Fatalf("policies that cannot be read were changed: %v", err)
		}
		if err := json.Unmarshal(p.tree.body, &after); err != nil {
			t.Fatalf("the policies written are no JSON: %v\n%s", err, p.tree.body)
		}
		for k, v := range before {
			if k != "routes" && string(after[k]) != string(v) {
				t.Errorf("member %q was %s and is %s", k, v, after[k])
			}
		}
	})
}

type roundTrip func(*http.Request) *http.Response

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r), nil }
