package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/config"
)

// clientFlags are the flags of the commands that ask a running service.
func clientFlags(more ...cli.Flag) []cli.Flag {
	return append(append(settingFlags("data-dir", "admin-token-file"), atFlags()...), more...)
}

// atFlags say where the service is asked, and how the answer is shown.
func atFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "admin-url", Usage: "ask the service at this address instead of through the data directory", EnvVars: []string{config.EnvName("admin-url")}},
		&cli.StringFlag{Name: "admin-ca", Usage: "trust these authorities (PEM) for --admin-url", EnvVars: []string{config.EnvName("admin-ca")}, TakesFile: true},
		outputFlag(),
	}
}

// client finds the running service.
func (p *program) client(c *cli.Context) (*admin.Client, error) {
	only := []string{"data-dir"}
	if c.String("admin-url") != "" {
		only = []string{"admin-token-file", "allow-http"}
	}
	cfg, warnings, err := p.toAsk(c, only...)
	p.warn(warnings)
	if err != nil {
		return nil, err
	}
	client, _, err := p.clientOf(c, cfg)
	return client, err
}

// toAsk loads the settings that a running service is found by.
func (p *program) toAsk(c *cli.Context, only ...string) (*config.Config, []config.Warning, error) {
	in := p.input(c, false, only...)
	in.Asks = true
	return config.Load(in)
}

// asking is the action of a command that asks the running service.
func (p *program) asking(do func(*cli.Context, *admin.Client) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		client, err := p.client(c)
		if err != nil {
			return err
		}
		return do(c, client)
	}
}

// askingOf is asking about the one thing that is the argument; usage is the error
// without it.
func (p *program) askingOf(usage string, do func(*cli.Context, *admin.Client, string) error) cli.ActionFunc {
	ask := p.asking(func(c *cli.Context, client *admin.Client) error { return do(c, client, c.Args().First()) })
	return func(c *cli.Context) error {
		if c.NArg() != 1 || slices.Contains([]string{"", ".", ".."}, c.Args().First()) { // these would lead to another path
			return usagef("%s", usage)
		}
		return ask(c)
	}
}

// clientOf asks the service that --admin-url names, else the one in the data
// directory; where says which.
func (p *program) clientOf(c *cli.Context, cfg *config.Config) (client *admin.Client, where string, err error) {
	at := c.String("admin-url")
	if at == "" {
		client, where = p.here(c, cfg)
		return client, where, nil
	}
	if cfg.AdminToken.IsSet() && config.Cleartext(at) && !cfg.AllowHTTP {
		return nil, "", usagef("--admin-url is plain http, which shows the token to everyone on the way; use https, or set %s=true", config.EnvName("allow-http"))
	}
	if client, err = admin.NewURLClient(at, cfg.AdminToken.Reveal(), c.String("admin-ca")); err != nil {
		return nil, "", usageError{err}
	}
	return client, "--admin-url", nil
}

// here finds the service that runs on this machine: in the data directory, and where
// nobody named one also in that of the package, and at the operators' address.
func (p *program) here(c *cli.Context, cfg *config.Config) (client *admin.Client, where string) {
	own := filepath.Join(cfg.DataDir, admin.SocketName)
	client = admin.NewSocketClient(cfg.DataDir)
	if cfg.Named("data-dir") {
		return client, own
	}
	if unitInstalled(config.Var) {
		p.start = startUnit + "; systemctl status pmm-callgoose says why it does not run"
	}
	if _, err := os.Stat(own); err == nil { // one that was left behind too
		return client, own
	}
	packaged := filepath.Join(config.Var, admin.SocketName)
	if _, err := os.Stat(packaged); err == nil {
		return admin.NewSocketClient(config.Var), packaged
	} else if errors.Is(err, fs.ErrPermission) {
		p.start = config.Var + " is closed to this user: sudo pmm-callgoose status asks the service there"
	}
	there, _, err := p.toAsk(c, "admin-listen")
	if err != nil || config.BeyondLoopback(there.AdminListen) {
		return client, own
	}
	where = "http://" + there.AdminListen
	other, err := admin.NewURLClient(where, "", "")
	if err != nil {
		return client, own
	}
	ctx, cancel := context.WithTimeout(c.Context, 2*time.Second)
	defer cancel()
	if s, err := other.Status(ctx); err != nil || s.Version == "" {
		return client, own
	}
	fmt.Fprintf(p.err, "no service in %s: asking the one at %s\n", cfg.DataDir, where)
	return other, where
}

// parameters are the flags that a service is asked with, each under its own name.
var parameters = []string{
	"since", "until", "status", "outcome", "match", "incident", "severity", "text", "limit", "all",
	"include-closed", "rate", "dry-run", "reason",
}

// query are the parameters that were given as flags.
func query(c *cli.Context) url.Values {
	q := url.Values{}
	for _, flag := range parameters {
		name := strings.ReplaceAll(flag, "-", "_")
		if list := c.StringSlice(flag); len(list) > 0 {
			q[name] = list
		} else if c.IsSet(flag) && fmt.Sprint(c.Value(flag)) != "" {
			q.Set(name, fmt.Sprint(c.Value(flag)))
		}
	}
	return q
}

// filters are the parameters of a command that only has filters.
func filters(c *cli.Context) (url.Values, error) {
	q := query(c)
	if _, _, err := admin.ParseFilter(q); err != nil {
		return nil, usagef("--%w", err)
	}
	return q, nil
}

// filtering is asking with filters, which are checked before anybody is asked.
func (p *program) filtering(do func(*cli.Context, *admin.Client, url.Values) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		q, err := filters(c)
		if err != nil {
			return err
		}
		return p.asking(func(c *cli.Context, client *admin.Client) error { return do(c, client, q) })(c)
	}
}

// act has the service do something, and says that it is done.
func (p *program) act(c *cli.Context, client *admin.Client, what string, q url.Values, done string) error {
	if _, err := admin.Ask[struct{}](c.Context, client, "POST /api/v1/"+what, q); err != nil {
		return err
	}
	return p.done(c, done)
}

// done says what was done.
func (p *program) done(c *cli.Context, said string) error {
	return p.say(c, map[string]string{"done": said}, "%s", said)
}

// poll looks again and again, until what it waits for is there or cannot come, or until
// ctx ends: then it returns why.
func poll(ctx context.Context, every time.Duration, look func() (there bool, err error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if there, err := look(); there || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
