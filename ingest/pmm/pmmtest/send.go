package pmmtest

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Send posts a body as the contact point with that uid would, with the credentials
// that are stored in it (grafana/alerting:receivers/webhook, http/hmac.go).
func (f *Fake) Send(uid string, body []byte) (status int, text string, err error) {
	req, err := f.webhook(uid, body)
	if err != nil {
		return 0, "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func (f *Fake) webhook(uid string, body []byte) (*http.Request, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := slices.IndexFunc(f.points, func(p *point) bool { return p.UID == uid && p.Type == "webhook" })
	if at < 0 {
		return nil, fmt.Errorf("there is no webhook %s", uid)
	}
	p := f.points[at]
	text := func(key string) string { v, _ := p.Settings[key].(string); return v }
	req, err := http.NewRequest(cmp.Or(text("httpMethod"), http.MethodPost), text("url"), bytes.NewReader(body)) //nolint:noctx // a fake's
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Grafana")
	if credentials := p.Secrets["authorization_credentials"]; credentials != "" {
		req.Header.Set("Authorization", text("authorization_scheme")+" "+credentials)
	} else if text("username") != "" && p.Secrets["password"] != "" {
		req.SetBasicAuth(text("username"), p.Secrets["password"])
	}
	if secret := p.Secrets["hmacConfig.secret"]; secret != "" {
		config, _ := p.Settings["hmacConfig"].(map[string]any)
		mac := hmac.New(sha256.New, []byte(secret))
		if header, _ := config["timestampHeader"].(string); header != "" {
			now := strconv.FormatInt(time.Now().Unix(), 10)
			req.Header.Set(header, now)
			mac.Write([]byte(now + ":"))
		}
		mac.Write(body)
		header, _ := config["header"].(string)
		req.Header.Set(header, hex.EncodeToString(mac.Sum(nil)))
	}
	return req, nil
}
