package cli

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/bench"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/ingest"
	"pmm-callgoose/ingest/pmm"
)

// intake posts webhooks to the running service as PMM does: to the address that
// is really bound, with the credentials that the service itself names.
type intake struct {
	url      string
	secrets  *config.Config            // those of the intake
	settings map[string]config.Setting // of the service, by name
	tls      *tls.Config               // nil = not over HTTPS
	http     http.Client
}

// intakeSecrets are the settings that let a webhook in.
var intakeSecrets = []string{"ingest-token-file", "ingest-basic-auth-file", "ingest-hmac-secret-file", "ingest-hmac-timestamp-header"}

// findIntake asks the service where and how it takes webhooks. An error says why
// the caller cannot post there, in words for a person.
func (p *program) findIntake(c *cli.Context, client *admin.Client, s admin.Status) (*intake, error) {
	if s.WebhookURL == "" {
		return nil, errors.New("the service does not say where it takes webhooks")
	}
	if at := c.String("admin-url"); at != "" && !pmm.IsLoopback(at) {
		return nil, errors.New("the service runs on another machine")
	}
	settings, err := admin.Ask[[]config.Setting](c.Context, client, "GET /api/v1/config", nil)
	if err != nil {
		return nil, err
	}
	return intakeOf(s.WebhookURL, settings)
}

func intakeOf(webhooks string, settings []config.Setting) (*intake, error) {
	u, err := url.Parse(webhooks)
	if err != nil {
		return nil, errors.New("the service names no address that can be called")
	}
	if ip := net.ParseIP(u.Hostname()); ip != nil && ip.IsUnspecified() { // bound to every address
		u.Host = net.JoinHostPort("localhost", u.Port())
	}
	named, input := byName(settings), inputOf(settings)
	in := &intake{url: u.String(), settings: named}
	for _, name := range []string{"ingest-token", "ingest-basic-auth", "ingest-hmac-secret"} {
		switch s := named[name]; {
		case s.Value == "":
		case s.File == "":
			return nil, fmt.Errorf("its %s came from the %s, which only the service can read", name, s.From)
		default: // one that is closed to this user too, so that the error says so
			input.Flags[name+"-file"] = s.File
		}
	}
	input.Only = intakeSecrets
	if in.secrets, _, err = config.Load(input); err != nil {
		return nil, fmt.Errorf("a secret of the intake cannot be used (%w)", err)
	}
	if u.Scheme == "https" {
		if named["tls-client-ca"].Value != "" {
			return nil, errors.New("the intake wants a client certificate (--tls-client-ca)")
		}
		if in.tls, err = pinned(named["tls-cert"].Value); err != nil {
			return nil, err
		}
	}
	in.http.Transport = &http.Transport{DisableKeepAlives: true, TLSClientConfig: in.tls} // like Grafana; and no proxy on the way to ourselves
	return in, nil
}

// tokenOf is the newest token with which source may post, "" when there is none.
func tokenOf(tokens, source string) string {
	if own := ingest.TokensOf(tokens, source); len(own) > 0 {
		return own[len(own)-1]
	}
	return ""
}

// sourceOf is the PMM server that a webhook's URL names.
func sourceOf(webhooks string) string {
	u, err := url.Parse(webhooks)
	if err != nil {
		return ""
	}
	_, source, _ := strings.Cut(strings.Trim(u.Path, "/"), "v1/webhook/")
	return cmp.Or(source, "pmm")
}

// pinned trusts the one certificate in file, whatever name it is for: we call an
// address, PMM a name. (doctor looks at the names.)
func pinned(file string) (*tls.Config, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, errors.New("the certificate (--tls-cert) cannot be read from here")
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("the certificate (--tls-cert) is not PEM")
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // #nosec G402 -- VerifyConnection compares instead
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 || !bytes.Equal(cs.PeerCertificates[0].Raw, block.Bytes) {
				return x509.CertificateInvalidError{Reason: x509.NotAuthorizedToSign, Detail: "it is not the one in --tls-cert"}
			}
			return nil
		},
	}, nil
}

// target is the intake as a load needs it, with the credentials of source.
func (in *intake) target(source string) bench.Target {
	t := bench.Target{
		URL: in.url + "/" + source, Header: http.Header{}, TLS: in.tls,
		HMACSecret: in.secrets.IngestHMACSecret.Reveal(), HMACTimestamp: in.secrets.IngestHMACTimestampHeader,
	}
	switch {
	case in.secrets.IngestToken.IsSet():
		t.Header.Set("Authorization", "Bearer "+tokenOf(in.secrets.IngestToken.Reveal(), source))
	case in.secrets.IngestBasicAuth.IsSet():
		t.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(in.secrets.IngestBasicAuth.Reveal())))
	}
	return t
}

// post sends one body and returns the id of the notification, or what was wrong.
func (in *intake) post(ctx context.Context, source string, body []byte) (id string, status int, err error) {
	t := in.target(source)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.URL, bytes.NewReader(body))
	if err != nil {
		return "", 0, err
	}
	req.Header = t.Header
	req.Header.Set("Content-Type", "application/json")
	if t.HMACSecret != "" {
		pmm.Sign(req.Header, t.HMACSecret, t.HMACTimestamp, body, time.Now())
	}
	resp, err := in.http.Do(req)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		return "", 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct{ ID, Error string }
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	_ = json.Unmarshal(text, &answer)
	if resp.StatusCode != http.StatusAccepted {
		return "", resp.StatusCode, errors.New(answer.Error)
	}
	return answer.ID, resp.StatusCode, nil
}
