// Package worker is the way from a stored notification to Callgoose.
//
//	NOTIFICATIONS ──▶ Splitter: take apart, decide ──▶ ledger: episodes, records, queue
//	                                                            │ oldest first
//	                    Callgoose ◀── body ◀── gate ◀── Deliverer
//
// The queue's stream is the truth of what came in, the ledger that of what became
// of it and of what is waiting. What the service itself says (a silent PMM, an
// episode closed by hand, a request to send again) is written to the stream too.
//
// # The guarantee
//
// Every alert of a stored notification becomes an event or a record that says why
// not; every event is attempted until it is settled. Events of one lane (an
// incident key, or an alert name with --incident-by alertname) go out strictly in
// order: the next only after the one before is settled, durably. Where a rule
// leaves a doubt, the answer is the one that cannot leave a firing alert without
// an incident.
//
// # Episodes: which alerts become events
//
// The state of an incident key is never seen, open since a start, or closed.
// Times of receipt decide, not the sender's: when the request began and when it
// was whole. See decide.
//
//	arrives                      never seen  open                              closed
//	firing, a new start          begin       begin: a recovery was never sent  begin
//	firing, start of the open    -           repeat, or again (1)              -
//	firing, start of one ended   -           late                              late when the two requests overlapped,
//	                                                                           else reopen: the episode goes on (2)
//	resolved                     orphan (3)  end, unless it is stale (4)       already_resolved, or again (1)
//
//	(1) The same event goes out again when its last outcome is discarded, dead or unknown, and a firing after
//	    --resend-after. When it cannot be built any more, or an operator dropped it, an event of its own goes
//	    out: an id stands for one body, and Callgoose takes another one with that id for a duplicate.
//	(2) Grafana and Alertmanager resolve by themselves an alert that was not renewed in time, and renew it with the
//	    same start (seen on Grafana 12.4.3): one notification, then nothing for repeat_interval.
//	(3) One to which PMM gave no fingerprint closes the one open alert of its source whose labels contain its own.
//	(4) Its end is more than two minutes before the open episode began, or that of an episode that ended; or its
//	    start is that of an episode that ended, unless the two starts are one and it ended after the open one
//	    began. Grafana's repeated recovery has its end as its start.
//
// Two starts within two minutes are one: each PMM of a pair evaluates for itself. An
// imported notification never changes an episode that began, or ended, after it was
// received. With --incident-by alertname a recovery is withheld (still_firing) while
// another alert of that name is open that PMM named within a day. What --incident-by
// said when an incident was opened holds until it is closed.
//
// # Answers
//
// Only Callgoose's own word counts. See classify.
//
//	200, 201, other 2xx                        delivered (not with Callgoose's keys: effect unknown)
//	any 2xx with duplicate: true               delivered
//	202                                        discarded: no filter matched; kept for a replay
//	400, 413, 415, 422                         dead letter; five in a row of different keys hold everything
//	401, 403, 404, 405, 407, 3xx, a page       misconfigured: everything is held, probes go on
//	408, 425, 429, 5xx, network, TLS, timeout  tried again, with backoff and jitter or as Retry-After says
//
// While Callgoose is down or held one probe at a time goes out, and probes take
// turns over the keys: where another key gets through, the refusal was that
// event's own. Ten refusals of its own while others pass make it a dead letter.
//
// # If we die here
//
//	before the envelope's fsync          PMM was not answered, and sends again
//	after it, before the deciding commit split at the next start, from the ledger's progress
//	inside a body or an envelope         progress points inside: the rest is split
//	after the deciding commit            waiting, perhaps claimed: sent
//	after the request, before its record the same bytes go out again: Callgoose may see this event twice
//	after the record                     settled
//
// A claim is the time up to which lateness is counted, on disk before Callgoose can
// receive anything: the one part of a body that depends on when it is sent.
//
// # The marks on disk
//
//	progress  in the ledger: the last alert decided on
//	At        of an event: its place in the queue, the alert or request that put it there
//	claim     of an event: from then on its bytes do not change
//	mark      in each envelope: up to where all was settled, and what was waiting before that;
//	          what a rebuilt ledger knows of the past
//
// # Goroutines
//
// Splitter.Run, Deliverer.Run, Retention.Run, Marker.Run and Brake.Run own theirs and return
// when all have ended.
package worker
