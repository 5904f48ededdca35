// Package metrics is what Prometheus, or PMM itself, sees of the forwarder at
// /metrics. It is the only package that knows the Prometheus client: the core
// reports through small observers, which Metrics implements, and what the
// ledger counts anyway is read from the status at each scrape.
//
//	ingest ─┐                              ┌─ counters and histograms: since the start
//	queue  ─┼─ observers ─▶ Metrics ─▶ registry
//	worker ─┘                              └─ status at each scrape ◀─ app
//
// Every name stands in table.go. No label comes from an alert: label values
// are words of ours, HTTP codes, and the names of PMM servers, of which at most
// maxSources are told apart. Histograms have fixed buckets, because the
// VictoriaMetrics in PMM takes no native ones.
package metrics
