package cli

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/config"
)

// manCommand prints the man page; packages are made with it.
func (p *program) manCommand() *cli.Command {
	return &cli.Command{
		Name: "man", Usage: "print the man page", Hidden: true,
		Action: func(c *cli.Context) error {
			if err := noArgs(c); err != nil {
				return err
			}
			_, err := fmt.Fprint(p.out, manPage(p.app(), build()))
			return err
		},
	}
}

// page writes man(7).
type page struct{ strings.Builder }

var roffText = strings.NewReplacer(`\`, `\e`, "-", `\-`, "’", `\(cq`, "…", "...")

// roff makes text harmless: a line that begins with a dot is a request.
func roff(text string) string {
	text = roffText.Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}

func (m *page) request(name string, args ...string) {
	m.WriteString("." + name)
	for _, a := range args {
		m.WriteString(` "` + strings.ReplaceAll(roffText.Replace(a), `"`, `\(dq`) + `"`)
	}
	m.WriteString("\n")
}

func (m *page) text(format string, args ...any) {
	for line := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		m.WriteString(roff(line) + "\n")
	}
}

// item is a tagged paragraph.
func (m *page) item(tag, text string) {
	m.request("TP")
	m.WriteString(`\fB` + roff(tag) + "\\fR\n")
	m.text("%s", text)
}

// flags are those of one command; the settings of serve stand under headings.
func (m *page) flags(c *cli.Command) {
	group := ""
	for _, f := range c.Flags {
		doc, ok := f.(cli.DocGenerationFlag)
		if !ok {
			continue
		}
		if in, ok := f.(cli.CategorizableFlag); ok && c.Name == "serve" && in.GetCategory() != group {
			group = in.GetCategory()
			m.request("PP")
			m.WriteString(`\fI` + roff(group) + "\\fR\n")
		}
		tag := "--" + f.Names()[0]
		for _, short := range f.Names()[1:] {
			tag = "-" + short + ", " + tag
		}
		if doc.TakesValue() {
			tag += " " + cmp.Or(strings.Join(values(f), "|"), "VALUE")
		}
		m.item(tag, doc.GetUsage())
	}
}

// each calls fn for every command that is shown, with its path.
func each(commands []*cli.Command, path string, fn func(path string, c *cli.Command)) {
	for _, c := range commands {
		if !c.Hidden {
			fn(path+c.Name, c)
			each(c.Subcommands, path+c.Name+" ", fn)
		}
	}
}

func manPage(app *cli.App, b buildInfo) string {
	m := &page{}
	date, _, _ := strings.Cut(b.Date, "T")
	// Its hyphens stay as they are: a date is parsed, not set.
	m.WriteString(`.TH "PMM-CALLGOOSE" "1" "` + date + `" "pmm-callgoose ` + b.Version + `" "User Commands"` + "\n")
	m.request("SH", "NAME")
	m.text("pmm-callgoose - %s", app.Usage)
	m.request("SH", "SYNOPSIS")
	first := true
	each(app.Commands, "", func(path string, c *cli.Command) {
		if len(c.Subcommands) > 0 {
			return
		}
		if !first {
			m.request("br")
		}
		first = false
		m.WriteString(`.B ` + roff("pmm-callgoose "+path) + "\n")
		m.text("%s", strings.TrimSpace("[flags] "+c.ArgsUsage))
	})
	m.request("SH", "DESCRIPTION")
	m.text("Takes the alert webhooks of Percona Monitoring and Management (PMM) and delivers\n" +
		"them to Callgoose SQIBS, one event for each alert, in order, across outages of\n" +
		"either side. PMM gets its 202 once the webhook is on disk.")
	m.request("PP")
	m.text("Every flag of serve has an environment variable, %s and its name, and a key in\n"+
		"the YAML file named by --config, the flag without dashes in front. A flag wins over\n"+
		"its variable, that over the file, that over the default. Durations: 90s, 5m, 72h, 3d.\n"+
		"Sizes: 256MiB, 2GiB.", config.EnvPrefix)
	m.request("PP")
	m.text("Secrets are never flags, only the files that hold them. The first found wins: the\n"+
		"flag, its variable, its key, the file of that name without -file in\n"+
		"$CREDENTIALS_DIRECTORY (systemd), the variable without _FILE, such as\n"+
		"%s.", config.EnvName("callgoose-token"))
	m.request("SH", "COMMANDS")
	each(app.Commands, "", func(path string, c *cli.Command) {
		m.request("SS", strings.TrimSpace(path+" "+c.ArgsUsage))
		m.text("%s.", c.Usage)
		if c.Description != "" {
			m.request("PP")
			m.request("nf")
			m.text("%s", c.Description)
			m.request("fi")
		}
		m.flags(c)
	})
	m.request("SH", "EXIT STATUS")
	for _, e := range [][2]string{
		{"0", "done"},
		{"1", "the thing asked for failed"},
		{"2", "usage or configuration error; data directory in use, or written by a newer version"},
		{"3", "no running service to talk to"},
		{"4", "part of it failed"},
	} {
		m.item(e[0], e[1])
	}
	m.request("SH", "SIGNALS")
	m.item("SIGTERM, SIGINT", "stop in order; what waits stays on disk. kill -9 is as safe")
	m.item("SIGHUP", "read all secret files again and probe Callgoose at once")
	m.request("SH", "FILES")
	m.item("/etc/pmm-callgoose/config.yaml", "settings of the packaged service")
	m.item("/etc/pmm-callgoose/credentials/", "the secrets of the packaged service, one a file, readable by root only")
	m.item("/var/lib/pmm-callgoose/", "the data directory of the packaged service: jetstream/ holds the truth, ledger.db is a view of it, admin.sock is the operators' socket")
	m.request("SH", "ENVIRONMENT")
	for _, o := range config.Options() {
		m.item(o.Env, "--"+o.Name)
	}
	m.item("HTTPS_PROXY, HTTP_PROXY, NO_PROXY", "the proxy towards Callgoose")
	m.request("SH", "SEE ALSO")
	m.text("systemctl(1), journalctl(1), pmm-admin(1)")
	return m.String()
}
