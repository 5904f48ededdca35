package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"pmm-callgoose/store/event"
	"pmm-callgoose/store/wire"
)

// check reads the whole ledger and verifies it: every page that is reachable,
// and the check sum of every value. A damaged one is moved aside.
//
// bbolt itself finds damage while it opens the file or later, and then it
// panics in a goroutine of its own: nobody could go on from there.
func (c Config) check() error {
	switch err := verify(c.Dir); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, event.ErrDamaged):
		return c.aside(err)
	default:
		return err
	}
}

// Verify reads the ledger of a stopped service whole, as a start does, and changes
// nothing. The error is event.ErrDamaged where a start would make the ledger again,
// fs.ErrNotExist where there is none, ErrLocked while a service runs. It does not keep the
// lock while it reads: a service that starts meanwhile must not be refused.
func Verify(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, FileName)); err != nil {
		return err // and no lock file is made
	}
	free := func() error {
		lock, err := LockDir(dir)
		if err == nil {
			lock.Unlock()
		}
		return err
	}
	if err := free(); err != nil {
		return err
	}
	err := verify(dir)
	if err != nil {
		err = cmp.Or(free(), err) // what is being written looks damaged
	}
	return err
}

func verify(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, FileName), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("open the ledger: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	return (&walk{f: f, size: info.Size()}).run()
}

// aside moves a damaged ledger out of the way, so that Open makes a new one.
func (c Config) aside(damage error) error {
	path := filepath.Join(c.Dir, FileName)
	to := path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000Z")
	if err := os.Rename(path, to); err != nil {
		return fmt.Errorf("move the damaged ledger aside: %w", err)
	}
	if c.Logger != nil {
		c.Logger.Error("the ledger is damaged; it is moved aside and made again", "component", "store", "err", damage, "moved_to", to)
	}
	return nil
}

// The layout of a bbolt file, version 2. Integers are little endian here, as on
// every machine that we build for.
const (
	boltMagic    = 0xED0CDAED
	boltHead     = 16 // of a page
	boltElement  = 16 // of a branch or a leaf
	boltBucket   = 16 // in front of an inline page
	boltMetaSize = 64
	boltBranch   = 1
	boltLeaf     = 2
	boltDepth    = 64
)

// walk goes over every page that can be reached.
type walk struct {
	f      *os.File
	size   int64
	page   int
	high   uint64 // first page that was never used
	seen   []bool // by page
	format uint64
	value  error // the first value that is damaged
}

func bad(format string, args ...any) error {
	return fmt.Errorf("ledger: "+format+": %w", append(args, event.ErrDamaged)...)
}

func (w *walk) run() error {
	root, err := w.meta()
	if err != nil {
		return err
	}
	if w.high > uint64(w.size/int64(w.page)) {
		return bad("%d bytes where there should be %d pages of %d", w.size, w.high, w.page)
	}
	w.seen = make([]bool, w.high)
	if err := w.bucket(root, nil); err != nil {
		return err
	}
	if w.format > format { // Open refuses it, with the reason
		return nil
	}
	return w.value
}

// meta finds the newer of the two pages that say where everything begins.
func (w *walk) meta() (root uint64, err error) {
	var newest uint64
	found := false
	for _, size := range []int{os.Getpagesize(), 4096, 16384, 65536} {
		for n := range int64(2) {
			b := make([]byte, boltHead+boltMetaSize)
			if _, err := w.f.ReadAt(b, n*int64(size)); err != nil {
				continue
			}
			m := b[boltHead:]
			sum := fnv.New64a()
			_, _ = sum.Write(m[:56])
			if binary.LittleEndian.Uint32(m) != boltMagic || binary.LittleEndian.Uint32(m[8:]) != uint32(size) ||
				binary.LittleEndian.Uint64(m[56:]) != sum.Sum64() {
				continue
			}
			if tx := binary.LittleEndian.Uint64(m[48:]); !found || tx > newest {
				found, newest, w.page = true, tx, size
				root, w.high = binary.LittleEndian.Uint64(m[16:]), binary.LittleEndian.Uint64(m[40:])
			}
		}
		if found {
			return root, nil
		}
	}
	return 0, bad("no valid beginning")
}

// read reads a page with its overflow.
func (w *walk) read(id uint64) ([]byte, error) {
	if id < 2 || id >= w.high {
		return nil, bad("page %d is outside of the file", id)
	}
	head := make([]byte, w.page)
	if _, err := w.f.ReadAt(head, int64(id)*int64(w.page)); err != nil {
		return nil, err
	}
	more := uint64(binary.LittleEndian.Uint32(head[12:]))
	if binary.LittleEndian.Uint64(head) != id || more >= w.high-id {
		return nil, bad("page %d does not hold what it should", id)
	}
	for n := id; n <= id+more; n++ {
		if w.seen[n] {
			return nil, bad("page %d is used twice", n)
		}
		w.seen[n] = true
	}
	if more == 0 {
		return head, nil
	}
	b := make([]byte, int(more+1)*w.page)
	_, err := w.f.ReadAt(b, int64(id)*int64(w.page))
	return b, err
}

// known reports whether a bucket has a name that some format gives: a flipped bit
// in a name would hide all that is in it.
func known(name []byte) bool {
	for _, have := range buckets {
		if bytes.Equal(name, have) {
			return true
		}
	}
	d, records := bytes.CutPrefix(name, recordsBucket(""))
	_, err := time.Parse(time.DateOnly, string(d))
	return err == nil && records
}

func (w *walk) bucket(root uint64, name []byte) error {
	var last []byte
	return w.tree(root, name, &last, nil, nil, 0)
}

// tree goes over a page and what is below it: keys from least to below (nil = no
// end), each greater than the last.
func (w *walk) tree(id uint64, bucket []byte, last *[]byte, least, below []byte, depth int) error {
	if depth > boltDepth {
		return bad("page %d is too deep", id)
	}
	b, err := w.read(id)
	if err != nil {
		return err
	}
	switch binary.LittleEndian.Uint16(b[8:]) {
	case boltLeaf:
		return w.leaf(b, bucket, last, least, below)
	case boltBranch:
	default:
		return bad("page %d is of no known kind", id)
	}
	count := int(binary.LittleEndian.Uint16(b[10:]))
	if boltHead+count*boltElement > len(b) || count == 0 {
		return bad("page %d has an impossible count", id)
	}
	keys := make([][]byte, count, count+1)
	for i := range keys {
		at := boltHead + i*boltElement
		if keys[i], err = part(b, at+int(binary.LittleEndian.Uint32(b[at:])), binary.LittleEndian.Uint32(b[at+4:])); err != nil {
			return err
		}
		if bytes.Compare(keys[i], least) < 0 || below != nil && bytes.Compare(keys[i], below) >= 0 {
			return bad("page %d has its keys out of order", id)
		}
	}
	keys = append(keys, below)
	for i := range count {
		child := binary.LittleEndian.Uint64(b[boltHead+i*boltElement+8:])
		if err := w.tree(child, bucket, last, keys[i], keys[i+1], depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) leaf(b, bucket []byte, last *[]byte, least, below []byte) error {
	count := int(binary.LittleEndian.Uint16(b[10:]))
	if boltHead+count*boltElement > len(b) {
		return bad("a leaf has an impossible count")
	}
	for i := range count {
		at := boltHead + i*boltElement
		start := at + int(binary.LittleEndian.Uint32(b[at+4:]))
		ksize, vsize := binary.LittleEndian.Uint32(b[at+8:]), binary.LittleEndian.Uint32(b[at+12:])
		key, err := part(b, start, ksize)
		if err != nil {
			return err
		}
		value, err := part(b, start+int(ksize), vsize)
		if err != nil {
			return err
		}
		if *last != nil && bytes.Compare(*last, key) >= 0 || bytes.Compare(key, least) < 0 || below != nil && bytes.Compare(key, below) >= 0 {
			return bad("keys are out of order")
		}
		*last = key
		if binary.LittleEndian.Uint32(b[at:])&1 == 0 {
			w.pair(bucket, key, value)
			continue
		}
		if len(value) < boltBucket {
			return bad("bucket %.40q", key)
		}
		root := binary.LittleEndian.Uint64(value)
		if w.value == nil && !known(key) {
			w.value = bad("a bucket is called %.40q", key)
		}
		switch {
		case bucket != nil:
			return bad("a bucket within %.40q", bucket)
		case root != 0:
			err = w.bucket(root, key)
		case len(value) < boltBucket+boltHead || binary.LittleEndian.Uint16(value[boltBucket+8:]) != boltLeaf:
			err = bad("bucket %.40q", key)
		default:
			var inner []byte
			err = w.leaf(value[boltBucket:], key, &inner, nil, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func part(b []byte, start int, size uint32) ([]byte, error) {
	if start < boltHead || start > len(b) || int64(size) > int64(len(b)-start) {
		return nil, bad("an element points out of its page")
	}
	return b[start : start+int(size)], nil
}

func (w *walk) pair(bucket, key, value []byte) {
	if bytes.Equal(bucket, bucketMeta) && bytes.Equal(key, keyFormat) {
		w.format, _ = binary.Uvarint(value)
		return
	}
	if w.value != nil {
		return
	}
	value, err := wire.Unseal(key, value)
	if err == nil && bytes.HasPrefix(bucket, recordsBucket("")) &&
		(len(value) <= atID || string(bucket) != string(recordsBucket(day(recordReceived(value))))) {
		err = bad("a record of another day")
	}
	if err != nil {
		w.value = fmt.Errorf("bucket %.40q: %w", bucket, err)
	}
}
