package faulttest

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/worker/callgoose/callgoosetest"
)

// fill takes all the room on the disk and returns how to give it back.
func (d *disk) fill() (release func()) {
	d.t.Helper()
	name := filepath.Join(d.dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for size := 1 << 20; size > 0; {
		switch _, err := f.Write(make([]byte, size)); {
		case errors.Is(err, syscall.ENOSPC):
			size /= 2
		case err != nil:
			d.t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(name); err != nil {
			d.t.Error(err)
		}
	}
}

// The kernel says ENOSPC in the middle of the load: what was answered 202 is
// kept, nothing else is answered so, and with room again the service goes on
// by itself. JetStream does not recover from this until it is opened anew.
func TestAFullDiskLosesNothingAccepted(t *testing.T) {
	t.Parallel()
	dice := random(t)
	d := newDisk(t, "ext4", "", 64<<20)
	r := newRig(t, "--min-free", "off")
	r.data = filepath.Join(d.dir, "data")
	r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Slow, Delay: 5 * time.Millisecond})
	r.start()
	l := r.startLoad(dice)
	cycles := max(1, number(t, "PMM_CALLGOOSE_FAULT_CUTS", 3)/10)
	for range cycles {
		time.Sleep(between(dice, 200*time.Millisecond, 600*time.Millisecond))
		release := d.fill()
		r.until("the store refuses", func(s admin.Status) bool { return !s.Store.Accepting })
		time.Sleep(between(dice, 0, 3*time.Second))
		release()
		r.until("the store accepts again", func(s admin.Status) bool { return s.Store.Accepting })
	}
	l.finish()
	r.settle(&l.book)
	t.Logf("%d alerts accepted around %d full disks", l.book.len(), cycles)
	r.account(&l.book)
	r.stop()
}
