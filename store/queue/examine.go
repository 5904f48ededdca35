package queue

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Servers is what is known of the external servers.
type Servers struct {
	Connected bool     `json:"connected"` // they answer
	Name      string   `json:"server"`    // of the one that this is connected to
	Version   string   `json:"version"`   // of that one
	Replicas  int      `json:"replicas"`  // asked for
	Sync      string   `json:"sync"`      // always, interval, or unknown: see Config.Monitor
	Streams   []Stream `json:"streams"`
}

// Stream is a stream as the servers keep it. Current counts the replicas that hold
// all of it.
type Stream struct {
	Name     string `json:"name"`
	Leader   string `json:"leader"`
	Replicas int    `json:"replicas"`
	Current  int    `json:"current"`
	Bytes    uint64 `json:"bytes"`
}

// Servers returns what the external servers said last.
func (l *Log) Servers() Servers {
	q := l.q
	s := Servers{
		Connected: q.silent() == nil, Name: q.nc.ConnectedServerName(), Version: q.nc.ConnectedServerVersion(),
		Replicas: q.replicas(), Sync: *q.sync.Load(), Streams: []Stream{},
	}
	if s.Connected {
		s.Streams = []Stream{describe(q.stream.CachedInfo()), describe(l.stream.CachedInfo()), describe(l.snapshots.CachedInfo())}
	}
	return s
}

func describe(info *jetstream.StreamInfo) Stream {
	s := Stream{Name: info.Config.Name, Replicas: info.Config.Replicas, Bytes: info.State.Bytes, Current: 1}
	if info.Cluster == nil {
		return s
	}
	if s.Leader = info.Cluster.Leader; s.Leader == "" {
		s.Current = 0
	}
	for _, r := range info.Cluster.Replicas {
		if r.Current && !r.Offline {
			s.Current++
		}
	}
	return s
}

// syncOf says in one word what the monitoring URLs say, and what one of them lacks.
func syncOf(list []Monitored) string {
	sync := "unknown"
	for _, m := range list {
		switch {
		case m.Err != nil:
			return "unknown"
		case !m.SyncAlways:
			return "interval"
		}
		sync = "always"
	}
	return sync
}

// Examined is what Examine found out.
type Examined struct {
	Addresses []Address // one for each server of Config.URL
	// Err says why nothing of what follows is known, nil when it is.
	Err        error
	Streams    []Found // those that are there, NOTIFICATIONS first
	Denied     []error // permissions that the user lacks
	MaxPayload int64   // bytes
	FreeBytes  int64   // of the account; -1 = no limit
	Monitored  []Monitored
}

// Found is a stream, and why it would lose what it is given; "" = it would not.
type Found struct {
	Stream
	Unfit string
}

// Address is one server as it answers to its address. Old says why its version is
// none that can be used.
type Address struct {
	URL                string // without what makes it secret
	Err                error
	Name, Version, Old string
	TLS                bool
	RoundTrip          time.Duration
}

// Examine connects to each server of cfg in turn and looks, without changing
// anything. It takes some seconds for each that does not answer.
func Examine(ctx context.Context, cfg Config) (out Examined) {
	opts, err := cfg.options()
	if err != nil {
		out.Err = err
		return out
	}
	out.Err = errors.New("no server can be reached")
	for url := range strings.SplitSeq(cfg.URL, ",") {
		var mu sync.Mutex
		var missing []error
		heard := nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrPermissionViolation) {
				mu.Lock()
				defer mu.Unlock()
				missing = append(missing, denied(err))
			}
		})
		nc, at := reach(strings.TrimSpace(url), append(opts, heard, nats.NoReconnect()))
		out.Addresses = append(out.Addresses, at)
		if nc == nil {
			continue
		}
		if out.Err != nil {
			out.Err = out.inspect(ctx, nc, cfg)
			_ = nc.FlushTimeout(dialWithin)
			mu.Lock()
			out.Denied = missing
			mu.Unlock()
		}
		nc.Close()
	}
	out.Monitored = monitored(ctx, cfg.Monitor)
	return out
}

// reach connects to one server.
func reach(url string, opts []nats.Option) (*nats.Conn, Address) {
	shown := url
	if _, after, ok := strings.Cut(url, "@"); ok {
		shown = after
	}
	at := Address{URL: shown}
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		at.Err = withoutAddress(err)
		return nil, at
	}
	at.Name, at.Version = nc.ConnectedServerName(), nc.ConnectedServerVersion()
	at.Old = oldServer(at.Version)
	_, err = nc.TLSConnectionState()
	at.TLS = err == nil
	at.RoundTrip, at.Err = nc.RTT()
	return nc, at
}

// inspect asks for the stream and the account, and tries what the service must be
// allowed. Nothing is stored: the message names a sequence that it cannot follow.
func (x *Examined) inspect(ctx context.Context, nc *nats.Conn, cfg Config) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	x.MaxPayload, x.FreeBytes = nc.MaxPayload(), -1
	for _, subject := range []string{instances, leaderAsk} {
		if _, err := nc.SubscribeSync(cfg.subject(subject)); err != nil {
			return err
		}
	}
	if account, err := js.AccountInfo(ctx); err == nil && account.Limits.MaxStore >= 0 {
		x.FreeBytes = account.Limits.MaxStore - int64(account.Store) //nolint:gosec // bytes of a disk
	}
	q := &Queue{cfg: cfg, nc: nc}
	for _, want := range cfg.streams() {
		s, err := js.Stream(ctx, want.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			continue
		}
		if err != nil {
			return q.understand(fmt.Errorf("read stream %s: %w", want.Name, err))
		}
		x.Streams = append(x.Streams, Found{describe(s.CachedInfo()), loses(s.CachedInfo().Config, want)})
	}
	if len(x.Streams) == 0 || x.Streams[0].Name != cfg.stream(streamName) {
		return nil
	}
	_, err = js.Publish(ctx, cfg.subject(subject), nil, jetstream.WithExpectLastSequence(math.MaxInt64), jetstream.WithRetryAttempts(0))
	if refused, ok := errors.AsType[*jetstream.APIError](err); !ok {
		return fmt.Errorf("publish to %s: %w", cfg.subject(subject), err)
	} else if full(refused) {
		x.FreeBytes = 0
	}
	return nil
}
