// Package alarm tells people about trouble of our own, by a command, a webhook
// or both: an on-call team must not learn of an outage from silence.
//
//	callgoose_away         Callgoose is down with events that wait, or held, for Config.After
//	dead_letters           more events were given up: at once, at most one notice a minute
//	discarded              Callgoose matched no filter for more firing events, likewise
//	paused                 delivery has been held by hand for Config.After
//	not_accepting          webhooks are refused, for a minute (or After, if shorter)
//	reconcile_mass, reconcile_missing, pmm_contact_point_failing, pmm_not_routed
//	                       what comparing with PMM found, for Config.After
//	nats_unreachable, no_leader
//	                       each of several instances raises them, likewise; while
//	                       nats_unreachable lasts, not_accepting is not raised
//
// The service's status decides what is wrong, in which words, and with which way out: the
// alarms are codes of its attention.
//
//	admin.Status ──1s──▶ watch.observe ──Notice──▶ pending ──▶ worker ──▶ command, webhook
//	                      (pure)                (newest of each alarm)    (side by side)
//
// Each alarm is raised once, repeated every hour while it lasts, and ended once,
// with Over set and how long it lasted, when it has been gone for a minute. One that
// reached nobody is repeated after five minutes. Down and held are one outage.
//
// What is not promised: everything here is in memory, so a restart in the middle
// of an outage raises its alarm again, and an alarm whose end falls into the time we were
// not running never gets its end. Dead letters that were there at the start are
// not news. A notice is tried three times; one that fails then is in the log
// only, and so is an end that could not be told. A stop sends nothing more.
//
// Run owns two goroutines, the watch and the worker, and returns when both have
// ended and no process of the command is left.
package alarm
