package metrics

import (
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/store/event"
	"pmm-callgoose/store/queue"
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

	counters   map[*Metric]*prometheus.CounterVec
	gauges     map[*Metric]*prometheus.GaugeVec
	histograms map[*Metric]prometheus.Histogram

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
	m := &Metrics{
		cfg: cfg, registry: prometheus.NewRegistry(), sources: map[string]bool{}, counters: map[*Metric]*prometheus.CounterVec{},
		gauges: map[*Metric]*prometheus.GaugeVec{}, histograms: map[*Metric]prometheus.Histogram{},
	}
	m.registry.MustRegister(scrape{m},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	auto := promauto.With(m.registry)
	for _, row := range table {
		switch {
		case row.read:
		case row.Type == "gauge":
			m.gauges[row] = auto.NewGaugeVec(prometheus.GaugeOpts{Name: row.Name, Help: row.Help}, row.Labels)
		case row.Type == "histogram":
			m.histograms[row] = auto.NewHistogram(prometheus.HistogramOpts{Name: row.Name, Help: row.Help, Buckets: row.buckets})
		default:
			m.counters[row] = auto.NewCounterVec(prometheus.CounterOpts{Name: row.Name, Help: row.Help}, row.Labels)
			for _, value := range row.first {
				m.add(row, 0, value)
			}
			if len(row.Labels) == 0 {
				m.add(row, 0)
			}
		}
	}
	m.add(attempts, 0, "delivered", "ok")
	m.set(build, 1, cfg.Version)
	m.Reloaded(true)
	return m
}

func (m *Metrics) add(row *Metric, n float64, labels ...string) {
	m.counters[row].WithLabelValues(labels...).Add(n)
}

func (m *Metrics) set(row *Metric, v float64, labels ...string) {
	m.gauges[row].WithLabelValues(labels...).Set(v)
}

func (m *Metrics) observe(row *Metric, d time.Duration) { m.histograms[row].Observe(d.Seconds()) }

// Handler serves /metrics. Who may read it is decided in front of it.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 8})
}

// Webhook implements ingest.Observer.
func (m *Metrics) Webhook(code int, d time.Duration) {
	m.add(webhooks, 1, strconv.Itoa(code))
	m.observe(webhookDuration, d)
}

// TokenRefused counts a wrong token of operators, by reason.
func (m *Metrics) TokenRefused(reason string) { m.add(tokens, 1, reason) }

// Stored implements ingest.Observer.
func (m *Metrics) Stored(source string) {
	m.mu.Lock()
	if !m.sources[source] && len(m.sources) >= maxSources {
		source = otherSource
	} else {
		m.sources[source] = true
	}
	m.mu.Unlock()
	m.set(lastWebhook, unix(time.Now()), source)
}

// Truncated implements ingest.Observer.
func (m *Metrics) Truncated(_ string, n int64) { m.add(truncated, float64(n)) }

// Attempt implements worker.Observer.
func (m *Metrics) Attempt(a event.Attempt, step string) {
	m.add(attempts, 1, a.Result, cause(a.Status, step))
	m.observe(attemptDuration, a.Duration)
	if a.Error == "" {
		m.set(lastSuccess, unix(time.Now()))
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
	m.add(settled, 1, string(o))
	m.pace.add(time.Now())
	if o == event.Delivered {
		m.observe(deliveryDelay, max(waited, 0))
	}
}

// FirstTaken implements worker.Observer.
func (m *Metrics) FirstTaken(age time.Duration) { m.observe(firingAge, age) }

// Pace is how many events are settled in a second at present.
func (m *Metrics) Pace() float64 { return m.pace.rate(time.Now()) }

// Circuit implements worker.Observer.
func (m *Metrics) Circuit(state string) { m.add(callgooseChanges, 1, state) }

// IntakeCommit implements queue.Observer.
func (m *Metrics) IntakeCommit(d time.Duration, _ int) { m.observe(intakeCommit, d) }

// LedgerCommit is told how long a commit of the ledger took.
func (m *Metrics) LedgerCommit(d time.Duration) { m.observe(ledgerCommit, d) }

// TookOver implements queue.Observer.
func (m *Metrics) TookOver() { m.add(takeOvers, 1) }

// Appended implements queue.Observer.
func (m *Metrics) Appended(d time.Duration) { m.observe(ledgerAppend, d) }

// StaleRead implements queue.Observer.
func (m *Metrics) StaleRead() { m.add(staleReads, 1) }

// ReconcilePass is told what a comparison with a PMM found: differences by kind, and
// whether PMM fails to reach the service.
func (m *Metrics) ReconcilePass(source, result string, drift map[string]int, failing bool) {
	m.add(reconcilePasses, 1, result)
	m.gauges[reconcileDrift].DeletePartialMatch(prometheus.Labels{"source": source})
	for kind, n := range drift {
		m.set(reconcileDrift, float64(n), source, kind)
	}
	m.set(contactFailing, truth(failing), source)
}

// Reconciled counts an incident that was opened or closed by comparing.
func (m *Metrics) Reconciled(action string) { m.add(reconcileActions, 1, action) }

// StoreFailed counts a failure of the store.
func (m *Metrics) StoreFailed() { m.add(storeFailures, 1) }

// Pinged counts a turn of the heartbeat: sent, failed or withheld.
func (m *Metrics) Pinged(result string) { m.add(pings, 1, result) }

// Drifted counts an answer of Callgoose that its filters cannot give.
func (m *Metrics) Drifted() { m.add(drift, 1) }

// Told counts a message by the other way out, sent or failed, and its alerts.
func (m *Metrics) Told(result string, alerts int) {
	m.add(fallbacks, 1, result)
	m.add(told, float64(alerts))
}

// Reloaded is told whether all secrets could be read again.
func (m *Metrics) Reloaded(ok bool) {
	m.set(reloadOK, truth(ok))
	if ok {
		m.set(reloadAt, unix(time.Now()))
	}
}

func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// putter hands the value of a row to a scrape.
type putter func(row *Metric, v float64, labels ...string)

// scrape reads what is not counted here. What is not known is left out: a gap
// is true, a zero would be a lie, and a reset to the eyes of rate().
type scrape struct{ *Metrics }

// Describe implements prometheus.Collector. It names nothing, so that the status is asked
// at a scrape only, which decides what there is.
func (scrape) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m scrape) Collect(ch chan<- prometheus.Metric) {
	put := func(row *Metric, v float64, labels ...string) {
		kind := prometheus.GaugeValue
		if row.Type == "counter" {
			kind = prometheus.CounterValue
		}
		ch <- prometheus.MustNewConstMetric(prometheus.NewDesc(row.Name, row.Help, row.Labels, nil), kind, v, labels...)
	}
	s, ok := m.cfg.Status()
	cl := s.Cluster
	external := cl != nil && cl.NATS != nil
	if external {
		putNATS(cl.NATS, put)
	}
	if !ok {
		put(accepting, 0)
		return
	}
	putStore(s.Store, put)
	if external {
		put(clusterLeader, truth(cl.Role == "leader"))
		put(clusterTerm, float64(cl.Term))
		if cl.Behind != nil {
			put(clusterBehind, float64(*cl.Behind))
		}
		if cl.Role != "leader" { // the leader's are the same: a sum must not count them twice
			return
		}
	}
	putLedger(s, put)
}

func putNATS(n *queue.Servers, put putter) {
	put(natsConnected, truth(n.Connected))
	if n.Replicas > 0 {
		put(natsReplicas, float64(n.Replicas))
	}
	for _, stream := range n.Streams {
		put(streamCurrent, float64(stream.Current), stream.Name)
	}
}

func putStore(s admin.Store, put putter) {
	put(accepting, truth(s.Accepting))
	put(storeUsed, float64(s.UsedBytes))
	put(storeMax, float64(s.MaxBytes))
	if s.FreeBytes >= 0 {
		put(diskFree, float64(s.FreeBytes))
	}
}

// putLedger puts what the ledger counts, and what waits.
func putLedger(s admin.Status, put putter) {
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
		put(budgetLeft, s.SLO.BudgetLeft())
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
