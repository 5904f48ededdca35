package callgoosetest

import (
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	firing, resolved := Expect{"k", "firing"}, Expect{"k", "resolved"}
	f1, r1, f2 := event("k", "f1", "firing"), event("k", "r1", "resolved"), event("k", "f2", "firing")
	lose, fail := Failure{Mode: LoseReply}, Failure{Mode: Status, Status: 503}
	ok := Failure{}
	type step struct {
		body string
		Failure
	}
	for name, c := range map[string]struct {
		sent []step
		want []Expect
		text string // all of the report but its first line when there are faults
	}{
		"once and in order":                          {[]step{{f1, ok}, {r1, ok}, {f2, ok}}, []Expect{firing, resolved, firing}, "ok: 3 events accepted, each once and in order (0 retried)"},
		"keys do not order each other":               {[]step{{event("b", "1", "firing"), ok}, {event("a", "2", "firing"), ok}}, []Expect{{"a", "firing"}, {"b", "firing"}}, "ok: 2 events accepted, each once and in order (0 retried)"},
		"a failure and its retry":                    {[]step{{f1, fail}, {f1, ok}}, []Expect{firing}, "ok: 1 events accepted, each once and in order (0 retried)"},
		"a lost reply and its retry":                 {[]step{{f1, lose}, {f1, ok}}, []Expect{firing}, "ok: 1 events accepted, each once and in order (1 retried)"},
		"a lost reply alone is accepted":             {[]step{{f1, lose}}, []Expect{firing}, "ok: 1 events accepted, each once and in order (0 retried)"},
		"missing":                                    {[]step{{f1, ok}, {r1, fail}, {r1, fail}}, []Expect{firing, resolved, firing}, "missing       k resolved r1: 2 requests, none accepted\nmissing       k firing : never received"},
		"expected twice, came once":                  {[]step{{f1, ok}}, []Expect{firing, firing}, "missing       k firing : never received"},
		"another status":                             {[]step{{f1, ok}}, []Expect{{"k", "resolved"}}, "missing       k resolved : never received\nunexpected    k firing f1: accepted 1 times"},
		"doubled":                                    {[]step{{f1, ok}, {f1, ok}}, []Expect{firing}, "doubled       k firing f1: accepted 2 times"},
		"doubled, the second reply lost":             {[]step{{f1, ok}, {f1, lose}}, []Expect{firing}, "doubled       k firing f1: accepted 2 times"},
		"out of order":                               {[]step{{r1, ok}, {f1, ok}, {f2, ok}}, []Expect{firing, resolved, firing}, "out_of_order  k firing f1: accepted after resolved r1"},
		"a failed attempt has no place in the order": {[]step{{f1, ok}, {f2, fail}, {r1, ok}, {f2, ok}}, []Expect{firing, resolved, firing}, "ok: 3 events accepted, each once and in order (0 retried)"},
		"a lost reply has a place in the order":      {[]step{{r1, lose}, {f1, ok}, {r1, ok}}, []Expect{firing, resolved}, "out_of_order  k firing f1: accepted after resolved r1\nretried       k resolved r1: accepted 2 times"},
		"unexpected":                                 {[]step{{f1, ok}, {"{}", Failure{Mode: Status, Status: 200}}}, []Expect{firing}, "unexpected      : accepted 1 times"},
		"changed between attempts":                   {[]step{{f1, fail}, {f1 + " ", ok}}, []Expect{firing}, "changed       k firing f1: 2 requests with different bodies"},
		"discarded":                                  {[]step{{event("k", "p", "pending"), ok}, {event("k", "p", "pending"), ok}}, []Expect{{"k", "pending"}}, "discarded     k pending p: accepted 2 times, always discarded\nretried       k pending p: accepted 2 times"},
	} {
		t.Run(name, func(t *testing.T) {
			f := New(Config{})
			for _, s := range c.sent {
				f.FailNext(1, s.Failure)
				send(t, f, "", s.body)
			}
			r := f.Check(c.want)
			text := r.String()
			if !r.OK() {
				_, text, _ = strings.Cut(text, "\n  ")
				text = strings.ReplaceAll(text, "\n  ", "\n")
			}
			if text != c.text || r.OK() != strings.HasPrefix(c.text, "ok") {
				t.Errorf("got\n%s\nwant\n%s", text, c.text)
			}
		})
	}
	long := New(Config{}).Check(make([]Expect, 25))
	if text := long.String(); !strings.HasPrefix(text, "25 faults, 0 events accepted\n") || !strings.HasSuffix(text, "and 5 more") {
		t.Error(text)
	}
}
