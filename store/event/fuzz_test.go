package event

import (
	"math"
	"strings"
	"testing"
)

// FuzzNotificationID: what is read names one notification, and what we wrote is
// read as it was.
func FuzzNotificationID(f *testing.F) {
	for _, id := range []string{"n1042.3", "n0.0", "n18446744073709551615.4294967295", "n18446744073709551616.0", "n1.4294967296", "nn1.2", "n+1.2", "n1.2.3", "n 1.2", "n1_0.2", "n0x1.2", "1.2", "n.", "", "n007.01"} {
		f.Add(id, uint64(math.MaxUint64), uint32(7))
	}
	f.Fuzz(func(t *testing.T, id string, seq uint64, note uint32) {
		if s, n, err := ParseNotificationID(NotificationID(seq, note)); err != nil || s != seq || n != note {
			t.Fatalf("wrote %s, read %d.%d, %v", NotificationID(seq, note), s, n, err)
		}
		s, n, err := ParseNotificationID(id)
		if err != nil {
			if s != 0 || n != 0 || strings.ContainsAny(err.Error(), "\r\n\x00") {
				t.Fatalf("%q: %d.%d, %q", id, s, n, err)
			}
			return
		}
		// Only leading zeros may get lost.
		if want := NotificationID(s, n); strings.ReplaceAll(want, "0", "") != strings.ReplaceAll(id, "0", "") || len(want) > len(id) {
			t.Fatalf("%q is read as %s", id, want)
		}
	})
}
