package cli

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

func (p *program) completionCommand() *cli.Command {
	shells := map[string]func(*node) string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}
	c := &cli.Command{
		Name: "completion", Usage: "print what makes a shell complete our commands, flags and values",
		Description: "bash: pmm-callgoose completion bash > /etc/bash_completion.d/pmm-callgoose\n" +
			"zsh:  pmm-callgoose completion zsh > \"${fpath[1]}/_pmm-callgoose\"\n" +
			"fish: pmm-callgoose completion fish > ~/.config/fish/completions/pmm-callgoose.fish",
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		c.Subcommands = append(c.Subcommands, &cli.Command{
			Name: shell, Usage: "for " + shell,
			Action: func(c *cli.Context) error {
				if err := noArgs(c); err != nil {
					return err
				}
				_, err := fmt.Fprint(p.out, shells[shell](tree(p.app())))
				return err
			},
		})
	}
	return c
}

// quoteShell makes text one word of bash, zsh or fish.
func quoteShell(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

func (n *node) subNames() (names []string) {
	for _, s := range n.subs {
		names = append(names, s.name())
	}
	return names
}

// bashCompletion needs nothing but bash: not every server has bash-completion.
// Bash breaks words at = and :, so --flag=value arrives as three words.
func bashCompletion(root *node) string {
	var b strings.Builder
	b.WriteString(`# bash completion for pmm-callgoose
_pmm_callgoose() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} at='' word i
  if [[ $cur == = ]]; then
    cur=''
  elif [[ $prev == = ]]; then
    prev=${COMP_WORDS[COMP_CWORD-2]}
  fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="${at:+$at }${COMP_WORDS[i]}"
    case $word in
`)
	var paths []string
	root.each(func(n *node) {
		if len(n.path) > 0 {
			paths = append(paths, quoteShell(strings.Join(n.path, " ")))
		}
	})
	fmt.Fprintf(&b, "      %s) at=$word ;;\n", strings.Join(paths, "|"))
	b.WriteString(`      *) break ;;
    esac
  done
  COMPREPLY=()
  case "$at $prev" in
`)
	root.each(func(n *node) {
		for _, f := range n.flags {
			if !f.value {
				continue
			}
			names := quoteShell(strings.Join(n.path, " ") + " --" + f.name)
			if f.short != "" {
				names += "|" + quoteShell(strings.Join(n.path, " ")+" -"+f.short)
			}
			switch {
			case f.many && len(f.offered()) > 0:
				fmt.Fprintf(&b, "    %s)\n      local before=''\n      [[ $cur == *,* ]] && before=${cur%%,*},\n"+
					"      mapfile -t COMPREPLY < <(compgen -P \"$before\" -W %s -- \"${cur##*,}\"); return ;;\n", names, quoteShell(strings.Join(f.offered(), " ")))
			case len(f.offered()) > 0:
				fmt.Fprintf(&b, "    %s) mapfile -t COMPREPLY < <(compgen -W %s -- \"$cur\"); return ;;\n", names, quoteShell(strings.Join(f.offered(), " ")))
			case f.file:
				fmt.Fprintf(&b, "    %s) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- \"$cur\"); return ;;\n", names)
			default:
				fmt.Fprintf(&b, "    %s) return ;;\n", names)
			}
		}
	})
	b.WriteString(`  esac
  case $at in
`)
	root.each(func(n *node) {
		words := n.subNames()
		for _, f := range n.flags {
			words = append(words, "--"+f.name)
		}
		words = append(words, "--help")
		fmt.Fprintf(&b, "    %s) mapfile -t COMPREPLY < <(compgen -W %s -- \"$cur\") ;;\n",
			quoteShell(strings.Join(n.path, " ")), quoteShell(strings.Join(words, " ")))
	})
	b.WriteString(`  esac
}
complete -F _pmm_callgoose pmm-callgoose
`)
	return b.String()
}

// zshSpec escapes what means something inside a specification of _arguments.
var zshSpec = strings.NewReplacer(`\`, `\\`, `[`, `\[`, `]`, `\]`, `:`, `\:`)

func zshCompletion(root *node) string {
	var b strings.Builder
	b.WriteString("#compdef pmm-callgoose\n# zsh completion for pmm-callgoose\n")
	root.each(func(n *node) {
		fmt.Fprintf(&b, "\n%s() {\n", zshFunction(n))
		if len(n.subs) > 0 {
			b.WriteString("  local -a commands\n  commands=(\n")
			for _, s := range n.subs {
				fmt.Fprintf(&b, "    %s\n", quoteShell(strings.ReplaceAll(s.name(), ":", `\:`)+":"+s.usage))
			}
			b.WriteString("  )\n  local curcontext=$curcontext state line\n  _arguments -C '--help[help]' '1: :->command' '*:: :->rest' && return\n" +
				"  case $state in\n    command) _describe command commands ;;\n    rest) case $line[1] in\n")
			for _, s := range n.subs {
				fmt.Fprintf(&b, "      %s) %s ;;\n", s.name(), zshFunction(s))
			}
			b.WriteString("    esac ;;\n  esac\n}\n")
			return
		}
		b.WriteString("  _arguments -s '--help[help]'")
		for _, f := range n.flags {
			names := []string{"--" + f.name}
			if f.short != "" {
				names = append(names, "-"+f.short)
			}
			for _, name := range names {
				spec := name
				switch {
				case f.value && len(name) == 2:
					spec += "+" // -o value and -ovalue
				case f.value:
					spec += "=" // --flag value and --flag=value
				}
				spec += "[" + zshSpec.Replace(f.usage) + "]"
				if f.many || f.name == "match" {
					spec = "*" + spec
				}
				switch {
				case f.many && len(f.offered()) > 0:
					spec += ":" + f.name + ":_values -s , " + f.name + " " + strings.Join(f.offered(), " ")
				case len(f.offered()) > 0:
					spec += ":" + f.name + ":(" + strings.Join(f.offered(), " ") + ")"
				case f.file:
					spec += ":" + f.name + ":_files"
				case f.value:
					spec += ":" + f.name + ": "
				}
				fmt.Fprintf(&b, " \\\n    %s", quoteShell(spec))
			}
		}
		b.WriteString("\n}\n")
	})
	b.WriteString("\n_pmm-callgoose \"$@\"\n")
	return b.String()
}

func zshFunction(n *node) string {
	return strings.Join(append([]string{"_pmm-callgoose"}, n.path...), "_")
}

func fishCompletion(root *node) string {
	var b strings.Builder
	b.WriteString(`# fish completion for pmm-callgoose
# True when the command line begins with these commands; with -x, and nothing else.
function __pmm_callgoose_at
    argparse --stop-nonopt x -- $argv
    set -l words (commandline -opc)
    set -e words[1]
    test (count $words) -ge (count $argv); or return 1
    if set -q _flag_x; and test (count $words) -ne (count $argv)
        return 1
    end
    for i in (seq (count $argv))
        test "$words[$i]" = "$argv[$i]"; or return 1
    end
end
complete -c pmm-callgoose -f
complete -c pmm-callgoose -l help -d 'help'
`)
	root.each(func(n *node) {
		path := strings.Join(n.path, " ")
		for _, s := range n.subs {
			fmt.Fprintf(&b, "complete -c pmm-callgoose -n %s -a %s -d %s\n",
				quoteFish(strings.TrimSpace("__pmm_callgoose_at -x "+path)), s.name(), quoteFish(s.usage))
		}
		for _, f := range n.flags {
			fmt.Fprintf(&b, "complete -c pmm-callgoose -n %s -l %s", quoteFish("__pmm_callgoose_at "+path), f.name)
			if f.short != "" {
				b.WriteString(" -s " + f.short)
			}
			switch {
			case f.many && len(f.offered()) > 0:
				fmt.Fprintf(&b, " -x -a %s", quoteFish("(__fish_append , "+strings.Join(f.offered(), " ")+")"))
			case len(f.offered()) > 0:
				fmt.Fprintf(&b, " -x -a %s", quoteFish(strings.Join(f.offered(), " ")))
			case f.file:
				b.WriteString(" -r -F")
			case f.value:
				b.WriteString(" -x")
			}
			fmt.Fprintf(&b, " -d %s\n", quoteFish(f.usage))
		}
	})
	return b.String()
}

func quoteFish(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
}
