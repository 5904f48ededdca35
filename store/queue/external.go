package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
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
	cfg := streamConfig()
	cfg.Name, cfg.Subjects = q.cfg.stream(streamName), []string{q.cfg.subject(subject), q.cfg.subject(subject) + ".*"}
	if q.stream, err = q.declare(ctx, cfg); err != nil {
		return err
	}
	q.own.run = nuid.Next()
	q.own.subject = q.cfg.subject(subject) + "." + q.own.run
	if err := q.waitFor(ctx, q.cfg.After); err != nil {
		return err
	}
	q.opened.Store(true)
	return q.readOn(ctx)
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

// declare creates the stream, or adapts the one that is there. Servers that have
// just started, or elect, do not know streams yet.
func (q *Queue) declare(ctx context.Context, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, declareWithin)
	defer cancel()
	for {
		stream, err := q.declareOnce(ctx, cfg)
		if err == nil {
			return stream, nil
		}
		if refused, ok := errors.AsType[*jetstream.APIError](err); errors.Is(err, errUnfit) || ok && !slices.Contains([]int{404, 409, 503}, refused.Code) {
			return nil, fmt.Errorf("declare stream %s: %w", cfg.Name, err)
		}
		if !sleep(ctx, q.stop, 5*tryAfter) {
			return nil, fmt.Errorf("%w: declare stream %s: %w", ErrUnavailable, cfg.Name, err)
		}
	}
}

// errUnfit says that the stream would lose what was accepted.
var errUnfit = errors.New("the stream that is there does not keep what it is given")

func (q *Queue) declareOnce(ctx context.Context, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	replicas := q.cfg.Replicas
	if replicas == 0 {
		replicas = 1
		if q.nc.ConnectedClusterName() != "" {
			replicas = 3
		}
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	s, err := q.js.Stream(ctx, cfg.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		cfg.Replicas = replicas
		return q.js.CreateStream(ctx, cfg)
	}
	if err != nil {
		return nil, err
	}
	have := s.CachedInfo().Config
	if have.Retention != jetstream.LimitsPolicy || have.Storage != jetstream.FileStorage || have.Sealed || !slices.Contains(have.Subjects, cfg.Subjects[0]) ||
		have.MaxAge > 0 || have.MaxMsgs > 0 || have.MaxMsgsPerSubject > 0 {
		return nil, fmt.Errorf("%w: it must be a file stream of %s with limits retention and without max-age, max-msgs and max-msgs-per-subject", errUnfit, cfg.Subjects[0])
	}
	want := have
	want.AllowDirect = false // answered by replicas that lag behind
	want.Discard = jetstream.DiscardNew
	want.Replicas = max(have.Replicas, replicas)
	want.Subjects = cfg.Subjects
	if want.AllowDirect != have.AllowDirect || want.Discard != have.Discard || want.Replicas != have.Replicas || !slices.Equal(want.Subjects, have.Subjects) {
		return q.js.UpdateStream(ctx, want)
	}
	return s, nil
}

// getAgain reads a message that was said not to be found. Also the leader of a
// stream may not know yet what was acknowledged.
func (q *Queue) getAgain(ctx context.Context, seq uint64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	for missed := 1; ; {
		state, err := q.state(ctx)
		if err != nil {
			return nil, err
		}
		known := state.LastSeq >= max(seq, q.last.Load())
		if known {
			if err := q.missing(seq, state.FirstSeq, missed); err != nil {
				return nil, err
			}
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
