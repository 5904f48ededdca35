package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/config"
)

// The log that serve makes, in both formats: no secret, durations that a person can
// read, and nothing of an alert's text that a terminal obeys or that deceives the eye.
func TestTheLogOfServe(t *testing.T) {
	for format, want := range map[string]string{
		"text": `msg=attempt alertname="\u009b2Jdb\u202e\x7f\u200b" err="callgoose says [redacted]" retry_in=1.5s`,
		"json": `"msg":"attempt","alertname":"\u009b2Jdb\u202e\u007f\u200b","err":"callgoose says [redacted]","retry_in":"1.5s"`,
	} {
		var out bytes.Buffer
		cfg := &config.Config{LogFormat: format, CallgooseToken: config.NewSecret("t0ken-of-ours")}
		newLogger(cfg, &out, false).Warn("attempt", "alertname", "\u009b2Jdb\u202e\x7f\u200b", "err", errors.New("callgoose says t0ken-of-ours"), "retry_in", 1500*time.Millisecond)
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s: %s, want %s", format, &out, want)
		}
	}
}
