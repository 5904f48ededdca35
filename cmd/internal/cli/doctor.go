package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/app"
	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/cmd/internal/doctor"
	"pmm-callgoose/cmd/internal/text"
	"pmm-callgoose/ingest/pmm"
	"pmm-callgoose/store/queue"
)

func (p *program) doctorCommand() *cli.Command {
	return &cli.Command{
		Name:   "doctor",
		Usage:  "check configuration, disk, intake, the way to Callgoose, what waits, and PMM; each finding with its fix; with or without a running service",
		Flags:  append(settingFlags(), atFlags()...),
		Action: p.doctor,
	}
}

func (p *program) doctor(c *cli.Context) error {
	d := doctor.Config{}
	own := func(serve bool) error {
		cfg, warnings, err := config.Load(p.input(c, serve))
		d.Settings, d.Warnings, d.Problems = cfg, warnings, nil
		if err != nil && !errors.As(err, &d.Problems) {
			return err
		}
		return nil
	}
	if err := own(false); err != nil {
		return err
	}
	client, where, err := p.clientOf(c, d.Settings)
	if err != nil {
		return err
	}
	if d.PMM.Clients, err = pmmClients(d.Settings, nil); err != nil {
		if len(d.Problems) > 0 { // a token that cannot be read is not a missing one
			err = d.Problems
		}
		return err
	}
	d.PMM.Name = d.Settings.ContactPoint
	s, err := client.Status(c.Context)
	if err == nil {
		err = p.besideService(c, &d, client, where, s)
	} else {
		d.NoService, d.Start, d.Stuck = err.Error(), p.howToStart(), errors.Is(err, admin.ErrSilent)
		if d.Stuck {
			d.Start = endAndStart
		}
		err = own(true)
		d.PMM.Asks = asks(d.Settings.Effective())
	}
	if err != nil {
		return err
	}
	if d.Settings.NATS() != "" {
		settings := d.Settings
		d.NATS = func(ctx context.Context) queue.Examined { return app.ExamineNATS(ctx, settings) }
	}
	report := doctor.Run(c.Context, d)
	err = p.show(c, report, func() { p.showReport(report) })
	if err == nil && report.Failed > 0 {
		err = fmt.Errorf("%d of %d checks failed", report.Failed, len(report.Findings))
	}
	return err
}

// besideService takes settings and facts from the service that runs. What it does not
// give away, its secrets, is taken from the settings here.
func (p *program) besideService(c *cli.Context, d *doctor.Config, client *admin.Client, where string, s admin.Status) error {
	settings, err := admin.Ask[[]config.Setting](c.Context, client, "GET /api/v1/config", nil)
	if err != nil {
		return err
	}
	d.PMM.Asks = asks(settings)
	theirs, _, err := config.Load(inputOf(settings))
	d.Problems = nil
	if err != nil && !errors.As(err, &d.Problems) {
		return err
	}
	if !theirs.CallgooseToken.IsSet() {
		theirs.CallgooseToken = d.Settings.CallgooseToken
	}
	d.Settings = theirs
	d.Service = &doctor.Service{Status: s, Where: where, Remote: c.String("admin-url") != "" && !pmm.IsLoopback(c.String("admin-url"))}
	if _, err := admin.Ask[struct{}](c.Context, client, "GET /readyz", nil); err != nil {
		d.Service.NotReady = err.Error()
	}
	d.Consistent = func(ctx context.Context) (admin.Check, error) {
		return admin.Ask[admin.Check](ctx, client, "GET /api/v1/check", nil)
	}
	return nil
}

// asks are the credentials that the intake asks for.
func asks(settings []config.Setting) (kinds []string) {
	names := map[string]string{"ingest-token": "bearer", "ingest-basic-auth": "basic", "ingest-hmac-secret": "hmac"}
	for _, s := range settings {
		if kind := names[s.Name]; kind != "" && s.Value != "" {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

func byName(settings []config.Setting) map[string]config.Setting {
	by := make(map[string]config.Setting, len(settings))
	for _, s := range settings {
		by[s.Name] = s
	}
	return by
}

// inputOf gives the configuration of a service again, as far as it can be known from
// outside. The options are not checked against each other: the service has done that, and
// what is secret may be missing here.
func inputOf(settings []config.Setting) config.Input {
	in, by := config.Input{Flags: map[string]string{}}, byName(settings)
	for _, o := range config.Options() {
		in.Only = append(in.Only, o.Name)
		s, ok := by[o.Setting()]
		switch {
		case !ok || s.Value == "" || s.From == "default" && o.Name != "data-dir":
		case o.Secret: // one that is closed to this user is not wrong
			f, err := os.Open(s.File)
			if err == nil {
				_ = f.Close()
			}
			if s.File != "" && !errors.Is(err, fs.ErrPermission) {
				in.Flags[o.Name] = s.File
			}
		case o.Kind == config.KindURL && strings.Contains(s.Value, "[redacted]"), strings.HasPrefix(s.Value, "("):
			// Shown without what makes them secret, or invalid.
		default:
			in.Flags[o.Name] = s.Value
		}
	}
	return in
}

func (p *program) showReport(r doctor.Report) {
	wide := 0
	for _, f := range r.Findings {
		wide = max(wide, len(f.Check))
	}
	for _, f := range r.Findings {
		mark := string(f.Severity)
		if f.Severity == doctor.Fail {
			mark = "FAIL"
		}
		fmt.Fprintf(p.out, "%-4s  %-*s  %s\n", mark, wide, f.Check, text.Line(f.Text))
		for _, line := range f.Fix {
			fmt.Fprintf(p.out, "      %-*s  > %s\n", wide, "", text.Line(line))
		}
	}
	fmt.Fprintf(p.out, "\n%d ok, %s, %d failed, %d skipped\n", r.OK, text.Plural(r.Warnings, "warning", "warnings"), r.Failed, r.Skipped)
}
