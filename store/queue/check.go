package queue

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/minio/highwayhash"
)

// Damage is a place on disk that does not hold what was written there.
type Damage struct {
	Stream string
	File   string // whose name is below the data directory
	// First and Last are the sequences that cannot be read; none when First is
	// greater. Whether they were settled long ago only the ledger knows.
	First, Last uint64
	Problem     string // one line
	// Mendable: opening the queue repairs it without losing anything else. The
	// file as it was goes to damaged/ in the data directory first.
	Mendable bool
	Torn     bool // the end of the newest block: what a power cut leaves, and was never acknowledged

	from, to int // in the file
}

// Lost is how many messages cannot be read.
func (d Damage) Lost() uint64 {
	if d.First > d.Last {
		return 0
	}
	return d.Last - d.First + 1
}

// String is the damage in one line.
func (d Damage) String() string {
	s := d.File + ": " + d.Problem
	if d.Lost() > 0 {
		s += fmt.Sprintf("; %d messages of %s cannot be read (%d to %d)", d.Lost(), d.Stream, d.First, d.Last)
	}
	return s
}

// Check reads every record of the embedded server's files below the data
// directory and verifies its check sum. It changes nothing. While a service
// runs there, the end of the newest block may look torn.
//
// JetStream itself, when it has to rebuild its index, cuts a block off at the
// first record that is damaged, without a word: thousands of good messages
// behind one flipped bit. So Open looks first, and mends.
func Check(dir string) ([]Damage, error) {
	var all []Damage
	for _, stream := range []string{notifications, events} {
		found, err := checkStream(dir, stream)
		if err != nil {
			return all, fmt.Errorf("check %s: %w", stream, err)
		}
		all = append(all, found...)
	}
	return all, nil
}

func streamDir(stream string) string {
	return filepath.Join("jetstream", "jetstream", "$G", "streams", stream)
}

func checkStream(dir, stream string) ([]Damage, error) {
	var found []Damage
	base := streamDir(stream)
	meta, err := os.ReadFile(filepath.Join(dir, base, "meta.inf"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case !metaIsWhole(dir, base, stream, meta):
		found = append(found, Damage{
			Stream: stream, File: filepath.Join(base, "meta.inf"), Mendable: true, First: 1,
			Problem: "the description of the stream is damaged; it is written anew, the messages stay",
		})
	}
	blocks, err := blocksOf(filepath.Join(dir, base, "msgs"))
	if err != nil {
		return nil, err
	}
	var buf []byte
	var last uint64 // sequence, of the blocks so far
	for i, n := range blocks {
		file := filepath.Join(base, "msgs", strconv.Itoa(n)+".blk")
		if buf, err = readInto(buf, filepath.Join(dir, file)); err != nil {
			return nil, err
		}
		b := block{stream: stream, buf: buf, sum: blockSum(stream, n), last: last, newest: i == len(blocks)-1}
		damages := b.check()
		if len(damages) > 0 && damages[0].from == 0 && last == 0 && damages[0].Last != unknownEnd && damages[0].Last > 0 {
			damages[0].First = damages[0].Last // how many were in front nobody knows
		}
		if b.first > 0 && last > 0 && b.first > last+1 && (len(damages) == 0 || damages[0].from > 0) {
			if n := len(found); n > 0 && found[n-1].Last == unknownEnd {
				found[n-1].Last = b.first - 1
			} else {
				found = append(found, Damage{Stream: stream, File: file, First: last + 1, Last: b.first - 1, Problem: "the block before it is missing"})
			}
		}
		for _, d := range damages {
			d.Stream, d.File = stream, file
			found = append(found, d)
		}
		last = max(last, b.last)
	}
	for i := range found {
		if d := &found[i]; d.Last == unknownEnd {
			d.Last = d.First // at least
		}
	}
	return found, nil
}

// metaIsWhole checks the description of a stream as JetStream will.
func metaIsWhole(dir, base, stream string, meta []byte) bool {
	sum, err := os.ReadFile(filepath.Join(dir, base, "meta.sum"))
	key := sha256.Sum256([]byte(stream))
	have := highwayhash.Sum64(meta, key[:])
	var raw [8]byte
	binary.LittleEndian.PutUint64(raw[:], have)
	return err == nil && json.Valid(meta) && string(sum) == hex.EncodeToString(raw[:])
}

const unknownEnd = ^uint64(0)

func blocksOf(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []int
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".blk"); ok {
			if n, err := strconv.Atoi(name); err == nil {
				out = append(out, n)
			}
		}
	}
	slices.Sort(out)
	return out, nil
}

// readInto reads a file, into buf when there is room.
func readInto(buf []byte, name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return buf, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return buf, err
	}
	buf = slices.Grow(buf[:0], int(info.Size()))[:info.Size()]
	_, err = io.ReadFull(f, buf)
	return buf, err
}

// The layout of a record of JetStream (2.11 to 2.15, neither packed nor
// encrypted): length, sequence, time, length of the subject, subject, headers if
// the top bit of the length says so, message, check sum.
const (
	recordHead = 22
	recordSum  = 8
	recordMost = 32 << 20
	hasHeaders = 1 << 31
	erased     = uint64(1) << 63
	tombstone  = uint64(1) << 62
)

func blockSum(stream string, n int) hash.Hash64 {
	key := sha256.Sum256([]byte(stream + "-" + strconv.Itoa(n)))
	h, err := highwayhash.New64(key[:])
	if err != nil {
		panic(err) // the key has the right length
	}
	return h
}

// block is one file of a stream.
type block struct {
	stream      string
	buf         []byte
	sum         hash.Hash64
	newest      bool
	first, last uint64 // sequences; last begins as that of the block before
}

// record reads the record at off.
func (b *block) record(off int) (seq uint64, size int, ok bool) {
	rest := b.buf[off:]
	if len(rest) < recordHead+recordSum {
		return 0, 0, false
	}
	length := binary.LittleEndian.Uint32(rest)
	size = int(length &^ hasHeaders)
	subject := int(binary.LittleEndian.Uint16(rest[20:]))
	skip := 0
	if length&hasHeaders != 0 {
		skip = 4
	}
	if size < recordHead+subject+skip+recordSum || size > recordMost || size > len(rest) {
		return 0, 0, false
	}
	b.sum.Reset()
	_, _ = b.sum.Write(rest[4:20])
	_, _ = b.sum.Write(rest[recordHead : recordHead+subject])
	_, _ = b.sum.Write(rest[recordHead+subject+skip : size-recordSum])
	var have [recordSum]byte
	if !bytes.Equal(b.sum.Sum(have[:0]), rest[size-recordSum:size]) {
		return 0, 0, false
	}
	return binary.LittleEndian.Uint64(rest[4:]), size, true
}

// plausible is a cheap look before the check sum is computed.
func (b *block) plausible(off int) bool {
	rest := b.buf[off:]
	if len(rest) < recordHead+recordSum {
		return false
	}
	seq := binary.LittleEndian.Uint64(rest[4:])
	if seq&tombstone == 0 && seq&^erased <= b.last {
		return false
	}
	if binary.LittleEndian.Uint16(rest[20:]) == 0 { // no subject
		return seq&(erased|tombstone) != 0
	}
	name := rest[recordHead:]
	return bytes.HasPrefix(name, []byte(noteSubject)) || bytes.HasPrefix(name, []byte("events."))
}

// check walks over the records, and over what is none.
func (b *block) check() (found []Damage) {
	for off := 0; off < len(b.buf); {
		seq, size, ok := b.record(off)
		if ok {
			b.saw(seq)
			off += size
			continue
		}
		next := off + 1
		for next < len(b.buf) {
			if b.plausible(next) {
				if seq, _, ok = b.record(next); ok {
					break
				}
			}
			next++
		}
		d := Damage{from: off, to: next, First: b.last + 1, Mendable: true}
		switch {
		case ok:
			d.Last, d.Problem = seq&^(erased|tombstone)-1, fmt.Sprintf("%d bytes are damaged", next-off)
			if seq&tombstone != 0 {
				d.Last = d.First // at least
			}
		case b.newest:
			d.Torn, d.Mendable = true, false
			d.First, d.Last, d.Problem = 1, 0, fmt.Sprintf("the last %d bytes are no whole record, as after a power cut; they are cut off", next-off)
		default:
			d.Last, d.Problem = unknownEnd, fmt.Sprintf("the last %d bytes are damaged", next-off)
			d.Mendable = next-off >= recordHead+recordSum
		}
		found = append(found, d)
		off = next
	}
	return found
}

func (b *block) saw(seq uint64) {
	if seq&tombstone != 0 {
		return
	}
	seq &^= erased
	if b.first == 0 {
		b.first = seq
	}
	b.last = max(b.last, seq)
}

// mend repairs what Check finds, as far as it can be, and says so. Where records
// are damaged it writes erased ones of the same length: JetStream then knows
// those messages as deleted and keeps all others.
//
// If we die in between, the next start mends again.
func mend(dir string, log *slog.Logger) error {
	found, err := Check(dir)
	if err != nil {
		return err
	}
	for _, d := range found {
		attrs := []any{"component", "queue", "file", d.File, "problem", d.Problem, "lost", d.Lost(), "stream", d.Stream}
		if d.Lost() > 0 {
			attrs = append(attrs, "seq", d.First, "until", d.Last)
		}
		if d.Torn {
			log.Warn("the store was torn", attrs...)
			continue
		}
		if !d.Mendable {
			log.Error("the store is damaged", attrs...)
			continue
		}
		kept, err := keepCopy(dir, d.File)
		if err != nil {
			return fmt.Errorf("keep a copy of %s before it is mended: %w", d.File, err)
		}
		if filepath.Base(d.File) == "meta.inf" {
			err = errors.Join(remove(filepath.Join(dir, d.File)), remove(filepath.Join(dir, filepath.Dir(d.File), "meta.sum")))
		} else {
			err = errors.Join(d.erase(filepath.Join(dir, d.File)), remove(filepath.Join(dir, streamDir(d.Stream), "msgs", "index.db")))
		}
		if err != nil {
			return fmt.Errorf("mend %s: %w", d.File, err)
		}
		log.Error("the store was damaged and is mended", append(attrs, "copy", kept)...)
	}
	return nil
}

func remove(name string) error {
	if err := os.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// keepCopy puts the file as it is into damaged/.
func keepCopy(dir, file string) (kept string, err error) {
	to := filepath.Join(dir, "damaged")
	if err := os.MkdirAll(to, 0o700); err != nil {
		return "", err
	}
	stream := filepath.Base(strings.TrimSuffix(filepath.Dir(file), "/msgs"))
	kept = filepath.Join("damaged", time.Now().UTC().Format("20060102T150405Z")+"-"+stream+"-"+filepath.Base(file))
	if _, err := os.Stat(filepath.Join(dir, kept)); err == nil {
		return kept, nil // several places in one file
	}
	in, err := os.Open(filepath.Join(dir, file))
	if err != nil {
		return "", err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(filepath.Join(dir, kept), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(out, in)
	return kept, errors.Join(err, out.Sync(), out.Close())
}

// erase writes erased records over the damaged bytes.
func (d Damage) erase(name string) error {
	n, err := strconv.Atoi(strings.TrimSuffix(filepath.Base(name), ".blk"))
	if err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	sum := blockSum(d.Stream, n)
	const most = recordMost / 2
	seq := d.First
	for from := d.from; from < d.to; {
		size := d.to - from
		if size > most {
			size = min(most, size-recordHead-recordSum) // the last one must be whole as well
		}
		rec := make([]byte, size)
		binary.LittleEndian.PutUint32(rec, uint32(size))
		binary.LittleEndian.PutUint64(rec[4:], seq|erased)
		binary.LittleEndian.PutUint64(rec[12:], uint64(time.Now().UnixNano()))
		sum.Reset()
		_, _ = sum.Write(rec[4:20])
		_, _ = sum.Write(rec[recordHead : size-recordSum])
		copy(rec[size-recordSum:], sum.Sum(nil))
		if _, err := f.WriteAt(rec, int64(from)); err != nil {
			return err
		}
		from += size
		if seq < d.Last {
			seq++
		}
	}
	return f.Sync()
}
