package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/cmd/internal/text"
)

func (e *examination) service() {
	switch {
	case e.Service != nil:
		e.ok("service", "version %s, running since %s, asked at %s", e.Service.Version, e.Service.StartedAt.UTC().Format(time.RFC3339), e.Service.Where)
	case e.Stuck:
		e.fail("service", fix("The service: "+e.Start+"."), "%s", e.NoService)
	default:
		e.warn("service", fix("What follows is judged by the files and settings here. The service: "+e.Start+"."), "%s", e.NoService)
	}
}

func (e *examination) configuration() {
	for _, p := range e.Problems {
		e.fail("configuration", fix("pmm-callgoose config show prints what is in effect and where it came from."), "%s", p)
	}
	for _, w := range e.Config.Warnings {
		e.warn("configuration", fix("Correct or remove it; pmm-callgoose config show prints what is in effect."), "%s", string(w))
	}
	if len(e.Problems)+len(e.Config.Warnings) > 0 {
		return
	}
	own := 0
	for _, s := range e.Settings.Effective() {
		if s.Value != "" && s.From != "default" {
			own++
		}
	}
	whose := "as serve would have it here"
	if e.Service != nil {
		whose = "as the service runs with it"
	}
	e.ok("configuration", "%d settings besides the defaults, %s", own, whose)
}

// secrets checks the files that hold secrets: who may read or change them.
func (e *examination) secrets() {
	service := uint32(os.Geteuid())
	groups, _ := os.Getgroups()
	groups = append(groups, os.Getegid())
	owners := []uint32{0, service}
	if fi, err := os.Stat(e.Settings.DataDir); err == nil {
		uid, gid := owner(fi)
		owners = append(owners, uid)
		if service == 0 { // then it is that of the directory, whoever runs doctor
			service, groups = uid, append(groups, int(gid))
		}
	}
	files, good := 0, 0
	for _, s := range e.Settings.Effective() {
		path := s.File
		if s.Name == "tls-key" || s.Name == "admin-tls-key" {
			path = s.Value
		}
		if path == "" {
			continue
		}
		files++
		fi, err := os.Stat(path)
		if err != nil {
			e.fail("secrets", fix("Make it readable for the service's user: the next start, and a replaced token, need it."), "the file of %s cannot be checked: %s", s.Name, plain(err))
			continue
		}
		switch uid, _ := owner(fi); {
		case fi.Mode().Perm()&0o022 != 0:
			e.warn("secrets", fix("chmod go-w "+path), "users other than the owner may replace the file of %s (mode %04o)", s.Name, fi.Mode().Perm())
		case config.Exposed(fi, int(service), groups):
			e.warn("secrets", fix("chmod 600 "+path), "other users of this machine may read the file of %s (mode %04o)", s.Name, fi.Mode().Perm())
		case !slices.Contains(owners, uid):
			e.warn("secrets", fix(fmt.Sprintf("chown it to the service's user: chown --reference=%s %s", e.Settings.DataDir, path)),
				"the file of %s belongs to user %d, who is neither root nor the service's", s.Name, uid)
		default:
			good++
		}
	}
	switch {
	case files == 0:
		e.ok("secrets", "no secret is kept in a file")
	case good == files:
		e.ok("secrets", "files: %d, readable for their owner or the service's group only", files)
	}
}

func owner(fi fs.FileInfo) (uid, gid uint32) {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Uid, st.Gid
	}
	return 0, 0
}

func (e *examination) dataDir() {
	dir := e.Settings.DataDir
	fi, err := os.Stat(dir)
	var uid uint32
	if err == nil {
		uid, _ = owner(fi)
	}
	switch {
	case dir == "":
		e.skip("data directory", "none is configured")
	case errors.Is(err, fs.ErrNotExist) && e.Service == nil:
		e.warn("data directory", fix("It is made at the first start. Is it the right one? See --data-dir."), "%s is not there", dir)
	case err != nil && e.Service != nil:
		e.skip("data directory", "%s cannot be checked from here: %s", dir, plain(err))
	case err != nil:
		e.fail("data directory", fix("Run this as the service's user."), "%s cannot be checked: %s", dir, plain(err))
	case !fi.IsDir():
		e.fail("data directory", fix("Name a directory with --data-dir."), "%s is not a directory", dir)
	case fi.Mode().Perm()&0o077 != 0:
		e.warn("data directory", fix("chmod 700 "+dir), "%s has mode %04o: alerts, and the operators' socket, can be seen by other users", dir, fi.Mode().Perm())
	case int(uid) != os.Geteuid() && os.Geteuid() != 0:
		e.warn("data directory", fix("Run this as the service's user."), "%s belongs to user %d, and this is user %d", dir, uid, os.Geteuid())
	default:
		e.ok("data directory", "%s, mode %04o", dir, fi.Mode().Perm())
	}
	if aside, _ := filepath.Glob(filepath.Join(dir, "*.damaged-*")); len(aside) > 0 {
		e.warn("data directory", fix("What could be read was taken into a new one; the log of that day says what is gone. Look at the disk, then delete or keep it."),
			"%s was damaged and moved aside", filepath.Base(aside[len(aside)-1]))
	}
}

// The file systems that are known by name: magic numbers of statfs(2).
var fileSystems = map[int64]struct{ name, bad string }{
	0xEF53: {"ext4", ""}, 0x58465342: {"xfs", ""}, 0x9123683E: {"btrfs", ""}, 0x2FC12FC1: {"zfs", ""},
	0x01021994: {"tmpfs", "memory"}, 0x858458F6: {"ramfs", "memory"},
	0x6969: {"nfs", "network"}, 0xFF534D42: {"cifs", "network"}, 0xFE534D42: {"smb", "network"}, 0x01021997: {"9p", "network"}, 0x65735546: {"fuse", "network"},
	0x794C7630: {"overlayfs", "layer"},
}

func (e *examination) disk() {
	dir, settings := existing(e.Settings.DataDir), e.Settings
	var st syscall.Statfs_t
	if dir == "" {
		e.skip("disk", "there is no directory to check")
		return
	}
	if err := syscall.Statfs(dir, &st); err != nil {
		e.skip("disk", "the free space of %s cannot be asked for: %v", dir, err)
		return
	}
	free := int64(st.Bavail) * int64(st.Bsize) //nolint:unconvert // Bsize differs between systems
	kind, known := fileSystems[int64(uint32(st.Type))]
	if !known {
		kind.name = fmt.Sprintf("file system %#x", uint32(st.Type))
	}
	switch kind.bad {
	case "memory":
		e.fail("disk", fix("Put --data-dir on a disk: what was accepted must survive a restart."), "%s is in memory (%s): a restart of the machine loses every waiting alert", dir, kind.name)
	case "network":
		e.warn("disk", fix("Put --data-dir on a local disk if you can."), "%s is on %s: the lock on the directory and fsync are only as good as its server", dir, kind.name)
	case "layer":
		e.warn("disk", fix("Put --data-dir on a volume."), "%s is in a container's own layer (%s): it goes with the container", dir, kind.name)
	}
	if settings.NATS() != "" {
		e.skip("disk space", "the streams are kept by an external server (--nats-url)")
		return
	}
	if st.Files > 0 && st.Ffree*100 < st.Files {
		e.warn("disk space", fix("Remove small files from that file system."), "less than one inode of a hundred is free")
	}
	used := int64(0)
	if e.Service != nil {
		used = e.Service.Store.UsedBytes
	}
	switch {
	case free < settings.MinFree:
		e.fail("disk space", fix("Free some, or lower --min-free: until then PMM gets 503."), "%s free on %s, less than --min-free %s", text.Size(free), kind.name, text.Size(settings.MinFree))
	case free-settings.MinFree < settings.MaxStore-used:
		e.warn("disk space", fix("Lower --max-store, or give it more disk: a long outage could fill the disk first."),
			"%s free on %s: --max-store %s and --min-free %s do not both fit", text.Size(free), kind.name, text.Size(settings.MaxStore), text.Size(settings.MinFree))
	default:
		e.ok("disk space", "%s free on %s; --max-store %s, --min-free %s", text.Size(free), kind.name, text.Size(settings.MaxStore), text.Size(settings.MinFree))
	}
}

// existing is dir, or the nearest directory above it that is there.
func existing(dir string) string {
	for dir != "" {
		if _, err := os.Stat(dir); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			break
		}
		dir = up
	}
	return ""
}

// How slow fsync may be. Every answer to PMM waits for one.
const (
	slowSync     = 50 * time.Millisecond
	terribleSync = time.Second
	syncs        = 15
)

func (e *examination) fsync() {
	dir := e.Settings.DataDir
	fi, err := os.Stat(dir)
	if err != nil || !fi.IsDir() {
		e.skip("fsync", "there is no data directory yet")
		return
	}
	times, err := timeSync(dir, syncs)
	if errors.Is(err, fs.ErrPermission) {
		if uid, _ := owner(fi); int(uid) == os.Geteuid() { // it is the service's user
			e.fail("fsync", fix("chmod 700 "+dir), "its owner may not write to %s: the service cannot start", dir)
			return
		}
		e.skip("fsync", "this user may not write to %s", dir)
		return
	}
	if err != nil {
		e.fail("fsync", fix("Look at the kernel's log: the disk may be failing, full or read-only."), "a small file cannot be written to %s: %s", dir, plain(err))
		return
	}
	slices.Sort(times)
	p50, worst := times[len(times)/2], times[len(times)-1]
	took := fmt.Sprintf("%s at the median, %s at worst, of %d", round(p50), round(worst), len(times))
	switch {
	case p50 > slowSync || worst > terribleSync:
		e.warn("fsync", fix("Put --data-dir on a quicker disk, or away from others who write much: PMM waits for it, and gives up after 10s."), "slow: %s", took)
	default:
		e.ok("fsync", "%s", took)
	}
}

// timeSync writes and syncs a small file n times, as the store does.
func timeSync(dir string, n int) (times []time.Duration, err error) {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return nil, err
	}
	defer func() {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}()
	block := []byte(strings.Repeat("x", 4096))
	for range n {
		if _, err := f.Write(block); err != nil {
			return nil, err
		}
		start := time.Now()
		if err := f.Sync(); err != nil {
			return nil, err
		}
		times = append(times, time.Since(start))
	}
	return times, nil
}

func round(d time.Duration) time.Duration {
	if d >= time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(100 * time.Microsecond)
}
