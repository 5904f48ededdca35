package cli

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/app"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/cmd/internal/text"
)

func (p *program) configCommand() *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "the configuration in effect",
		Subcommands: []*cli.Command{{
			Name: "show", Usage: "print every setting and where it came from, secrets redacted",
			Flags: append(settingFlags(), outputFlag()),
			Action: func(c *cli.Context) error {
				cfg, loadErr := p.load(c)
				settings := cfg.Effective()
				if done, err := p.json(c, settings); done {
					return cmp.Or(loadErr, err)
				}
				var rows [][]string
				for _, s := range settings {
					from := s.From
					if s.File != "" {
						from += " (" + s.File + ")"
					}
					rows = append(rows, []string{s.Name, s.Value, from})
				}
				p.table([]string{"SETTING", "VALUE", "FROM"}, rows)
				if loadErr == nil { // a command may need less; say what serve would say
					if _, _, err := config.Load(p.input(c, true)); err != nil {
						fmt.Fprintln(p.err, "serve would refuse this (pmm-callgoose config check):")
						for line := range strings.SplitSeq(err.Error(), "\n") {
							fmt.Fprintln(p.err, "  "+text.Line(line))
						}
					}
				}
				return loadErr
			},
		}, {
			Name: "check", Usage: "say whether serve would take the configuration; exit code 2 if it would not",
			Flags:  append(settingFlags(), outputFlag()),
			Action: p.checkConfig,
		}},
	}
}

// checkConfig refuses what serve refuses before it opens the data directory.
func (p *program) checkConfig(c *cli.Context) error {
	cfg, warnings, err := config.Load(p.input(c, true))
	if err == nil {
		err = guardDataDir(cfg.DataDir, false)
	}
	if err == nil {
		_, err = app.Filters(cfg)
	}
	answer := struct {
		OK       bool             `json:"ok"`
		Problems []config.Problem `json:"problems"`
		Warnings []config.Warning `json:"warnings"`
	}{err == nil, []config.Problem{}, append([]config.Warning{}, warnings...)}
	if problems, ok := errors.AsType[config.Problems](err); ok {
		answer.Problems = problems
	} else if err != nil {
		answer.Problems = []config.Problem{{Where: "data-dir", Text: err.Error()}}
	}
	return cmp.Or(err, p.show(c, answer, func() {
		p.warn(warnings)
		if err == nil {
			fmt.Fprintln(p.out, "The configuration is good.")
		}
	}))
}
