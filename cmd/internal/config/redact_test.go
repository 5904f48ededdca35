package config

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"testing"
)

// hiding is a type whose JSON shows more than its text.
type hiding struct{ Inner string }

func (h hiding) String() string { return "plain" }

// speaking is what a careless library logs.
type speaking struct {
	Header map[string][]string
}

func TestNoLogLineHoldsASecret(t *testing.T) {
	const token, password, hmac = `tok/en+42"~<&`, "pass w0rd:x", "hmac-5e5e5e"
	file := write(t, "token", token)
	c, _, err := Load(Input{
		Flags: map[string]string{
			"callgoose-token-file":   file,
			"ingest-basic-auth-file": write(t, "basic", "pmm:"+password), "ingest-hmac-secret-file": write(t, "hmac", hmac),
			"alarm-webhook": "https://hooks.test/services/T000/hook-path-secret?key=query-secret", "nats-url": "nats://user:nats-secret@n1:4222,nats://token-secret@n2:4222",
			"nats-monitor": "http://user:monitor-secret@n1:8222",
		},
		Environ: []string{"HOME=/h"},
	})
	if err != nil {
		t.Fatal(err)
	}
	next := token
	dial := func() error { // as net/http says it
		_, err := url.Parse("https://h/%zz?token=" + url.QueryEscape(next))
		return fmt.Errorf("attempt: %w", err)
	}
	basic := func(pair string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(pair)) }
	says := func(log *slog.Logger, secret string) {
		log.Info("message "+secret, "plain", secret, //nolint:sloglint // the message is tested too
			"query", url.QueryEscape(secret), "lower", strings.ToLower(url.QueryEscape(secret)),
			"path", url.PathEscape(secret), "err", dial(), "quoted", fmt.Sprintf("%q", fmt.Sprintf("%q", secret)),
			"wrapped", errors.Join(io.EOF, errors.New(secret)), "bytes", []byte("x"+secret+"x"),
			"basic", basic("pmm:"+secret), "basic2", basic("p:"+secret), "basic3", basic(secret),
			"any", speaking{map[string][]string{"Authorization": {"Bearer " + secret}}}, "hiding", hiding{secret},
			slog.Group("g", "deep", slog.GroupValue(slog.String("deeper", secret))), secret, 1)
		log.With("with", secret).WithGroup("group "+secret).Info("m", "k", secret)
	}
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			next = token
			if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := c.CallgooseToken.Reload(); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			w := c.Redactor().Writer(&out)
			var h slog.Handler = slog.NewTextHandler(w, nil)
			if format == "json" {
				h = slog.NewJSONHandler(w, nil)
			}
			log := slog.New(h)
			secrets := []string{token, password, hmac, "pmm:" + password, "hook-path-secret", "query-secret", "nats-secret", "token-secret", "monitor-secret"}
			check := func() {
				t.Helper()
				for _, s := range secrets {
					for _, form := range []string{s, url.QueryEscape(s), strings.ToLower(url.QueryEscape(s)), url.PathEscape(s), fmt.Sprintf("%q", s), basic(s), basic("pmm:" + s), basic("p:" + s)} {
						if strings.Contains(out.String(), strings.TrimRight(strings.Trim(form, `"`), "=")) {
							t.Errorf("%q stands as %q in\n%s", s, form, out.String())
						}
					}
				}
				for line := range strings.Lines(out.String()) {
					if format == "json" && !json.Valid([]byte(line)) {
						t.Errorf("not JSON any more: %s", line)
					}
				}
			}
			for _, s := range secrets {
				says(log, s)
			}
			check()

			// After a rotation neither the new one nor the old one.
			next = "rotated-" + format + "-77"
			if err := os.WriteFile(file, []byte(next), 0o600); err != nil {
				t.Fatal(err)
			}
			if changed, err := c.CallgooseToken.Reload(); !changed || err != nil {
				t.Fatal(changed, err)
			}
			secrets = append(secrets, next)
			says(log, token)
			says(log, next)
			check()
			log.Info("attempt", "event_id", "62aa110960031c02cbcd", "duration", 5, "alertname", "MySQL Down")
			if !strings.Contains(out.String(), "62aa110960031c02cbcd") || !strings.Contains(out.String(), "MySQL Down") {
				t.Errorf("lost what is no secret:\n%s", out.String())
			}
		})
	}
}

func TestAShortSecretDoesNotEatTheLog(t *testing.T) {
	c := &Config{CallgooseToken: NewSecret("up")}
	if got := c.Redactor().String("callgoose is up"); got != "callgoose is up" {
		t.Error(got)
	}
}
