package store

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
)

// bbolt maps its file, and every page that was ever looked at stays resident
// until the kernel needs the room: a service with a long history seems to be as
// large as its ledger. The pages stay in the page cache when we let go of them,
// and looking again costs a minor fault, about 1 us for 64 KiB.
const (
	trimEvery = time.Second
	// trimAbove is how much of files may be mapped and resident, bytes: the
	// program's own pages are some 20 MiB of it.
	trimAbove = 36 << 20
)

// keepSmall lets go of the ledger's pages now and then.
func (s *Store) keepSmall() {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		if residentFiles() > trimAbove {
			s.letGo()
		}
		select {
		case <-tick.C:
		case <-s.pages.look:
		case <-s.stop:
			return
		}
	}
}

// letGo is safe beside readers and writers: the map is read-only and of a file,
// so the same bytes come back. The transaction keeps bbolt from mapping anew
// meanwhile.
func (s *Store) letGo() {
	_ = s.db.View(func(tx *bbolt.Tx) error {
		// Whether it worked shows in the next look; there is nothing else to do.
		_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, s.db.Info().Data, uintptr(tx.Size()), syscall.MADV_DONTNEED)
		return nil
	})
}

// residentFiles is what of this process is resident and belongs to files, bytes;
// 0 when nobody tells. See proc_pid_statm(5).
func residentFiles() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(b)
	if len(fields) < 3 {
		return 0
	}
	pages, err := strconv.ParseInt(string(fields[2]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
