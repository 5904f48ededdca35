package cli

import (
	"cmp"
	_ "embed"
	"io"
	"strings"
	"text/template"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/config"
)

// manCommand prints the man page; packages are made with it.
func (p *program) manCommand() *cli.Command {
	return &cli.Command{
		Name: "man", Usage: "print the man page", Hidden: true,
		Action: func(*cli.Context) error {
			return manPage(p.out, p.app(), build())
		},
	}
}

//go:embed man.tmpl
var manText string

// manPage is written in man(7).
var manTemplate = template.Must(template.New("man").Funcs(template.FuncMap{"roff": roff, "flags": manFlags}).Parse(manText))

var roffText = strings.NewReplacer(`\`, `\e`, "-", `\-`, "’", `\(cq`, "…", "...", `"`, `\(dq`)

// roff makes text harmless: a line that begins with a dot is a request.
func roff(text string) string {
	lines := strings.Split(roffText.Replace(strings.TrimRight(text, " ")), "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}

// manFlag is one flag of a command. Heading begins a group of the settings of serve.
type manFlag struct{ Heading, Tag, Usage string }

func manFlags(c *cli.Command) (list []manFlag) {
	group := ""
	for _, f := range c.Flags {
		doc := f.(cli.DocGenerationFlag) // every kind that we use is one
		m := manFlag{Tag: "--" + f.Names()[0], Usage: doc.GetUsage()}
		if in, ok := f.(cli.CategorizableFlag); ok && c.Name == "serve" && in.GetCategory() != group {
			group = in.GetCategory()
			m.Heading = group
		}
		for _, short := range f.Names()[1:] {
			m.Tag = "-" + short + ", " + m.Tag
		}
		if doc.TakesValue() {
			m.Tag += " " + cmp.Or(strings.Join(values(f), "|"), "VALUE")
		}
		list = append(list, m)
	}
	return list
}

// manEntry is a command with its path.
type manEntry struct {
	*cli.Command
	Path string
}

// each calls fn for every command, with its path.
func each(commands []*cli.Command, path string, fn func(path string, c *cli.Command)) {
	for _, c := range commands {
		fn(path+c.Name, c)
		each(c.Subcommands, path+c.Name+" ", fn)
	}
}

func manPage(w io.Writer, app *cli.App, b buildInfo) error {
	date, _, _ := strings.Cut(b.Date, "T")
	page := struct {
		Date, Version, Usage string
		Synopsis, Commands   []manEntry
		Options              []config.Option
	}{Date: date, Version: b.Version, Usage: app.Usage, Options: config.Options()}
	each(app.Commands, "", func(path string, c *cli.Command) {
		if c.Hidden {
			return
		}
		page.Commands = append(page.Commands, manEntry{c, path})
		if len(c.Subcommands) == 0 {
			page.Synopsis = append(page.Synopsis, manEntry{c, path})
		}
	})
	return manTemplate.Execute(w, page)
}
