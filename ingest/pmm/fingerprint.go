package pmm

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
)

// Fingerprint is the identity of an alert that came without one: FNV-1a over its
// labels, exactly as LabelsToSignature of prometheus/common/model has it. Incident
// keys are made of it, so a change is a migration.
func Fingerprint(labels map[string]string) string {
	h := fnv.New64a()
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		_, _ = h.Write([]byte(name + "\xff" + labels[name] + "\xff")) // no UTF-8 text holds that byte
	}
	return fmt.Sprintf("%016x", h.Sum64())
}
