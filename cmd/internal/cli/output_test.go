package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func TestOutputThatCannotBeWrittenIsAFailure(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("there is no /dev/full here")
	}
	defer func() { _ = full.Close() }()
	for _, line := range []string{"version", "version --output json", "config show", "completion bash", "man", "--help"} {
		var stderr bytes.Buffer
		code := Main(append([]string{"pmm-callgoose"}, strings.Fields(line)...), []string{"HOME=/nonexistent"}, full, &stderr)
		if code != exitFailed || !strings.Contains(stderr.String(), "no space left on device") {
			t.Errorf("%s on a full disk ends with %d: %s", line, code, &stderr)
		}
	}
}

func TestJSONHoldsNothingThatATerminalObeys(t *testing.T) {
	var out bytes.Buffer
	p := &program{out: &out}
	app := &cli.App{Flags: []cli.Flag{outputFlag()}, Action: func(c *cli.Context) error {
		_, err := p.json(c, map[string]string{"name": "\u009b2J\u202e\u200b"})
		return err
	}}
	if err := app.Run([]string{"x", "--output", "json"}); err != nil || out.Len() == 0 || strings.ContainsAny(out.String(), "\u009b\u202e\u200b") {
		t.Errorf("%v %q", err, out.String())
	}
}
