package cli

import (
	"cmp"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store/event"
)

// node is one command as completion and man page see it. Both are made from the
// commands themselves, so neither can forget one.
type node struct {
	path  []string // without the program's name; empty for the program
	usage string
	more  string // the longer description
	args  string
	flags []flagNode
	subs  []*node
}

// flagNode is one flag.
type flagNode struct {
	name   string
	short  string // one letter, may be empty
	usage  string
	group  string
	value  bool     // takes one
	many   bool     // takes several, separated by commas
	values []string // all there are, nil = any
	usual  []string // some that are good, of many
	file   bool     // the value is a path
}

// tree describes app, without what is hidden.
func tree(app *cli.App) *node {
	root := &node{usage: app.Usage, more: app.Description}
	root.add(app.Commands)
	return root
}

func (n *node) add(commands []*cli.Command) {
	for _, c := range commands {
		if c.Hidden {
			continue
		}
		sub := &node{path: append(slices.Clone(n.path), c.Name), usage: c.Usage, more: c.Description, args: c.ArgsUsage}
		for _, f := range c.Flags {
			sub.flags = append(sub.flags, describeFlag(f))
		}
		sub.add(c.Subcommands)
		n.subs = append(n.subs, sub)
	}
}

// each calls fn for the node and all below it.
func (n *node) each(fn func(*node)) {
	fn(n)
	for _, s := range n.subs {
		s.each(fn)
	}
}

func (n *node) name() string { return n.path[len(n.path)-1] }

// flagValues are those of flags that are no option of the configuration.
func flagValues(name string) (values []string) {
	switch name {
	case "output":
		return []string{"table", "json"}
	case "status":
		return []string{string(event.Firing), string(event.Resolved)}
	case "kind":
		return []string{admin.KindNotification, admin.KindEvent}
	case "outcome":
		for _, o := range event.Outcomes {
			values = append(values, string(o))
		}
	}
	return values
}

// usualValues are completed, and others are taken too. The severities are those
// that PMM offers for an alert rule.
func usualValues(name string) []string {
	if name == "severity" {
		return []string{"emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"}
	}
	return nil
}

// offered is what a shell completes.
func (f flagNode) offered() []string {
	if len(f.values) > 0 {
		return f.values
	}
	return f.usual
}

func describeFlag(f cli.Flag) flagNode {
	d := flagNode{name: f.Names()[0]}
	for _, n := range f.Names()[1:] {
		if len(n) == 1 {
			d.short = n
		}
	}
	if doc, ok := f.(cli.DocGenerationFlag); ok {
		d.usage, d.value = doc.GetUsage(), doc.TakesValue()
	}
	switch f := f.(type) {
	case *cli.StringFlag:
		d.group, d.file = f.Category, f.TakesFile
	case *cli.BoolFlag:
		d.group = f.Category
	case *cli.StringSliceFlag:
		d.many = f.Name != "match" // a label may hold a comma
	}
	d.values, d.usual = flagValues(d.name), usualValues(d.name)
	if o, ok := d.setting(); ok {
		d.values = o.Values
		// A flag of another type only has the same name, as replay's --rate.
		if _, text := f.(*cli.StringFlag); text && o.Off != "" {
			d.usual = []string{o.Off}
		}
	}
	return d
}

// setting is the option of the configuration that the flag sets, if any.
func (f flagNode) setting() (config.Option, bool) {
	all := config.Options()
	i := slices.IndexFunc(all, func(o config.Option) bool { return o.Name == f.name })
	if i < 0 {
		return config.Option{}, false
	}
	return all[i], true
}

// placeholder is what stands for the value in a synopsis.
func (f flagNode) placeholder() string {
	if len(f.values) > 0 {
		return strings.Join(f.values, "|")
	}
	o, _ := f.setting()
	kind := string(o.Kind)
	if f.file {
		kind = cmp.Or(kind, "file")
	}
	return strings.ToUpper(cmp.Or(kind, f.name))
}
