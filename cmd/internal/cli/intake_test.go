package cli

import (
	"context"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/ingest"
	"pmm-callgoose/worker"
)

// stored takes every notification.
type stored struct{ sources []string }

func (s *stored) Publish(_ context.Context, n ingest.Notification) (string, error) {
	s.sources = append(s.sources, n.Source)
	return "n1.0", nil
}

func TestPostAsPMMDoes(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret := func(name, text string) config.Setting {
		return config.Setting{Name: name, Value: "[redacted]", From: "flag", File: file(name+"-"+strings.TrimSpace(text), text)}
	}
	is := func(s string) func() string { return func() string { return s } }
	for _, tt := range []struct {
		name     string
		intake   ingest.Config
		settings []config.Setting
		status   int
	}{
		{"nothing asked for", ingest.Config{}, nil, 202},
		{"a token", ingest.Config{Token: is("t0k")}, []config.Setting{secret("ingest-token", "t0k\n")}, 202},
		{"user and password", ingest.Config{Basic: is("pmm:pa:ss")}, []config.Setting{secret("ingest-basic-auth", "pmm:pa:ss")}, 202},
		{"a signature", ingest.Config{HMACSecret: is("k")}, []config.Setting{secret("ingest-hmac-secret", "k")}, 202},
		{
			"a signature with its time, and a token",
			ingest.Config{HMACSecret: is("k"), HMACTimestampHeader: "X-Time", Token: is("t0k")},
			[]config.Setting{secret("ingest-hmac-secret", "k"), secret("ingest-token", "t0k"), {Name: "ingest-hmac-timestamp-header", Value: "X-Time"}},
			202,
		},
		{"another token", ingest.Config{Token: is("new")}, []config.Setting{secret("ingest-token", "old")}, 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store := &stored{}
			tt.intake.Publisher = store
			h, err := ingest.New(tt.intake)
			if err != nil {
				t.Fatal(err)
			}
			s := httptest.NewTLSServer(h)
			defer s.Close()
			cert := file("cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
			in, err := intakeOf(s.URL+"/v1/webhook", append(tt.settings, config.Setting{Name: "tls-cert", Value: cert}))
			if err != nil {
				t.Fatal(err)
			}
			body, err := worker.Silence{Source: "dr"}.Alert().Body()
			if err != nil {
				t.Fatal(err)
			}
			id, status, err := in.post(t.Context(), "dr", body)
			if status != tt.status || (err == nil) != (status == http.StatusAccepted) {
				t.Fatalf("%d, %v", status, err)
			}
			if err == nil && (id != "n1.0" || strings.Join(store.sources, " ") != "dr") {
				t.Errorf("id %s, stored from %q", id, store.sources)
			}
		})
	}
}

// A stranger on our port must not be told the credentials.
func TestOnlyOurCertificateIsTrusted(t *testing.T) {
	asked := false
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer s.Close()
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	cert := filepath.Join(t.TempDir(), "cert.pem")
	wrong := append([]byte(nil), s.Certificate().Raw...)
	wrong[len(wrong)-1] ^= 1
	if err := os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: wrong}), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := intakeOf(s.URL, []config.Setting{{Name: "tls-cert", Value: cert}})
	if err != nil {
		t.Fatal(err)
	}
	if _, status, err := in.post(t.Context(), "pmm", []byte("{}")); err == nil || status != 0 || asked {
		t.Errorf("status %d, %v, asked %v", status, err, asked)
	}
}

func TestWhyTheIntakeCannotBeUsed(t *testing.T) {
	for word, s := range map[string]config.Setting{
		"only the service can read": {Name: "ingest-token", Value: "[redacted]", From: "environment"},
		"cannot be read":            {Name: "ingest-token", Value: "[redacted]", File: "/no/such/file"},
		"client certificate":        {Name: "tls-client-ca", Value: "/ca.pem"},
		"--tls-cert":                {Name: "tls-cert", Value: "/no/such/file"},
	} {
		if _, err := intakeOf("https://127.0.0.1:1/v1/webhook", []config.Setting{s}); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%v, want %q", err, word)
		}
	}
	if in, err := intakeOf("http://[::]:4667/v1/webhook", nil); err != nil || in.url != "http://localhost:4667/v1/webhook" {
		t.Error(in, err)
	}
}
