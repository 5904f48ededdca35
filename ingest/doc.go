// Package ingest is where PMM's webhooks come in: POST or PUT on /v1/webhook or
// /v1/webhook/{source}.
//
//	path ▸ method ▸ stopping? ▸ browser? ▸ Authorization ▸ size ▸ room ▸ read ▸ HMAC ▸ pmm.Check ▸ source ▸ Publish ▸ 202
//	 404     405       503         403          401         413    503    408    401      400        403       503
//
// The order is the promise: nobody without credentials makes the service read a body, and
// nothing unusable reaches the store. With HMAC alone the body must be read before
// its sender is known; what is wrong with the signature's form or its time is
// refused before. What each answer means to PMM:
//
//   - 202: the hand-over. Publish has returned, so the body is on disk, and PMM
//     will not send these alerts again before repeat_interval.
//   - 503 + Retry-After: not stored, or not known to be. PMM sends the whole group
//     again at its next group_interval, an Alertmanager within seconds.
//   - 400, 401, 403, 404, 405, 408, 413, 415: the sender or its contact point is
//     wrong. PMM also repeats these each group_interval, so nothing is lost while
//     somebody corrects it.
//
// What strangers can make the service hold is bounded: bytes of bodies in flight, sources,
// signatures remembered, log lines in a minute, and connections (LimitListener).
//
// A signed webhook is stored once. A second request with the same signature gets
// the 202 and the id of the first, so that a repeat after a lost answer is
// harmless and a captured request is of no use. With a signed time that holds for
// as long as the time is accepted. Without one it holds for a minute, and only
// while it says nothing new: PMM itself signs an alert that goes on firing with the
// very same signature. Name a timestamp header in the contact point.
//
// Every refusal is JSON, {"error":"…"}, and says what to change, because the
// person who reads it sits in front of PMM's contact point form. No answer and no
// log line repeats a credential, right or wrong.
//
// If the machine dies before Publish returns, PMM has no 202 and repeats. If it
// dies after, the body is on disk; if the 202 was lost on the way, PMM repeats
// and deduplication drops the repeats. A sender that hangs up does not stop a
// Publish under way: an alert on disk is better than one that may be repeated.
//
// The package starts no goroutines; its handlers run in those of net/http.
package ingest
