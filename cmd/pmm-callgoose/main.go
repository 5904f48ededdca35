// Command pmm-callgoose forwards alerts of Percona Monitoring and Management
// to Callgoose SQIBS, durably.
package main

import (
	"os"

	"pmm-callgoose/cmd/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args, os.Environ(), os.Stdout, os.Stderr))
}
