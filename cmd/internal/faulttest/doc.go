// Package faulttest breaks real processes: it has tests and nothing else.
//
// Each test runs the command line of this repository as a process of its own
// (the test binary under another name), with a fake Callgoose in the process of
// the test, and remembers every alert that was answered 202. Whatever was done
// to the process in between, at the end each of them has arrived, in the order
// of its incident key, and no incident is left open.
//
//	kill_test.go     kill -9 at random moments, also while starting; the ledger deleted
//	fallback_test.go kill -9 at every step of the other way out (go test -tags faultpoint)
//	step_test.go     kill -9 at every named step (go test -tags faultpoint)
//	input_test.go    bodies, connections and protocols as they should not be
//	freeze_test.go   SIGSTOP and SIGCONT
//	network_test.go  a Callgoose that hangs, resets, loses replies, refuses the token
//	am_test.go       a real Alertmanager sends
//	sync_test.go     strace: the block is synced before the 202 is written
//	power_test.go    the file system is shut down under the running process
//	disk_test.go     the disk is full, fails, becomes read-only, and comes back
//
// What a machine lacks is skipped with the reason. Every random choice comes
// from a seed that is printed; these variables repeat or lengthen a run:
//
//	PMM_CALLGOOSE_FAULT_SEED     the seed (default: a new one)
//	PMM_CALLGOOSE_FAULT_CYCLES   how many kills (default 5)
//	PMM_CALLGOOSE_FAULT_CUTS     how many power cuts (default 3)
//	PMM_CALLGOOSE_FAULT_CONNS    how many idle connections (default 500)
package faulttest
