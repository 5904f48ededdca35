package config

import (
	"maps"
	"testing"
	"time"
)

func TestExpect(t *testing.T) {
	list := map[string]time.Duration{"pmm": 30 * time.Minute, "dr": 2 * time.Hour}
	for text, want := range map[string]*Expect{
		"30m": {Every: 30 * time.Minute}, "1d": {Every: 24 * time.Hour}, "0": {},
		"pmm=30m,dr=2h": {Sources: list}, "pmm=30m, dr=2h": {Sources: list},
		"": nil, "-1m": nil, "soon": nil, "30m,dr=2h": nil, "pmm=": nil, "=30m": nil, "PMM=30m": nil, "pmm=0": nil,
		"pmm=30m,pmm=2h": nil, "pmm=30m,": nil, "this-one-is-too-long=1h": nil, "pmm=30m=2": nil,
	} {
		got, err := ParseExpect(text)
		if (want == nil) != (err != nil) {
			t.Errorf("%q: %v", text, err)
		} else if want != nil && (got.Every != want.Every || !maps.Equal(got.Sources, want.Sources)) {
			t.Errorf("%q is %+v, want %+v", text, got, *want)
		}
		if got.On() != (want != nil && text != "0") {
			t.Errorf("%q: on is %v", text, got.On())
		}
	}
	c, _, err := Load(Input{Flags: map[string]string{"expect-every": "pmm=30m,dr=2h"}, Environ: []string{"HOME=/h"}})
	if err != nil || !maps.Equal(c.ExpectEvery.Sources, list) {
		t.Error(c.ExpectEvery, err)
	}
}
