package doctor

import "time"

// roads looks at what leads out beside Callgoose: the heartbeat and the fallback.
func (e *examination) roads() {
	if e.Service == nil {
		return
	}
	now := time.Now()
	if p := e.Service.Ping; p != nil {
		switch {
		case p.Withheld != "":
			e.fail("heartbeat", fix("The heartbeat service is about to raise an alarm: repair what is named here."), "%s", p.Line(now))
		case p.LastError != "":
			e.fail("heartbeat", fix("Look at the URL in the file of --ping-url-file, and at the way out of this machine."), "%s", p.Line(now))
		default:
			e.ok("heartbeat", "%s", p.Line(now))
		}
	}
	if d := e.Service.Filters; d != nil && d.Drift > 0 {
		e.warn("filters", fix("Compare the filters in Callgoose with the file of --callgoose-filters; pmm-callgoose filters test FILE says what they do."), "%s", d.Line(now))
	} else if d != nil {
		e.ok("filters", "%s", d.Line(now))
	}
	switch f := e.Service.Fallback; {
	case f == nil:
	case f.LastError != "":
		e.fail("fallback", fix("Try it with pmm-callgoose send-test --fallback."), "%s", f.Line(now))
	default:
		e.ok("fallback", "%s; pmm-callgoose send-test --fallback tries it", f.Line(now))
	}
	switch o := e.Service.SLO; {
	case o == nil || o.Share == nil:
	case *o.Share < o.Objective:
		e.warn("taken in time", fix("The chart of the page shows when nobody was called, pmm-callgoose events list --outcome delivered what came late."),
			"%s, should be %.0f %%", o.Line(), 100*o.Objective)
	default:
		e.ok("taken in time", "%s", o.Line())
	}
}
