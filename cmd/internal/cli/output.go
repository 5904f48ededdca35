package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/cmd/internal/text"
)

func outputFlag() cli.Flag {
	return &cli.StringFlag{
		Name: "output", Aliases: []string{"o"}, Value: "table", Usage: "table or json",
		EnvVars: []string{config.EnvName("output")},
		Action: func(_ *cli.Context, v string) error {
			if v != "table" && v != "json" {
				return usagef("--output: %q is neither table nor json", v)
			}
			return nil
		},
	}
}

// json prints v when JSON was asked for.
func (p *program) json(c *cli.Context, v any) (done bool, err error) {
	if c.String("output") != "json" {
		return false, nil
	}
	enc := json.NewEncoder(text.JSONWriter(p.out))
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return true, enc.Encode(v)
}

// show prints v as JSON, or what text prints.
func (p *program) show(c *cli.Context, v any, text func()) error {
	done, err := p.json(c, v)
	if !done {
		text()
	}
	return err
}

// say prints one line in answer to what was asked for, or JSON with it.
func (p *program) say(c *cli.Context, v any, format string, args ...any) error {
	return p.show(c, v, func() { fmt.Fprintln(p.out, text.Line(fmt.Sprintf(format, args...))) })
}

// outlet is standard output that remembers the first error of a write, so that
// a command whose table did not fit on the disk does not end with 0.
type outlet struct {
	io.Writer
	err error
}

func (o *outlet) Write(b []byte) (int, error) {
	n, err := o.Writer.Write(b)
	if o.err == nil {
		o.err = err
	}
	return n, err
}

// table prints rows under a heading, in columns, as wide as the terminal.
func (p *program) table(heading []string, rows [][]string) {
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	if heading != nil {
		fmt.Fprintln(w, strings.Join(heading, "\t"))
	}
	for _, r := range rows {
		for i := range r {
			r[i] = text.Line(r[i])
		}
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	_ = w.Flush()
	width, i := p.width(), 0
	if heading != nil {
		i = -1
	}
	for line := range strings.Lines(out.String()) {
		line = cut(strings.TrimSuffix(line, "\n"), width)
		if heading != nil && i >= 0 {
			line = p.colourCells(line, rows[i])
		}
		fmt.Fprintln(p.out, line)
		i++
	}
}

// facts are rows of a name and what is known of it. A row without a name goes on with
// the one above.
type facts [][]string

func (f *facts) add(name, format string, args ...any) {
	*f = append(*f, []string{name, fmt.Sprintf(format, args...)})
}
