package store

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"pmm-callgoose/store/event"
)

// Errors a caller must branch on.
var (
	// ErrLocked: another process holds the data directory.
	ErrLocked = errors.New("another pmm-callgoose is using this data directory")
	// ErrNotFound: there is no such record.
	ErrNotFound = errors.New("not found")
	// ErrFailed: a commit failed, or the store is closed.
	ErrFailed = errors.New("the ledger is not available")
)

// format is the version of the file. A newer one is refused.
//
//	2: records and episodes are JSON, with labels in each; an index of ids for
//	   each day, one of open episodes, and a key for each settled message
//	3: as the package says
const format = 3

// FileName is the ledger's file in the data directory.
const FileName = "ledger.db"

var (
	bucketMeta     = []byte("meta")
	bucketEpisodes = []byte("episodes")
	bucketLabels   = []byte("labels")
	bucketOpen     = []byte("open") // of format 2
	bucketSettled  = []byte("settled")
	bucketHistory  = []byte("history")
	keyFormat      = []byte("format")
	keyState       = []byte("state")
)

// Store is an open ledger. All methods are safe concurrently.
type Store struct {
	cfg    Config
	db     *bbolt.DB
	ops    chan *op
	stop   chan struct{}
	ended  chan struct{} // closed when commit has ended
	wg     sync.WaitGroup
	once   sync.Once
	failed chan error
	pages  mapped // of its file
	// changes counts commits.
	changes atomic.Uint64
	// state is what was committed last, also for those who must not wait for the
	// disk. What it points to is never changed.
	state atomic.Pointer[state]
	// broken is set when a commit failed: what the file then says may not be what it
	// will say after the next start. Only opening it again tells.
	broken atomic.Bool

	// writing is held while a transaction writes; it guards open.
	writing sync.Mutex
	open    openEpisodes // nil = not made yet
}

// state is what the meta bucket holds under "state": small, and written with
// every commit that changed it.
type state struct {
	Progress event.Progress   `json:"progress"`
	Floor    uint64           `json:"floor"`
	Circuit  event.Circuit    `json:"circuit"`
	Counts   map[string]int64 `json:"counts"`
	// Heard is when each PMM server was last heard of, by source.
	Heard map[string]time.Time `json:"heard,omitempty"`
}

func (s state) clone() state {
	c := s
	c.Counts = make(map[string]int64, len(s.Counts))
	maps.Copy(c.Counts, s.Counts)
	c.Heard = make(map[string]time.Time, len(s.Heard))
	maps.Copy(c.Heard, s.Heard)
	return c
}

type op struct {
	fn   func(event.Tx) error
	done chan error
}

// Config says where the ledger lives.
type Config struct {
	Dir string // data directory; made when it is not there
	// NoSync switches fsync off. Only for tests in which nobody pulls the plug.
	NoSync bool
	// Committed is told how long the disk took for each commit. May be nil.
	Committed func(time.Duration)
	// Logger is told when a damaged file is moved aside. nil = nobody.
	Logger *slog.Logger
}

// Open locks and opens the ledger in its directory, and makes it when it is not there.
// fresh says that it was made: the worker then rebuilds it from the streams. A
// file that is damaged is moved aside first, to ledger.db.damaged-TIME.
func Open(cfg Config) (s *Store, fresh bool, err error) {
	dir := cfg.Dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, false, fmt.Errorf("make the data directory: %w", err)
	}
	path := filepath.Join(dir, FileName)
	if err := checkLocked(dir, cfg.aside); err != nil {
		return nil, false, err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: time.Second, FreelistType: bbolt.FreelistMapType, NoFreelistSync: true, NoSync: cfg.NoSync,
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, false, fmt.Errorf("%w: %s", ErrLocked, dir)
	case err != nil:
		return nil, false, fmt.Errorf("open the ledger in %s: %w", dir, err)
	}
	s = &Store{cfg: cfg, db: db, ops: make(chan *op, 1024), stop: make(chan struct{}), ended: make(chan struct{}), failed: make(chan error, 1), pages: mapped{look: make(chan struct{}, 1)}}
	if fresh, err = s.init(); err != nil {
		_ = db.Close()
		return nil, false, fmt.Errorf("open %s: %w", path, err)
	}
	s.wg.Go(s.commit)
	if !cfg.NoSync {
		s.wg.Go(s.keepSmall)
	}
	return s, fresh, nil
}

func (s *Store) init() (fresh bool, err error) {
	var first state
	err = s.db.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		fresh = meta == nil
		for _, name := range [][]byte{bucketMeta, bucketEpisodes, bucketLabels, bucketSettled, bucketHistory} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		if fresh {
			return tx.Bucket(bucketMeta).Put(keyFormat, binary.AppendUvarint(nil, format))
		}
		v, n := binary.Uvarint(meta.Get(keyFormat))
		if n <= 0 || v > format {
			return fmt.Errorf("format %d: %w", v, event.ErrNewer)
		}
		if b := meta.Get(keyState); b != nil {
			if err := readState(b, &first); err != nil {
				return err
			}
		}
		if v < format {
			return upgrade(tx)
		}
		return nil
	})
	if first.Counts == nil {
		first.Counts = map[string]int64{}
	}
	s.state.Store(&first)
	return fresh, err
}

// Close waits for the writes under way and closes the file. Safe to call twice.
func (s *Store) Close() (err error) {
	s.once.Do(func() {
		close(s.stop)
		s.wg.Wait()
		err = s.db.Close()
	})
	return err
}

// Failed yields the error of a commit that failed.
func (s *Store) Failed() <-chan error { return s.failed }

// Do runs fn in a write transaction and returns when it is durable. Calls that
// come while a commit is under way share the next one. An error of fn undoes
// the whole group, so fn returns one only when the store itself is broken.
func (s *Store) Do(ctx context.Context, fn func(event.Tx) error) error {
	o := &op{fn: fn, done: make(chan error, 1)}
	select {
	case s.ops <- o:
	case <-s.stop:
		return ErrFailed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-o.done:
		return err
	case <-s.ended:
	}
	select {
	case err := <-o.done:
		return err
	default: // it came too late to be looked at
		return ErrFailed
	}
}

// maxGroup bounds the writes of one commit.
const maxGroup = 1024

// A commit costs two fsyncs and a dozen pages, whatever is in it. Under load it
// pays to share it among more than those that came during the one before.
const (
	// company is how many writes a commit waits for at the most.
	company = 48
	// crowded is how many the one before must have had for it to wait at all.
	crowded = 8
	// patience is how long it waits at the most.
	patience = 500 * time.Microsecond
)

func (s *Store) commit() {
	defer close(s.ended)
	group := make([]*op, 0, maxGroup)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		crowd := len(group) >= crowded && !s.cfg.NoSync
		group = group[:0]
		select {
		case o := <-s.ops:
			group = append(group, o)
		case <-s.stop:
			return
		}
		timer.Reset(patience)
	gather:
		for len(group) < maxGroup {
			select {
			case o := <-s.ops:
				group = append(group, o)
				continue
			default:
			}
			if !crowd || len(group) >= company {
				break
			}
			select {
			case o := <-s.ops:
				group = append(group, o)
			case <-timer.C:
				break gather
			case <-s.stop:
				break gather
			}
		}
		err := s.Alone(func(tx event.Tx) error {
			for _, o := range group {
				if err := o.fn(tx); err != nil {
					return err
				}
			}
			return nil
		})
		for _, o := range group {
			o.done <- err
		}
	}
}

// Alone runs fn in a write transaction of its own, durable when it returns nil.
// The splitter publishes to the events stream inside: if that fails, nothing
// here has happened either; if we die between the publish and the commit, the
// next start finds the events in the stream and applies them.
func (s *Store) Alone(fn func(event.Tx) error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.broken.Load() {
		return ErrFailed
	}
	fnFailed := false
	var next state
	var began time.Time // of the commit
	err := s.db.Update(func(btx *bbolt.Tx) error {
		t := &tx{tx: btx, state: s.state.Load().clone(), open: s.open, opens: func(o openEpisodes) { s.open = o }, pages: &s.pages}
		err := fn(t)
		if err = cmp.Or(err, t.bad); err != nil {
			fnFailed = true
			return err
		}
		if err := t.saveHistory(); err != nil {
			return err
		}
		next, began = t.state, time.Now()
		if !t.dirty {
			return nil
		}
		b, err := json.Marshal(next)
		if err != nil {
			return err
		}
		return btx.Bucket(bucketMeta).Put(keyState, seal(keyState, b))
	})
	if err == nil {
		s.state.Store(&next)
		s.changes.Add(1)
		if s.cfg.Committed != nil {
			s.cfg.Committed(time.Since(began))
		}
		return nil
	}
	s.open = nil // it may hold what did not happen
	if err = s.notice(err); !fnFailed {
		s.broken.Store(true)
		err = fmt.Errorf("%w: commit: %w", ErrFailed, err)
		select {
		case s.failed <- err:
		default:
		}
	}
	return err
}

// Changes counts the commits since Open: when it stands still, so does the rest.
func (s *Store) Changes() uint64 { return s.changes.Load() }

// View runs fn in a read transaction, beside writes.
func (s *Store) View(fn func(event.Tx) error) error {
	err := s.db.View(func(btx *bbolt.Tx) error {
		t := &tx{tx: btx, pages: &s.pages}
		if b := btx.Bucket(bucketMeta).Get(keyState); b != nil {
			if err := readState(b, &t.state); err != nil {
				return err
			}
		}
		err := fn(t)
		return cmp.Or(err, t.bad)
	})
	return s.notice(err)
}

func readState(sealed []byte, into *state) error {
	b, err := unseal(keyState, sealed)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

// notice tells the owner of damage that a reader found: opening the file again
// finds all of it, and moves it aside.
func (s *Store) notice(err error) error {
	if errors.Is(err, event.ErrDamaged) {
		select {
		case s.failed <- err:
		default:
		}
	}
	return err
}

// Summary is the small state shown to operators.
type Summary struct {
	Progress event.Progress
	Floor    uint64
	Circuit  event.Circuit
	Counts   map[string]int64
	Heard    map[string]time.Time
}

// Summary is the small state as it was last committed. It waits for nobody.
func (s *Store) Summary() Summary { return Summary(s.state.Load().clone()) }
