package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"pmm-callgoose/store"
	"pmm-callgoose/store/event"
	"pmm-callgoose/worker"
	"pmm-callgoose/worker/callgoose"
)

// dyingDisk is a queue of events that never ends, a Callgoose that takes them
// all, and a ledger that cannot write any more once some were sent.
type dyingDisk struct {
	*store.Store
	next, sent, recorded atomic.Int64
	full                 chan struct{} // closed with the source
}

var errDying = errors.New("input/output error")

func (d *dyingDisk) Next() (event.Delivery, error) {
	seq := d.next.Add(1)
	if seq > 2_000 {
		<-d.full
		return event.Delivery{}, errors.New("closed")
	}
	pos := event.Position{Seq: uint64(seq)}
	return event.Delivery{Seq: uint64(seq), Event: &event.Event{
		ID: fmt.Sprintf("%016d", seq), Lane: fmt.Sprint(seq), Status: event.Firing, Pos: pos,
		ReceivedAt: time.Now(), QueuedAt: time.Now(), Body: []byte("{}"),
	}}, nil
}

func (d *dyingDisk) Ack(uint64) {}
func (d *dyingDisk) Close()     { close(d.full) }

func (d *dyingDisk) Event(context.Context, uint64) (*event.Event, error) { return nil, event.ErrGone }

func (d *dyingDisk) Send(context.Context, []byte) (callgoose.Reply, error) {
	d.sent.Add(1)
	return callgoose.Reply{Status: 200, Created: true, Readable: true}, nil
}

func (d *dyingDisk) Do(ctx context.Context, fn func(event.Tx) error) error {
	time.Sleep(2 * time.Millisecond)
	if d.sent.Load() > 100 {
		return errDying
	}
	return d.Store.Do(ctx, fn)
}

func (d *dyingDisk) Settled(event.Outcome, time.Duration) { d.recorded.Add(1) }
func (d *dyingDisk) Attempt(event.Attempt, string)        {}
func (d *dyingDisk) Circuit(string)                       {}

// An outcome that cannot be written must not make room for another request: what
// Callgoose has and our disk has not stays within its bound until the end.
func TestADyingLedgerDoesNotLetMoreOut(t *testing.T) {
	t.Parallel()
	const concurrency = 16
	for range 5 {
		ledger, _, err := store.Open(store.Config{Dir: t.TempDir(), NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		d := &dyingDisk{Store: ledger, full: make(chan struct{})}
		deliverer := worker.NewDeliverer(worker.DeliverConfig{
			Concurrency: concurrency, Logger: slog.New(slog.DiscardHandler), Observer: d,
		}, d, d, d, d)
		if err := deliverer.Run(t.Context()); !errors.Is(err, errDying) {
			t.Errorf("it ended with %v", err)
		}
		if err := ledger.Close(); err != nil {
			t.Error(err)
		}
		if more := d.sent.Load() - d.recorded.Load(); more > 2*concurrency {
			t.Errorf("%d were sent and not recorded, more than %d", more, 2*concurrency)
		}
	}
}
