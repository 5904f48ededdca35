package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/xrash/smetrics"
)

// Etc is where a package puts the configuration: Input.Etc of commands. Var is the
// data directory of its service, and the default of root.
const (
	Etc = "/etc/pmm-callgoose"
	Var = "/var/lib/pmm-callgoose"
)

// Input is everything that configuration is made from.
type Input struct {
	Flags      map[string]string // those set on the command line, by name
	Environ    []string          // as os.Environ gives it
	ConfigPath string            // --config; else PMM_CALLGOOSE_CONFIG is used
	// Etc is the directory whose config.yaml is read when no file is named, where
	// it exists, and whose credentials/ holds secrets for root. "" = none.
	Etc string
	// Serve also demands what serve cannot run without.
	Serve bool
	// Only names the options that a command uses; nil means all. The others are
	// known, but neither read nor checked, so that a command which needs only
	// data-dir works without permission to read the secrets. Checks that compare
	// options are left out too.
	Only []string
	// Asks: the command asks a running service, whose settings are what counts. What
	// is wrong in the file and not in Only is a warning then.
	Asks bool
	// KnownEnv names the variables of other flags, not to be warned about.
	KnownEnv []string
}

// Warning is something odd that does not keep a command from running.
type Warning string

// Problem is one thing wrong with the configuration.
type Problem struct {
	Where string `json:"where"` // --flag, VARIABLE, path:line: key, or just the key
	Text  string `json:"text"`
}

func (p Problem) String() string { return p.Where + ": " + p.Text }

// Problems is the error that Load returns: everything wrong, one line each.
type Problems []Problem

func (ps *Problems) add(where, format string, args ...any) {
	*ps = append(*ps, Problem{where, fmt.Sprintf(format, args...)})
}

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Values of Setting.From, besides path:line.
const (
	fromFlag       = "flag"
	fromEnv        = "environment"
	fromCredential = "credential"
	fromURL        = "callgoose-url"
	fromDefault    = "default"
)

// invalid stands in Setting.Value for what could not be read.
const invalid = "(invalid)"

// Load makes the Config. An error is always Problems; the Config that comes with
// it is fit to be shown, the default standing in for each bad value.
func Load(in Input) (*Config, []Warning, error) {
	l := &loader{
		in:  in,
		env: make(map[string]string),
		c:   &Config{settings: make(map[string]*Setting)},
	}
	for _, kv := range in.Environ {
		name, value, _ := strings.Cut(kv, "=")
		l.env[name] = value
	}
	for _, name := range slices.Sorted(maps.Keys(in.Flags)) {
		if _, ok := find(name); !ok {
			l.problems.add("--"+name, "is not a flag of the configuration")
		}
	}
	l.readConfig()
	for _, o := range table {
		switch {
		case in.Only != nil && !slices.Contains(in.Only, o.Name):
		case o.Secret:
			l.secret(o)
		default:
			l.option(o)
		}
	}
	l.callgooseURL()
	l.exposedURLs()
	if in.Only == nil {
		l.check()
	}
	l.unknownEnv()
	if len(l.problems) > 0 {
		return l.c, l.warnings, l.problems
	}
	return l.c, l.warnings, nil
}

type loader struct {
	in   Input
	env  map[string]string
	file map[string]entry
	path string // of the file
	// unreadable: the file is not there, or is no YAML.
	unreadable bool
	c          *Config
	warnings   []Warning
	problems   Problems
}

func (l *loader) warn(where, format string, args ...any) {
	l.warnings = append(l.warnings, Warning(where+": "+fmt.Sprintf(format, args...)))
}

// setting returns the row of the effective configuration for an option.
func (l *loader) setting(name string) *Setting {
	s := l.c.settings[name]
	if s == nil {
		o, _ := find(name)
		s = &Setting{Name: o.Setting(), From: fromDefault}
		l.c.settings[name] = s
	}
	return s
}

// given tells whether an option has a value, good or bad.
func (l *loader) given(name string) bool { return l.setting(name).Value != "" }

// where names the place that an option's value came from, as its author would.
func (l *loader) where(name string) string {
	switch from := l.setting(name).From; from {
	case fromFlag:
		return "--" + name
	case fromEnv:
		return EnvName(name)
	case fromDefault, fromURL:
		return name
	default:
		return from + ": " + name
	}
}

// wrong reports what is wrong with an option.
func (l *loader) wrong(name, format string, args ...any) {
	l.problems.add(l.where(name), format, args...)
}

// reject does so for a value that cannot even be shown.
func (l *loader) reject(name, format string, args ...any) {
	l.wrong(name, format, args...)
	l.setting(name).Value = invalid
}

// lookup finds the text of an option. An empty variable counts as not set, since
// compose files and units cannot leave one out.
func (l *loader) lookup(o Option) (text, from string, ok bool) {
	if v, ok := l.in.Flags[o.Name]; ok {
		return v, fromFlag, true
	}
	if v := l.env[o.Env]; v != "" {
		return v, fromEnv, true
	}
	e, ok := l.file[o.Name]
	return e.text, e.place, ok
}

func (l *loader) option(o Option) {
	s := l.setting(o.Name)
	text, from, ok := l.lookup(o)
	if ok {
		s.From = from
	} else if text = o.Default; o.Name == "data-dir" {
		text = dataDir(l.env, os.Geteuid())
	}
	if o.Kind == KindPath {
		text = absolute(text)
	}
	switch {
	case text == "" && o.Name == "data-dir" && !ok:
		l.reject(o.Name, "has no default here, for lack of $HOME; name a directory")
	case text == "" && o.Default != "":
		l.reject(o.Name, "has no value")
	case text == "":
		return
	default:
		err := o.set(l.c, text)
		if err == nil {
			if s.Value = text; o.Kind == KindURL {
				s.Value = hideURL(text)
			}
			return
		}
		l.reject(o.Name, "%v", err)
	}
	if o.Default != "" && o.Name != "data-dir" {
		_ = o.set(l.c, o.Default) // a test sets every default
	}
}

// absolute makes a path good for others too, who have another working directory and are
// told of it by the service.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil && path != "" {
		return abs
	}
	return path
}

// dataDir is the default of --data-dir.
func dataDir(env map[string]string, uid int) string {
	const name = "pmm-callgoose"
	// systemd lists several directories separated by colons.
	if first, _, _ := strings.Cut(env["STATE_DIRECTORY"], ":"); first != "" {
		return first
	}
	if uid == 0 {
		return Var
	}
	if dir := env["XDG_STATE_HOME"]; filepath.IsAbs(dir) { // as its specification demands
		return filepath.Join(dir, name)
	}
	if home := env["HOME"]; home != "" {
		return filepath.Join(home, ".local/state", name)
	}
	return ""
}

func (l *loader) secret(o Option) {
	s, name := l.setting(o.Name), o.Credential()
	path, from, _ := l.lookup(o)
	var where string
	switch cred, etc := l.credential(name), l.etcCredential(name); {
	case path != "":
		s.From, s.File = from, path
		where = l.where(o.Name)
	case cred != "":
		s.From, s.File, where = fromCredential, cred, "$CREDENTIALS_DIRECTORY/"+name
	case l.env[EnvName(name)] != "" && o.inline():
		s.From, where = fromEnv, EnvName(name)
	case etc != "":
		s.From, s.File, where = fromCredential, etc, etc
	default:
		return
	}
	var sec *Secret
	var err error
	if s.File != "" {
		sec, err = readSecret(o, s.File)
	} else if sec = o.secret(trimNewline(l.env[where])); sec.IsSet() {
		err = o.checkSecret(sec.Reveal())
	} else {
		err = errors.New("is empty")
	}
	if err != nil {
		l.problems.add(where, "%v", err)
		s.Value, s.File = invalid, "" // the path may be the token, put in the wrong place
		return
	}
	if path != "" && exposed(path) {
		l.warn(where, "other users of this machine may read %s; chmod 600 would stop that", sayFile(path))
	}
	s.File = absolute(s.File) // not before it was read: it may have been the token
	sec.file, *o.field(l.c).(**Secret), s.Value = s.File, sec, redacted
}

// credential returns the path of a systemd credential, or "" if there is none, or if it
// is what the unit gives where there is no file: SetCredential=NAME:none.
func (l *loader) credential(name string) string {
	path := existing(l.env["CREDENTIALS_DIRECTORY"], name)
	if b, err := os.ReadFile(path); err == nil && string(b) == "none" {
		return ""
	}
	return path
}

// etcCredential is the file from which the unit takes that credential: root, who
// may read it, gets the service's settings without a flag.
func (l *loader) etcCredential(name string) string {
	if l.in.Etc == "" || os.Geteuid() != 0 {
		return ""
	}
	return existing(filepath.Join(l.in.Etc, "credentials"), name)
}

func existing(dir, name string) string {
	if dir == "" {
		return ""
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return path
}

// serviceLink matches what Kubernetes puts into every pod of a namespace with a
// service called pmm-callgoose.
var serviceLink = regexp.MustCompile(`^PMM_CALLGOOSE_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

func (l *loader) unknownEnv() {
	known := append([]string{EnvName("config")}, l.in.KnownEnv...)
	for _, o := range table {
		known = append(known, o.Env)
		if o.inline() {
			known = append(known, EnvName(o.Credential()))
		}
	}
	var unknown []string
	for name := range l.env {
		if strings.HasPrefix(name, EnvPrefix) && !slices.Contains(known, name) && !serviceLink.MatchString(name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		l.warn(name, "is not a variable of pmm-callgoose and is ignored%s", Suggest(name, known))
	}
}

// Suggest names the candidate that was probably meant: "; did you mean NAME?", or
// nothing.
func Suggest(name string, candidates []string) string {
	best, least := "", 1+min(3, len(name)/3)
	for _, c := range candidates {
		if d := smetrics.WagnerFischer(EnvName(name), EnvName(c), 1, 1, 1); d < least {
			best, least = c, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}
