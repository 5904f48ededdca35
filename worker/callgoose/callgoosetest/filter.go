package callgoosetest

import "pmm-callgoose/worker/callgoose/filters"

// Filter and its parts are those of package filters.
type (
	Path    = filters.Path
	Pair    = filters.Pair
	Trigger = filters.Trigger
	Resolve = filters.Resolve
	Filter  = filters.Filter
)

// GuideFilters are those of the Callgoose guide for Percona.
func GuideFilters() []Filter { return filters.Guide() }

// RecommendedFilters are those that use the flat keys of the forwarder.
func RecommendedFilters() []Filter { return filters.Recommended() }
