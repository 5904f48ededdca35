package pmm

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// routes sorts those below the root: those to contact points that setup made, the
// default routes that it made, and the routes of others.
func (s *state) routes() (ours, defaults, others []*route) {
	for _, r := range s.root.children {
		switch {
		case r.isDefault():
			defaults = append(defaults, r)
		case slices.ContainsFunc(s.points, func(p *point) bool { return p.name() == r.text("receiver") && p.made() }):
			ours = append(ours, r)
		default:
			others = append(others, r)
		}
	}
	return ours, defaults, others
}

// extended is the error when somebody added to one of our default routes what its
// rewriting or removal would lose.
func extended(defaults []*route) error {
	for _, r := range defaults {
		if k := r.foreign(); k != "" {
			return fmt.Errorf("the default route that setup made was changed (%s), the one with %s; undo that in PMM's notification policies", k, mark)
		}
	}
	return nil
}

func (p *Plan) planRoutes(w Want) error {
	ours, oldDefaults, others := p.state.routes()
	main, err := single(ours, w.Name)
	if err = cmp.Or(extended(oldDefaults), err); err != nil {
		return err
	}
	step := Step{Object: "route", Name: w.Name, label: fmt.Sprintf("route to %q", w.Name), Action: Keep}
	front := main == nil // the route has to go before all others
	if front {
		main = newRoute(w.Name, w.Matchers)
		step.Action = Create
		step.Fields = []Edit{{"matches", "", describe(w.Matchers)}, {"continue", "", "true"}, {"group_by", "", "grafana_folder, alertname"}, {"group_wait, group_interval, repeat_interval", "", "10s, 1m, " + repeatInterval}}
		step.Why = "first among the routes; it continues, so those after it get what they got"
	} else if step.Fields, front = p.correct(main, w.Matchers); len(step.Fields) > 0 {
		step.Action = Change
	}
	p.Steps = append(p.Steps, step)
	p.noteTiming(main)

	terms, enough, err := p.planDefaults(w, oldDefaults, others)
	if err != nil {
		return err
	}
	var routes []*route
	if front {
		routes = append(routes, main)
	}
	for _, r := range p.state.root.children {
		isDefault := slices.Contains(oldDefaults, r)
		if r != main && !isDefault {
			p.keep(r, slices.Contains(ours, r))
		}
		if (r != main || !front) && (!isDefault || enough) {
			routes = append(routes, r)
		}
	}
	if !enough {
		for _, t := range terms {
			routes = append(routes, newDefault(t))
		}
	}
	if step.Action == Keep && enough {
		return nil
	}
	return p.write(routes)
}

// single is the one of our routes that leads to that contact point, nil if none does.
func single(ours []*route, name string) (main *route, err error) {
	for _, r := range ours {
		if r.text("receiver") != name {
			continue
		}
		if main != nil {
			return nil, fmt.Errorf("several routes lead to %q: to %s and %s; remove those that you made in PMM's notification policies", name, main.label(), r.label())
		}
		main = r
	}
	return main, nil
}

// keep says of a route that it stays as it is.
func (p *Plan) keep(r *route, ours bool) {
	why := "not ours"
	if ours {
		why = "made here too, for another contact point"
	}
	p.Steps = append(p.Steps, Step{Object: "route", Name: r.label(), label: "route to " + r.label(), Action: Keep, Why: why})
}

// write makes these the routes of the policies. A tree that was written through the API
// by somebody who wanted it kept from being edited in Grafana's pages stays so.
func (p *Plan) write(routes []*route) error {
	locked, err := lock(p.state.root.text("provenance"), "tree of notification policies")
	if err == nil {
		p.tree = &request{doing: "write the notification policies", method: http.MethodPut, path: policies, body: p.state.root.with(routes), editable: !locked}
	}
	return err
}

// correct makes our route what it should be, and says what that changes. front: it has
// to go before all others.
func (p *Plan) correct(main *route, want []Matcher) (fields []Edit, front bool) {
	if want == nil && len(main.matchers) > 0 {
		want = main.matchers
		p.note("the route keeps its conditions, %s; --match all sends every alert here", describe(main.matchers))
	}
	if main.unread != nil || !slices.Equal(sorted(main.matchers), sorted(want)) {
		from := describe(main.matchers)
		if main.unread != nil {
			from = "unreadable"
		}
		fields = append(fields, Edit{"matches", from, describe(want)})
		for _, k := range []string{"matchers", "match", "match_re"} {
			delete(main.object, k)
		}
		main.set("object_matchers", append([]Matcher{}, sorted(want)...))
	}
	if !main.flag("continue") {
		fields = append(fields, Edit{"continue", "false", "true"})
		main.set("continue", true)
	}
	if main.behind != "" {
		fields = append(fields, Edit{"position", "after the route to " + main.behind + ", which keeps its alerts from this one", "first"})
	}
	return fields, main.behind != ""
}

// noteTiming notes where the timing of our route, which is its owner's to choose, hurts.
func (p *Plan) noteTiming(main *route) {
	if main.hasty() {
		p.note("the route has a group interval of %s: PMM waits no longer than that for an answer (at least 10s), and after a late answer both sides disagree; 1m is right", main.interval)
	}
	if d, ok := duration(main.repeat); ok && d > 30*time.Minute {
		p.note("the route has a repeat interval of %s: for that long PMM does not repeat an alert whose notification was lost; %s is right, and repeats do not reach Callgoose", main.repeat, repeatInterval)
	}
}

// planDefaults finds the default routes that are needed, and whether those that are
// there are enough.
func (p *Plan) planDefaults(w Want, old, others []*route) (terms [][]Matcher, enough bool, err error) {
	terms, why, err := p.state.defaults(w.Name, others)
	if err != nil {
		return nil, false, err
	}
	to := p.state.root.receiver
	step := Step{Object: "default route", Name: to, label: fmt.Sprintf("default route for %q", to), Action: Keep}
	// More than needed is left alone: to remove it would silence somebody now.
	enough = covered(terms, old)
	switch {
	case !enough:
		step.Action = Create
		if len(old) > 0 {
			step.Action = Change
		}
		for _, t := range terms {
			step.Fields = append(step.Fields, Edit{"matches", "", describe(t) + " (" + mark.Name + " marks what setup made, and is true of every alert)"})
		}
		step.Why = "Grafana gives the default contact point only what no route takes, and the new route takes alerts; this one, last, gives back what it had. What fires now may be notified there once more"
	case len(old) == 0:
		step.Why = "not needed: " + why
	}
	p.Steps = append(p.Steps, step)
	return terms, enough, nil
}

// maxDefaults is how many default routes setup adds at most: more would bury the
// routes that people look for.
const maxDefaults = 12

// defaults are the matchers of the default routes that are needed beside our route to
// that contact point and the routes of others at the root; why says why none is.
func (s *state) defaults(name string, others []*route) (terms [][]Matcher, why string, err error) {
	switch {
	case s.root.receiver == name:
		return nil, "the default contact point is this one", nil
	case !slices.ContainsFunc(s.points, func(p *point) bool { return p.name() == s.root.receiver }):
		return nil, "the default contact point has no integrations, so it notifies nobody", nil // "empty" in a fresh Grafana 12.4
	case slices.ContainsFunc(others, func(r *route) bool { return r.unread == nil && len(r.matchers) == 0 }):
		return nil, "a route that takes every alert is there, so nothing falls to the default contact point", nil
	}
	terms = [][]Matcher{{mark}}
	for _, r := range others {
		if !r.flag("continue") {
			continue // what it takes never gets as far as a default route
		}
		if r.unread != nil {
			return nil, "", fmt.Errorf("the route to %s: %w, so it is unknown what falls to the default contact point; add the route by hand", r.label(), r.unread)
		}
		var next [][]Matcher
		for _, term := range terms {
			for i, m := range r.matchers {
				grown := slices.Concat(term, r.matchers[:i], []Matcher{m.negated()})
				if !contradicts(grown) {
					next = append(next, sorted(grown))
				}
			}
		}
		if terms = next; len(terms) > maxDefaults {
			return nil, "", fmt.Errorf("so many routes continue that more than %d routes would be needed to leave the default contact point what it has; add the route by hand", maxDefaults)
		}
	}
	return terms, "routes that continue take every alert, so nothing falls to the default contact point", nil
}

// contradicts reports whether no alert can fulfil all of them.
func contradicts(ms []Matcher) bool {
	return slices.ContainsFunc(ms, func(m Matcher) bool { return slices.Contains(ms, m.negated()) })
}

// covered reports whether the default routes give the root all that it needs.
func covered(terms [][]Matcher, have []*route) bool {
	if slices.ContainsFunc(have, func(r *route) bool { return !r.flag("continue") }) {
		return false
	}
	return !slices.ContainsFunc(terms, func(t []Matcher) bool {
		return !slices.ContainsFunc(have, func(r *route) bool {
			return !slices.ContainsFunc(r.matchers, func(m Matcher) bool { return !slices.Contains(t, m) })
		})
	})
}
