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
//	labels         incident key                         -> the labels of its records, alert name included
//	settled        sequence in EVENTS / 512             -> a bit for each that is settled above the floor
//	records-DAY    event.Position                       -> event.Record
//	history        minute since 1970                    -> four counts: in, out, dead, suppressed
//
// DAY is the day (UTC) the alert came in: old history goes by whole buckets,
// because deleting single keys never makes a bbolt file smaller.
//
// A commit writes whole pages, so what counts is how many places an event
// touches: its episode, somewhere, and its record, beside those that came in
// with it. Labels are written once for each key. There is no index of ids and
// none of open episodes: the first is searched for through all records (they are
// small, and left undecoded), the second is made in memory when it is asked for.
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
