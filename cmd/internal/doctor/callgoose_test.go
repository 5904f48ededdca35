package doctor

import (
	"bufio"
	"encoding/json"
	"encoding/pem"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/worker/callgoose/callgoosetest"
	"pmm-callgoose/worker/callgoose/filters"
)

const (
	token         = "cg-s3cr3t-of-the-doctor"
	proxyPassword = "pr0xy-passw0rd"
)

// settings are those of serve with these flags, in a data directory of their own.
func settings(t *testing.T, flags map[string]string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	all := map[string]string{
		"data-dir": filepath.Join(dir, "data"), "callgoose-token-file": secretFile(t, dir, "token", token), "min-free": "off",
		"listen": "127.0.0.1:0", "admin-listen": "off",
	}
	if err := os.Mkdir(all["data-dir"], 0o700); err != nil {
		t.Fatal(err)
	}
	maps.Copy(all, flags)
	c, _, err := config.Load(config.Input{Flags: all, Serve: true})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func secretFile(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func direct(*http.Request) (*url.URL, error) { return nil, nil }

// examine runs everything and demands that no secret is told.
func examine(t *testing.T, cfg Config) Report {
	t.Helper()
	if cfg.Proxy == nil {
		cfg.Proxy = direct
	}
	r := Run(t.Context(), cfg)
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{token, proxyPassword} {
		if strings.Contains(string(b), secret) {
			t.Errorf("a secret is told: %s", b)
		}
	}
	if n := r.OK + r.Warnings + r.Failed + r.Skipped; n != len(r.Findings) {
		t.Errorf("%d findings are counted as %d", len(r.Findings), n)
	}
	for _, f := range r.Findings {
		if (f.Severity == Warn || f.Severity == Fail) && len(f.Fix) == 0 {
			t.Errorf("%s has no fix: %s", f.Check, f.Text)
		}
	}
	return r
}

// demand wants a finding of that check and severity whose text and fix hold all
// of these words.
func demand(t *testing.T, r Report, check string, s Severity, words ...string) {
	t.Helper()
	var seen []string
	for _, f := range r.Findings {
		if f.Check != check {
			continue
		}
		all := string(f.Severity) + " " + f.Text + " > " + strings.Join(f.Fix, " > ")
		seen = append(seen, all)
		good := f.Severity == s
		for _, w := range words {
			good = good && strings.Contains(all, w)
		}
		if good {
			return
		}
	}
	t.Errorf("no finding %q is %s with %q; there are %q", check, s, words, seen)
}

// failedStep is the first callgoose finding that failed.
func failedStep(r Report) string {
	for _, f := range r.Findings {
		if f.Severity == Fail && strings.HasPrefix(f.Check, "callgoose") {
			return f.Check
		}
	}
	return ""
}

func closedPort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestTheStepThatFailsIsNamed(t *testing.T) {
	fake := callgoosetest.New(callgoosetest.Config{Tokens: []string{token}})
	plain := httptest.NewServer(fake)
	t.Cleanup(plain.Close)
	secure := httptest.NewTLSServer(fake)
	t.Cleanup(secure.Close)
	secure.Config.ErrorLog = nil
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(secure.Listener.Addr().String())
	answering := func(status int, header ...string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	failing := func(mode string) string {
		broken := callgoosetest.New(callgoosetest.Config{})
		failure, err := callgoosetest.ParseFailure(mode)
		if err != nil {
			t.Fatal(err)
		}
		broken.Fail(failure)
		s := httptest.NewServer(broken)
		t.Cleanup(s.Close)
		return s.URL
	}
	for _, tt := range []struct {
		name  string
		url   string
		flags map[string]string
		step  string // the first that fails, "" = none
		words []string
	}{
		{"all is well", plain.URL, nil, "", nil},
		{"all is well with TLS", secure.URL, map[string]string{"callgoose-ca": ca}, "", nil},
		{"no such name", "https://no-such-host.invalid", nil, "callgoose dns", []string{"no-such-host.invalid", "getent hosts"}},
		{"nobody listens", "http://" + closedPort(t), nil, "callgoose connect", []string{"connection refused", "firewall", "HTTPS_PROXY"}},
		{"an authority nobody knows", secure.URL, nil, "callgoose tls", []string{"authority", "--callgoose-ca"}},
		{"another name", "https://localhost:" + port, map[string]string{"callgoose-ca": ca}, "callgoose tls", []string{"not localhost", "example.com"}},
		{"no TLS there", strings.Replace(plain.URL, "http:", "https:", 1), nil, "callgoose tls", []string{"does not look like a TLS handshake"}},
		{"wrong token", plain.URL, map[string]string{"callgoose-token-file": secretFile(t, t.TempDir(), "t", "another")}, "callgoose token", []string{"401", "/t: the service reads it again by itself"}},
		{"wrong path", answering(404), nil, "callgoose http", []string{"404", "whole URL"}},
		{"a redirect", answering(302, "Location", "https://elsewhere.invalid"), nil, "callgoose http", []string{"302", "whole URL"}},
		{"a page with 200", failing("200-html"), nil, "callgoose http", []string{"a proxy or login page answered 200", "whole URL"}},
		{"a page with 400", failing("400-html"), nil, "callgoose http", []string{"a proxy or login page answered 400"}},
		{"plain text with 200", failing("200-text"), nil, "callgoose http", []string{"answered 200 without anything that Callgoose says", "whole URL"}},
		{"an error of somebody else's with 200", failing("200-error"), nil, "callgoose http", []string{"answered 200 without anything that Callgoose says"}},
		{"nothing with 204", answering(204), nil, "callgoose http", []string{"answered 204"}},
		{"Callgoose is broken", answering(503), nil, "callgoose http", []string{"503", "events wait on disk"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			flags := map[string]string{"callgoose-url": tt.url + "/v1/process"}
			maps.Copy(flags, tt.flags)
			r := examine(t, Config{Settings: settings(t, flags)})
			if got := failedStep(r); got != tt.step {
				t.Errorf("the step that fails is %q, not %q", got, tt.step)
			}
			if tt.step != "" {
				demand(t, r, tt.step, Fail, tt.words...)
				return
			}
			demand(t, r, "callgoose token", OK, "202")
			demand(t, r, "callgoose filters", Skip, "send-test")
			demand(t, r, "clock", OK)
		})
	}
	c := settings(t, map[string]string{"callgoose-url": plain.URL + "/v1/process"})
	c.CallgooseToken = &config.Secret{} // only the service can read it
	r := examine(t, Config{Settings: c})
	demand(t, r, "callgoose", OK, "answers")
	demand(t, r, "callgoose token", Skip, "send-test")
	if n := len(fake.Incidents()); n != 0 {
		t.Errorf("%d incidents were opened", n)
	}
}

// proxyServer answers CONNECT with a status, 200 makes the tunnel.
func proxyServer(t *testing.T, status int) *url.URL {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || status != http.StatusOK {
			w.WriteHeader(status)
			return
		}
		if _, password, _ := (&http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}).BasicAuth(); password != proxyPassword {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		up, err := net.Dial("tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer up.Close()
		down, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer down.Close()
		_, _ = io.WriteString(down, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(up, rw); _ = up.(*net.TCPConn).CloseWrite() }()
		_, _ = io.Copy(down, bufio.NewReader(up))
	}))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestThroughAProxy(t *testing.T) {
	fake := callgoosetest.New(callgoosetest.Config{Tokens: []string{token}})
	secure := httptest.NewTLSServer(fake)
	t.Cleanup(secure.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	closed, _ := url.Parse("http://" + closedPort(t))
	known := proxyServer(t, 200)
	known.User = url.UserPassword("user", proxyPassword)
	for _, tt := range []struct {
		name  string
		proxy *url.URL
		step  string
		words []string
	}{
		{"a tunnel", known, "", nil},
		{"without credentials", proxyServer(t, 200), "callgoose proxy", []string{"407", "USER:PASSWORD"}},
		{"refused", proxyServer(t, 403), "callgoose proxy", []string{"403", "NO_PROXY=127.0.0.1"}},
		{"the proxy is away", closed, "callgoose proxy", []string{"the proxy", "refused"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := examine(t, Config{
				Settings: settings(t, map[string]string{"callgoose-url": secure.URL + "/v1/process", "callgoose-ca": ca}),
				Proxy:    http.ProxyURL(tt.proxy),
			})
			if got := failedStep(r); got != tt.step {
				t.Errorf("the step that fails is %q, not %q", got, tt.step)
			}
			if tt.step != "" {
				demand(t, r, tt.step, Fail, tt.words...)
				return
			}
			demand(t, r, "callgoose token", OK, tt.proxy.Host)
		})
	}
}

func TestAFilterThatMatchesEverything(t *testing.T) {
	fake := callgoosetest.New(callgoosetest.Config{Tokens: []string{token}, Filters: []filters.Filter{{Trigger: filters.Trigger{
		Urgency: "high", Pairs: []filters.Pair{{Key: `"source"`, Items: []string{"p"}}},
		MapWith: `"title"`, TitleFrom: `"title"`, DescriptionFrom: `"description"`,
	}}}})
	s := httptest.NewServer(fake)
	defer s.Close()
	r := examine(t, Config{Settings: settings(t, map[string]string{"callgoose-url": s.URL + "/v1/process"})})
	demand(t, r, "callgoose token", Warn, "not firing", `"status" / firing`)
}

func TestClock(t *testing.T) {
	for _, tt := range []struct {
		name string
		off  time.Duration
		hmac bool
		want Severity
	}{
		{"right", 0, true, OK},
		{"a minute", time.Minute, true, OK},
		{"three minutes behind", 3 * time.Minute, true, Warn},
		{"three minutes ahead", -3 * time.Minute, true, Warn},
		{"ten minutes", 10 * time.Minute, false, Warn},
		{"ten minutes, and signatures", 10 * time.Minute, true, Fail},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fake := callgoosetest.New(callgoosetest.Config{Tokens: []string{token}})
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Date", time.Now().Add(tt.off).UTC().Format(http.TimeFormat))
				fake.ServeHTTP(w, r)
			}))
			defer s.Close()
			flags := map[string]string{"callgoose-url": s.URL + "/v1/process"}
			if tt.hmac {
				flags["ingest-hmac-secret-file"] = secretFile(t, t.TempDir(), "hmac", "hmac-secret")
			}
			demand(t, examine(t, Config{Settings: settings(t, flags)}), "clock", tt.want)
		})
	}
}

// systemd hands over a copy, so the place for a new token is not where it was read.
func TestANewTokenGoesWhereTheServiceTakesItFrom(t *testing.T) {
	dir := t.TempDir()
	for credentials, want := range map[string]string{dir: dir + "/callgoose-token: the service reads it again", "": "/t: the service reads it again"} {
		in := config.Input{Flags: map[string]string{}, Environ: []string{"CREDENTIALS_DIRECTORY=" + credentials}}
		if credentials == "" {
			in.Flags["callgoose-token-file"] = secretFile(t, t.TempDir(), "t", "t0ken-of-the-test")
		} else {
			secretFile(t, dir, "callgoose-token", "t0ken-of-the-test")
		}
		cfg, _, err := config.Load(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := (&examination{Config: Config{Settings: cfg}}).tokenFile(); !strings.Contains(got, want) {
			t.Errorf("with %q: %s", credentials, got)
		}
	}
	if got := (&examination{Config: Config{Settings: &config.Config{CallgooseToken: config.NewSecret("x")}}}).tokenFile(); !strings.Contains(got, "restart") {
		t.Error(got)
	}
}
