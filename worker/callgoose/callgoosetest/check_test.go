package callgoosetest

import (
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	f1, r1, f2 := Expect{"k", "f1", "firing"}, Expect{"k", "r1", "resolved"}, Expect{"k", "f2", "firing"}
	anyF, anyR := Expect{"k", "", "firing"}, Expect{"k", "", "resolved"}
	body := func(e Expect) string { return event(e.IncidentKey, e.EventID, e.Status) }
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
		"once and in order":                          {[]step{{body(f1), ok}, {body(r1), ok}, {body(f2), ok}}, []Expect{f1, r1, f2}, "ok: 3 events accepted, each once and in order (0 retried)"},
		"without ids":                                {[]step{{body(f1), ok}, {body(r1), ok}, {body(f2), ok}}, []Expect{anyF, anyR, anyF}, "ok: 3 events accepted, each once and in order (0 retried)"},
		"with and without ids":                       {[]step{{body(f2), ok}, {body(f1), ok}}, []Expect{f2, anyF}, "ok: 2 events accepted, each once and in order (0 retried)"},
		"keys do not order each other":               {[]step{{event("b", "1", "firing"), ok}, {event("a", "2", "firing"), ok}}, []Expect{{"a", "2", "firing"}, {"b", "1", "firing"}}, "ok: 2 events accepted, each once and in order (0 retried)"},
		"a failure and its retry":                    {[]step{{body(f1), fail}, {body(f1), ok}}, []Expect{f1}, "ok: 1 events accepted, each once and in order (0 retried)"},
		"a lost reply and its retry":                 {[]step{{body(f1), lose}, {body(f1), ok}}, []Expect{f1}, "ok: 1 events accepted, each once and in order (1 retried)"},
		"a lost reply alone is accepted":             {[]step{{body(f1), lose}}, []Expect{f1}, "ok: 1 events accepted, each once and in order (0 retried)"},
		"missing":                                    {[]step{{body(f1), ok}, {body(r1), fail}, {body(r1), fail}}, []Expect{f1, r1, f2}, "missing       k resolved r1: 2 requests, none accepted\nmissing       k firing f2: never received"},
		"missing without ids":                        {[]step{{body(f1), ok}}, []Expect{anyF, anyR, anyF}, "missing       k resolved: never received\nmissing       k firing: never received"},
		"expected twice by one id":                   {[]step{{body(f1), ok}}, []Expect{f1, f1}, "missing       k firing f1: never received"},
		"another status under that id":               {[]step{{body(f1), ok}}, []Expect{{"k", "f1", "resolved"}}, "missing       k resolved f1: never received\nunexpected    k firing f1: accepted 1 times"},
		"doubled":                                    {[]step{{body(f1), ok}, {body(f1), ok}}, []Expect{f1}, "doubled       k firing f1: accepted 2 times"},
		"doubled, the second reply lost":             {[]step{{body(f1), ok}, {body(f1), lose}}, []Expect{f1}, "doubled       k firing f1: accepted 2 times"},
		"out of order":                               {[]step{{body(r1), ok}, {body(f1), ok}, {body(f2), ok}}, []Expect{f1, r1, f2}, "out of order  k firing f1: accepted after resolved r1"},
		"out of order without ids":                   {[]step{{body(f1), ok}, {body(f2), ok}, {body(r1), ok}}, []Expect{anyF, anyR, anyF}, "out of order  k resolved r1: accepted after firing f2"},
		"a failed attempt has no place in the order": {[]step{{body(f1), ok}, {body(f2), fail}, {body(r1), ok}, {body(f2), ok}}, []Expect{f1, r1, f2}, "ok: 3 events accepted, each once and in order (0 retried)"},
		"a lost reply has a place in the order":      {[]step{{body(r1), lose}, {body(f1), ok}, {body(r1), ok}}, []Expect{f1, r1}, "out of order  k firing f1: accepted after resolved r1\n(retried)     k resolved r1: accepted 2 times"},
		"unexpected":                                 {[]step{{body(f1), ok}, {"{}", Failure{Mode: Status, Status: 200}}}, []Expect{f1}, "unexpected    : accepted 1 times"},
		"changed between attempts":                   {[]step{{body(f1), fail}, {body(f1) + " ", ok}}, []Expect{f1}, "changed       k firing f1: 2 requests with different bodies"},
		"discarded":                                  {[]step{{event("k", "p", "pending"), ok}, {event("k", "p", "pending"), ok}}, []Expect{{"k", "p", "pending"}}, "discarded     k pending p: accepted 2 times, always discarded\n(retried)     k pending p: accepted 2 times"},
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
