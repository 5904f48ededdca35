// Package store is the ledger: one bbolt file with the dedupe state, and what
// became of every alert that came in.
//
// The file is a view. The two streams of store/queue and the consumer's
// position are the truth; when the file is deleted, or lags because we died
// between a publish and a commit, the worker rebuilds it from them. What is
// lost with the file: attempts and answers, the outcomes of settled events
// (they count as delivered), suppressed alerts, and the history by minute.
//
//	meta           format, progress, floor, circuit, counters, when each PMM was last heard of
//	episodes       incident key                         -> event.Episode
//	open           source 0 alert name 0 incident key   -> nothing: which episodes are open
//	settled        sequence in EVENTS, above the floor  -> nothing
//	records-DAY    event.Position                       -> event.Record
//	index-DAY      event id                             -> event.Position
//	history        minute since 1970                    -> four counts: in, out, dead, suppressed
//
// DAY is the day (UTC) the alert came in: old history goes by whole buckets,
// because deleting single keys never makes a bbolt file smaller.
//
// # Durability
//
// Do gathers: all writes that wait while a commit is being fsynced share the
// next one. A write is durable when Do returned nil. If we die before that,
// nothing of it is there. If a commit fails we no longer know what is on disk:
// the Store refuses everything from then on, and its owner opens it again.
//
// The file's lock is the lock of the whole data directory: the kernel frees it
// when the process dies, however it dies.
package store
