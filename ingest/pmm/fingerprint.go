package pmm

import (
	"fmt"
	"maps"
	"slices"
)

// Fingerprint is the identity of an alert that came without one: FNV-1a over its
// labels, exactly as LabelsToSignature of prometheus/common/model has it. Incident
// keys are made of it, so a change is a migration.
func Fingerprint(labels map[string]string) string {
	sum := uint64(14695981039346656037)
	add := func(s string) {
		for i := range len(s) {
			sum = (sum ^ uint64(s[i])) * 1099511628211
		}
		sum = (sum ^ 0xff) * 1099511628211 // no UTF-8 text holds this byte
	}
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		add(name)
		add(labels[name])
	}
	return fmt.Sprintf("%016x", sum)
}
