// Package cli is the command line: one file a command. It turns flags into
// configuration, answers into tables or JSON, and errors into exit codes.
//
//	0 done   1 the thing asked for failed   2 usage or configuration error
//	3 no running service to talk to         4 part of it failed
package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/queue"
)

// The exit codes.
const (
	exitOK      = 0
	exitFailed  = 1
	exitUsage   = 2
	exitNoSuch  = 3
	exitPartial = 4
)

// usageError is a mistake on the command line.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// program is one run of the binary.
type program struct {
	environ []string
	out     io.Writer
	err     io.Writer
	start   string // how the service that was looked for is started, if not with serve
}

// Main runs the command line in args and returns the exit code. SIGINT and
// SIGTERM end it in order.
func Main(args, environ []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	out := &outlet{Writer: stdout}
	p := &program{environ: environ, out: out, err: stderr}
	app := p.app()
	err := app.RunContext(ctx, flagsFirst(app.Commands, plainly(args)))
	if err == nil && out.err != nil && !slices.Contains(args[:min(2, len(args))], "serve") { // whose log is what counts
		err = fmt.Errorf("write the output: %w", out.err)
	}
	return p.report(err)
}

// plainly turns the other ways to ask for help and for the version into the one that is known.
func plainly(args []string) []string {
	if len(args) < 2 {
		return args
	}
	switch args[1] {
	case "help":
		return append(append(args[:1:1], args[2:]...), "--help")
	case "--version", "-version", "-v":
		return append(args[:1:1], "version")
	}
	return args
}

var badValue = regexp.MustCompile(`^invalid value (".*") for flag -+([^:]+): `)

// misused rewords what the library found wrong with the flags of c.
func misused(c *cli.Context, err error, _ bool) error {
	command, flags := "pmm-callgoose", c.App.Flags
	if c.Command != nil && c.Command.Name != "" && c.Command.HelpName != "" {
		command, flags = c.Command.HelpName, c.Command.Flags
	}
	text := err.Error()
	if name, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		name = strings.TrimLeft(name, "-")
		var names []string
		for _, f := range flags {
			names = append(names, f.Names()[0])
		}
		meant := config.Suggest(name, names)
		if slices.Contains(names, name+"-file") { // a secret, in its place
			meant = "; did you mean " + name + "-file?"
		}
		return usagef("there is no flag --%s%s (%s --help)", name, meant, command)
	}
	if m := badValue.FindStringSubmatch(text); m != nil {
		return usagef("--%s: %s cannot be read (%s --help)", m[2], m[1], command)
	}
	return usageError{errors.New(strings.Replace(text, ": -", ": --", 1))}
}

// flagsFirst moves the flags of a command before its arguments: the library
// stops looking for flags at the first argument, and "events show ID --output
// json" is how people write it.
func flagsFirst(commands []*cli.Command, args []string) []string {
	var flags []cli.Flag
	i := 1
	for i < len(args) {
		at := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(args[i]) })
		if at < 0 {
			break
		}
		flags, commands = commands[at].Flags, commands[at].Subcommands
		i++
	}
	out, rest := slices.Clone(args[:min(i, len(args))]), []string(nil)
	for ; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			rest = append(rest, args[i:]...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			rest = append(rest, arg)
			continue
		}
		out = append(out, arg)
		name := strings.TrimLeft(arg, "-")
		at := slices.IndexFunc(flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
		if at < 0 || strings.Contains(arg, "=") {
			continue
		}
		if _, isBool := flags[at].(*cli.BoolFlag); !isBool && i+1 < len(args) {
			i++
			out = append(out, args[i])
		}
	}
	return append(out, rest...)
}

func (p *program) app() *cli.App {
	app := &cli.App{
		Name:  "pmm-callgoose",
		Usage: "forward alerts of Percona Monitoring and Management to Callgoose, durably",
		Description: "Every flag of serve has an environment variable, PMM_CALLGOOSE_ and its name,\n" +
			"and a key in the YAML file named by --config. Flag over environment over file.",
		Version:         build().Version,
		HideVersion:     true, // the command does it
		HideHelpCommand: true,
		Writer:          p.out,
		ErrWriter:       p.err,
		OnUsageError:    misused,
		ExitErrHandler:  func(*cli.Context, error) {},
		// A label's value may hold commas: --match may be repeated instead.
		DisableSliceFlagSeparator: true,
		Commands: []*cli.Command{
			p.serveCommand(), p.demoCommand(), p.statusCommand(), p.eventsCommand(), p.incidentsCommand(), p.replayCommand(), p.deadLettersCommand(),
			p.reconcileCommand(), p.pauseCommand(), p.resumeCommand(), p.filtersCommand(), p.clusterCommand(),
			p.setupCommand(), p.doctorCommand(), p.sendTestCommand(), p.benchCommand(), p.configCommand(), p.versionCommand(),
			p.healthCommand(), p.completionCommand(), p.manCommand(),
		},
		Action: func(c *cli.Context) error { return noCommand(c, "", c.App.Commands, cli.ShowAppHelp) },
	}
	each(app.Commands, "", func(path string, c *cli.Command) {
		c.OnUsageError = misused
		c.HideHelpCommand = true
		c.Description = withExamples(c.Description, path)
		switch {
		case len(c.Subcommands) > 0:
			c.Action = func(ctx *cli.Context) error { return noCommand(ctx, path+" ", c.Subcommands, cli.ShowSubcommandHelp) }
		case c.ArgsUsage == "":
			c.Before = noArgs
		}
	})
	return app
}

// noCommand is the action where a subcommand is missing or unknown.
func noCommand(c *cli.Context, path string, commands []*cli.Command, help func(*cli.Context) error) error {
	word := c.Args().First()
	if !c.Args().Present() {
		return help(c)
	}
	var names []string
	for _, c := range commands {
		names = append(names, c.Name)
	}
	return usagef("there is no command %q%s (pmm-callgoose %s--help)", path+word, config.Suggest(word, names), path)
}

// report prints the error, one line with the way out, and picks the exit code.
func (p *program) report(err error) int {
	if err == nil {
		return exitOK
	}
	var (
		usage    usageError
		problems config.Problems
		partial  partialError
	)
	code, hint := exitFailed, ""
	switch {
	case errors.As(err, &problems):
		code, hint = exitUsage, "pmm-callgoose config show prints what is in effect and where it came from"
	case errors.As(err, &usage):
		code = exitUsage
	case errors.Is(err, store.ErrLocked):
		code, hint = exitUsage, "stop the other one, or choose another --data-dir"
	case errors.Is(err, queue.ErrShort), errors.Is(err, store.ErrOther), errors.Is(err, queue.ErrUnfit), errors.Is(err, store.ErrMoved), errors.Is(err, queue.ErrLeft):
		code = exitUsage
	case errors.Is(err, admin.ErrNoService):
		code, hint = exitNoSuch, p.howToStart()
	case errors.Is(err, admin.ErrSilent):
		code, hint = exitNoSuch, endAndStart
	case errors.Is(err, event.ErrNewer):
		code, hint = exitUsage, "nothing was changed; install that version again"
	case errors.As(err, &partial):
		code = exitPartial
	case errors.Is(err, syscall.EADDRINUSE):
		hint = "ss -ltnp shows who listens there: another pmm-callgoose?"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		hint = "ip addr shows the addresses of this machine"
	case errors.Is(err, syscall.EROFS):
		hint = "a service of systemd may write below /var/lib/pmm-callgoose alone: mount the disk there, or name its place in ReadWritePaths= (systemctl edit)"
	case errors.As(err, new(*net.OpError)) && errors.Is(err, fs.ErrPermission):
		code, hint = exitUsage, "a port below 1024 takes root: choose another one"
	case errors.Is(err, fs.ErrPermission): // trying again, as systemd would, does not help
		code, hint = exitUsage, "run this as the user that owns the data directory; all in it must be that user's: sudo chown -R USER: DIRECTORY"
	}
	priority := ""
	if p.toJournal(p.err) {
		priority = priorities["ERROR"]
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintln(p.err, priority+"pmm-callgoose:", text.Line(line))
	}
	if hint != "" {
		fmt.Fprintln(p.err, priority+"hint:", hint)
	}
	return code
}

// endAndStart is what to do about a service that is there and does not answer.
const endAndStart = "it is stopped, stuck or starved: what it accepted is on disk, so end it and start it again (sudo systemctl restart pmm-callgoose)"

// howToStart is the way to a service that does not answer.
func (p *program) howToStart() string {
	return cmp.Or(p.start, "start it with pmm-callgoose serve, or name it with --data-dir or --admin-url")
}

// partialError: part of it failed.
type partialError struct{ error }

// configFlag names the YAML file.
var configFlag = &cli.StringFlag{Name: "config", Usage: "YAML file with settings", TakesFile: true}

// settingFlags are the flags of the named settings, of all when none is named.
func settingFlags(names ...string) []cli.Flag {
	flags := []cli.Flag{configFlag}
	for _, o := range config.Options() {
		if len(names) > 0 && !slices.Contains(names, o.Name) {
			continue
		}
		usage := o.Usage
		if o.Default != "" && o.Kind != config.KindBool {
			usage += " (default: " + o.Default + ")"
		}
		if len(o.Values) > 0 {
			usage = strings.Join(o.Values, "|") + ": " + usage
		}
		usage += " [$" + config.EnvName(o.Name) + "]" // not EnvVars: the configuration reads them, and says where a value came from
		switch {
		case o.Kind == config.KindBool:
			flags = append(flags, &cli.BoolFlag{Name: o.Name, Usage: usage, Category: o.Group})
		case o.Many:
			flags = append(flags, &cli.StringSliceFlag{Name: o.Name, Usage: usage, Category: o.Group, KeepSpace: true})
		default:
			flags = append(flags, &cli.StringFlag{Name: o.Name, Usage: usage, Category: o.Group, TakesFile: o.Kind == config.KindPath || o.Secret})
		}
	}
	return flags
}

// load makes the configuration. Only the named settings are read; none = all.
func (p *program) load(c *cli.Context, only ...string) (*config.Config, error) {
	cfg, warnings, err := config.Load(p.input(c, false, only...))
	p.warn(warnings)
	return cfg, err
}

// input is everything that the configuration is made from.
func (p *program) input(c *cli.Context, serve bool, only ...string) config.Input {
	in := config.Input{
		Flags: map[string]string{}, Environ: p.environ, ConfigPath: c.String("config"), Etc: p.etc(), Serve: serve, Only: only,
		KnownEnv: []string{config.EnvName("webhook-url"), config.EnvName("admin-url"), config.EnvName("admin-ca"), config.EnvName("output")},
	}
	for _, o := range config.Options() {
		if !c.IsSet(o.Name) {
			continue
		}
		switch {
		case o.Kind == config.KindBool:
			in.Flags[o.Name] = fmt.Sprint(c.Bool(o.Name))
		case o.Many:
			in.Flags[o.Name] = strings.Join(c.StringSlice(o.Name), ",")
		default:
			in.Flags[o.Name] = c.String(o.Name)
		}
	}
	return in
}

// etc is where the package put the configuration. A unit may name another place,
// and so may a test.
func (p *program) etc() string {
	dir, _, _ := strings.Cut(p.env("CONFIGURATION_DIRECTORY"), ":")
	return cmp.Or(dir, config.Etc)
}

// env is a variable of the environment, "" when it is not set.
func (p *program) env(name string) string {
	for _, kv := range p.environ {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}

func (p *program) warn(warnings []config.Warning) {
	for _, w := range warnings {
		fmt.Fprintln(p.err, "warning:", w)
	}
}

// newLogger makes the log of a process, for the journal of systemd or not. No line
// of it can hold a secret.
func newLogger(cfg *config.Config, w io.Writer, forJournal bool) *slog.Logger {
	asJSON := cfg.LogFormat == "json"
	opts := &slog.HandlerOptions{Level: cfg.LogLevel, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		switch {
		case forJournal && len(groups) == 0 && a.Key == slog.TimeKey: // the journal has a time of its own
			return slog.Attr{}
		case asJSON && a.Value.Kind() == slog.KindDuration: // as in text: 1.5s, not nanoseconds
			a.Value = slog.StringValue(a.Value.Duration().String())
		}
		return a
	}}
	if forJournal {
		w = journal{w}
	}
	if asJSON {
		return slog.New(slog.NewJSONHandler(cfg.Redactor().Writer(text.JSONWriter(w)), opts))
	}
	return slog.New(slog.NewTextHandler(cfg.Redactor().Writer(w), opts))
}

// noArgs refuses arguments where none are expected: a typing error must not be ignored.
func noArgs(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("%q is not expected; see %s --help", c.Args().First(), c.Command.HelpName)
	}
	return nil
}
