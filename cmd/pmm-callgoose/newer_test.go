package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rogpeppe/go-internal/testscript"
	"go.etcd.io/bbolt"

	"pmm-callgoose/store"
)

// newerCmd makes of a data directory, which nobody uses, one that a version to
// come has written to.
func newerCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: newer ledger|notification DIR")
	}
	dir := ts.MkAbs(args[1])
	switch args[0] {
	case "ledger":
		ts.Check(newerLedger(dir))
	case "notification":
		ts.Check(newerMessage(dir))
	default:
		ts.Fatalf("newer %s: no such thing", args[0])
	}
}

func newerLedger(dir string) error {
	db, err := bbolt.Open(filepath.Join(dir, store.FileName), 0o600, nil)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("meta")).Put([]byte("format"), binary.AppendUvarint(nil, 99))
	})
}

// newerMessage appends to the stream what begins with the byte of a later format.
func newerMessage(dir string) error {
	const subject = "notifications.in"
	srv, err := server.NewServer(&server.Options{
		ServerName: "pmm-callgoose", DontListen: true, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: filepath.Join(dir, "jetstream"),
	})
	if err != nil {
		return err
	}
	srv.Start()
	defer func() { srv.Shutdown(); srv.WaitForShutdown() }()
	nc, err := nats.Connect("", nats.InProcessServer(srv))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	if _, err := js.Publish(context.Background(), subject, []byte("\x63from the future")); err != nil {
		return fmt.Errorf("publish to %s: %w", subject, err)
	}
	return nil
}
