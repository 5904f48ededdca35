// Package store is the ledger: one bbolt file with the dedupe state, what became
// of every alert that came in, and the events that are waiting.
//
//	meta           format, the small state (progress, counters, forms, pause, when each PMM was last heard of),
//	               outages, how many events of each day were taken in time, and how far a copy has read its log
//	episodes       incident key             -> Episode
//	labels         incident key             -> the labels of its records, alert name included
//	queue          event.Position (At)      -> Waiting; only what is waiting: appended at the end, deleted at the front
//	records-DAY    event.Position           -> event.Record
//	storms, firsts source, and alert name   -> what --storm knows of new episodes
//	history        minute since 1970        -> counts: in, out, dead, suppressed, discarded
//	acts           number                   -> Act: what operators did
//	told           incident key             -> Told: who was told by another way than Callgoose
//
// DAY is the day (UTC) the alert came in: old history goes by whole buckets,
// because deleting single keys never makes a bbolt file smaller.
//
// A commit writes whole pages, so what counts is how many places an event
// touches: its episode, somewhere, and its record and its place in the queue, beside
// those that came in with it. Labels are written once for each key. There is no
// index of ids and none of open episodes: the first is searched for through all
// records (they are small, and left undecoded), the second is made in memory when
// it is asked for.
//
// # Durability
//
// All writes go through one goroutine, which gathers: those that wait while a
// commit is being fsynced share the next one, and those of Soon wait a little for
// others. A write is durable when Do returned nil. If we die before that, nothing
// of it is there. If a commit fails nobody knows what is on disk: the Store refuses
// everything from then on, and its owner opens it again.
//
// The file can be made again from the notifications that are stored: see package
// worker. What is lost with it are attempts, answers, counters, the outcomes of
// settled events, which dead letters were dropped, and the history by minute.
//
// A shared ledger (Config.Shared) is a copy of a log that several instances read, see
// Log: the one that leads appends each transaction before it commits it, and the others
// apply it.
//
// The data directory has a lock file of its own, which the kernel frees when the
// process dies, however it dies.
package store
