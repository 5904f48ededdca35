package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

// Snapshot yields entries that make an equal ledger of an empty one, and returns the
// sequence of the log up to which they go: that of the file, or, where it is not 0, as.
// It works on a copy of the file, so that writers go on and whoever takes the entries may
// take its time.
func (s *Store) Snapshot(as uint64, yield func(entry []byte) error) (seq uint64, err error) {
	path := filepath.Join(s.cfg.Dir, FileName+".snapshot")
	defer func() { err = errors.Join(err, os.RemoveAll(path)) }()
	if err := s.db.View(func(tx *bbolt.Tx) error { return tx.CopyFile(path, 0o600) }); err != nil {
		return 0, fmt.Errorf("copy the ledger: %w", err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		return 0, fmt.Errorf("open the copy of the ledger: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	err = db.View(func(tx *bbolt.Tx) error {
		if seq, err = readLogSeq(tx); err != nil {
			return err
		}
		o := &ops{}
		flush := func() error {
			defer func() { o.b = o.b[:0] }()
			return yield(EncodeEntry(EntryPart, o.b))
		}
		if err := tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			o.add(opMake, name)
			return b.ForEach(func(k, v []byte) error {
				o.add(opPut, name, k, v)
				if len(o.b) < partSize {
					return nil
				}
				return flush()
			})
		}); err != nil {
			return err
		}
		if as != 0 {
			seq = as
			o.add(opPut, bucketMeta, keyLog, sealLogSeq(as))
		}
		return flush()
	})
	return seq, err
}

// Restore makes the ledger of a directory from the entries of a snapshot that goes up to
// seq; next ends with io.EOF. The file that is there is replaced once the new one is
// complete. The caller holds the directory's Lock, and no Store is open.
func Restore(dir string, seq uint64, next func() ([]byte, error)) error {
	path := filepath.Join(dir, FileName)
	made := path + ".new"
	if err := os.RemoveAll(made); err != nil {
		return err
	}
	db, err := bbolt.Open(made, 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType, NoFreelistSync: true, NoSync: true})
	if err != nil {
		return fmt.Errorf("make a ledger: %w", err)
	}
	if err := errors.Join(fill(db, seq, next), db.Sync(), db.Close()); err != nil {
		return fmt.Errorf("make a ledger from the snapshot at %d: %w", seq, err)
	}
	if err := os.Rename(made, path); err != nil {
		return err
	}
	return SyncDir(dir)
}

func fill(db *bbolt.DB, seq uint64, next func() ([]byte, error)) error {
	for {
		entry, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		_, payload, err := DecodeEntry(entry)
		if err != nil {
			return err
		}
		if err := db.Update(func(tx *bbolt.Tx) error { return replay(tx, payload) }); err != nil {
			return err
		}
	}
	return db.View(func(tx *bbolt.Tx) error {
		if tx.Bucket(bucketMeta) == nil {
			return bad("the snapshot holds no %s", bucketMeta)
		}
		have, err := readLogSeq(tx)
		if err == nil && have != seq {
			err = bad("it goes up to %d", have)
		}
		return err
	})
}
