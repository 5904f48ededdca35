// Package worker is the way from a stored notification to Callgoose.
//
//	[NOTIFICATIONS] ──▶ Splitter: identify, decide ──▶ [EVENTS] ──▶ Deliverer: lanes, attempts ──▶ Callgoose
//	                         │                                          │
//	                         └──────────────▶ ledger ◀──────────────────┘
//
// # The guarantee
//
// Every alert of a stored notification becomes an event or a record that says
// why not; every event is attempted until it is settled. Events of one lane (an
// incident key, or an alert name with --incident-by alertname) go out strictly
// in order: the next only after the one before is settled, durably.
//
// # If we die here
//
//	before the events are published     the notification is split again at the next start
//	between two events of a group       each event says how far the splitter had come: it goes on behind the last one
//	before the ledger commits           the events are found in the stream and applied to the ledger
//	after the claim, before the request the body is frozen; it is sent at the next start, unchanged
//	after the request, before the record the same bytes go out again: Callgoose may see this event twice
//	after the record, before the ack    the message comes again; the ledger knows that it is settled
//
// # Goroutines
//
// Splitter.Run and Deliverer.Run own theirs and return when all have ended.
package worker
