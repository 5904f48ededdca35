package config

import (
	"strings"
	"testing"
	"time"
)

func TestStorm(t *testing.T) {
	for text, want := range map[string]Storm{
		"30/1m": {30, time.Minute}, "1/1s": {1, time.Second}, "1000/1d": {1000, 24 * time.Hour},
		"": {}, "30": {}, "30/": {}, "/1m": {}, "0/1m": {}, "-1/1m": {}, "1001/1m": {}, "30/0s": {}, "30/25h": {}, "30/-1m": {}, "30/1m/2": {}, "many/1m": {},
	} {
		got, err := parseStorm(text)
		if got != want || (err != nil) != (want == Storm{}) {
			t.Errorf("%q is %+v (%v), want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "30", "30/", "/1m"} {
		if _, err := parseStorm(text); err == nil || !strings.Contains(err.Error(), "such as 30/1m") {
			t.Errorf("%q: %v does not say the form", text, err)
		}
	}
	for text, want := range map[string]Storm{"30/1m": {30, time.Minute}, "off": {}} {
		if c, _, err := Load(Input{Flags: map[string]string{"storm": text}, Environ: []string{"HOME=/h"}}); err != nil || c.Storm != want {
			t.Errorf("--storm %s is %+v, %v", text, c.Storm, err)
		}
	}
}
