package worker

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pmm-callgoose/store/event"
)

// heavy makes bodies of a size, and counts how many are made at once.
type heavy struct {
	size      int
	now, most atomic.Int64
}

func (h *heavy) Body(context.Context, *event.Record, time.Time) ([]byte, error) {
	h.most.Store(max(h.most.Load(), h.now.Add(1)))
	defer h.now.Add(-1)
	time.Sleep(time.Second)
	return make([]byte, h.size), nil
}

// Of large bodies few are held, whatever --concurrency is; who waits for one holds
// nothing, keeps no small one waiting, and ends with the service.
func TestFewLargeBodiesAreHeld(t *testing.T) {
	for _, c := range []struct {
		name       string
		size, held int
	}{{"large", largeBody + 1, largeAtOnce}, {"small", largeBody, 16}} {
		synctest.Test(t, func(t *testing.T) {
			h := &heavy{size: c.size}
			b := newBodies(h)
			ctx, stop := context.WithCancel(context.Background())
			sent := make(chan struct{})
			var held, most, failed atomic.Int64
			for range 16 {
				go func() {
					_, done, err := b.take(ctx, nil, time.Time{})
					defer done()
					if err != nil {
						failed.Add(1)
						return
					}
					most.Store(max(most.Load(), held.Add(1)))
					<-sent
					held.Add(-1)
				}()
			}
			time.Sleep(time.Minute)
			if most.Load() != int64(c.held) || h.most.Load() != 1 {
				t.Errorf("%s: %d are held and %d made at once, want %d and 1", c.name, most.Load(), h.most.Load(), c.held)
			}
			sent <- struct{}{}
			time.Sleep(time.Minute)
			if held.Load() != int64(min(c.held, 15)) {
				t.Errorf("%s: %d are held after one was sent", c.name, held.Load())
			}
			stop()
			synctest.Wait()
			close(sent)
			synctest.Wait()
			if held.Load() != 0 || len(b.large) != 0 || len(b.building) != 0 || c.held < 16 && failed.Load() == 0 {
				t.Errorf("%s: at the end %d are held, %d places taken, %d ended", c.name, held.Load(), len(b.large), failed.Load())
			}
		})
	}
}
