package metrics

import (
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store/event"
)

// Config is what New needs.
type Config struct {
	Version string
	// Status is asked at each scrape; ok is false while the store is not open.
	Status func() (s admin.Status, ok bool)
}

// Metrics counts. It implements ingest.Observer and worker.Observer; its other
// methods are told by the queue, the ledger and the app. Safe concurrently.
type Metrics struct {
	cfg      Config
	registry *prometheus.Registry

	webhooks, attempts, settled, changes            *prometheus.CounterVec
	passes, actions                                 *prometheus.CounterVec
	lastWebhook, drift, contactFailing              *prometheus.GaugeVec
	pings, fallbacks, tokens                        *prometheus.CounterVec
	truncated, storeFailures, told, unforeseen      prometheus.Counter
	webhookDuration, attemptDuration, deliveryDelay prometheus.Histogram
	intakeCommit, ledgerCommit, ledgerAppend        prometheus.Histogram
	takeOvers, staleReads                           prometheus.Counter

	lastSuccess atomic.Int64 // Unix milliseconds, 0 = never
	reloadOK    atomic.Bool
	reloadAt    atomic.Int64 // Unix milliseconds

	pace pace

	mu      sync.Mutex
	sources map[string]bool // told apart; guarded by mu
}

// maxSources bounds what somebody who may post can make: a source is any word in
// the path.
const (
	maxSources  = 32
	otherSource = "_other" // no source can be called so
)

// New makes a registry of our own, with the collectors for Go and the process.
func New(cfg Config) *Metrics {
	m := &Metrics{cfg: cfg, registry: prometheus.NewRegistry(), sources: map[string]bool{}}
	m.reloadOK.Store(true)
	m.reloadAt.Store(time.Now().UnixMilli())
	m.webhooks, m.attempts = m.counters(webhooks), m.counters(attempts)
	m.settled, m.changes = m.counters(settled), m.counters(callgooseChanges)
	m.passes, m.actions = m.counters(reconcilePasses), m.counters(reconcileActions)
	m.lastWebhook, m.drift, m.contactFailing = m.gauges(lastWebhook), m.gauges(reconcileDrift), m.gauges(contactFailing)
	m.truncated, m.storeFailures = m.counters(truncated).WithLabelValues(), m.counters(storeFailures).WithLabelValues()
	m.pings, m.fallbacks, m.told = m.counters(pings), m.counters(fallbacks), m.counters(told).WithLabelValues()
	m.tokens = m.counters(tokens)
	m.unforeseen = m.counters(drift).WithLabelValues()
	m.webhookDuration, m.attemptDuration = m.histogram(webhookDuration, requestBuckets), m.histogram(attemptDuration, requestBuckets)
	m.deliveryDelay = m.histogram(deliveryDelay, delayBuckets)
	m.intakeCommit, m.ledgerCommit = m.histogram(intakeCommit, diskBuckets), m.histogram(ledgerCommit, diskBuckets)
	m.ledgerAppend = m.histogram(ledgerAppend, diskBuckets)
	m.takeOvers, m.staleReads = m.counters(takeOvers).WithLabelValues(), m.counters(staleReads).WithLabelValues()
	// A rate needs a first value: what matters is there from the start.
	for _, code := range []string{"202", "400", "401", "503"} {
		m.webhooks.WithLabelValues(code)
	}
	for _, o := range []event.Outcome{event.Delivered, event.Discarded, event.Dead} {
		m.settled.WithLabelValues(string(o))
	}
	for _, reason := range []string{"wrong", "limited"} {
		m.tokens.WithLabelValues(reason)
	}
	for _, result := range []string{"sent", "failed", "withheld"} {
		m.pings.WithLabelValues(result)
	}
	for _, result := range []string{"sent", "failed"} {
		m.fallbacks.WithLabelValues(result)
	}
	for _, state := range states {
		m.changes.WithLabelValues(state)
	}
	m.attempts.WithLabelValues("delivered", "ok")
	m.registry.MustRegister(scrape{m},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *Metrics) counters(row Metric) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: row.Name, Help: row.Help}, row.Labels)
	m.registry.MustRegister(c)
	return c
}

func (m *Metrics) gauges(row Metric) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: row.Name, Help: row.Help}, row.Labels)
	m.registry.MustRegister(g)
	return g
}

func (m *Metrics) histogram(row Metric, buckets []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: row.Name, Help: row.Help, Buckets: buckets})
	m.registry.MustRegister(h)
	return h
}

// Handler serves /metrics. Who may read it is decided in front of it.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 8})
}

// Webhook implements ingest.Observer.
func (m *Metrics) Webhook(code int, d time.Duration) {
	m.webhooks.WithLabelValues(strconv.Itoa(code)).Inc()
	m.webhookDuration.Observe(d.Seconds())
}

// TokenRefused counts a wrong token of operators, by reason.
func (m *Metrics) TokenRefused(reason string) { m.tokens.WithLabelValues(reason).Inc() }

// Stored implements ingest.Observer.
func (m *Metrics) Stored(source string) {
	m.mu.Lock()
	if !m.sources[source] && len(m.sources) >= maxSources {
		source = otherSource
	} else {
		m.sources[source] = true
	}
	m.mu.Unlock()
	m.lastWebhook.WithLabelValues(source).Set(seconds(time.Now().UnixMilli()))
}

// Truncated implements ingest.Observer.
func (m *Metrics) Truncated(_ string, n int64) { m.truncated.Add(float64(n)) }

// Attempt implements worker.Observer.
func (m *Metrics) Attempt(a event.Attempt, step string) {
	m.attempts.WithLabelValues(a.Result, cause(a.Status, step)).Inc()
	m.attemptDuration.Observe(a.Duration.Seconds())
	if a.Error == "" {
		m.lastSuccess.Store(time.Now().UnixMilli())
	}
}

// cause is why an attempt came to its result, in one word of a bounded set:
// nobody outside may make more of them.
func cause(status int, step string) string {
	switch {
	case step != "":
		return step
	case status >= 200 && status < 300:
		return "ok"
	case http.StatusText(status) != "": // the registered ones
		return "http_" + strconv.Itoa(status)
	}
	return "http_other"
}

// Settled implements worker.Observer.
func (m *Metrics) Settled(o event.Outcome, waited time.Duration) {
	m.settled.WithLabelValues(string(o)).Inc()
	m.pace.add(time.Now())
	if o == event.Delivered {
		m.deliveryDelay.Observe(max(waited, 0).Seconds())
	}
}

// Pace is how many events are settled in a second at present.
func (m *Metrics) Pace() float64 { return m.pace.rate(time.Now()) }

// Circuit implements worker.Observer.
func (m *Metrics) Circuit(state string) { m.changes.WithLabelValues(state).Inc() }

// IntakeCommit is told how long a group of notifications took to the disk.
func (m *Metrics) IntakeCommit(d time.Duration, _ int) { m.intakeCommit.Observe(d.Seconds()) }

// LedgerCommit is told how long a commit of the ledger took.
func (m *Metrics) LedgerCommit(d time.Duration) { m.ledgerCommit.Observe(d.Seconds()) }

// TookOver implements queue.Observer.
func (m *Metrics) TookOver() { m.takeOvers.Inc() }

// Appended implements queue.Observer.
func (m *Metrics) Appended(d time.Duration) { m.ledgerAppend.Observe(d.Seconds()) }

// StaleRead implements queue.Observer.
func (m *Metrics) StaleRead() { m.staleReads.Inc() }

// ReconcilePass is told what a comparison with a PMM found: differences by kind, and
// whether PMM fails to reach the service.
func (m *Metrics) ReconcilePass(source, result string, drift map[string]int, failing bool) {
	m.passes.WithLabelValues(result).Inc()
	m.drift.DeletePartialMatch(prometheus.Labels{"source": source})
	for kind, n := range drift {
		m.drift.WithLabelValues(source, kind).Set(float64(n))
	}
	m.contactFailing.WithLabelValues(source).Set(truth(failing))
}

// Reconciled counts an incident that was opened or closed by comparing.
func (m *Metrics) Reconciled(action string) { m.actions.WithLabelValues(action).Inc() }

// StoreFailed counts a failure of the store.
func (m *Metrics) StoreFailed() { m.storeFailures.Inc() }

// Pinged counts a turn of the heartbeat: sent, failed or withheld.
func (m *Metrics) Pinged(result string) { m.pings.WithLabelValues(result).Inc() }

// Drifted counts an answer of Callgoose that its filters cannot give.
func (m *Metrics) Drifted() { m.unforeseen.Inc() }

// Told counts a message by the other way out, sent or failed, and its alerts.
func (m *Metrics) Told(result string, alerts int) {
	m.fallbacks.WithLabelValues(result).Inc()
	m.told.Add(float64(alerts))
}

// Reloaded is told whether all secrets could be read again.
func (m *Metrics) Reloaded(ok bool) {
	m.reloadOK.Store(ok)
	if ok {
		m.reloadAt.Store(time.Now().UnixMilli())
	}
}

func seconds(ms int64) float64 { return float64(ms) / 1000 }

// scrape reads what is not counted here. What is not known is left out: a gap
// is true, a zero would be a lie, and a reset to the eyes of rate().
type scrape struct{ m *Metrics }

var (
	states  = []string{event.Up, event.Down, event.Held, event.Paused, event.Unknown}
	reasons = []string{event.ReasonRepeat, event.ReasonResolved, event.ReasonLate, event.ReasonStale, event.ReasonStillFiring, event.ReasonHeartbeat}
)

// Describe implements prometheus.Collector. Which there are, each scrape decides.
func (scrape) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c scrape) Collect(ch chan<- prometheus.Metric) {
	put := func(row Metric, v float64, labels ...string) {
		kind := prometheus.GaugeValue
		if row.Type == "counter" {
			kind = prometheus.CounterValue
		}
		ch <- prometheus.MustNewConstMetric(row.desc(), kind, v, labels...)
	}
	m := c.m
	put(build, 1, m.cfg.Version)
	put(reloadOK, truth(m.reloadOK.Load()))
	put(reloadAt, seconds(m.reloadAt.Load()))
	if at := m.lastSuccess.Load(); at > 0 {
		put(lastSuccess, seconds(at))
	}
	s, ok := m.cfg.Status()
	if cl := s.Cluster; cl != nil && cl.NATS != nil {
		collectNATS(cl.NATS, put)
	}
	if ok {
		collect(s, put)
	} else {
		put(accepting, 0)
	}
}

func collectNATS(n *admin.NATS, put func(row Metric, v float64, labels ...string)) {
	put(natsConnected, truth(n.Connected))
	if n.Replicas > 0 {
		put(natsReplicas, float64(n.Replicas))
	}
	for _, stream := range n.Streams {
		put(streamCurrent, float64(stream.Current), stream.Name)
	}
}

// collect puts what a status says, but for NATS.
func collect(s admin.Status, put func(row Metric, v float64, labels ...string)) {
	put(accepting, truth(s.Store.Accepting))
	put(storeUsed, float64(s.Store.UsedBytes))
	put(storeMax, float64(s.Store.MaxBytes))
	if s.Store.FreeBytes >= 0 {
		put(diskFree, float64(s.Store.FreeBytes))
	}
	if cl := s.Cluster; cl != nil && cl.NATS != nil {
		put(clusterLeader, truth(cl.Role == "leader"))
		put(clusterTerm, float64(cl.Term))
		if cl.Behind != nil {
			put(clusterBehind, float64(*cl.Behind))
		}
		if cl.Role != "leader" { // the leader's are the same: a sum must not count them twice
			return
		}
	}
	put(notifications, float64(s.Notifications))
	for _, status := range []string{string(event.Firing), string(event.Resolved), "unusable"} {
		put(alerts, float64(s.AlertsByStatus[status]), status)
	}
	for _, reason := range reasons {
		put(suppressed, float64(s.SuppressedReason[reason]), reason)
	}
	for effect, n := range map[string]int64{
		"opened": s.Effects.Opened, "closed": s.Effects.Closed, "nothing": s.Effects.Nothing, "unknown": s.Effects.Unknown,
	} {
		put(effects, float64(n), effect)
	}
	put(queued, float64(s.Queued))
	put(inFlight, float64(s.InFlight))
	age := 0.0
	if s.OldestQueuedAt != nil {
		age = max(time.Since(*s.OldestQueuedAt).Seconds(), 0)
	}
	put(oldestAge, age)
	for o, n := range map[event.Outcome]int64{
		event.Delivered: s.Delivered, event.Discarded: s.Discarded, event.Dead: s.Dead,
		event.Suppressed: s.Suppressed, event.Collapsed: s.Collapsed,
	} {
		put(events, float64(n), string(o))
	}
	if s.SLO != nil && s.SLO.Share != nil {
		put(slo, *s.SLO.Share)
	}
	put(damaged, float64(s.Damaged))
	put(losses, float64(s.AcceptedLosses))
	put(storms, float64(s.StormsTotal))
	waiting := int64(0)
	for _, storm := range s.Storms {
		waiting += storm.Waiting
	}
	put(inStorm, float64(waiting))
	state := s.Callgoose.State
	if !slices.Contains(states, state) {
		state = event.Unknown
	}
	for _, name := range states {
		put(callgooseState, truth(name == state), name)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
