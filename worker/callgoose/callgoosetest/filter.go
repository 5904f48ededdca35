package callgoosetest

import "pmm-callgoose/worker/callgoose/filters"

// The filters of the fake are those of package filters.
type (
	// Path names a key of the payload.
	Path = filters.Path
	// Pair is a key and what its value has to contain.
	Pair = filters.Pair
	// Trigger opens incidents.
	Trigger = filters.Trigger
	// Resolve closes them.
	Resolve = filters.Resolve
	// Filter has both.
	Filter = filters.Filter
)

// GuideFilters are those of the Callgoose guide for Percona.
func GuideFilters() []Filter { return filters.Guide() }

// RecommendedFilters are those that use the flat keys of the forwarder.
func RecommendedFilters() []Filter { return filters.Recommended() }
