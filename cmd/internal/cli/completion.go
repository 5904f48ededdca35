package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/store/event"
)

// shells are the scripts that ask this program what may stand where the cursor is.
var shells = map[string]string{
	"bash": `# bash completion for pmm-callgoose
_pmm_callgoose() {
  local IFS=$'\n'
  COMPREPLY=($("$1" completion words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _pmm_callgoose pmm-callgoose
`,
	"zsh": `#compdef pmm-callgoose
# zsh completion for pmm-callgoose
_pmm_callgoose() {
  local -a list
  list=("${(@f)$("$words[1]" completion words -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n $list[1] ]]; then compadd -a list; else _files; fi
}
if [[ $funcstack[1] == _pmm-callgoose ]]; then _pmm_callgoose; else compdef _pmm_callgoose pmm-callgoose; fi
`,
	"fish": `# fish completion for pmm-callgoose
complete -c pmm-callgoose -a '(pmm-callgoose completion words -- (commandline -opc)[2..-1] (commandline -ct))'
`,
}

func (p *program) completionCommand() *cli.Command {
	c := &cli.Command{
		Name: "completion", Usage: "print what makes a shell complete commands, flags and values",
		Description: "bash: pmm-callgoose completion bash > /etc/bash_completion.d/pmm-callgoose\n" +
			"zsh:  pmm-callgoose completion zsh > \"${fpath[1]}/_pmm-callgoose\"\n" +
			"fish: pmm-callgoose completion fish > ~/.config/fish/completions/pmm-callgoose.fish",
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		c.Subcommands = append(c.Subcommands, &cli.Command{
			Name: shell, Usage: "for " + shell,
			Action: func(*cli.Context) error {
				_, err := fmt.Fprint(p.out, shells[shell])
				return err
			},
		})
	}
	c.Subcommands = append(c.Subcommands, &cli.Command{
		Name: "words", Hidden: true, Usage: "list what may stand in place of the last of these words", ArgsUsage: "-- WORD...",
		Action: func(c *cli.Context) error {
			for _, word := range complete(p.app(), c.Args().Slice()) {
				fmt.Fprintln(p.out, word)
			}
			return nil
		},
	})
	return c
}

// complete lists what may stand in place of the last of words: commands, flags,
// or the values of the flag before it. Bash hands --flag=value over as three words.
func complete(app *cli.App, words []string) (list []string) {
	words = slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == "=" })
	if len(words) == 0 {
		return nil
	}
	cur, before := words[len(words)-1], words[:len(words)-1]
	commands, flags := app.Commands, app.Flags
	for _, w := range before {
		if i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(w) }); i >= 0 {
			commands, flags = commands[i].Subcommands, commands[i].Flags
		}
	}
	prefix, flag := "", ""
	if name, _, ok := strings.Cut(cur, "="); ok {
		prefix, flag = name+"=", name
	} else if len(before) > 0 {
		flag = before[len(before)-1]
	}
	if i := slices.IndexFunc(flags, func(f cli.Flag) bool { return isFlag(f, flag) && takesValue(f) }); i >= 0 {
		list = values(flags[i])
		if _, many := flags[i].(*cli.StringSliceFlag); many {
			prefix = cur[:max(strings.LastIndexAny(cur, ",=")+1, len(prefix))]
		}
	} else {
		for _, c := range commands {
			if !c.Hidden {
				list = append(list, c.Name)
			}
		}
		for _, f := range flags {
			list = append(list, "--"+f.Names()[0])
		}
		list = append(list, "--help")
	}
	for i := range list {
		list[i] = prefix + list[i]
	}
	return slices.DeleteFunc(list, func(word string) bool { return !strings.HasPrefix(word, cur) })
}

func isFlag(f cli.Flag, word string) bool {
	return strings.HasPrefix(word, "-") && slices.Contains(f.Names(), strings.TrimLeft(word, "-"))
}

func takesValue(f cli.Flag) bool {
	doc, ok := f.(cli.DocGenerationFlag)
	return ok && doc.TakesValue()
}

// listed are the values of flags that are no settings.
var listed = map[string][]string{
	"output":  {"table", "json"},
	"outcome": strings.Split(admin.OutcomeNames(), ", "),
	"status":  {string(event.Firing), string(event.Resolved)},
	"kind":    {admin.KindNotification, admin.KindEvent},
	// Those that PMM offers for an alert rule; others are taken too.
	"severity": {"emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"},
}

// values are the values of a flag, as far as they can be listed.
func values(f cli.Flag) (list []string) {
	name := f.Names()[0]
	// A flag of another type only has the same name, as replay's --rate.
	all := config.Options()
	i := slices.IndexFunc(all, func(o config.Option) bool { return o.Name == name })
	if _, text := f.(*cli.StringFlag); !text || i < 0 {
		return slices.Clone(listed[name])
	}
	if list = slices.Clone(all[i].Values); len(list) == 0 && all[i].Off != "" {
		list = []string{all[i].Off}
	}
	return list
}
