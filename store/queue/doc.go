// Package queue is JetStream behind a small door: two streams, embedded in the
// process (no TCP port) or in an external NATS server.
//
//	NOTIFICATIONS  notifications.in                     envelopes of raw bodies, as accepted
//	EVENTS         events.<partition>.<incident_key>    one message an event, in order of decision
//
// Embedded, where nobody can filter by it, the key is left out of the subject that
// EVENTS stores: else the memory of the server grows with what it reads.
//
// Both are file streams with Limits retention: a message stays after it was
// settled, so that it can be read and replayed, until retention removes it.
//
// # Durability
//
// The embedded server runs with SyncAlways: a publish is acknowledged after its
// bytes were fsynced. JetStream syncs once for each message and never groups,
// so concurrent notifications are gathered here into one envelope, one message,
// one fsync (see committer). A lone notification waits for nobody.
//
// If we die before the acknowledgement, PMM was not answered and sends again;
// after it, the notification is read back at the next start.
//
// # Ownership
//
// A Queue owns the embedded server, its connection and the committer goroutine;
// Close ends them all. PublishNotification is safe concurrently. PublishEvents
// has one caller, the splitter, and every batch is fenced with the sequence it
// expects: if anything else ever wrote, the publish fails instead of mixing.
package queue
