package cli

import (
	"runtime"
	"runtime/debug"
	"strings"

	"pmm-callgoose/cmd/internal/text"

	"github.com/urfave/cli/v2"
)

// Set by the linker in releases.
var (
	version = "dev"
	commit  = ""
	date    = ""
)

type buildInfo struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Date    string `json:"date"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func build() buildInfo {
	b := buildInfo{version, commit, date, runtime.Version(), runtime.GOOS, runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision" && b.Commit == "":
				b.Commit = s.Value
			case s.Key == "vcs.time" && b.Date == "":
				b.Date = s.Value
			}
		}
	}
	return b
}

func (p *program) versionCommand() *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "print the build", Flags: []cli.Flag{outputFlag()},
		Action: func(c *cli.Context) error {
			b := build()
			line := "pmm-callgoose " + b.Version
			if b.Commit != "" {
				line += " (" + strings.TrimSuffix(text.Short(13, b.Commit), "…")
				if b.Date != "" {
					line += ", " + b.Date
				}
				line += ")"
			}
			return p.say(c, b, "%s, %s, %s/%s", line, b.Go, b.OS, b.Arch)
		},
	}
}
