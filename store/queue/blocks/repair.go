package blocks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// damage says what is lost between off and end, and what Repair does about it.
// seq is that of the whole record at end.
func (b *block) damage(off, end int, seq uint64) []Damage {
	d := Damage{Stream: b.Name, File: b.file, First: b.last + 1, Problem: fmt.Sprintf("%d bytes are damaged", end-off)}
	known := true
	switch {
	case end < len(b.buf) && seq&tombstone == 0:
		d.Last = seq&^erased - 1
	case end == len(b.buf) && b.next > 0:
		d.Last = b.next - 1
	default:
		known = false
	}
	if known && b.last == 0 { // how many were in front nobody knows
		d.First = d.Last
		if seq, _, ok := b.head(off); ok && seq < d.Last {
			d.First = seq
		}
	}
	torn := b.divide(&d, off, end, known)
	if !known {
		d.Last = max(d.First, b.last) // at least
	}
	if torn < 0 {
		d.Repairable = end-off >= recordHead+recordSum
		return []Damage{d}
	}
	t := Damage{
		Stream: b.Name, File: b.file, First: 1, Torn: true, pieces: []piece{{from: torn, to: end}},
		Problem: fmt.Sprintf("the last %d bytes are no whole record, as after a power cut; they are cut off", end-torn),
	}
	if torn == off {
		return []Damage{t}
	}
	d.Repairable = true
	return []Damage{d, t}
}

// divide finds the records that stood between off and end. known says that they
// are d.First to d.Last. It returns where the torn end of the newest block
// begins, -1 when there is none.
func (b *block) divide(d *Damage, off, end int, known bool) (torn int) {
	atEnd := b.newest && end == len(b.buf)
	for seq := d.First; off < end; seq++ {
		p := piece{from: off, to: end, seq: seq, time: time.Now().UnixNano()}
		have, size, ok := b.head(off)
		ok = ok && have&(erased|tombstone) == 0 && have >= seq && (!known || have <= d.Last)
		if ok && off+size > end && atEnd { // its own end is missing: never acknowledged
			return off
		}
		if ok {
			p.seq, p.time = have, int64(binary.LittleEndian.Uint64(b.buf[off+12:]))
			if end-off-size >= recordHead+recordSum && have != d.Last {
				p.to = off + size
			}
		}
		if known && seq > d.Last {
			p.seq = 0 // nothing is missing: filled with what belongs to no message
		}
		// Without a head it can only be told what it was when it was one record.
		p.keep = (ok || !known || seq == d.Last) && b.salvageable(p)
		if !p.keep && atEnd && p.to == end {
			return off
		}
		if p.keep {
			d.Salvaged++
		} else if known && p.seq < d.Last && p.to == end && end-off >= 2*(recordHead+recordSum) {
			// Two records, so that no block seems to be missing before this one or the next.
			first := p
			first.to = off + recordHead + recordSum
			d.pieces = append(d.pieces, first)
			p.from, p.seq = first.to, d.Last
		}
		d.pieces = append(d.pieces, p)
		b.last = max(b.last, p.seq)
		seq, off = max(seq, p.seq), p.to
	}
	return -1
}

func (b *block) salvageable(p piece) bool {
	from, to := p.from+recordHead+len(b.Subject), p.to-recordSum
	return b.Salvage != nil && from < to && to-from <= recordMost && b.Salvage(b.buf[from:to])
}

// Repair repairs what Check finds, as far as that can be done, and says so. A
// damaged record of which something can be read gets a right head and check sum.
// The others become erased records of the same length: JetStream then knows those
// messages as deleted and keeps all others. A torn end JetStream cuts off itself.
//
// It returns the lowest sequence that is not whole, zero for none. If we die in between,
// the next start repairs the rest.
func (s Stream) Repair(log *slog.Logger) (lowest uint64, err error) {
	found, err := s.Check()
	if err != nil {
		return 0, err
	}
	for _, d := range found {
		attrs := []any{"component", "queue", "file", d.File, "problem", d.Problem, "lost", d.Lost(), "salvaged", d.Salvaged, "stream", d.Stream}
		if d.First <= d.Last {
			attrs = append(attrs, "seq", d.First, "until", d.Last)
			if !d.Torn && (lowest == 0 || d.First < lowest) {
				lowest = d.First
			}
		}
		if d.Torn {
			log.Warn("the store was torn", attrs...)
			continue
		}
		if !d.Repairable {
			log.Error("the store is damaged", attrs...)
			continue
		}
		kept, err := s.keepCopy(d.File)
		if err != nil {
			log.Error("no copy could be kept of a damaged file", "component", "queue", "file", d.File, "err", err)
		}
		if err := s.repair(d); err != nil {
			return 0, fmt.Errorf("repair %s: %w", d.File, err)
		}
		log.Error("the store was damaged and is repaired", append(attrs, "copy", kept)...)
	}
	return lowest, nil
}

// repair writes what d says. The index goes first: it would not know of the
// messages that are erased.
func (s Stream) repair(d Damage) error {
	if filepath.Base(d.File) == "meta.inf" {
		return errors.Join(remove(filepath.Join(s.DataDir, d.File)), remove(filepath.Join(s.DataDir, filepath.Dir(d.File), "meta.sum")))
	}
	if err := errors.Join(remove(filepath.Join(s.Messages(), "index.db")), syncDir(s.Messages())); err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(filepath.Base(d.File), ".blk"))
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(s.DataDir, d.File), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for _, p := range d.pieces {
		if p.keep {
			err = s.block(n).restore(f, p)
		} else {
			err = s.block(n).erase(f, p)
		}
		if err != nil {
			return err
		}
	}
	return f.Sync()
}

// restore gives the record a right head and check sum. What it holds stays.
func (b *block) restore(f *os.File, p piece) error {
	record := make([]byte, p.to-p.from)
	if _, err := f.ReadAt(record, int64(p.from)); err != nil {
		return err
	}
	b.write(record, p.seq, p.time, b.Subject)
	_, err := f.WriteAt(record, int64(p.from))
	return err
}

// erase writes erased records over the piece.
func (b *block) erase(f *os.File, p piece) error {
	for from := p.from; from < p.to; {
		size := p.to - from
		if size > recordMost/2 {
			size = min(recordMost/2, size-recordHead-recordSum) // the last one must be whole as well
		}
		record := make([]byte, size)
		b.write(record, p.seq|erased, p.time, "")
		if _, err := f.WriteAt(record, int64(from)); err != nil {
			return err
		}
		from += size
	}
	return nil
}

// write puts the head and the check sum into a record whose message is there.
func (b *block) write(record []byte, seq uint64, at int64, subject string) {
	binary.LittleEndian.PutUint32(record, uint32(len(record)))
	binary.LittleEndian.PutUint64(record[4:], seq)
	binary.LittleEndian.PutUint64(record[12:], uint64(at))
	binary.LittleEndian.PutUint16(record[20:], uint16(len(subject)))
	copy(record[recordHead:], subject)
	copy(record[len(record)-recordSum:], b.checkSum(record, len(subject), 0))
}

func remove(name string) error {
	if err := os.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// keepCopy puts the file as it is into damaged/ in the data directory.
func (s Stream) keepCopy(file string) (kept string, err error) {
	to := filepath.Join(s.DataDir, "damaged")
	if err := os.MkdirAll(to, 0o700); err != nil {
		return "", err
	}
	kept = filepath.Join("damaged", time.Now().UTC().Format("20060102T150405Z")+"-"+s.Name+"-"+filepath.Base(file))
	if _, err := os.Stat(filepath.Join(s.DataDir, kept)); err == nil {
		return kept, nil // several places in one file
	}
	in, err := os.Open(filepath.Join(s.DataDir, file))
	if err != nil {
		return "", err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(filepath.Join(s.DataDir, kept), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(out, in)
	return kept, errors.Join(err, out.Sync(), out.Close(), syncDir(to))
}
