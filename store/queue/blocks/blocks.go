// Package blocks reads and repairs the files in which an embedded JetStream
// server keeps a stream: records one behind the other in numbered blocks, neither
// compressed nor encrypted.
//
// JetStream itself, when it has to rebuild its index, cuts a block off at the
// first record that is damaged, without a word: thousands of good messages behind
// one flipped bit. And a power cut leaves holes: a later sector may be on disk and
// an earlier one not. So a stream is checked and repaired before the server opens it.
package blocks

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
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/minio/highwayhash"
)

// Stream is a stream of an embedded server, as it stands on disk. All its
// messages have one subject and no headers.
type Stream struct {
	DataDir string // the server keeps its files in DataDir/jetstream
	Name    string
	Subject string
	// Salvage reports whether anything of a damaged message can still be read. Such
	// a message is kept. nil: nothing can.
	Salvage func(message []byte) bool
}

// Damage is a place on disk that does not hold what was written there.
type Damage struct {
	Stream string
	File   string // whose name is below the data directory
	// First and Last are the damaged sequences; none when First is greater. Whether
	// they were settled long ago only the ledger knows.
	First, Last uint64
	Salvaged    uint64 // how many of them are kept, for what can be read of them
	Problem     string // one line
	// Repairable: Repair makes JetStream read all the rest. The file as it was goes
	// to damaged/ in the data directory first.
	Repairable bool
	Torn       bool // the end of the newest block: what a power cut leaves, and was never acknowledged

	pieces []piece
}

// piece is a part of a damaged place: one record, or what was several.
type piece struct {
	from, to int // in the file
	seq      uint64
	keep     bool
	time     int64
}

// Lost is how many messages cannot be read at all.
func (d Damage) Lost() uint64 {
	if d.First > d.Last {
		return 0
	}
	return d.Last - d.First + 1 - d.Salvaged
}

// base is the stream's directory, below the data directory.
func (s Stream) base() string {
	return filepath.Join("jetstream", "jetstream", "$G", "streams", s.Name)
}

// Messages is the directory of the blocks.
func (s Stream) Messages() string { return filepath.Join(s.DataDir, s.base(), "msgs") }

// Readable reads every block and returns the disk's error if there is one.
// JetStream says "not found", too, of what a failing disk does not hand out.
// Blocks that retention removes meanwhile are no error. Safe while the server runs.
func (s Stream) Readable() error {
	numbers, err := s.numbers()
	var buf []byte
	for _, n := range numbers {
		var failed error
		buf, failed = readInto(buf, filepath.Join(s.Messages(), blockName(n)))
		if failed != nil && !errors.Is(failed, fs.ErrNotExist) && !errors.Is(failed, io.ErrUnexpectedEOF) {
			return failed
		}
	}
	return err
}

// Check reads every record and verifies its check sum. It changes nothing. While
// a service runs there, the end of the newest block may look torn.
func (s Stream) Check() ([]Damage, error) {
	found, err := s.checkMeta()
	if err != nil {
		return nil, fmt.Errorf("check %s: %w", s.Name, err)
	}
	numbers, err := s.numbers()
	if err != nil {
		return nil, fmt.Errorf("check %s: %w", s.Name, err)
	}
	var last uint64     // sequence, of the blocks so far
	var spare, b *block // spare lends its memory to the next one
	for i, n := range numbers {
		if i == 0 {
			if b, err = s.load(n, nil); err != nil {
				return found, fmt.Errorf("check %s: %w", s.Name, err)
			}
		}
		next := &block{} // behind the newest: empty
		if i+1 < len(numbers) {
			if next, err = s.load(numbers[i+1], spare); err != nil {
				return found, fmt.Errorf("check %s: %w", s.Name, err)
			}
		}
		b.last, b.newest, b.next = last, i+1 == len(numbers), next.begins()
		damages := b.check()
		if b.first > last+1 && last > 0 && (len(damages) == 0 || damages[0].pieces[0].from > 0) {
			found = append(found, Damage{Stream: s.Name, File: b.file, First: last + 1, Last: b.first - 1, Problem: "the block before it is missing"})
		}
		found = append(found, damages...)
		last = max(last, b.last)
		spare, b = b, next
	}
	return found, nil
}

// checkMeta looks at the description of the stream.
func (s Stream) checkMeta() ([]Damage, error) {
	file := filepath.Join(s.base(), "meta.inf")
	meta, err := os.ReadFile(filepath.Join(s.DataDir, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	sum, err := os.ReadFile(filepath.Join(s.DataDir, s.base(), "meta.sum"))
	key := sha256.Sum256([]byte(s.Name))
	want := hex.EncodeToString(binary.LittleEndian.AppendUint64(nil, highwayhash.Sum64(meta, key[:])))
	if err == nil && json.Valid(meta) && string(sum) == want {
		return nil, nil
	}
	return []Damage{{
		Stream: s.Name, File: file, Repairable: true, First: 1,
		Problem: "the description of the stream is damaged; it is written anew, the messages stay",
	}}, nil
}

func blockName(n int) string { return strconv.Itoa(n) + ".blk" }

// numbers lists the blocks in order.
func (s Stream) numbers() ([]int, error) {
	entries, err := os.ReadDir(s.Messages())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
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

// The layout of a record of JetStream (2.11 to 2.15): length, sequence, time,
// length of the subject, subject, message, check sum. The top bit of the length
// says that headers stand before the message.
const (
	recordHead = 22
	recordSum  = 8
	recordMost = 32 << 20
	hasHeaders = 1 << 31
	erased     = uint64(1) << 63
	tombstone  = uint64(1) << 62
)

// block is one file of a stream.
type block struct {
	Stream
	file        string // below the data directory
	buf         []byte
	sum         hash.Hash64
	newest      bool
	first, last uint64 // sequences; last begins as that of the block before
	next        uint64 // the first sequence of the next block, 0 when it is not known
}

// load reads block n, into the memory of spare.
func (s Stream) load(n int, spare *block) (*block, error) {
	b := s.block(n)
	var buf []byte
	if spare != nil {
		buf = spare.buf
	}
	var err error
	b.buf, err = readInto(buf, filepath.Join(s.DataDir, b.file))
	return b, err
}

func (s Stream) block(n int) *block {
	key := sha256.Sum256([]byte(s.Name + "-" + strconv.Itoa(n)))
	sum, err := highwayhash.New64(key[:])
	if err != nil {
		panic(err) // the key has the right length
	}
	return &block{Stream: s, file: filepath.Join(s.base(), "msgs", blockName(n)), sum: sum}
}

// begins is the sequence of the record at the front, 0 when it cannot be read.
func (b *block) begins() uint64 {
	if seq, _, ok := b.record(0); ok && seq&tombstone == 0 {
		return seq &^ erased
	}
	return 0
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
	if !bytes.Equal(b.checkSum(rest[:size], subject, skip), rest[size-recordSum:size]) {
		return 0, 0, false
	}
	return binary.LittleEndian.Uint64(rest[4:]), size, true
}

// checkSum is the check sum of a record with a subject of so many bytes.
func (b *block) checkSum(record []byte, subject, skip int) []byte {
	b.sum.Reset()
	_, _ = b.sum.Write(record[4:20])
	_, _ = b.sum.Write(record[recordHead : recordHead+subject])
	_, _ = b.sum.Write(record[recordHead+subject+skip : len(record)-recordSum])
	return b.sum.Sum(nil)
}

// head reads the head of a record whose check sum is wrong, or not computed yet.
// ok is false when it cannot be a head.
func (b *block) head(off int) (seq uint64, size int, ok bool) {
	rest := b.buf[off:]
	if len(rest) < recordHead+recordSum {
		return 0, 0, false
	}
	seq, size = binary.LittleEndian.Uint64(rest[4:]), int(binary.LittleEndian.Uint32(rest)&^hasHeaders)
	if seq&tombstone == 0 && seq&^erased <= b.last || size < recordHead+recordSum || size > recordMost {
		return 0, 0, false
	}
	switch subject := int(binary.LittleEndian.Uint16(rest[20:])); subject {
	case 0:
		return seq, size, seq&(erased|tombstone) != 0
	case len(b.Subject):
		return seq, size, seq&(erased|tombstone) == 0 && bytes.HasPrefix(rest[recordHead:], []byte(b.Subject))
	default:
		return 0, 0, false
	}
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
		end := off + 1
		for ; end < len(b.buf); end++ {
			if _, _, ok := b.head(end); ok { // cheap: before the check sum is computed
				if seq, _, ok = b.record(end); ok {
					break
				}
			}
		}
		found = append(found, b.damage(off, end, seq)...)
		off = end
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
