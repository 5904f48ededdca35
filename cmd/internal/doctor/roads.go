package doctor

import (
	"strings"
	"time"

	"pmm-callgoose/cmd/internal/text"
)

// roads looks at what leads out beside Callgoose: the heartbeat and the fallback.
func (e *examination) roads() {
	if e.Service == nil {
		return
	}
	now := time.Now()
	if p := e.Service.Ping; p != nil {
		switch {
		case p.Withheld != "":
			e.fail("heartbeat", fix("Whoever watches it is about to be called: what is wrong stands here."), "it is withheld: %s", p.Withheld)
		case p.LastError != "":
			e.fail("heartbeat", fix("Look at the URL in the file of --ping-url-file, and at the way out of this machine."), "it was not taken: %s", p.LastError)
		case p.LastAt != nil:
			e.ok("heartbeat", "taken %s", text.Ago(*p.LastAt, now))
		}
	}
	if d := e.Service.Filters; d != nil && d.Drift > 0 {
		e.warn("filters", fix("Compare the filters in Callgoose with the file of --callgoose-filters; pmm-callgoose filters test FILE says what they do."),
			"%d answers of Callgoose are not those of --callgoose-filters, the last %s: %s", d.Drift, text.Ago(*d.LastAt, now), text.Line(d.Last))
	} else if d != nil {
		e.ok("filters", "all answers of Callgoose are those of --callgoose-filters")
	}
	f := e.Service.Fallback
	switch {
	case f == nil:
	case f.LastError != "":
		e.fail("fallback", fix("Try it with pmm-callgoose send-test --fallback."), "the last message did not get through: %s", f.LastError)
	case f.LastAt != nil:
		e.ok("fallback", "%s; the last message went out %s", strings.Join(f.Ways, " and "), text.Ago(*f.LastAt, now))
	default:
		e.ok("fallback", "%s, not needed since the start; pmm-callgoose send-test --fallback tries it", strings.Join(f.Ways, " and "))
	}
}
