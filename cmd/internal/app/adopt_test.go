package app

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"pmm-callgoose/store/event"
	"pmm-callgoose/worker/callgoose/callgoosetest"
)

// What waited on one host is delivered, each alert once, by a forwarder on three servers.
// Then LEDGER and SNAPSHOTS are deleted and its disk is lost: with that accepted it goes on
// with what NOTIFICATIONS holds, delivers nothing again, and counts the loss.
func TestWhatMovedToServersOutlivesTheirLedger(t *testing.T) {
	t.Parallel()
	servers := three(t)
	var urls []string
	for _, s := range servers {
		urls = append(urls, s.ClientURL())
	}
	f := newFleet(t, 0, servers...)
	f.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Status, Status: http.StatusServiceUnavailable})
	old := &forwarder{rig: f.rig("")}
	old.make()
	old.run()
	const alerts = 300
	for i := 0; i < alerts; i += 3 {
		old.accept(group(mysqlDown(i, "firing", time.Now()), mysqlDown(i+1, "firing", time.Now()), mysqlDown(i+2, "firing", time.Now())))
	}
	f.until("not all is split", func() bool { return old.app.core.Load().ledger.Summary().Counts[string(event.Queued)] == alerts })
	old.halt()
	moved := f.rig(strings.Join(urls, ","))
	moved.cfg.DataDir = old.cfg.DataDir
	if err := Adopt(t.Context(), moved.cfg, Options{Logger: old.log, NoSync: true}, func(int, int) {}); err != nil {
		t.Fatal(err)
	}

	f.fake.Fail(callgoosetest.Failure{})
	one := &forwarder{rig: f.rig(strings.Join(urls, ","))}
	f.all = []*forwarder{one}
	one.make()
	one.run()
	f.leader()
	f.until("not all is delivered", func() bool { return one.status().Delivered == alerts })
	one.halt()

	deleteStreams(t, servers[0], "LEDGER", "SNAPSHOTS")
	one.cfg.DataDir, one.cfg.AcceptLoss = t.TempDir(), "LEDGER"
	one.make()
	one.run()
	f.leader()
	f.until("the ledger is not rebuilt", func() bool { s := one.status(); return s.Unknown == alerts && s.Queued == 0 && s.AcceptedLosses == 1 })
	one.accept(group(mysqlDown(1, "resolved", time.Now()), mysqlDown(alerts, "firing", time.Now())))
	f.until("what comes afterwards is not delivered", func() bool { return one.status().Delivered == 2 })
	one.halt()
	if got := f.fake.Stats().Accepted; got != alerts+2 {
		t.Errorf("%d events were accepted of %d", got, alerts+2)
	}
}

func deleteStreams(t *testing.T, srv *server.Server, names ...string) {
	t.Helper()
	nc, err := nats.Connect(srv.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if err := js.DeleteStream(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
}

// NOTIFICATIONS is deleted: with that accepted, what waited is a dead letter that says so,
// never silence, and what comes in from then on is delivered.
func TestWhatWaitedIsToldWhenItsNotificationIsLost(t *testing.T) {
	t.Parallel()
	srv := natsServer(t, server.Options{})
	f := newFleet(t, 1, srv)
	one := f.all[0]
	f.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Status, Status: http.StatusServiceUnavailable})
	f.leader()
	for i := range 5 {
		one.accept(group(mysqlDown(i, "firing", time.Now())))
	}
	f.until("not all is split", func() bool { return one.app.core.Load().ledger.Summary().Counts[string(event.Queued)] == 5 })
	one.halt()
	f.fake.Fail(callgoosetest.Failure{})
	deleteStreams(t, srv, "NOTIFICATIONS")
	one.cfg.AcceptLoss = "NOTIFICATIONS"
	one.make()
	one.run()
	f.leader()
	f.until("what waited is not told", func() bool { s := one.status(); return s.Dead == 5 && s.Queued == 0 && s.AcceptedLosses == 1 })
	one.accept(group(mysqlDown(9, "firing", time.Now())))
	f.until("what comes afterwards is not delivered", func() bool { return one.status().Delivered == 1 })
	one.halt()
}
