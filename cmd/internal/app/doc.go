// Package app is the process around the core: the only place where concrete
// types meet. An App binds the intake first, then opens the core (ledger,
// queue, splitter, deliverer) and keeps it running: when the store fails, the
// core is closed and opened again, and recovery decides what is there. In
// between webhooks are answered with 503; during the start they wait for its end,
// as long as PMM has patience.
//
// Start: intake, ledger (the lock), queue, operators, recovery, splitter, delivery. Stop
// is the reverse: answer new webhooks with 503, store those that came before, stop
// splitting, give attempts under way ten seconds, close the queue, the ledger, the port.
// A clean stop is a courtesy: kill -9 at any line is as safe.
package app
