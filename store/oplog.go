package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/klauspost/compress/s2"
	"go.etcd.io/bbolt"

	"pmm-callgoose/store/event"
	"pmm-callgoose/store/wire"
)

// A ledger of Config.Shared is a copy: every transaction is an entry of a log that all
// instances read, and is there before it is committed here. Whoever can append leads;
// the others apply what they read. If we die
//
//	before the entry is in the log     nothing has happened
//	between the entry and our commit   the log has it, and we read it at the next start
//	after our commit                   it has happened, here and there

// ErrFollowing says that this instance does not lead, and changes nothing in the ledger.
var ErrFollowing = errors.New("this instance does not lead")

// Log keeps transactions before they are committed. Append stores entries behind the last
// one, with nothing in between, and returns the sequence of the last of them; after an
// error nobody knows whether they are stored. It is called by one goroutine.
type Log interface {
	Append(entries ...[]byte) (seq uint64, err error)
}

// The kinds of entries: places in the log, only append.
const (
	EntryCommit   byte = iota // the last, or only, part of a transaction's operations
	EntryTakeOver             // another instance leads from here on
	EntryBeat                 // the leader is alive
	EntryRelease              // the leader stopped in good order
	EntryPart                 // a part of a transaction that others follow
	EntryLeft                 // all was brought to one forwarder: nobody leads any more
)

// entryVersion is the first byte of an entry: version, kind, payload in S2, check sum.
const entryVersion = 1

// partSize is how much of a transaction one entry holds at most, bytes. NATS takes
// messages of 1 MiB.
const partSize = 768 << 10

// EncodeEntry makes an entry.
func EncodeEntry(kind byte, payload []byte) []byte {
	b := make([]byte, 2, 2+s2.MaxEncodedLen(len(payload))+4)
	b[0], b[1] = entryVersion, kind
	return wire.Seal(nil, b[:2+len(s2.Encode(b[2:cap(b)-4], payload))])
}

// EntryKind is the kind of an entry, of which nothing else is read or checked.
func EntryKind(b []byte) byte {
	if len(b) < 2 {
		return EntryCommit
	}
	return b[1]
}

// DecodeEntry reads one. event.ErrNewer, event.ErrDamaged.
func DecodeEntry(b []byte) (kind byte, payload []byte, err error) {
	switch {
	case len(b) < 6 || b[0] == 0:
		return 0, nil, fmt.Errorf("log entry of %d bytes: %w", len(b), event.ErrDamaged)
	case b[0] > entryVersion || b[1] > EntryLeft:
		return 0, nil, fmt.Errorf("log entry of version %d, kind %d: %w", b[0], b[1], event.ErrNewer)
	}
	if b, err = wire.Unseal(nil, b); err != nil {
		return 0, nil, fmt.Errorf("log entry: %w", err)
	}
	if payload, err = wire.Unpack(b[2:]); err != nil {
		return 0, nil, fmt.Errorf("log entry: %w", err)
	}
	return b[1], payload, nil
}

// The operations of a transaction.
const (
	opPut byte = iota
	opDelete
	opMake // a bucket
	opDrop
)

// ops records what a transaction writes; nil records nothing.
type ops struct{ b []byte }

func (o *ops) add(kind byte, parts ...[]byte) {
	if o == nil {
		return
	}
	c := wire.Coder{B: append(o.b, kind)}
	for _, p := range parts {
		c.Block(&p)
	}
	o.b = c.B
}

// put writes a value, with its check sum.
func (t *Tx) put(bucket, key, value []byte) {
	sealed := wire.Seal(key, value)
	t.ops.add(opPut, bucket, key, sealed)
	t.Fail(t.tx.Bucket(bucket).Put(key, sealed))
}

func (t *Tx) delete(bucket, key []byte) {
	t.ops.add(opDelete, bucket, key)
	t.Fail(t.tx.Bucket(bucket).Delete(key))
}

// makeBucket makes a bucket where it is not there.
func (t *Tx) makeBucket(name []byte) {
	if t.tx.Bucket(name) == nil {
		t.ops.add(opMake, name)
		_, err := t.tx.CreateBucket(name)
		t.Fail(err)
	}
}

func (t *Tx) dropBucket(name []byte) {
	t.ops.add(opDrop, name)
	t.Fail(t.tx.DeleteBucket(name))
}

// replay does recorded operations. event.ErrNewer when they are about something that only
// a newer program knows: their check sum was right.
func replay(tx *bbolt.Tx, recorded []byte) error {
	r := wire.Reader(recorded)
	for len(r.B) > 0 {
		var kind byte
		var name, key, value []byte
		r.Byte(&kind)
		r.Block(&name)
		if !r.Bad() && (kind > opDrop || !known(name)) {
			return fmt.Errorf("operation %d on bucket %.40q: %w", kind, name, event.ErrNewer)
		}
		b := tx.Bucket(name)
		var err error
		switch {
		case kind == opMake:
			_, err = tx.CreateBucketIfNotExists(name)
		case b == nil:
			r.Fail()
		case kind == opPut:
			r.Block(&key)
			if r.Block(&value); !r.Bad() {
				err = b.Put(key, value)
			}
		case kind == opDelete:
			r.Block(&key)
			err = b.Delete(key)
		default:
			err = tx.DeleteBucket(name)
		}
		if err != nil {
			return fmt.Errorf("apply a log entry: %w", err)
		}
		if r.Bad() {
			break
		}
	}
	return r.End("log entry")
}

// keyLog holds, in meta, the sequence of the last entry that the file has.
var keyLog = []byte("log")

func sealLogSeq(seq uint64) []byte { return wire.Seal(keyLog, binary.AppendUvarint(nil, seq)) }

func putLogSeq(tx *bbolt.Tx, seq uint64) error {
	return tx.Bucket(bucketMeta).Put(keyLog, sealLogSeq(seq))
}

func readLogSeq(tx *bbolt.Tx) (uint64, error) {
	t := &Tx{tx: tx}
	seq := read(t, bucketMeta, keyLog, func(b []byte) (uint64, error) {
		var seq uint64
		r := wire.Reader(b)
		wire.Number(&r, &seq)
		return seq, r.End("sequence of the log")
	})
	return seq, t.err
}

// LogSeq is the sequence of the last entry that the file has, 0 when it has none.
func (s *Store) LogSeq() (seq uint64, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		seq, err = readLogSeq(tx)
		return err
	})
	return seq, err
}

// Detach makes the closed ledger of a directory one that is no copy of a log.
func Detach(dir string) error {
	db, err := bbolt.Open(filepath.Join(dir, FileName), 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType, NoFreelistSync: true})
	if err != nil {
		return fmt.Errorf("open the ledger in %s: %w", dir, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Delete(keyLog) })
	return errors.Join(err, db.Sync(), db.Close())
}

// Lead makes every write go through log from now on; nil ends that, and writes are
// refused with ErrFollowing.
func (s *Store) Lead(ctx context.Context, log Log) error {
	return s.do(ctx, &op{change: func() error { s.log, s.parts = log, nil; return nil }})
}

// LogEntry is an entry as it was read.
type LogEntry struct {
	Seq  uint64
	Data []byte
}

// Apply does what others appended, in one transaction: entries in their order, without
// a gap. What is left of a transaction whose writer died is dropped.
func (s *Store) Apply(ctx context.Context, entries []LogEntry) error {
	return s.do(ctx, &op{change: func() error { return s.apply(entries) }})
}

func (s *Store) apply(entries []LogEntry) error {
	switch {
	case s.broken:
		return ErrFailed
	case s.log != nil:
		return errors.New("apply log entries: this instance leads")
	}
	parts, next := s.parts, *s.state.Load()
	err := s.db.Update(func(tx *bbolt.Tx) error {
		done, err := readLogSeq(tx)
		if err != nil {
			return err
		}
		expected := done + uint64(len(parts)) + 1
		for _, e := range entries {
			if e.Seq != expected {
				return fmt.Errorf("log entry %d where %d is expected: %w", e.Seq, expected, event.ErrGone)
			}
			expected++
			kind, payload, err := DecodeEntry(e.Data)
			switch {
			case err != nil:
				return fmt.Errorf("log entry %d: %w", e.Seq, err)
			case kind == EntryPart:
				parts = append(parts, payload)
				continue
			case kind == EntryCommit:
				if err := replay(tx, bytes.Join(append(parts, payload), nil)); err != nil {
					return fmt.Errorf("log entry %d: %w", e.Seq, err)
				}
			}
			parts, done = nil, e.Seq
		}
		if err := putLogSeq(tx, done); err != nil {
			return err
		}
		next, err = readState(tx)
		return err
	})
	if err != nil {
		return err
	}
	next = next.clone()
	s.parts, s.names = parts, nil
	s.state.Store(&next)
	s.changes.Add(1)
	return nil
}

// append puts a transaction's operations in the log, and its sequence in the file.
func (s *Store) append(tx *bbolt.Tx, o *ops) error {
	if o == nil || len(o.b) == 0 {
		return nil
	}
	var entries [][]byte
	rest := o.b
	for ; len(rest) > partSize; rest = rest[partSize:] {
		entries = append(entries, EncodeEntry(EntryPart, rest[:partSize]))
	}
	seq, err := s.log.Append(append(entries, EncodeEntry(EntryCommit, rest))...)
	if err != nil {
		s.log = nil
		return fmt.Errorf("%w any more: %w", ErrFollowing, err)
	}
	return putLogSeq(tx, seq)
}
