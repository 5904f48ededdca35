package faulttest

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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

// trip makes the kernel find an error in the file system, which it then mounts
// read-only, as it does with a real one.
func (d *disk) trip() {
	d.t.Helper()
	source, err := exec.Command("findmnt", "-no", "SOURCE", d.dir).Output()
	if err != nil {
		d.t.Skipf("no findmnt here: %v", err)
	}
	name := filepath.Join("/sys/fs/ext4", filepath.Base(strings.TrimSpace(string(source))), "trigger_fs_error")
	if err := os.WriteFile(name, []byte("1"), 0); err != nil {
		d.t.Skipf("the kernel makes no errors here: %v", err)
	}
}

// The disk dies under the running service: every fsync fails (EIO), or the
// kernel makes it read-only. It says so and accepts nothing. When the disk is
// back at its place, the same process goes on by itself.
func TestADiskThatDiesAndComesBackIsUsedAgain(t *testing.T) {
	t.Parallel()
	for name, die := range map[string]func(*disk){"EIO": (*disk).cut, "read-only": (*disk).trip} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dice := random(t)
			d := newDisk(t, "ext4", ",errors=remount-ro", 96<<20)
			r := newRig(t)
			r.byURL = true // a socket does not survive its file system
			r.data = filepath.Join(d.dir, "data")
			r.start()
			l := r.startLoad(dice)
			cycles := max(1, number(t, "PMM_CALLGOOSE_FAULT_CUTS", 3)/10)
			for range cycles {
				time.Sleep(between(dice, 100*time.Millisecond, 500*time.Millisecond))
				r.power.Add(1) // an answer to what is under way may be wrong: see powerCut
				die(d)
				r.dead.Store(true)
				r.power.Add(1)
				r.until("the store refuses, and says why", func(s admin.Status) bool { return !s.Store.Accepting && s.Store.Problem != "" })
				if resp, err := http.Get(*r.admin.Load() + "/readyz"); err != nil || resp.StatusCode != http.StatusServiceUnavailable {
					t.Errorf("readyz: %v, %v", resp, err)
				} else {
					_ = resp.Body.Close()
				}
				if out, err := exec.Command("umount", "-l", d.dir).CombinedOutput(); err != nil { // the socket keeps it busy
					t.Fatalf("umount: %v: %s", err, out)
				}
				r.dead.Store(false)
				if out, err := d.mount(); err != nil {
					t.Fatalf("mount: %v: %s", err, out)
				}
				r.until("the store accepts again", func(s admin.Status) bool { return s.Store.Accepting })
			}
			l.finish()
			r.settle(&l.book)
			r.stop()
			if again := r.account(&l.book); again > cycles*againPerCut {
				t.Errorf("%d accepted again, more than %d a time", again, againPerCut)
			}
			t.Logf("%d times, %d webhooks sent again, %d refused", cycles, l.repeats.Load(), l.refused.Load())
		})
	}
}
