package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"pmm-callgoose/store/event"
)

// Errors a caller must branch on.
var (
	// ErrFull: what is not settled fills the store, or the disk is nearly full.
	ErrFull = errors.New("the store is full")
	// ErrUnavailable: the queue cannot say that it stored something. What was
	// being published may or may not be on disk.
	ErrUnavailable = errors.New("the queue is not available")
)

// Config says where the queue lives. Dir or URL is required.
type Config struct {
	Dir string // data directory; the embedded server keeps its files in Dir/jetstream
	URL string // external NATS; empty = embedded
	// CredsFile holds a NATS user's credentials (.creds) or the seed of an nkey. It
	// is read again at each connection. Only with URL.
	CredsFile string
	// MaxStore is how many bytes both streams may hold, 0 = 2 GiB.
	MaxStore int64
	// MinFree is how much disk must stay free, 0 = no check.
	MinFree int64
	// AfterNotification and AfterEvent are the highest sequences the ledger
	// knows: a stream that lost its end goes on behind them, because a sequence
	// must never be used twice.
	AfterNotification, AfterEvent uint64
	// NoSync switches fsync off. Only for tests that prove that it matters.
	NoSync bool
	Logger *slog.Logger
	// Synced is told how long each commit of notifications took and how many it
	// held. May be nil.
	Synced func(d time.Duration, notifications int)
}

// maxMessage is the largest message: a body of --max-body in its envelope, or an
// event, which may be larger than the alert it was made of. JetStream takes
// records of up to 32 MiB, and at a start throws away what is larger.
const maxMessage = 31 << 20

// Names on disk. Fixed for ever.
const (
	notifications  = "NOTIFICATIONS"
	events         = "EVENTS"
	deliverer      = "delivery"
	noteSubject    = "notifications.in"
	ackWait        = 50 * 365 * 24 * time.Hour // never: a message that came twice would come out of order
	maxAckPending  = 100_000
	publishTimeout = 5 * time.Second
)

// Queue holds both streams. See the package comment for who may call what.
type Queue struct {
	cfg   Config
	srv   *server.Server
	nc    *nats.Conn
	js    jetstream.JetStream
	notes jetstream.Stream
	evs   jetstream.Stream

	publish     chan *publishing
	publishings sync.Pool // used again, each once its caller has the answer
	stop        chan struct{}
	ended       chan struct{} // closed when the committer has ended
	turn        chan struct{} // the committer hands one out when it is free and somebody waits
	wg          sync.WaitGroup
	once        sync.Once

	lastNote  atomic.Uint64 // newest sequence in NOTIFICATIONS
	lastEvent atomic.Uint64 // newest sequence in EVENTS; moved by the caller of PublishEvents
	wake      chan struct{} // has an element when lastNote moved
	failed    chan error    // has an element when the store can no longer be trusted

	room room

	disk struct { // of legible
		sync.Mutex
		at  time.Time
		err error
	}
}

// Open starts the embedded server or connects to the external one, and makes
// sure that both streams are there. The caller holds the lock on the data
// directory: JetStream itself has none.
func Open(ctx context.Context, cfg Config) (*Queue, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxStore == 0 {
		cfg.MaxStore = 2 << 30
	}
	q := &Queue{
		cfg:     cfg,
		publish: make(chan *publishing, 1024),
		stop:    make(chan struct{}),
		ended:   make(chan struct{}),
		turn:    make(chan struct{}),
		wake:    make(chan struct{}, 1),
		failed:  make(chan error, 1),
	}
	if err := q.open(ctx); err != nil {
		_ = q.Close()
		return nil, err
	}
	q.wg.Go(q.commit)
	q.wg.Go(q.watchRoom)
	return q, nil
}

func (q *Queue) open(ctx context.Context) (err error) {
	if q.cfg.URL == "" {
		if err := mend(q.cfg.Dir, q.cfg.Logger); err != nil {
			return err
		}
		if q.srv, err = startServer(q.cfg); err != nil {
			return err
		}
	}
	if q.nc, err = connect(q.cfg, q.srv); err != nil {
		return err
	}
	if q.js, err = jetstream.New(q.nc, jetstream.WithPublishAsyncMaxPending(4096)); err != nil {
		return fmt.Errorf("open jetstream: %w", err)
	}
	q.notes, err = q.stream(ctx, jetstream.StreamConfig{
		Name: notifications, Subjects: []string{noteSubject},
		Description: "pmm-callgoose: notifications as accepted",
	}, q.cfg.AfterNotification)
	if err != nil {
		return err
	}
	evs := jetstream.StreamConfig{
		Name: events, Subjects: []string{"events.*.*"}, AllowAtomicPublish: true,
		Description: "pmm-callgoose: one message an event",
	}
	if q.srv != nil {
		// The server indexes the subjects of each block that it wrote or read, and
		// keeps that for two minutes at least: 100 bytes an event, with the key in it.
		evs.SubjectTransform = &jetstream.SubjectTransformConfig{
			Source: "events.*.*", Destination: "events.{{wildcard(1)}}",
		}
	}
	q.evs, err = q.stream(ctx, evs, q.cfg.AfterEvent)
	if err != nil {
		return err
	}
	q.lastNote.Store(q.notes.CachedInfo().State.LastSeq)
	q.lastEvent.Store(q.evs.CachedInfo().State.LastSeq)
	if err := q.checkFormat(ctx); err != nil {
		return err
	}
	return q.measure(ctx)
}

// checkFormat looks at the newest message of each stream. After a downgrade it
// is of a format that we do not know: said here, before anything is accepted
// that would then stand behind it for ever.
func (q *Queue) checkFormat(ctx context.Context) error {
	_, noteErr := q.Notifications(ctx, q.lastNote.Load())
	_, eventErr := q.Event(ctx, q.lastEvent.Load())
	for _, err := range []error{noteErr, eventErr} {
		if errors.Is(err, event.ErrNewer) {
			return err
		}
	}
	return nil // what is gone or damaged is the reader's matter
}

// stream declares a stream, and makes it go on behind after.
func (q *Queue) stream(ctx context.Context, cfg jetstream.StreamConfig, after uint64) (jetstream.Stream, error) {
	cfg.Storage = jetstream.FileStorage
	cfg.Retention = jetstream.LimitsPolicy
	cfg.Discard = jetstream.DiscardNew
	cfg.Duplicates = 2 * time.Minute
	cfg.AllowDirect = true
	cfg.DenyDelete = true
	s, err := q.js.CreateOrUpdateStream(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("declare stream %s: %w", cfg.Name, err)
	}
	info, err := s.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("read stream %s: %w", cfg.Name, err)
	}
	if info.State.LastSeq < after {
		q.cfg.Logger.ErrorContext(ctx, "stream ends before what the ledger knows; messages are gone",
			"component", "queue", "stream", cfg.Name, "seq", info.State.LastSeq, "expected", after, "count", after-info.State.LastSeq)
		if err := q.goBehind(ctx, s, info.State, after); err != nil {
			return nil, fmt.Errorf("move stream %s behind %d: %w", cfg.Name, after, err)
		}
		if info, err = s.Info(ctx); err != nil || info.State.LastSeq != after {
			return nil, fmt.Errorf("move stream %s behind %d: it ends at %d (%w)", cfg.Name, after, info.State.LastSeq, err)
		}
	}
	return s, nil
}

// goBehind makes a stream that lost its end go on behind after. What is left of
// it must stay, so the lost sequences are filled with messages that nobody can
// read: the reader of each is told that it is damaged. An empty stream is moved.
func (q *Queue) goBehind(ctx context.Context, s jetstream.Stream, state jetstream.StreamState, after uint64) error {
	if state.Msgs == 0 {
		return s.Purge(ctx, jetstream.WithPurgeSequence(after+1))
	}
	subject := noteSubject
	if s.CachedInfo().Config.Name == events {
		subject = "events.0.lost"
	}
	for seq := state.LastSeq; seq < after; seq++ {
		if _, err := q.js.Publish(ctx, subject, []byte{0, 0}, jetstream.WithExpectLastSequence(seq)); err != nil {
			return err
		}
	}
	return nil
}

// Close stops the committer, the connection and the embedded server. What was
// acknowledged is on disk already. It is safe to call twice.
func (q *Queue) Close() error {
	q.once.Do(func() {
		close(q.stop)
		q.wg.Wait()
		if q.nc != nil {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_ = q.nc.FlushWithContext(ctx) // acknowledgements under way
			cancel()
			q.nc.Close()
		}
		stopServer(q.srv)
	})
	return nil
}

// Alive returns nil once the committer is free to take a notification, an error
// when ctx ends before that. Safe concurrently.
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

// Wake yields when new notifications were stored.
func (q *Queue) Wake() <-chan struct{} { return q.wake }

// LastNotification is the newest sequence in NOTIFICATIONS.
func (q *Queue) LastNotification() uint64 { return q.lastNote.Load() }

// LastEvent is the newest sequence in EVENTS.
func (q *Queue) LastEvent() uint64 { return q.lastEvent.Load() }

// Notifications reads the envelope at seq. event.ErrGone when it is not stored,
// event.ErrDamaged when it cannot be read.
func (q *Queue) Notifications(ctx context.Context, seq uint64) ([]event.Notification, error) {
	data, err := q.get(ctx, q.notes, seq)
	if err != nil {
		return nil, fmt.Errorf("read notifications %d: %w", seq, err)
	}
	return decodeEnvelope(data)
}

// Event reads the message at seq. event.ErrGone when it is not stored.
func (q *Queue) Event(ctx context.Context, seq uint64) (*event.Event, error) {
	data, err := q.get(ctx, q.evs, seq)
	if err != nil {
		return nil, fmt.Errorf("read event %d: %w", seq, err)
	}
	return unpack(data, event.Decode)
}

func (q *Queue) get(ctx context.Context, s jetstream.Stream, seq uint64) ([]byte, error) {
	m, err := s.GetMsg(ctx, seq)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		if err := q.legible(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return nil, event.ErrGone
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return m.Data, nil
}

// legible reports whether the disk can be read. JetStream says "not found", too,
// of what a dying disk does not hand out: that is not gone, it may come back.
// Looked at once a second: the loss of many messages is asked for one by one.
func (q *Queue) legible() error {
	if q.srv == nil {
		return nil
	}
	q.disk.Lock()
	defer q.disk.Unlock()
	if time.Since(q.disk.at) < time.Second {
		return q.disk.err
	}
	q.disk.err = nil
	defer func() { q.disk.at = time.Now() }() // after it: reading may take longer than a second
	var buf []byte
	for _, stream := range []string{notifications, events} {
		msgs := filepath.Join(q.cfg.Dir, streamDir(stream), "msgs")
		blocks, err := blocksOf(msgs)
		q.disk.err = cmp.Or(q.disk.err, err)
		for _, n := range blocks {
			buf, err = readInto(buf, filepath.Join(msgs, strconv.Itoa(n)+".blk"))
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, io.ErrUnexpectedEOF) { // but a block that retention removes
				q.disk.err = cmp.Or(q.disk.err, err)
				break
			}
		}
	}
	return q.disk.err
}

// FirstNotification and FirstEvent are the oldest sequences still stored
// (one past the newest when there is none).
func (q *Queue) FirstNotification(ctx context.Context) (uint64, error) { return first(ctx, q.notes) }

// FirstEvent is the oldest sequence in EVENTS. See FirstNotification.
func (q *Queue) FirstEvent(ctx context.Context) (uint64, error) { return first(ctx, q.evs) }

func first(ctx context.Context, s jetstream.Stream) (uint64, error) {
	info, err := s.Info(ctx)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return max(info.State.FirstSeq, 1), nil // a stream that was never written to says 0
}
