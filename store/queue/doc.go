// Package queue is JetStream behind a small door: one stream, NOTIFICATIONS,
// embedded in the process (no TCP port) or in an external NATS server. It holds
// what came in, as accepted, until retention removes it. What became of it, and
// what waits, stands in the ledger.
//
// One message is an envelope: the notifications that came at the same time, each
// with a check sum of its own, and the mark: what was settled when it was written.
//
// # Durability
//
// The embedded server runs with SyncAlways: a publish is acknowledged after its
// bytes were fsynced. JetStream syncs once for each message and never groups, so
// concurrent notifications are gathered into one envelope, one message, one fsync
// (see committer). A lone notification waits for nobody. The directories are
// fsynced too, before the first notification in a new file is acknowledged.
//
//	we die                           then
//	before the acknowledgement       PMM was not answered and sends again
//	in the middle of the write       the end of the newest block is torn: cut off
//	after the acknowledgement        read back at the next start
//
// A crash may leave holes: a later sector on disk and an earlier one not. What was
// acknowledged before and behind a hole is read, see package blocks.
//
// # External NATS
//
// Several instances share the streams. Each publishes to NOTIFICATIONS on a subject of
// its own, behind its newest message there. Each transaction of the ledger is an entry
// of LEDGER, behind the newest one: whoever can append leads, see Log. A stream looks
// shorter for a while when a server of a cluster comes back without its disk, so nothing
// is purged or filled there on account of that unless a person says so, and a message is
// gone only when the description of the stream proves it.
//
// # Ownership
//
// A Queue owns the embedded server, its connection and its goroutines; Close ends
// them all. All methods are safe concurrently.
package queue
