// Package alarm tells people about trouble of our own, by a command, a webhook
// or both: an on-call team must not learn of an outage from silence.
//
//	callgoose_unreachable  Callgoose is down and events have waited, for Config.After
//	callgoose_held         Callgoose refuses the service (token, address), likewise
//	dead_letters           events were given up; at most one notice a minute, with how many
//	discarded              Callgoose matched no filter for firing events, likewise
//	paused                 delivery has been held by hand for Config.After
//	store_full             webhooks are refused, for a minute (or After, if shorter)
//	reconcile_mass, reconcile_missing, pmm_contact_point_failing, pmm_not_routed
//	                       what comparing with PMM found, for Config.After
//	nats_unreachable, no_leader
//	                       of several instances, raised by each, likewise; the former instead of store_full
//
//	admin.Status ──1s──▶ watch.observe ──Notice──▶ outbox ──▶ worker ──▶ command, webhook
//	                      (pure)                (newest of each alarm)   (side by side)
//
// Each alarm is raised once, repeated every hour while it lasts, and ended once,
// with Over set and how long it lasted. One that reached nobody is repeated after
// five minutes. Down and held are one outage: a change of the one into the other
// starts no new wait, and ends one alarm and raises the other when it has lasted
// a minute. An outage ends with the first answer, or when nothing has waited for
// a minute. Dead letters end when there are no more than before the alarm; only
// their number is looked at. store_full ends after ten seconds of accepting.
//
// What is not promised: everything here is in memory, so a restart in the middle
// of an outage raises its alarm again (after at most 30 s, so that a start has a
// chance to deliver first), and an alarm whose end falls into the time we were
// not running never gets its end. Dead letters that were there at the start are
// not news. A notice is tried three times; one that fails then is in the log
// only, and so is an end that could not be told. A stop sends nothing more.
//
// Run owns two goroutines, the watch and the worker, and returns when both have
// ended and no process of the command is left.
package alarm
