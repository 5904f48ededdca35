package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"pmm-callgoose/store/event"
	"pmm-callgoose/store/faultpoint"
)

// How long external servers are waited for.
const (
	// storeWithin is how long a publish is tried: PMM's Grafana gives up after 10 s,
	// and an election inside NATS takes 4 to 9 s.
	storeWithin = 8 * time.Second
	tryWithin   = 2 * time.Second // one publish
	tryAfter    = 100 * time.Millisecond
	// declareWithin is how long a cluster may take to know a stream.
	declareWithin = 30 * time.Second
	// shortFor is how long a stream may look shorter than it is.
	shortFor   = time.Minute
	readWithin = 3 * time.Second
	goneAfter  = 6 // reads that say "not found"
	// answerWithin is how long another process may take to say that it is there.
	answerWithin = time.Second
)

func (q *Queue) openExternal(ctx context.Context) error {
	login, err := q.credentials()
	if err != nil {
		return err
	}
	// A server that is frozen is noticed after three seconds, not after four minutes.
	opts := append(login, nats.PingInterval(time.Second), nats.MaxPingsOutstanding(2), nats.Timeout(2*time.Second), nats.ReconnectWait(tryAfter))
	if err := q.connect(opts...); err != nil {
		return err
	}
	if err := q.claim(ctx); err != nil {
		return err
	}
	if err := q.declare(ctx); err != nil {
		return err
	}
	return q.waitFor(ctx, q.cfg.After)
}

// waitFor waits until the stream reaches after. A server that came back with an
// empty disk may answer that the stream is empty, and does not know better for a
// while. Nothing is purged or filled on account of that.
func (q *Queue) waitFor(ctx context.Context, after uint64) error {
	ctx, cancel := context.WithTimeout(ctx, shortFor)
	defer cancel()
	for {
		_, err := q.state(ctx)
		if err == nil && q.last.Load() >= after {
			return nil
		}
		if !sleep(ctx, q.stop, 5*tryAfter) {
			if err != nil {
				return err
			}
			return fmt.Errorf("%w: %s ends at %d, the ledger knows %d: if the stream was lost, move the data directory aside and start anew",
				ErrShort, streamName, q.last.Load(), after)
		}
	}
}

// sleep waits for d; false when ctx or stop ended it.
func sleep(ctx context.Context, stop <-chan struct{}, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
	case <-stop:
	}
	return false
}

// credentials are the options to log in with.
func (q *Queue) credentials() (opts []nats.Option, err error) {
	if file := q.cfg.CredsFile; file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("nats credentials: %w", err)
		}
		opt := nats.UserCredentials(file)
		if !bytes.Contains(text, []byte("-----BEGIN")) {
			if opt, err = nats.NkeyOptionFromSeed(file); err != nil {
				return nil, fmt.Errorf("nats credentials %s: neither a .creds file nor the seed of an nkey: %w", file, err)
			}
		}
		opts = append(opts, opt)
	}
	if q.cfg.CAFile != "" {
		opts = append(opts, nats.RootCAs(q.cfg.CAFile))
	}
	if q.cfg.CertFile != "" || q.cfg.KeyFile != "" {
		opts = append(opts, nats.ClientCert(q.cfg.CertFile, q.cfg.KeyFile))
	}
	return opts, nil
}

// instances is where processes ask each other who writes to the stream.
const instances = "pmm-callgoose.instances"

// The states of a claim.
const (
	claiming = iota
	claimed
	yielded
)

// claim makes sure that no other process has the stream open. Of those that open
// it at the same time the one with the lowest name goes on: each pair hears of
// each other, because both listen before they ask.
func (q *Queue) claim(ctx context.Context) error {
	run, state := nuid.Next(), new(atomic.Int32)
	_, err := q.nc.Subscribe(instances, func(m *nats.Msg) {
		asking := string(m.Data)
		if asking < run {
			state.CompareAndSwap(claiming, yielded)
		}
		if asking > run || asking < run && state.Load() == claimed {
			_ = m.Respond([]byte(run))
		}
	})
	if err != nil {
		return fmt.Errorf("%w: subscribe to %s: %w", ErrUnavailable, instances, err)
	}
	answers, err := q.nc.SubscribeSync(nats.NewInbox())
	if err == nil {
		err = q.nc.PublishRequest(instances, answers.Subject, []byte(run))
	}
	if err != nil {
		return fmt.Errorf("%w: ask for other instances: %w", ErrUnavailable, err)
	}
	defer func() { _ = answers.Unsubscribe() }()
	within, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	_, err = answers.NextMsgWithContext(within)
	switch {
	case err == nil:
		return ErrSecond
	case ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: ask for other instances: %w", ErrUnavailable, err)
	case !state.CompareAndSwap(claiming, claimed):
		return ErrSecond
	}
	return nil
}

// declare creates the stream, or adapts the one that is there. Servers that have
// just started, or elect, do not know streams yet.
func (q *Queue) declare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, declareWithin)
	defer cancel()
	for {
		err := q.declareOnce(ctx)
		if err == nil {
			return nil
		}
		if refused, ok := errors.AsType[*jetstream.APIError](err); errors.Is(err, errUnfit) || ok && !slices.Contains([]int{404, 409, 503}, refused.Code) {
			return fmt.Errorf("declare stream %s: %w", streamName, err)
		}
		if !sleep(ctx, q.stop, 5*tryAfter) {
			return fmt.Errorf("%w: declare stream %s: %w", ErrUnavailable, streamName, err)
		}
	}
}

// errUnfit says that the stream would lose what was accepted.
var errUnfit = errors.New("the stream that is there does not keep what it is given")

func (q *Queue) declareOnce(ctx context.Context) error {
	replicas := q.cfg.Replicas
	if replicas == 0 {
		replicas = 1
		if q.nc.ConnectedClusterName() != "" {
			replicas = 3
		}
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	s, err := q.js.Stream(ctx, streamName)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		cfg := streamConfig()
		cfg.Replicas, cfg.AllowDirect = replicas, faultpoint.StaleReads()
		q.stream, err = q.js.CreateStream(ctx, cfg)
		return err
	}
	if err != nil {
		return err
	}
	have := s.CachedInfo().Config
	if have.Retention != jetstream.LimitsPolicy || have.Storage != jetstream.FileStorage || have.Sealed || !slices.Contains(have.Subjects, subject) ||
		have.MaxAge > 0 || have.MaxMsgs > 0 || have.MaxMsgsPerSubject > 0 {
		return fmt.Errorf("%w: it must be a file stream of %s with limits retention and without max-age, max-msgs and max-msgs-per-subject", errUnfit, subject)
	}
	q.stream = s
	want := have
	want.AllowDirect = faultpoint.StaleReads() // answered by replicas that lag behind
	want.Discard = jetstream.DiscardNew
	want.Replicas = max(have.Replicas, replicas)
	if want.AllowDirect != have.AllowDirect || want.Discard != have.Discard || want.Replicas != have.Replicas {
		q.stream, err = q.js.UpdateStream(ctx, want)
	}
	return err
}

// storeExternal publishes an envelope behind the newest sequence. It tries again
// with the same id, which the server stores once.
func (q *Queue) storeExternal(message []byte) (uint64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), storeWithin)
	defer cancel()
	last := q.last.Load()
	m := nats.NewMsg(subject)
	m.Data = message
	id := nuid.Next()
	for {
		try, done := context.WithTimeout(ctx, tryWithin)
		ack, err := q.js.PublishMsg(try, m, jetstream.WithMsgID(id), jetstream.WithExpectLastSequence(last), jetstream.WithRetryAttempts(0))
		done()
		if err == nil {
			return ack.Sequence, nil
		}
		refused, ok := errors.AsType[*jetstream.APIError](err)
		switch {
		case ok && refused.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence:
			return q.landed(ctx, last+1, id)
		case ok && refused.Code != 503 && refused.Code != 409: // 409: that id is under way
			return 0, err
		}
		if !sleep(ctx, q.stop, tryAfter) {
			return 0, err
		}
	}
}

// landed returns seq if the message there is the one published with id: its
// acknowledgement was lost.
func (q *Queue) landed(ctx context.Context, seq uint64, id string) (uint64, error) {
	for {
		m, err := q.stream.GetMsg(ctx, seq)
		switch {
		case err == nil && m.Header.Get(jetstream.MsgIDHeader) == id:
			return seq, nil
		case err == nil:
			return 0, fmt.Errorf("somebody else stored %d", seq)
		case !sleep(ctx, q.stop, tryAfter):
			return 0, fmt.Errorf("what was stored at %d cannot be read: %w", seq, err)
		}
	}
}

// getAgain reads a message that was said not to be found. Also the leader of a
// stream may not know yet what was acknowledged.
func (q *Queue) getAgain(ctx context.Context, seq uint64) ([]byte, error) {
	if faultpoint.StaleReads() {
		return nil, event.ErrGone
	}
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	for missed := 1; ; {
		state, err := q.state(ctx)
		if err != nil {
			return nil, err
		}
		known := state.LastSeq >= max(seq, q.last.Load())
		if known && (seq < state.FirstSeq || missed >= goneAfter) {
			return nil, event.ErrGone
		}
		if !sleep(ctx, q.stop, tryAfter/2) {
			return nil, fmt.Errorf("%w: the servers do not know %d yet", ErrUnavailable, seq)
		}
		m, err := q.stream.GetMsg(ctx, seq)
		switch {
		case err == nil:
			return m.Data, nil
		case !errors.Is(err, jetstream.ErrMsgNotFound):
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		case known:
			missed++
		}
	}
}
