package cli

import (
	"errors"
	"io"
	"maps"
	"net/url"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"pmm-callgoose/cmd/internal/admin"
)

// FuzzFilterFlags: what is typed as a filter is what the service is asked for.
func FuzzFilterFlags(f *testing.F) {
	f.Add("service_name", "mysql-1", "pmm-1")
	f.Add("mount", "/srv,/var", "pmm-a,b")
	f.Add("mount", "/srv, b=c", "")
	f.Add("", "=", "x")
	f.Add("a=b", "c", "--limit")
	f.Add("-a", "-b", "-")
	f.Add("é\x00", "\"'\\ \n", " ")
	f.Fuzz(func(t *testing.T, label, value, incident string) {
		var q url.Values
		p := &program{out: io.Discard, err: io.Discard}
		app := p.app()
		app.Commands = []*cli.Command{{Name: "list", Flags: filterFlags(newestFlag), Action: func(c *cli.Context) (err error) {
			q, err = filters(c)
			return err
		}}}
		args := []string{"pmm-callgoose", "list", "ID", "--match", "a=b,c", "--match", label + "=" + value, "--incident", incident, "--outcome", "dead,discarded", "--outcome=queued"}
		err := app.RunContext(t.Context(), flagsFirst(app.Commands, args))
		name, want, _ := strings.Cut(label+"="+value, "=") // the first = divides
		if name == "" || name == "a" && want != "b,c" {
			if _, usage := errors.AsType[usageError](err); !usage {
				t.Fatalf("%q: %v, want a mistake in the usage", args, err)
			}
			return
		}
		if err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		filter, _, err := admin.ParseFilter(q)
		if err != nil || !maps.Equal(filter.Labels, map[string]string{"a": "b,c", name: want}) || filter.Incident != incident || len(filter.Outcomes) != 3 {
			t.Fatalf("%q asks for %+v, %v", args, filter, err)
		}
	})
}
