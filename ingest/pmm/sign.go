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

// Sign signs a webhook as Grafana does (grafana/alerting, http/hmac.go): an
// HMAC-SHA256 over the body, in lower-case hex. With a timestampHeader that
// header holds Unix seconds, and the signature is over "seconds:body".
func Sign(h http.Header, secret, timestampHeader string, body []byte, now time.Time) {
	mac := hmac.New(sha256.New, []byte(secret))
	if timestampHeader != "" {
		at := strconv.FormatInt(now.Unix(), 10)
		h.Set(timestampHeader, at)
		mac.Write([]byte(at + ":"))
	}
	mac.Write(body)
	h.Set(SignatureHeader, fmt.Sprintf("%x", mac.Sum(nil)))
}
