package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"pmm-callgoose/store/event"
	"pmm-callgoose/store/faultpoint"
)

// Errors a caller must branch on.
var (
	// ErrLocked: another process holds the data directory.
	ErrLocked = errors.New("another pmm-callgoose is using this data directory")
	// ErrNotFound: there is no such record.
	ErrNotFound = errors.New("not found")
	// ErrOther: the ledger is a copy of a log and should not be, or the other way round.
	ErrOther = errors.New("this data directory was used the other way: with --nats-url, or without it; name another one, or an empty one")
	// ErrFailed: a commit failed, or the store is closed.
	ErrFailed = errors.New("the ledger is not available")
)

// format is the version of the file. A newer one is refused.
const format = 1

// FileName is the ledger's file in the data directory.
const FileName = "ledger.db"

var (
	bucketMeta     = []byte("meta")
	bucketEpisodes = []byte("episodes")
	bucketLabels   = []byte("labels")
	bucketQueue    = []byte("queue")
	bucketHistory  = []byte("history")
	bucketActs     = []byte("acts")
	keyFormat      = []byte("format")
	keyState       = []byte("state")
)

// buckets are those that always exist.
var buckets = [][]byte{bucketMeta, bucketEpisodes, bucketLabels, bucketQueue, bucketHistory, bucketActs, bucketTold, bucketStorms, bucketFirsts}

// Store is an open ledger. All methods are safe concurrently.
type Store struct {
	cfg    Config
	db     *bbolt.DB
	ops    chan *op // that are due at once
	soon   chan *op // the others
	stop   chan struct{}
	ended  chan struct{} // closed when commit has ended
	once   sync.Once
	failed chan error
	// changes counts commits.
	changes atomic.Uint64
	// state is what was committed last, also for those who must not wait for the
	// disk. What it points to is never changed.
	state atomic.Pointer[Summary]
	// broken is set when a commit failed: what the file then says may not be what it
	// will say after the next start. Only opening it again tells. Owned by commit.
	broken   bool
	unsynced bool           // commits do not wait for the disk; see stopped
	syncing  sync.WaitGroup // keepSynced
	torn     error          // why the disk may not have it all; owned by keepSynced, then by Close
	names    names          // nil = not made yet; owned by commit
	// Of a shared ledger, owned by commit: where writes are kept, nil while another
	// instance leads, and the parts that were read of a transaction.
	log   Log
	parts [][]byte
}

// Summary is the small state: what the meta bucket holds under "state", written with every
// commit that changed it.
type Summary struct {
	Progress event.Position   `json:"progress"`
	Rebuild  *Rebuild         `json:"rebuild,omitempty"`
	Pause    *Pause           `json:"pause,omitempty"`
	Forms    []string         `json:"forms,omitempty"` // of bodies, see Tx.FormOf
	Counts   map[string]int64 `json:"counts"`
	// Heard is when each PMM server was last heard of, by source.
	Heard map[string]time.Time `json:"heard,omitempty"`
}

// Rebuild is what is known while a lost ledger is made again.
type Rebuild struct {
	Mark  event.Mark `json:"mark"`  // what was settled
	Until uint64     `json:"until"` // newest sequence of NOTIFICATIONS when it began
}

// Pause is delivery held by hand.
type Pause struct {
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"` // zero = until it is resumed
	Reason string    `json:"reason"`
	By     string    `json:"by"`
}

func (s Summary) clone() Summary {
	c := s
	c.Counts = make(map[string]int64, len(s.Counts))
	maps.Copy(c.Counts, s.Counts)
	c.Heard = make(map[string]time.Time, len(s.Heard))
	maps.Copy(c.Heard, s.Heard)
	return c
}

// op is a write that waits for a commit, until due.
type op struct {
	fn     func(*Tx)
	change func() error // in place of fn: alone, outside of any transaction
	due    time.Time    // zero = at once
	done   chan error
}

// Config says where the ledger lives.
type Config struct {
	Dir string // data directory; made when it is not there
	// NoSync switches fsync off. Only for tests in which nobody pulls the plug.
	NoSync bool
	// Shared: the file is a copy of what a log holds; see Lead and Apply.
	Shared bool
	// Committed is told how long the disk took for each commit. May be nil.
	Committed func(time.Duration)
	// Logger is told when a damaged file is moved aside. nil = nobody.
	Logger *slog.Logger
}

// Open opens the ledger in its directory, and makes it when it is not there. The
// caller holds the directory's Lock. fresh says that it was made: the worker then
// rebuilds it from NOTIFICATIONS. A file that is damaged is moved aside first, to
// ledger.db.damaged-TIME.
func Open(cfg Config) (s *Store, fresh bool, err error) {
	path := filepath.Join(cfg.Dir, FileName)
	if err = cfg.stopped(); err == nil {
		err = cfg.check()
	}
	if err != nil {
		return nil, false, err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: time.Second, FreelistType: bbolt.FreelistMapType, NoFreelistSync: true, NoSync: cfg.NoSync,
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, false, fmt.Errorf("%w: %s", ErrLocked, cfg.Dir)
	case err != nil:
		return nil, false, fmt.Errorf("open the ledger in %s: %w", cfg.Dir, err)
	}
	s = &Store{cfg: cfg, db: db, ops: make(chan *op, 1024), soon: make(chan *op, 1024), stop: make(chan struct{}), ended: make(chan struct{}), failed: make(chan error, 1)}
	if fresh, err = s.init(); err == nil {
		err = SyncDir(cfg.Dir) // the file's name, too
	}
	if err == nil {
		s.unsynced, err = cfg.unsynced()
	}
	if err != nil {
		_ = db.Close()
		return nil, false, fmt.Errorf("open %s: %w", path, err)
	}
	if s.unsynced {
		db.NoSync = true
		s.syncing.Go(s.keepSynced)
	}
	go s.commit()
	return s, fresh, nil
}

// SyncDir makes the names in a directory durable: some file systems (ext2, NFS)
// do not do it with the files' own fsync.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}

func (s *Store) init() (fresh bool, err error) {
	var first Summary
	err = s.db.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if fresh = meta == nil; !fresh {
			v, n := binary.Uvarint(meta.Get(keyFormat))
			if n <= 0 || v > format {
				return fmt.Errorf("format %d: %w", v, event.ErrNewer)
			}
			seq, err := readLogSeq(tx)
			if err == nil {
				first, err = readState(tx)
			}
			if err != nil {
				return err
			}
			if s.cfg.Shared != (seq > 0) && !(s.cfg.Shared && first.Progress.IsZero()) {
				return ErrOther
			}
		}
		for _, name := range buckets { // one that is older may lack some
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketMeta).Put(keyFormat, binary.AppendUvarint(nil, format))
	})
	first = first.clone()
	s.state.Store(&first)
	return fresh, err
}

// Close waits for the writes under way and closes the file. Safe to call twice.
func (s *Store) Close() (err error) {
	s.once.Do(func() {
		close(s.stop)
		<-s.ended
		s.syncing.Wait()
		if s.unsynced {
			err = s.sync()
		}
		err = errors.Join(err, s.db.Close())
		if s.unsynced && err == nil {
			err = s.cfg.synced()
		}
	})
	return err
}

// Failed yields the error of a commit that failed.
func (s *Store) Failed() <-chan error { return s.failed }

// soon is how long a write of Soon may wait for others.
const soon = 20 * time.Millisecond

// Do runs fn in a write transaction and returns when it is durable. Calls that
// come while a commit is under way share the next one. When a function of the
// group fails its transaction nothing of it happens, and the others are run again
// without it: fn may run more than once, and must begin anew each time.
func (s *Store) Do(ctx context.Context, fn func(*Tx)) error {
	return s.do(ctx, &op{fn: fn})
}

// Soon is Do for a write that nobody waits for behind it: it may wait 20 ms for
// others to share a commit with.
func (s *Store) Soon(ctx context.Context, fn func(*Tx)) error {
	return s.do(ctx, &op{fn: fn, due: time.Now().Add(soon)})
}

func (s *Store) do(ctx context.Context, o *op) error {
	o.done = make(chan error, 1)
	to := s.ops
	if !o.due.IsZero() {
		to = s.soon
	}
	select {
	case to <- o:
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

func (s *Store) commit() {
	defer close(s.ended)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	group := make([]*op, 0, maxGroup)
	for {
		clear(group) // a function may hold what is large
		if group = s.gather(group[:0], timer); len(group) == 0 {
			return
		}
		for rest := group; len(rest) > 0; { // what changes the Store itself goes alone, in its turn
			n := slices.IndexFunc(rest, func(o *op) bool { return o.change != nil })
			switch n {
			case 0:
				rest[0].done <- s.notice(rest[0].change())
				rest = rest[1:]
				continue
			case -1:
				n = len(rest)
			}
			s.run(rest[:n])
			rest = rest[n:]
		}
	}
}

// gather waits for a write and takes all that wait with it: those that come meanwhile
// wake nobody. A write of Soon waits for one of Do until it is due. None at a stop.
func (s *Store) gather(group []*op, timer *time.Timer) []*op {
	select {
	case o := <-s.ops:
		group = append(group, o)
	case o := <-s.soon:
		group = append(group, o)
		timer.Reset(time.Until(o.due))
		select {
		case o := <-s.ops:
			group = append(group, o)
		case <-timer.C:
		case <-s.stop:
		}
	case <-s.stop:
		return group
	}
	for len(group) < maxGroup {
		select {
		case o := <-s.ops:
			group = append(group, o)
		case o := <-s.soon:
			group = append(group, o)
		default:
			return group
		}
	}
	return group
}

// run commits the group, and its functions one by one when one of them fails.
func (s *Store) run(group []*op) {
	err := s.transact(group)
	if err != nil && !errors.Is(err, ErrFailed) && !errors.Is(err, ErrFollowing) && len(group) > 1 {
		for i := range group {
			s.run(group[i : i+1])
		}
		return
	}
	for _, o := range group {
		o.done <- err
	}
}

// transact is one transaction. ErrFailed when what is on disk is not known any more.
func (s *Store) transact(group []*op) error {
	if s.broken {
		return ErrFailed
	}
	var recorded *ops
	if s.cfg.Shared {
		if s.log == nil {
			return ErrFollowing
		}
		recorded = &ops{}
	}
	fnFailed := false
	var next Summary
	var began time.Time // of the commit
	err := s.db.Update(func(btx *bbolt.Tx) error {
		t := &Tx{tx: btx, write: true, state: s.state.Load().clone(), names: s.names, ops: recorded}
		for _, o := range group {
			if o.fn(t); t.err != nil {
				fnFailed = true
				return t.err
			}
		}
		t.saveSums()
		next, began, s.names = t.state, time.Now(), t.names
		if t.dirty {
			t.putJSON(bucketMeta, keyState, t.state)
		}
		if t.err != nil {
			return t.err
		}
		return s.append(btx, recorded)
	})
	if err == nil {
		faultpoint.Here("log-committed")
		s.state.Store(&next)
		s.changes.Add(1)
		if s.cfg.Committed != nil {
			s.cfg.Committed(time.Since(began))
		}
		return nil
	}
	s.names = nil // it may hold what did not happen
	if err = s.notice(err); !fnFailed && !errors.Is(err, ErrFollowing) {
		s.broken = true
		err = fmt.Errorf("%w: commit: %w", ErrFailed, err)
		s.fail(err)
	}
	return err
}

func (s *Store) fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

// Changes counts the commits since Open: when it stands still, so does the rest.
func (s *Store) Changes() uint64 { return s.changes.Load() }

// View runs fn in a read transaction, beside writes.
func (s *Store) View(fn func(*Tx)) error {
	return s.notice(s.db.View(func(btx *bbolt.Tx) error {
		t := &Tx{tx: btx}
		fn(t)
		return t.err
	}))
}

func readState(tx *bbolt.Tx) (Summary, error) {
	t := &Tx{tx: tx}
	return *t.small(), t.err
}

// notice tells the owner of damage that a reader found: opening the file again
// finds all of it, and moves it aside.
func (s *Store) notice(err error) error {
	if errors.Is(err, event.ErrDamaged) {
		s.fail(err)
	}
	return err
}

// Summary is the small state as it was last committed. It waits for nobody.
func (s *Store) Summary() Summary { return s.state.Load().clone() }
