// Package webhook holds bodies as PMM's Grafana and Alertmanager really sent
// them, and the two samples of Callgoose's guide, for tests and the demo.
package webhook

import (
	"embed"
	"iter"
)

// Files are the bodies, by file name.
//
//go:embed *.json
var Files embed.FS

// Bodies yields what is in each of the files, in the order of their names.
func Bodies() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		names, _ := Files.ReadDir(".") // what is embedded can be read
		for _, name := range names {
			if b, _ := Files.ReadFile(name.Name()); !yield(b) {
				return
			}
		}
	}
}
