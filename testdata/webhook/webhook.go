// Package webhook holds bodies as PMM's Grafana and Alertmanager really sent
// them, and the two samples of Callgoose's guide, for tests and the demo.
package webhook

import "embed"

// Files are the bodies, by file name.
//
//go:embed *.json
var Files embed.FS
