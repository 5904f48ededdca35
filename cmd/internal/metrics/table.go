package metrics

import "pmm-callgoose/store/event"

// prefix begins the name of every metric of ours.
const prefix = "pmm_callgoose_"

// Metric is one row of the table: README, dashboard and rules are checked
// against it.
type Metric struct {
	Name   string
	Type   string // counter, gauge, histogram
	Labels []string
	Help   string

	first   []string  // values of its label that are there from the start
	buckets []float64 // upper bounds, in seconds
	read    bool      // from the status at each scrape; the others are counted here
}

var table []*Metric

func row(kind, name, help string, labels []string) *Metric {
	m := &Metric{Name: prefix + name, Type: kind, Labels: labels, Help: help}
	table = append(table, m)
	return m
}

func counter(name, help string, labels ...string) *Metric {
	return row("counter", name, help, labels)
}

func gauge(name, help string, labels ...string) *Metric { return row("gauge", name, help, labels) }

func histogram(name string, buckets []float64, help string) *Metric {
	m := row("histogram", name, help, nil)
	m.buckets = buckets
	return m
}

// from gives a counter values of its label: a rate needs a first value.
func (m *Metric) from(values ...string) *Metric {
	m.first = values
	return m
}

// ofStatus makes a row one that is read from the status.
func (m *Metric) ofStatus() *Metric {
	m.read = true
	return m
}

// The words of labels.
var (
	states  = []string{event.Up, event.Down, event.Held, event.Paused, event.Unknown}
	reasons = []string{event.ReasonRepeat, event.ReasonResolved, event.ReasonLate, event.ReasonStale, event.ReasonStillFiring, event.ReasonHeartbeat}
)

// Buckets, in seconds.
var (
	diskBuckets    = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	requestBuckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 15, 30, 60}
	// A delay may be the length of an outage: up to a day.
	delayBuckets = []float64{.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 86400}
)

// Every metric. Those marked "ledger" survive restarts and are missing while the
// store is being reopened; the others count since the start.
var (
	webhooks        = counter("webhooks_total", "Webhooks answered, by HTTP status code of the answer.", "code").from("202", "400", "401", "503")
	webhookDuration = histogram("webhook_duration_seconds", requestBuckets, "Time from the first byte of a webhook to its answer.")
	lastWebhook     = gauge("last_webhook_timestamp_seconds", "When the last notification was stored, by PMM server; further servers than 32 share the name _other.", "source")
	notifications   = counter("notifications_total", "Notifications of PMM split into alerts (ledger).").ofStatus()
	alerts          = counter("alerts_received_total", "Alerts received, by what PMM said: firing, resolved, or unusable (ledger).", "status").ofStatus()
	truncated       = counter("truncated_alerts_total", "Alerts that PMM cut off a notification before it sent it: set Max alerts to 0 in its contact point.")
	suppressed      = counter("alerts_suppressed_total", "Alerts that became no event or none to send, by reason (ledger).", "reason").ofStatus()

	effects   = counter("delivered_effects_total", "Events that Callgoose took, by what it did: opened, closed, nothing, unknown (ledger).", "effect").ofStatus()
	queued    = gauge("queued_events", "Alerts accepted and not settled, those in flight included (ledger).").ofStatus()
	inFlight  = gauge("in_flight_attempts", "Events that are being sent, or about to be.").ofStatus()
	oldestAge = gauge("oldest_queued_age_seconds", "How long the oldest event has been queued; 0 when nothing waits.").ofStatus()
	events    = gauge("events", "Events kept at this moment, by outcome; retention and dead-letters drop take away, a retry moves (ledger).", "outcome").ofStatus()
	settled   = counter("events_settled_total", "Events settled, by outcome; one that is sent again counts again.", "outcome").from(string(event.Delivered), string(event.Discarded), string(event.Dead))
	storms    = counter("storms_total", "Storms of alerts that began (ledger).").ofStatus()
	inStorm   = gauge("storm_waiting", "Events that wait for the end of a storm of alerts (ledger).").ofStatus()
	damaged   = counter("damaged_messages_total", "Stored messages that could not be read; see the log (ledger).").ofStatus()
	losses    = counter("accepted_losses_total", "Losses of streams on NATS servers that somebody accepted: --accept-loss (ledger).").ofStatus()

	attempts         = counter("delivery_attempts_total", "Requests to Callgoose, by result (delivered, discarded, dead, retry, held, interrupted) and cause (ok, dns, connect, tls, proxy, timeout, reset, interrupted, http_CODE).", "result", "cause")
	attemptDuration  = histogram("delivery_attempt_duration_seconds", requestBuckets, "Time of one request to Callgoose, whatever came of it.")
	deliveryDelay    = histogram("delivery_delay_seconds", delayBuckets, "From the receipt of an alert, or from being queued again, until its event was delivered.")
	slo              = gauge("firing_taken_in_time_ratio", "Share of the firing events of the last 30 days that Callgoose took within 60 s of their receipt; missing when there were none (ledger).").ofStatus()
	budgetLeft       = gauge("firing_budget_left_ratio", "How much is left of the 1 % of the firing events of the last 30 days that may be taken later than that: 1 = all of it, 0 = nothing, less than 0 = more were late; missing when there were none (ledger).").ofStatus()
	firingAge        = histogram("firing_age_at_delivery_seconds", delayBuckets, "From the beginning of an alert (startsAt) until Callgoose took its firing event for the first time; 0 where PMM's clock is ahead.")
	lastSuccess      = gauge("last_success_timestamp_seconds", "When Callgoose last took an event (200, 201, 202 and the like); missing until it did.")
	callgooseState   = gauge("callgoose_state", "1 for the state in which Callgoose's side is: up, down, held, paused or unknown; 0 for the others.", "state").ofStatus()
	callgooseChanges = counter("callgoose_state_changes_total", "Changes of that state, by the state entered.", "state").from(states...)

	drift     = counter("filter_drift_total", "Answers of Callgoose that the filters of --callgoose-filters cannot give.")
	pings     = counter("pings_total", "Calls of the heartbeat service, by result: sent, failed, or withheld because something is wrong.", "result").from("sent", "failed", "withheld")
	fallbacks = counter("fallback_messages_total", "Messages by the other way out, by result: sent or failed.", "result").from("sent", "failed")
	told      = counter("fallback_alerts_total", "Alerts that people were told of by the other way out.")

	intakeCommit  = histogram("intake_commit_duration_seconds", diskBuckets, "Time until a group of notifications was on disk, fsync included.")
	ledgerCommit  = histogram("ledger_commit_duration_seconds", diskBuckets, "Time of one commit of the ledger, fsync included.")
	storeUsed     = gauge("store_used_bytes", "Bytes that count towards --max-store.").ofStatus()
	storeMax      = gauge("store_max_bytes", "How many bytes there may be: --max-store.").ofStatus()
	diskFree      = gauge("disk_free_bytes", "Bytes free on the file system of the data directory; missing with --nats-url.").ofStatus()
	clusterLeader = gauge("cluster_leader", "1 on the instance that leads, 0 on those that follow it; missing with an embedded store. Series of the ledger come from the leader alone.").ofStatus()
	clusterTerm   = gauge("cluster_term", "Number of the term of the instance that leads, which rises at each take-over; 0 while none is known.").ofStatus()
	clusterBehind = gauge("cluster_behind_entries", "Transactions that this instance has not read yet; missing while NATS does not answer.").ofStatus()
	takeOvers     = counter("cluster_takeovers_total", "How often this instance began to lead; 0 with an embedded store.")
	ledgerAppend  = histogram("ledger_append_seconds", diskBuckets, "Time until most of the NATS servers had a transaction of the ledger; nothing with an embedded store.")
	staleReads    = counter("stale_reads_total", "Reads of a message that NATS holds and did not find at first; they were made again.")
	accepting     = gauge("store_accepting", "1 when a webhook would be answered with 202, 0 when with 503.").ofStatus()
	natsConnected = gauge("nats_connected", "1 while the NATS servers of --nats-url answer, 0 while they do not; missing with an embedded store.").ofStatus()
	natsReplicas  = gauge("nats_replicas", "How many NATS servers should hold each stream: --nats-replicas; missing with an embedded store.").ofStatus()
	streamCurrent = gauge("stream_replicas_current", "Replicas of a stream that hold all of it, by stream; missing while NATS does not answer.", "stream").ofStatus()
	storeFailures = counter("store_failures_total", "How often the store failed, or could not be opened again after that.")

	reconcilePasses  = counter("reconcile_passes_total", "Comparisons of what a PMM says is firing with what is open, by result: ok, skipped (webhooks came in or were refused), or failed (PMM could not be read).", "result")
	reconcileActions = counter("reconcile_actions_total", "Incidents opened or closed because PMM says so and no webhook did.", "action")
	reconcileDrift   = gauge("reconcile_drift", "Differences that the last comparison found, by PMM server and kind (deploy/docs/reconcile.md).", "source", "kind")
	contactFailing   = gauge("pmm_contact_point_failing", "1 when PMM's own last attempt to reach this service failed, by PMM server.", "source")

	tokens   = counter("operator_tokens_refused_total", "Requests to the operators' port with a wrong token, by reason: wrong, or limited (too many from that address: not even looked at).", "reason").from("wrong", "limited")
	reloadOK = gauge("secrets_last_reload_successful", "1 when the last SIGHUP could read every secret, and before the first.")
	reloadAt = gauge("secrets_last_reload_success_timestamp_seconds", "When all secrets were last read with success.")
	build    = gauge("build_info", "Always 1; the version of the program.", "version")
)
