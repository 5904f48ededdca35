package pmm

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// SignatureHeader carries the signature, unless the contact point names another, and
// TimestampHeader the signed time, where it names none and setup does.
const (
	SignatureHeader = "X-Grafana-Alerting-Signature"
	TimestampHeader = "X-Grafana-Alerting-Timestamp"
)

// Signature is Grafana's for a webhook (grafana/alerting, http/hmac.go): an HMAC-SHA256
// over the body, or over "at:body" where at, Unix seconds, is not "".
func Signature(secret, at string, body []byte) []byte {
	mac := hmac.New(sha256.New, []byte(secret))
	if at != "" {
		mac.Write([]byte(at + ":"))
	}
	mac.Write(body)
	return mac.Sum(nil)
}

// Sign puts the signature into a webhook's header, and with a timestampHeader the time.
func Sign(h http.Header, secret, timestampHeader string, body []byte, now time.Time) {
	at := ""
	if timestampHeader != "" {
		at = strconv.FormatInt(now.Unix(), 10)
		h.Set(timestampHeader, at)
	}
	h.Set(SignatureHeader, fmt.Sprintf("%x", Signature(secret, at, body)))
}
