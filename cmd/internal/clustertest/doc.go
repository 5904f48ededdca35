// Package clustertest breaks a cluster of real processes: it has tests and nothing
// else. Three NATS servers, built from the module in go.mod, and one or several
// forwarders, built with the tag faultpoint, run on loopback. Every connection
// between them, and the one to a fake Callgoose, goes through a proxy of the test
// that can cut it, delay it, or leave it half-open.
//
//	sender ─▶ round robin ─▶ forwarders ─▶ proxy ─▶ fake Callgoose
//	                             │
//	                           proxy ─▶ NATS n1 ◀─ proxy ─▶ n2, n3
//
// The sender gives the next transition of an alert only when the one before was
// answered 202. At the end all is healed, and every transition that was accepted
// must have arrived, none overtaken by a later one of its alert, and no incident
// may be open. Deliveries of the same event again are counted and bounded.
//
//	process_test.go    NATS servers and forwarders
//	load_test.go       the sender, the sink, and the account of both
//	nemesis_test.go    what is broken
//	mutation_test.go   what must be noticed when a check is left out
//
// It takes minutes to hours, so it is skipped unless a duration is given:
//
//	go test ./cmd/internal/clustertest -v -timeout 0 -args -cluster 3m
package clustertest
