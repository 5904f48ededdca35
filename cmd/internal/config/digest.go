package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"reflect"
	"slices"
)

// ownSettings may differ between instances on one NATS, as addresses, paths and secrets may.
var ownSettings = []string{"accept-loss", "instance", "log-format", "log-level"}

// Digests is a short hash of each setting that must be the same on all instances on one
// NATS, by its name: none can be read out of it. Of --callgoose-url only what is no secret
// counts.
func (c *Config) Digests() map[string]string {
	out := map[string]string{}
	for _, o := range table {
		var value any
		switch {
		case o.Name == "callgoose-url":
			value = hideURL(c.CallgooseURL)
		case slices.Contains([]Kind{KindAddress, KindPath, KindURL, KindPMMs, KindSecret}, o.Kind), slices.Contains(ownSettings, o.Name):
			continue
		default:
			value = reflect.ValueOf(o.field(c)).Elem().Interface()
		}
		sum := sha256.Sum256(fmt.Appendf(nil, "%s=%v", o.Name, value))
		out[o.Name] = hex.EncodeToString(sum[:4])
	}
	return out
}
