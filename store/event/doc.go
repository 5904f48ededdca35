// Package event holds the word everybody shares: one alert changing state, our
// unit of delivery. It is a leaf: it imports the standard library only, and
// every other package may import it.
//
// The life of an event:
//
//	PMM alert ──decide──▶ suppressed (a record, no event)
//	             │
//	             ▼
//	          queued ──attempt──▶ delivered   Callgoose has it
//	             ▲        │  ├──▶ discarded   202: no filter matched; replay after the filter is fixed
//	             │        │  ├──▶ dead        will not be accepted, or too old; kept with the reason
//	             └─retry──┘  └──▶ collapsed   fired and resolved before anything of it could be sent
//
// Queued is the only outcome that is not settled. A settled event becomes
// queued again only by a replay, or by a repeat of PMM that is let through.
package event
