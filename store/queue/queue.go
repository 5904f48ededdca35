package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"pmm-callgoose/store/event"
	"pmm-callgoose/store/faultpoint"
	"pmm-callgoose/store/queue/blocks"
)

// Errors a caller must branch on.
var (
	// ErrFull: what is not settled fills the store, or the disk is nearly full.
	ErrFull = errors.New("the store is full")
	// ErrUnavailable: the queue cannot say that it stored something. What was
	// being published may or may not be stored.
	ErrUnavailable = errors.New("the queue is not available")
	// ErrTooLarge: the notification does not fit into the largest message. Nothing
	// else is wrong.
	ErrTooLarge = errors.New("the notification is too large for the store")
	// ErrShort: an external stream does not hold what is known to have been there.
	ErrShort = errors.New("a stream lost messages")
	// ErrLeft: what the external streams hold was brought to one forwarder.
	ErrLeft = errors.New("pmm-callgoose cluster leave brought all of it to one forwarder")
)

// Config says where the queue lives. Dir or URL is required.
type Config struct {
	Dir string // data directory; the embedded server keeps its files in Dir/jetstream
	URL string // external NATS, several servers separated by commas; empty = embedded
	// Creds returns a NATS user's credentials (the text of a .creds file) or the seed
	// of an nkey, User returns user:password or a token. They are asked at each
	// connection; nil = that is not the way to log in. CAFile, CertFile and KeyFile are
	// PEM files; any of them demands TLS. All of them only with URL.
	Creds, User               func() string
	CAFile, CertFile, KeyFile string
	// Name stands before the names of streams and subjects, for several groups of
	// instances on the same servers. Instance is the name of this one, for operators.
	Name, Instance string
	// Version and Settings are what the instances tell each other: a short hash of each
	// setting that must be the same on all of them, by its name.
	Version  string
	Settings map[string]string
	// Observer counts what is stored, and what is done on external servers. May be nil.
	Observer Observer
	// TakeOverAfter is how long nothing may be heard of the leader. 0 = 13s.
	TakeOverAfter time.Duration
	// Replicas is how many servers of an external cluster keep the stream, 0 = 3,
	// or 1 where the server is no cluster. A stream that has more keeps them.
	Replicas int
	// Monitor are the monitoring URLs of the external servers. Only they say whether
	// a server syncs each write; without them that is not known.
	Monitor []string
	// MaxStore is how many bytes the stream may hold, 0 = 2 GiB.
	MaxStore int64
	// MinFree is how much disk must stay free, bytes, 0 = no check.
	MinFree int64
	// After is the highest sequence the ledger knows: a stream that lost its end
	// goes on behind it, because a sequence must never be used twice.
	After uint64
	// AcceptLoss names an external stream whose loss a person accepts, "" = none.
	AcceptLoss string
	// NoSync switches fsync off. Only for tests that prove that it matters.
	NoSync bool
	Logger *slog.Logger

	// ShortFor is how long an external stream may look shorter than it is; 0 = a minute.
	ShortFor time.Duration

	replaced func(error) // is told that the credentials of now need another connection
}

// Observer is told what becomes of the streams. It must be safe concurrently.
type Observer interface {
	IntakeCommit(d time.Duration, notifications int) // so many were stored at once, after d
	TookOver()                                       // this instance leads from now on
	Appended(d time.Duration)                        // an entry of the ledger's log was acknowledged
	StaleRead()                                      // the servers did not find a message that they hold
}

type nobody struct{}

func (nobody) IntakeCommit(time.Duration, int) {}
func (nobody) TookOver()                       {}
func (nobody) Appended(time.Duration)          {}
func (nobody) StaleRead()                      {}

// Sizes, bytes. JetStream takes records of up to 32 MiB, and at a start throws
// away what is larger.
const (
	maxMessage = 31 << 20
	maxSource  = 16 // bytes
	// overhead is what an envelope may need beside its notifications at most.
	overhead = 128 << 10
)

// Names on disk. Fixed for ever.
const (
	streamName = "NOTIFICATIONS"
	subject    = "notifications.in"
)

const publishTimeout = 5 * time.Second

// Queue holds the stream.
type Queue struct {
	cfg     Config
	srv     *server.Server // nil when external
	nc      *nats.Conn
	js      jetstream.JetStream
	stream  jetstream.Stream
	largest int // notification that fits into a message, bytes
	gather  int // bytes of notifications in one commit at most

	publish chan *publishing
	stop    chan struct{}
	ended   chan struct{} // closed when the committer has ended
	turn    chan struct{} // the committer hands one out when it is free and somebody waits
	wg      sync.WaitGroup
	once    sync.Once

	mark    atomic.Pointer[[]byte] // what encodeMark made of the newest one
	marked  atomic.Uint64          // up to where it says that all is settled: the stream held that
	first   atomic.Uint64          // oldest sequence that can be stored; below it all is gone for certain
	last    atomic.Uint64          // newest sequence; moved by the committer
	damaged uint64                 // lowest sequence that was damaged when it was opened, 0 = none
	opened  atomic.Bool            // from then on only the committer moves last
	wake    chan struct{}          // has an element when last moved
	failed  chan error             // has an element when the store can no longer be trusted

	denied atomic.Pointer[error]  // the permission that was found missing last; external
	said   atomic.Pointer[said]   // of what the servers say unasked; external
	sync   atomic.Pointer[string] // see Servers; external
	seen   atomic.Int64           // when the servers last answered, Unix nanoseconds; external
	lost   string                 // see Lost; external
	own    own                    // external only, like the next
	recent recent

	room room
	disk disk
	dirs directories // owned by the committer
}

// Open starts the embedded server or connects to the external one, and makes
// sure that the stream is there. The caller holds the lock on the data
// directory: JetStream itself has none. ErrUnavailable when it is worth trying
// again; ErrUnfit, ErrShort and event.ErrNewer need a person.
func Open(ctx context.Context, cfg Config) (*Queue, error) {
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	cfg.MaxStore, cfg.ShortFor = cmp.Or(cfg.MaxStore, 2<<30), cmp.Or(cfg.ShortFor, shortFor)
	cfg.Observer = cmp.Or(cfg.Observer, Observer(nobody{}))
	q := &Queue{
		cfg:     cfg,
		publish: make(chan *publishing, 1024),
		stop:    make(chan struct{}),
		ended:   make(chan struct{}),
		turn:    make(chan struct{}),
		wake:    make(chan struct{}, 1),
		failed:  make(chan error, 1),
	}
	q.room.refused, q.recent.held, q.disk.asking = make(chan struct{}, 1), map[uint64][]byte{}, make(chan struct{}, 1)
	if err := q.open(ctx); err != nil {
		_ = q.Close()
		return nil, err
	}
	q.wg.Go(q.commit)
	if q.srv != nil {
		q.wg.Go(q.watchRoom)
	} else {
		q.wg.Go(q.watchServers)
		q.wg.Go(q.watchStreams)
	}
	return q, nil
}

func (q *Queue) open(ctx context.Context) (err error) {
	if q.cfg.URL == "" {
		err = q.openEmbedded(ctx)
	} else {
		err = q.openExternal(ctx)
	}
	if err != nil {
		return err
	}
	q.largest = min(maxMessage, int(q.nc.MaxPayload())) - overhead
	q.gather = min(gatherBytes, q.largest)
	mark, err := q.NewestMark(ctx)
	if err != nil { // of a newer format, or the store is failing
		return err
	}
	q.SetMark(mark)
	if last, after := q.last.Load(), q.cfg.After; last < after { // embedded: an external stream that is short was not opened
		q.cfg.Logger.ErrorContext(ctx, "the stream ends before what the ledger knows; messages are gone",
			"component", "queue", "stream", streamName, "seq", last, "expected", after, "count", after-last)
		if err := q.goOnBehind(ctx, after, new(encoder).encode(*q.mark.Load(), nil)); err != nil {
			return err
		}
	}
	q.opened.Store(true)
	return q.measure(ctx)
}

// files is the stream as the embedded server keeps it on disk.
func files(dir string) blocks.Stream {
	return blocks.Stream{DataDir: dir, Name: streamName, Subject: subject, Salvage: salvage}
}

func (q *Queue) openEmbedded(ctx context.Context) (err error) {
	if q.damaged, err = files(q.cfg.Dir).Repair(q.cfg.Logger); err != nil {
		return err
	}
	if q.srv, err = startServer(q.cfg); err != nil {
		return err
	}
	if err := q.connect(nats.InProcessServer(q.srv)); err != nil {
		return err
	}
	cfg := streamConfig()
	cfg.AllowDirect = true
	if q.stream, err = q.js.CreateOrUpdateStream(ctx, cfg); err != nil {
		return fmt.Errorf("declare stream %s: %w", streamName, err)
	}
	if _, err := q.state(ctx); err != nil {
		return err
	}
	if q.cfg.NoSync || faultpoint.Without("fsync") {
		return nil
	}
	q.dirs.msgs = files(q.cfg.Dir).Messages()
	return syncTree(q.cfg.Dir, false)
}

func streamConfig() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: streamName, Subjects: []string{subject}, Description: "pmm-callgoose: notifications as accepted",
		Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew,
		Duplicates: 2 * time.Minute, DenyDelete: true,
	}
}

// state asks the server for the stream's state, and remembers its ends.
func (q *Queue) state(ctx context.Context) (jetstream.StreamState, error) {
	info, err := q.stream.Info(ctx)
	if err != nil {
		return jetstream.StreamState{}, fmt.Errorf("%w: read stream %s: %w", ErrUnavailable, streamName, err)
	}
	q.seen.Store(time.Now().UnixNano())
	if s := info.State; s.LastSeq >= q.last.Load() { // else an answer of one that lags behind
		raise(&q.first, max(s.FirstSeq, 1)) // a stream that was never written to says 0
		if !q.opened.Load() {
			q.last.Store(s.LastSeq)
		}
	}
	return info.State, nil
}

// raise moves v up to n. It never goes back.
func raise(v *atomic.Uint64, n uint64) {
	for {
		if old := v.Load(); n <= old || v.CompareAndSwap(old, n) {
			return
		}
	}
}

// Close stops the committer, the connection and the embedded server. What was
// acknowledged is on disk already. It is safe to call twice.
func (q *Queue) Close() error {
	q.once.Do(func() {
		close(q.stop)
		q.wg.Wait()
		if q.nc != nil {
			q.nc.Close()
		}
		stopServer(q.srv)
	})
	return nil
}

// Alive returns nil once the committer is free to take a notification, an error
// when ctx ends before that.
func (q *Queue) Alive(ctx context.Context) error {
	select {
	case <-q.turn:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Failed yields an error when the store can no longer be trusted: the owner
// closes the queue and opens it again.
func (q *Queue) Failed() <-chan error { return q.failed }

func (q *Queue) fail(err error) {
	select {
	case q.failed <- err:
	default:
	}
}

// Wake yields when something was stored.
func (q *Queue) Wake() <-chan struct{} { return q.wake }

// Last is the newest sequence.
func (q *Queue) Last() uint64 { return q.last.Load() }

// SetMark says what envelopes written from now on carry. The mark is not kept.
func (q *Queue) SetMark(m event.Mark) {
	b := encodeMark(m)
	q.mark.Store(&b)
	raise(&q.marked, m.UpTo.Seq)
}
