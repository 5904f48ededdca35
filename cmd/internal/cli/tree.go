package cli

import (
	"cmp"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

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

// Values that no option of the configuration describes.
var flagValues = map[string][]string{
	"output": {"table", "json"},
	"status": {string(event.Firing), string(event.Resolved)},
	"kind":   {"notification", "event"},
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
	d.values = flagValues[d.name]
	for _, o := range config.Options() {
		if o.Name == d.name {
			d.values = o.Values
		}
	}
	if d.name == "outcome" {
		for _, o := range event.Outcomes {
			d.values = append(d.values, string(o))
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
