package pmm

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
)

// planRemoval works out how to take back what setup made for a contact point. Grafana
// removes none that is in use, so the routes go first; and what would stop the second
// half is looked for before the first.
func (c *Client) planRemoval(ctx context.Context, p *Plan) error {
	name := p.want.Name
	point, err := p.state.ours(name)
	if err != nil || point == nil {
		return err
	}
	if _, err := lock(point.text("provenance"), "contact point "+strconv.Quote(name)); err != nil {
		return err
	}
	ours, defaults, others := p.state.routes()
	main, err := single(ours, name)
	if err = cmp.Or(err, extended(defaults), p.state.inUse(name, point, main)); err != nil {
		return err
	}
	rules, err := c.rulesNaming(ctx, func(receiver string) bool { return receiver == name })
	switch {
	case err != nil:
		p.note("%s; PMM keeps this one while a rule names it", rulesUnread)
	case rules != "":
		return fmt.Errorf("%s, this one; give them another one first", rules)
	}
	p.Steps = append(p.Steps, Step{Object: "contact point", Name: name, label: fmt.Sprintf("contact point %q", name), Action: Remove})
	p.point = &request{
		doing: "remove the contact point", method: http.MethodDelete, path: contactPoints + "/" + url.PathEscape(point.uid()),
		editable: point.text("provenance") == "",
	}
	if main == nil {
		return nil
	}
	for _, r := range others {
		p.keep(r, false)
	}
	return p.removeRoutes(main, ours, defaults)
}

// inUse says what would be lost with the contact point that setup made, and the route to it.
func (s *state) inUse(name string, ours *point, main *route) error {
	if s.root.receiver == name {
		return fmt.Errorf("%q is the default contact point of PMM; choose another one in the notification policies first", name)
	}
	for _, r := range s.root.leadingTo(name) {
		if r != main {
			return fmt.Errorf("a route that was not made here, %s, leads to %q; change it in the notification policies first", r.label(), name)
		}
	}
	if main != nil {
		if k := main.foreign("receiver"); k != "" {
			return fmt.Errorf("somebody added %s to the route to %q, which would be lost; undo that in the notification policies first", k, name)
		}
	}
	if slices.ContainsFunc(s.points, func(o *point) bool { return o.name() == name && o != ours }) {
		return fmt.Errorf("somebody added further integrations to contact point %q, which need its route; remove them in PMM first", name)
	}
	return nil
}

// removeRoutes takes out our route, and the default routes where no other route of ours
// needs them.
func (p *Plan) removeRoutes(main *route, ours, defaults []*route) error {
	p.Steps = append(p.Steps, Step{Object: "route", Name: p.want.Name, label: fmt.Sprintf("route to %q", p.want.Name), Action: Remove})
	to := p.state.root.receiver
	step := Step{Object: "default route", Name: to, label: fmt.Sprintf("default route for %q", to), Action: Remove, Why: "without our route the default contact point gets again what no route takes"}
	gone := append([]*route{main}, defaults...)
	if len(ours) > 1 {
		step.Action, step.Why, gone = Keep, "another route that was made here needs it", gone[:1]
	}
	if len(defaults) > 0 {
		p.Steps = append(p.Steps, step)
	}
	return p.write(slices.DeleteFunc(slices.Clone(p.state.root.children), func(r *route) bool { return slices.Contains(gone, r) }))
}
