package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/ingest/pmm"
)

// pmmSettings are the settings of serve that say which PMM is asked, and as whom.
var pmmSettings = []string{"pmm-url", "pmm-token-file", "pmm-basic-auth-file", "pmm-ca", "pmm-insecure-skip-verify", "contact-point", "allow-http"}

// pmmClients are the ways to the PMM servers of the settings, by source. waiting is as
// in pmm.ClientConfig.
func pmmClients(cfg *config.Config, waiting func(error)) (map[string]*pmm.Client, error) {
	clients := map[string]*pmm.Client{}
	for _, at := range cfg.PMMURL {
		token := tokenOf(cfg.PMMToken.Reveal(), at.Source)
		switch {
		case token == "" && !cfg.PMMBasicAuth.IsSet():
			return nil, usagef("--pmm-token-file is needed: a file with the token of a service account of PMM, role Editor; Viewer to read only (PMM 2: an API key, role Admin)")
		case config.Cleartext(at.URL) && !cfg.AllowHTTP:
			return nil, usagef("--pmm-url is plain http, which shows the token to everyone on the way; use https, or set %s=true", config.EnvName("allow-http"))
		}
		client, err := pmm.NewClient(pmm.ClientConfig{
			URL: at.URL, Token: token, Basic: cfg.PMMBasicAuth.Reveal(), CAFile: cfg.PMMCA, InsecureSkipVerify: cfg.PMMInsecureSkipVerify,
			Waiting: waiting,
		})
		if err != nil {
			return nil, usageError{err}
		}
		clients[at.Source] = client
	}
	return clients, nil
}

// pmmClient is the way to the one PMM that setup is about: the only one, or that
// which the webhook's URL names.
func (p *program) pmmClient(cfg *config.Config, webhooks string) (*pmm.Client, error) {
	clients, err := pmmClients(cfg, func(why error) {
		fmt.Fprintln(p.err, "waiting up to a minute:", text.Line(why.Error()))
	})
	if err != nil {
		return nil, err
	}
	switch len(clients) {
	case 0:
		return nil, usagef("--pmm-url is needed: the address of PMM, https://HOST")
	case 1:
		return clients[cfg.PMMURL[0].Source], nil
	}
	if client := clients[sourceOf(webhooks)]; client != nil {
		return client, nil
	}
	return nil, usagef("--pmm-url names %d PMM servers; give the one to change", len(clients))
}

// setupSettings are the settings of serve that say which PMM is set up, and what it has to send.
var setupSettings = slices.Concat(pmmSettings, intakeSecrets, []string{"allow-unauthenticated"})

func (p *program) setupCommand() *cli.Command {
	return &cli.Command{
		Name: "setup", Usage: "make the other side ready",
		Subcommands: []*cli.Command{{
			Name: "pmm", Usage: "make the contact point and the route in PMM that lead here",
			Description: "Reads what is there, shows what would change, asks, and changes it. Running it twice\n" +
				"changes nothing. It never touches what it did not make, and takes no notification\n" +
				"away from anybody. The ingest secrets are named as for serve: PMM will send them.",
			Flags: append(settingFlags(setupSettings...),
				&cli.StringFlag{Name: "webhook-url", EnvVars: []string{config.EnvName("webhook-url")}, Usage: "where PMM finds this service, http://HOST:4667/v1/webhook, as seen from PMM"},
				&cli.StringSliceFlag{Name: "match", KeepSpace: true, Usage: "send only alerts with this label: name=value, or != =~ !~; repeat for more that must hold too; all: every alert (default: as the route is, every alert for a new one)"},
				&cli.BoolFlag{Name: "rotate-credentials", Usage: "write the credentials again; PMM never shows them, so a changed one is not noticed"},
				&cli.BoolFlag{Name: "remove", Usage: "take back what was made here"},
				&cli.BoolFlag{Name: "dry-run", Usage: "only show what would change"},
				yesFlag(),
				outputFlag(),
			),
			Action: p.setupPMM,
		}},
	}
}

func (p *program) setupPMM(c *cli.Context) error {
	cfg, err := p.load(c, setupSettings...)
	if err != nil {
		return err
	}
	want, err := p.wanted(c, cfg)
	if err != nil {
		return err
	}
	client, err := p.pmmClient(cfg, want.URL)
	if err != nil {
		return err
	}
	plan, err := client.Plan(c.Context, want)
	if err != nil {
		return err
	}
	return p.applySetup(c, client, plan)
}

// listens is where the service of this machine takes webhooks, "" when none answers.
func (p *program) listens(c *cli.Context) string {
	cfg, _, err := p.toAsk(c, "data-dir")
	if err != nil {
		return ""
	}
	service, _ := p.here(c, cfg)
	s, err := service.Status(c.Context)
	if err != nil {
		return ""
	}
	return s.WebhookURL
}

// applySetup shows the plan, and does it when that is confirmed.
func (p *program) applySetup(c *cli.Context, client *pmm.Client, plan *pmm.Plan) error {
	report := struct {
		*pmm.Plan
		Changes bool `json:"changes"` // there is something to do
		Applied bool `json:"applied"` // and it was done
	}{plan, !plan.Empty(), false}
	if c.String("output") != "json" {
		showSetup(p.out, client.Host(), plan)
	}
	if plan.Empty() || c.Bool("dry-run") {
		return p.show(c, report, func() {
			if !plan.Empty() {
				fmt.Fprintln(p.out, "nothing was changed (--dry-run)")
			}
		})
	}
	if err := p.confirm(c, "change PMM at "+client.Host()+"?"); err != nil {
		return err
	}
	err := client.Apply(c.Context, plan)
	if errors.Is(err, pmm.ErrHalfDone) {
		err = partialError{err}
	}
	if err != nil {
		return err
	}
	report.Applied = true
	return p.show(c, report, func() {
		fmt.Fprintln(p.out, "done; Grafana takes it up within a minute")
		if c.Bool("remove") {
			return
		}
		fmt.Fprintln(p.out, "next: press Test at the contact point in PMM, then: pmm-callgoose events list")
	})
}

// wanted is what the flags ask for.
func (p *program) wanted(c *cli.Context, cfg *config.Config) (pmm.Want, error) {
	want := pmm.Want{Name: strings.TrimSpace(cfg.ContactPoint), URL: c.String("webhook-url"), Rotate: c.Bool("rotate-credentials")}
	if want.Name == "" {
		return want, usagef("--contact-point has no value")
	}
	if want.Remove = c.Bool("remove"); want.Remove {
		if c.IsSet("match") || want.Rotate {
			return want, usagef("--match and --rotate-credentials make no sense with --remove")
		}
		return want, nil
	}
	if want.URL == "" {
		return want, usagef("--webhook-url is needed: where PMM finds this service, http://HOST:4667/v1/webhook")
	}
	if err := want.Validate(); err != nil {
		return want, usageError{fmt.Errorf("--webhook-url: %w", err)}
	}
	for _, text := range c.StringSlice("match") {
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
	want.Token = tokenOf(cfg.IngestToken.Reveal(), sourceOf(want.URL))
	if want.Token == "" && cfg.IngestToken.IsSet() {
		return want, usagef("--ingest-token-file has no token for the source %s, which --webhook-url names", sourceOf(want.URL))
	}
	want.Basic, want.HMACSecret = cfg.IngestBasicAuth.Reveal(), cfg.IngestHMACSecret.Reveal()
	want.HMACTimestampHeader, want.Bare = cfg.IngestHMACTimestampHeader, cfg.AllowUnauthenticated
	if want.Rotate && !want.Credentials() {
		return want, usagef("--rotate-credentials needs the credentials: name them as for serve (--ingest-token-file)")
	}
	want.Listens = p.listens(c)
	return want, nil
}

func showSetup(w io.Writer, host string, plan *pmm.Plan) {
	fmt.Fprintf(w, "%s at %s\n", text.Line(plan.Version.String()), text.Line(host))
	for _, s := range plan.Steps {
		line := fmt.Sprintf("%-7s %s", s.Action, s)
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
