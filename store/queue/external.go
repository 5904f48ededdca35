package queue

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
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
	shortFor       = time.Minute
	readWithin     = 3 * time.Second
	goneAfter      = 6                 // reads that say "not found"
	silentAfter    = 3 * time.Second   // without an answer webhooks would not be stored
	redeclareAfter = 100 * time.Second // one stream after the other: each every five minutes
)

func (q *Queue) openExternal(ctx context.Context) error {
	q.cfg.replaced = q.fail
	opts, err := q.cfg.options()
	if err != nil {
		return err
	}
	unknown := syncOf(nil)
	q.sync.Store(&unknown)
	if err := q.connect(append(opts, nats.ErrorHandler(q.heardError), nats.DisconnectErrHandler(q.heardEnd), nats.ReconnectHandler(q.heardAgain))...); err != nil {
		return err
	}
	if old := oldServer(q.nc.ConnectedServerVersion()); old != "" {
		return fmt.Errorf("%w: %s: %s", ErrUnfit, q.nc.ConnectedUrlRedacted(), old)
	}
	if q.stream, err = q.declare(ctx, q.cfg.streams()[0]); err != nil {
		return err
	}
	q.own.run = nuid.Next()
	q.own.subject = q.cfg.subject(subject) + "." + q.own.run
	if err := q.Reaches(ctx, q.cfg.After); err != nil {
		return err
	}
	q.opened.Store(true)
	return q.readOn(ctx)
}

// streams are those of several instances: NOTIFICATIONS, LEDGER, SNAPSHOTS.
func (c Config) streams() (list [3]jetstream.StreamConfig) {
	for i, s := range []struct {
		name, about string
		subjects    []string
	}{
		{streamName, "notifications as accepted", []string{c.subject(subject), c.subject(subject) + ".*"}},
		{logName, "transactions of the ledger", []string{c.subject(logSubject)}},
		{snapshotName, "the ledger, whole", []string{c.subject(snapshotSubject) + ".*"}},
	} {
		list[i] = streamConfig()
		list[i].Name, list[i].Subjects, list[i].Description = c.stream(s.name), s.subjects, "pmm-callgoose: "+s.about
	}
	return list
}

// warn says what is less safe than it could be.
func (q *Queue) warn(ctx context.Context) {
	log := q.cfg.Logger.With("component", "queue", "stream", streamName)
	if q.stream.CachedInfo().Config.Replicas == 1 {
		log.WarnContext(ctx, "one server keeps the stream: if its disk dies, what was accepted and is not delivered dies with it (--nats-replicas 1)")
	}
	list := monitored(ctx, q.cfg.Monitor)
	sync := syncOf(list)
	q.sync.Store(&sync)
	for _, m := range list {
		if m.Err != nil {
			log.WarnContext(ctx, "a monitoring URL of NATS does not answer", "url", m.URL, "err", m.Err)
		} else if !m.SyncAlways {
			log.WarnContext(ctx, "a NATS server does not sync each write: when all lose power at once, up to two minutes are lost; set sync_interval: always", "server", m.Name)
		}
	}
}

// watchServers asks for the stream every second: while no answer comes, webhooks
// would not be stored.
func (q *Queue) watchServers() {
	q.warn(context.Background())
	for sleep(context.Background(), q.stop, time.Second) {
		ctx, cancel := context.WithTimeout(context.Background(), tryWithin)
		_ = q.measure(ctx) // silent says so
		cancel()
	}
}

// watchStreams repairs what others changed in the configuration of the streams, one after
// the other.
func (q *Queue) watchStreams() {
	streams := q.cfg.streams()
	for n := 0; sleep(context.Background(), q.stop, redeclareAfter); n++ {
		q.declareAgain(context.Background(), streams[n%len(streams)])
	}
}

func (q *Queue) declareAgain(ctx context.Context, cfg jetstream.StreamConfig) {
	if _, err := q.declareOnce(ctx, cfg); err != nil {
		q.cfg.Logger.ErrorContext(ctx, "the configuration of a stream cannot be checked", "component", "queue", "stream", cfg.Name, "err", err)
	}
}

// silent says that the servers have not answered lately, nil when they have.
func (q *Queue) silent() error {
	if q.srv != nil {
		return nil
	}
	if !q.nc.IsConnected() {
		return fmt.Errorf("%w: not connected to nats", ErrUnavailable)
	}
	if d := time.Since(time.Unix(0, q.seen.Load())); d > silentAfter {
		return fmt.Errorf("%w: nats has not answered for %s", ErrUnavailable, d.Round(time.Second))
	}
	return nil
}

// Reaches waits until the stream reaches after. A server that came back with an
// empty disk may answer that the stream is empty, and does not know better for a
// while. Nothing is purged or filled on account of that, unless a person accepts the loss.
func (q *Queue) Reaches(ctx context.Context, after uint64) error {
	patient, cancel := context.WithTimeout(ctx, q.cfg.ShortFor)
	defer cancel()
	for answered := false; ; {
		_, err := q.state(ctx)
		if err == nil && q.last.Load() >= after {
			return nil
		}
		answered = answered || err == nil
		if sleep(patient, q.stop, 5*tryAfter) {
			continue
		}
		switch {
		case !answered:
			return err
		case err == nil && q.cfg.AcceptLoss == streamName:
			if err = q.goOnBehind(ctx, after, nil); err == nil {
				q.accept(streamName)
			}
			return err
		}
		return short(streamName, "it ends at %d, the ledger knows %d", q.last.Load(), after)
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

// declare creates the stream, or adapts the one that is there. Servers that have
// just started, or elect, do not know streams yet.
func (q *Queue) declare(ctx context.Context, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, declareWithin)
	defer cancel()
	for {
		s, err := q.declareOnce(ctx, cfg)
		if err == nil {
			return s, nil
		}
		if missing := q.refusal(); missing != nil {
			return nil, missing
		}
		refused, ok := errors.AsType[*jetstream.APIError](err)
		if errors.Is(err, ErrUnfit) || ok && !slices.Contains([]int{404, 409, 503}, refused.Code) && refused.ErrorCode != codeNoPeers {
			return nil, fmt.Errorf("declare stream %s: %w", cfg.Name, err)
		}
		if sleep(ctx, q.stop, 5*tryAfter) {
			continue
		}
		if ok && refused.ErrorCode == codeNoPeers {
			return nil, q.tooFew(err)
		}
		return nil, fmt.Errorf("%w: declare stream %s: %w", ErrUnavailable, cfg.Name, err)
	}
}

// Codes of JetStream that its client does not name.
const (
	codeAccountFull   jetstream.ErrorCode = 10002
	codeNoPeers       jetstream.ErrorCode = 10005
	codeNoRoom        jetstream.ErrorCode = 10023
	codeDiskFull      jetstream.ErrorCode = 10047
	codeNoCluster     jetstream.ErrorCode = 10074
	codeNotStored     jetstream.ErrorCode = 10077
	maxBytesExhausted                     = "maximum bytes exceeded" // in the description of codeNotStored
)

func (q *Queue) tooFew(err error) error {
	return fmt.Errorf("%w: needs %d servers of one cluster with room for the stream (--nats-replicas): %w", ErrUnfit, q.replicas(), err)
}

// replicas is how many servers should keep the stream.
func (q *Queue) replicas() int {
	switch {
	case q.cfg.Replicas > 0:
		return q.cfg.Replicas
	case q.nc.ConnectedClusterName() != "":
		return 3
	}
	return 1
}

func (q *Queue) declareOnce(ctx context.Context, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	cfg.Replicas, cfg.AllowDirect = q.replicas(), faultpoint.Without("leader reads")
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	s, err := q.js.Stream(ctx, cfg.Name)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		s, err = q.js.CreateStream(ctx, cfg)
	case err == nil:
		have := s.CachedInfo().Config
		if why := loses(have, cfg); why != "" {
			return nil, fmt.Errorf("%w: the stream %s that is there %s", ErrUnfit, cfg.Name, why)
		}
		if want, differs := safer(have, cfg); differs {
			q.cfg.Logger.WarnContext(ctx, "the configuration of a stream is repaired", "component", "queue", "stream", cfg.Name, "replicas", want.Replicas)
			s, err = q.js.UpdateStream(ctx, want)
		}
	}
	return s, q.understand(err)
}

// understand says in which cases waiting does not help.
func (q *Queue) understand(err error) error {
	on, _ := q.nc.ConnectedServerJetStream()
	refused, _ := errors.AsType[*jetstream.APIError](err)
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("%w: JetStream is off for the account of this user; its configuration needs: jetstream: enabled", ErrUnfit)
	case errors.Is(err, nats.ErrNoResponders) && !on && q.nc.ConnectedClusterName() == "":
		return fmt.Errorf("%w: JetStream is off; the server's configuration needs: jetstream { store_dir: DIRECTORY, sync_interval: always }", ErrUnfit)
	case refused != nil && refused.ErrorCode == codeNoCluster:
		return q.tooFew(err)
	}
	return err
}

// loses says why a stream would lose what it is given, "" when it would not.
func loses(have, cfg jetstream.StreamConfig) string {
	for _, unfit := range []struct {
		so   bool
		says string
	}{
		{!slices.Contains(have.Subjects, cfg.Subjects[0]), "is somebody else's: it does not take " + cfg.Subjects[0]},
		{have.Storage != jetstream.FileStorage, "is kept in memory"},
		{have.Retention != jetstream.LimitsPolicy, "deletes what was read: it needs limits retention"},
		{have.MaxAge > 0, "has a max_age"},
		{have.MaxMsgs > 0, "has a limit of messages (max_msgs)"},
		{have.MaxMsgsPerSubject > 0, "has a limit of messages (max_msgs_per_subject)"},
		{have.Sealed, "is sealed"},
		{have.DenyPurge, "cannot be purged (deny_purge): what was settled must give way"},
		{have.Mirror != nil || len(have.Sources) > 0 || have.SubjectTransform != nil, "is a copy of another one"},
		{have.PersistMode == jetstream.AsyncPersistMode, "acknowledges before it writes (persist_mode async)"},
	} {
		if unfit.so {
			return unfit.says
		}
	}
	return ""
}

// safer is the configuration that is there with what only makes it safer. Replicas
// are never taken away.
func safer(have, cfg jetstream.StreamConfig) (want jetstream.StreamConfig, differs bool) {
	want = have
	want.AllowDirect = cfg.AllowDirect // those are answered by replicas that lag behind
	want.Discard, want.DiscardNewPerSubject = jetstream.DiscardNew, false
	want.Replicas = max(have.Replicas, cfg.Replicas)
	want.Duplicates = max(have.Duplicates, cfg.Duplicates)
	want.MaxMsgSize = min(have.MaxMsgSize, 0)
	want.NoAck, want.DenyDelete, want.Subjects = false, true, cfg.Subjects
	return want, !reflect.DeepEqual(want, have)
}

// full reports whether a server refused a message for want of room.
func full(refused *jetstream.APIError) bool {
	switch refused.ErrorCode {
	case codeAccountFull, codeNoRoom, codeDiskFull:
		return true
	case codeNotStored:
		return strings.Contains(refused.Description, maxBytesExhausted)
	}
	return false
}

// getAgain reads a message that was said not to be found. Also the leader of a
// stream may not know yet what was acknowledged.
func (q *Queue) getAgain(ctx context.Context, seq uint64) ([]byte, error) {
	if faultpoint.Without("leader reads") {
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
			q.cfg.Observer.StaleRead()
			return m.Data, nil
		case !errors.Is(err, jetstream.ErrMsgNotFound):
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		case known:
			missed++
		}
	}
}
