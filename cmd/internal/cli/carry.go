package cli

import (
	"errors"
	"fmt"
	"net/url"
	"os"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/cmd/internal/text"
)

func (p *program) exportCommand() *cli.Command {
	return &cli.Command{
		Name: "export", Usage: "write stored notifications (or events) as JSON lines to standard output",
		Description: "The filters choose events; notifications are those that the chosen events came in.\n" +
			"Notifications can be imported on another host, for example from a USB stick.",
		Flags: clientFlags(append(choiceFlags(), &cli.StringFlag{Name: "kind", Value: admin.KindNotification, Usage: "notification or event"})...),
		Action: p.filtering(func(c *cli.Context, client *admin.Client, q url.Values) error {
			kind := c.String("kind")
			if kind != admin.KindNotification && kind != admin.KindEvent {
				return usagef("--kind: %q is neither %s nor %s", kind, admin.KindNotification, admin.KindEvent)
			}
			q.Set("kind", kind)
			return client.Export(c.Context, q, p.out)
		}),
	}
}

func (p *program) importCommand() *cli.Command {
	return &cli.Command{
		Name: "import", Usage: "store exported notifications here, as if PMM had sent them", ArgsUsage: "FILE (- for standard input)",
		Flags: clientFlags(),
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("events import needs one FILE, or - for standard input")
			}
			in, err := open(c.Args().First())
			if err != nil {
				return err
			}
			defer func() { _ = in.Close() }()
			client, err := p.client(c)
			if err != nil {
				return err
			}
			done, err := client.Import(c.Context, in)
			if err != nil {
				return err
			}
			said := fmt.Sprintf("%s with %s stored", text.Plural(done.Notifications, "notification", "notifications"), text.Plural(done.Alerts, "alert", "alerts"))
			if done.Skipped > 0 {
				said += fmt.Sprintf(", %s of kind event left out", text.Plural(done.Skipped, "line", "lines"))
			}
			err = p.say(c, done, "%s", said)
			switch {
			case err != nil:
			case done.Error == "" && done.Notifications == 0 && done.Skipped > 0:
				err = errors.New("an export with --kind event is for reading: events export without it makes what can be imported")
			case done.Error != "" && done.Notifications > 0:
				err = partialError{errors.New(done.Error)}
			case done.Error != "":
				err = errors.New(done.Error)
			}
			return err
		},
	}
}

// open opens a file that is an argument; - is standard input.
func open(name string) (*os.File, error) {
	if name == "-" {
		return os.Stdin, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, usageError{err}
	}
	return f, nil
}
