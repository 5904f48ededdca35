package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/ingest/pmm"
)

// pmmFlags are the flags of the commands that ask PMM.
func pmmFlags(more ...cli.Flag) []cli.Flag {
	text := func(name, usage string) *cli.StringFlag {
		return &cli.StringFlag{Name: name, Usage: usage, EnvVars: []string{config.EnvName(name)}, Category: "PMM", TakesFile: strings.HasSuffix(name, "-file") || strings.HasSuffix(name, "-ca")}
	}
	return append([]cli.Flag{
		text("pmm-url", "address of PMM, https://HOST"),
		text("pmm-token-file", "file with a service account token of PMM, role Editor; Viewer to read only (PMM 2: an API key, role Admin)"),
		text("pmm-basic-auth-file", "file with the user:password of an administrator of PMM, instead of a token"),
		text("pmm-ca", "trust these authorities (PEM) besides the system's; the certificate of PMM itself is accepted under any name"),
		&cli.BoolFlag{
			Name: "pmm-insecure-skip-verify", EnvVars: []string{config.EnvName("pmm-insecure-skip-verify")}, Category: "PMM",
			Usage: "accept any certificate of PMM; whoever stands in between can then read the token",
		},
	}, more...)
}

// texts are the values of a flag that is given several times. The library's own
// kind would cut them at commas, which a regular expression may hold.
type texts []string

// Set adds one.
func (t *texts) Set(s string) error {
	*t = append(*t, s)
	return nil
}

func (t *texts) String() string { return strings.Join(*t, " ") }

// pmmEnv names the variables of flags that are no settings of serve.
func pmmEnv() []string {
	names := []string{config.EnvName("pmm-token"), config.EnvName("pmm-basic-auth"), config.EnvName("webhook-url"), config.EnvName("contact-point")}
	for _, f := range pmmFlags() {
		names = append(names, config.EnvName(f.Names()[0]))
	}
	return names
}

// pmmClient is the way to PMM that the flags describe.
func (p *program) pmmClient(c *cli.Context) (*pmm.Client, error) {
	if c.String("pmm-url") == "" {
		return nil, usagef("--pmm-url is needed: the address of PMM, https://HOST")
	}
	cfg := pmm.ClientConfig{URL: c.String("pmm-url"), CAFile: c.String("pmm-ca"), InsecureSkipVerify: c.Bool("pmm-insecure-skip-verify")}
	for name, to := range map[string]*string{"pmm-token": &cfg.Token, "pmm-basic-auth": &cfg.Basic} {
		secret, warnings, err := config.FindSecret(name, c.String(name+"-file"), p.environ)
		p.warn(warnings)
		if err != nil {
			return nil, err
		}
		*to = secret.Reveal()
	}
	if cfg.Token == "" && cfg.Basic == "" {
		return nil, usagef("--pmm-token-file is needed: a file with the token of a service account of PMM, role Editor; Viewer to read only (PMM 2: an API key, role Admin)")
	}
	client, err := pmm.NewClient(cfg)
	if err != nil {
		return nil, usageError{err}
	}
	return client, p.refuseCleartext(c, "pmm-url")
}

// refuseCleartext refuses the URL in a flag when the secret that goes there can be
// read on the way, and nobody allowed that.
func (p *program) refuseCleartext(c *cli.Context, flag string) error {
	if !config.Cleartext(c.String(flag)) {
		return nil
	}
	cfg, _, err := config.Load(p.input(c, false, "allow-http"))
	if err == nil && !cfg.AllowHTTP {
		err = usagef("--%s is plain http, which shows the token to everyone on the way; use https, or set %s=true", flag, config.EnvName("allow-http"))
	}
	return err
}

// intakeSettings are the settings of serve that decide what PMM has to send.
var intakeSettings = []string{
	"ingest-token-file", "ingest-basic-auth-file", "ingest-hmac-secret-file", "ingest-hmac-timestamp-header", "allow-unauthenticated", "allow-http",
}

func (p *program) setupCommand() *cli.Command {
	return &cli.Command{
		Name: "setup", Usage: "make the other side ready",
		Subcommands: []*cli.Command{{
			Name: "pmm", Usage: "make the contact point and the route in PMM that lead here",
			Description: "Reads what is there, shows what would change, asks, and changes it. Running it twice\n" +
				"changes nothing. It never touches what it did not make, and takes no notification\n" +
				"away from anybody. The ingest secrets are named as for serve: PMM will send them.",
			Flags: pmmFlags(append(settingFlags(intakeSettings...),
				&cli.StringFlag{Name: "webhook-url", EnvVars: []string{config.EnvName("webhook-url")}, Usage: "where PMM finds this service, http://HOST:4667/v1/webhook, as seen from PMM"},
				&cli.StringFlag{Name: "contact-point", Value: pmm.DefaultName, EnvVars: []string{config.EnvName("contact-point")}, Usage: "name of the contact point"},
				&cli.GenericFlag{Name: "match", Value: &texts{}, Usage: "send only alerts with this label: name=value, or != =~ !~; repeat for more that must hold too; all: every alert (default: as the route is, every alert for a new one)"},
				&cli.BoolFlag{Name: "rotate-credentials", Usage: "write the credentials again; PMM never shows them, so a changed one is not noticed"},
				&cli.BoolFlag{Name: "remove", Usage: "take back what was made here"},
				&cli.BoolFlag{Name: "dry-run", Usage: "only show what would change"},
				&cli.BoolFlag{Name: "yes", Usage: "do not ask; required without a terminal"},
				outputFlag(),
			)...),
			Action: func(c *cli.Context) error {
				if err := noArgs(c); err != nil {
					return err
				}
				return p.setupPMM(c)
			},
		}},
	}
}

func (p *program) setupPMM(c *cli.Context) error {
	name := strings.TrimSpace(c.String("contact-point"))
	if name == "" {
		return usagef("--contact-point has no value")
	}
	var want pmm.Want
	var err error
	if c.Bool("remove") {
		for _, f := range []string{"match", "rotate-credentials"} {
			if c.IsSet(f) {
				return usagef("--%s makes no sense with --remove", f)
			}
		}
	} else if want, err = p.wanted(c, name); err != nil {
		return err
	}
	client, err := p.pmmClient(c)
	if err != nil {
		return err
	}
	var plan *pmm.Plan
	if c.Bool("remove") {
		plan, err = client.PlanRemoval(c.Context, name)
	} else {
		plan, err = client.Plan(c.Context, want)
	}
	if err != nil {
		return err
	}
	report := struct {
		*pmm.Plan
		Changes bool `json:"changes"` // there is something to do
		Applied bool `json:"applied"` // and it was done
	}{plan, !plan.Empty(), false}
	asJSON := c.String("output") == "json"
	if !asJSON {
		showSetup(p.out, client.Host(), plan)
	}
	if plan.Empty() || c.Bool("dry-run") {
		if done, err := p.json(c, report); done {
			return err
		}
		if !plan.Empty() {
			fmt.Fprintln(p.out, "nothing was changed (--dry-run)")
		}
		return nil
	}
	if err := p.confirm(c, "change PMM at "+client.Host()+"?"); err != nil {
		return err
	}
	err = client.Apply(c.Context, plan)
	if _, half := errors.AsType[*pmm.HalfDoneError](err); half {
		err = partialError{err}
	}
	if err != nil {
		return err
	}
	report.Applied = true
	if done, err := p.json(c, report); done {
		return err
	}
	fmt.Fprintln(p.out, "done; Grafana takes it up within a minute")
	if !c.Bool("remove") {
		fmt.Fprintln(p.out, "next: press Test at the contact point in PMM, then: pmm-callgoose events list")
	}
	return nil
}

// wanted is what the flags ask for.
func (p *program) wanted(c *cli.Context, name string) (pmm.Want, error) {
	want := pmm.Want{Name: name, URL: c.String("webhook-url"), Rotate: c.Bool("rotate-credentials")}
	if want.URL == "" {
		return want, usagef("--webhook-url is needed: where PMM finds this service, http://HOST:4667/v1/webhook")
	}
	if err := want.Check(); err != nil {
		return want, usageError{fmt.Errorf("--webhook-url: %w", err)}
	}
	for _, text := range *c.Generic("match").(*texts) {
		if text == "all" && len(want.Matchers) == 0 {
			want.Matchers = []pmm.Matcher{}
			continue
		}
		m, err := pmm.ParseMatcher(text)
		if err != nil {
			return want, usageError{fmt.Errorf("--match: %w", err)}
		}
		want.Matchers = append(want.Matchers, m)
	}
	cfg, err := p.load(c, false, intakeSettings...)
	if err != nil {
		return want, err
	}
	want.Token = tokenOf(cfg.IngestToken.Reveal(), sourceOf(want.URL))
	if want.Token == "" && cfg.IngestToken.IsSet() {
		return want, usagef("--ingest-token-file has no token for the source %s, which --webhook-url names", sourceOf(want.URL))
	}
	want.Basic, want.HMACSecret = cfg.IngestBasicAuth.Reveal(), cfg.IngestHMACSecret.Reveal()
	want.HMACTimestampHeader, want.Bare = cfg.IngestHMACTimestampHeader, cfg.AllowUnauthenticated
	if want.Rotate && want.Token == "" && want.Basic == "" && want.HMACSecret == "" {
		return want, usagef("--rotate-credentials needs the credentials: name them as for serve (--ingest-token-file)")
	}
	return want, nil
}

func showSetup(w io.Writer, host string, plan *pmm.Plan) {
	fmt.Fprintf(w, "%s at %s\n", text.Line(plan.Version.String()), text.Line(host))
	for _, s := range plan.Steps {
		name := s.Name
		if s.Object == "contact point" || s.Name != "" && !strings.HasPrefix(s.Name, `"`) {
			name = fmt.Sprintf("%q", s.Name)
		}
		switch s.Object {
		case "default route":
			name = "for " + name
		case "route":
			name = "to " + name
		}
		line := fmt.Sprintf("%-7s %s %s", s.Action, s.Object, name)
		if s.Why != "" {
			line += ": " + s.Why
		}
		fmt.Fprintln(w, text.Line(line))
		for _, f := range s.Fields {
			line := fmt.Sprintf("          %s: %s", f.Name, f.To)
			if f.From != "" {
				line = fmt.Sprintf("          %s: %s -> %s", f.Name, f.From, f.To)
			}
			fmt.Fprintln(w, text.Line(line))
		}
	}
	for _, n := range plan.Notes {
		fmt.Fprintln(w, "note:", text.Line(n))
	}
	if plan.Empty() {
		fmt.Fprintln(w, "nothing to do")
	}
}
