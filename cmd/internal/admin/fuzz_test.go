package admin

import (
	"strings"
	"testing"
	"time"
	"unicode"
)

// FuzzTime: whatever time is read can be written, and is read again as it was.
func FuzzTime(f *testing.F) {
	for _, v := range []string{"2h", "-90m", "2026-01-31T03:00:00Z", "2026-01-31T03:00:00.000000001+14:00", "2026-01-31 03:00", "9999-12-31T23:59:59-23:59", "0000-01-01T00:00:00+23:59", "-2562047h47m16.854775808s", "1h\n", "２h"} {
		f.Add(v)
	}
	now := time.Date(2026, 11, 23, 3, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, v string) {
		at, err := ParseTime(v, now)
		if err != nil {
			if strings.ContainsFunc(err.Error(), unicode.IsControl) {
				t.Fatalf("not one line: %q", err)
			}
			return
		}
		again, err := ParseTime(at.UTC().Format(time.RFC3339Nano), now)
		if err != nil || !again.Equal(at) {
			t.Fatalf("%q is %s, then %s, %v", v, at, again, err)
		}
	})
}
