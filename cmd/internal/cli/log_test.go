package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/config"
)

// The log that serve makes, in both formats: no secret, and durations that a
// person can read.
func TestTheLogOfServe(t *testing.T) {
	for format, want := range map[string]string{
		"text": `msg=attempt err="callgoose says [redacted]" retry_in=1.5s`,
		"json": `"msg":"attempt","err":"callgoose says [redacted]","retry_in":"1.5s"`,
	} {
		var out bytes.Buffer
		cfg := &config.Config{LogFormat: format, CallgooseToken: config.NewSecret("t0ken-of-ours")}
		newLogger(cfg, &out, false).Warn("attempt", "err", errors.New("callgoose says t0ken-of-ours"), "retry_in", 1500*time.Millisecond)
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s: %s, want %s", format, &out, want)
		}
	}
}
