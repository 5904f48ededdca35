package faulttest

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"pmm-callgoose/cmd/internal/admin"
	"pmm-callgoose/worker/callgoose/callgoosetest"
)

// disk is a file system in a file.
type disk struct {
	t     *testing.T
	image string
	dir   string
	opts  string // of mount
}

func newDisk(t *testing.T, kind, opts string, size int64) *disk {
	t.Helper()
	inSuite(t)
	if os.Geteuid() != 0 {
		t.Skip("not root: cannot mount a file system to cut its power")
	}
	mkfs, err := exec.LookPath("mkfs." + kind)
	if err != nil {
		t.Skipf("no mkfs.%s here", kind)
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skipf("no loop devices here: %v", err)
	}
	base := t.TempDir()
	d := &disk{t: t, image: filepath.Join(base, "image"), dir: filepath.Join(base, "mnt"), opts: opts}
	if err := os.WriteFile(d.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.image, size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs, "-q", d.image).CombinedOutput(); err != nil {
		t.Skipf("mkfs.%s: %v: %s", kind, err, out)
	}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := d.mount(); err != nil {
		t.Skipf("mount -o loop is not possible here: %v: %s", err, out)
	}
	t.Cleanup(d.unmount)
	return d
}

// mount mounts the image. A file system that was shut down lives on as long as
// anything holds it (a socket in it, another mount namespace), and mounting its
// image again only finds the dead one: then what is on the platters comes back
// in a copy.
func (d *disk) mount() ([]byte, error) {
	out, err := exec.Command("mount", "-o", "loop"+d.opts, d.image, d.dir).CombinedOutput()
	probe := filepath.Join(d.dir, "probe")
	if err == nil && os.WriteFile(probe, nil, 0o600) == nil {
		return out, os.Remove(probe)
	}
	if err == nil {
		d.unmount()
	}
	if out, err := exec.Command("cp", "--sparse=always", d.image, d.image+"+").CombinedOutput(); err != nil {
		return out, err
	}
	d.image += "+"
	return exec.Command("mount", "-o", "loop"+d.opts, d.image, d.dir).CombinedOutput()
}

func (d *disk) unmount() {
	d.t.Helper()
	var out []byte
	var err error
	for range 100 {
		if out, err = exec.Command("umount", d.dir).CombinedOutput(); err == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	d.t.Errorf("umount: %v: %s", err, out)
}

// cut is a power cut: the kernel forgets what is not on disk, and the file
// system answers nothing but EIO until it is mounted again.
func (d *disk) cut() {
	d.t.Helper()
	const fsIocShutdown, noLogFlush = 0x8004587d, 2
	f, err := os.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	how := uint32(noLogFlush)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), fsIocShutdown, uintptr(unsafe.Pointer(&how))); errno != 0 {
		d.t.Skipf("this kernel cannot shut the file system down: %v", errno)
	}
}

// powerCut: the disk loses power under the running process, after a while, and gets it back.
func (r *rig) powerCut(d *disk, dice *rand.Rand) {
	r.t.Helper()
	time.Sleep(between(dice, 20*time.Millisecond, 500*time.Millisecond))
	// An answer that comes after this moment would not have come. It may even
	// be wrong, and that is not ours: an fsync under way during the call can
	// return 0 for what is not there after it (a bare loop of write and fsync
	// shows the same, on ext4 and xfs).
	r.power.Add(1)
	d.cut()
	r.dead.Store(true)
	// The process lives on with a dead disk for a while: it must not accept.
	time.Sleep(between(dice, 0, 50*time.Millisecond))
	r.kill()
	r.dead.Store(false)
	d.unmount()
	if out, err := d.mount(); err != nil {
		r.t.Fatalf("mount after the cut: %v: %s", err, out)
	}
	r.power.Add(1)
	r.start()
}

// The test of the test: the same cuts with JetStream's fsync switched off do
// lose what was answered 202, and the account notices.
func TestPowerCutWithoutFsyncIsNoticed(t *testing.T) {
	needFaultpoints(t)
	t.Parallel()
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			dice := random(t)
			d := newDisk(t, kind, "", 512<<20)
			r := newRig(t)
			r.env = []string{"FAULTPOINT_WITHOUT=fsync"}
			r.data = filepath.Join(d.dir, "data")
			r.start()
			l := r.startLoad(dice)
			const cuts = 3
			for range cuts {
				r.powerCut(d, dice)
			}
			l.finish()
			r.until("settled", func(s admin.Status) bool { return s.Queued == 0 && s.InFlight == 0 && s.Dead+s.Damaged > 0 })
			r.stop()
			missing := 0
			arrived := r.arrived()
			for _, m := range l.book.accepted {
				if !arrived[m] {
					missing++
				}
			}
			if missing == 0 {
				t.Errorf("%d cuts without fsync, and none of %d alerts is missing: the test proves nothing", cuts, l.book.len())
			}
			t.Logf("%d cuts without fsync: %d of %d alerts answered 202 are missing", cuts, missing, l.book.len())
		})
	}
}

// What was answered 202 is on disk, whatever the moment. A long run takes xfs
// and ext4 without its ordering as well.
func TestPowerCutLosesNothingAccepted(t *testing.T) {
	t.Parallel()
	const usual = 3
	cuts := number(t, "PMM_CALLGOOSE_FAULT_CUTS", usual)
	kinds := []struct{ name, kind, opts string }{
		{"ext4", "ext4", ""}, {"xfs", "xfs", ""}, {"ext4 unordered", "ext4", ",data=writeback"},
	}
	if cuts <= usual {
		kinds = kinds[:1]
	}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			dice := random(t)
			d := newDisk(t, k.kind, k.opts, 512<<20)
			r := newRig(t)
			r.data = filepath.Join(d.dir, "data")
			r.fake.Fail(callgoosetest.Failure{Mode: callgoosetest.Slow, Delay: 5 * time.Millisecond})
			r.start()
			l := r.startLoad(dice)
			for range cuts {
				r.powerCut(d, dice)
			}
			l.finish()
			r.settle(&l.book)
			r.stop()
			if again := r.account(&l.book); again > cuts*againPerCut {
				t.Errorf("%d accepted again, more than %d a cut", again, againPerCut)
			}
			t.Logf("%d cuts, %d webhooks sent again, %d refused", cuts, l.repeats.Load(), l.refused.Load())
		})
	}
}
