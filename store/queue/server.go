package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"pmm-callgoose/store/faultpoint"
)

// startServer runs the embedded server in dir. It opens no socket, installs no
// signal handler, and fsyncs every write before it acknowledges it.
func startServer(cfg Config) (*server.Server, error) {
	opts := &server.Options{
		ServerName:         "pmm-callgoose",
		DontListen:         true,
		NoSigs:             true,
		JetStream:          true,
		StoreDir:           filepath.Join(cfg.Dir, "jetstream"),
		SyncAlways:         !cfg.NoSync && !faultpoint.Without("fsync"),
		JetStreamMaxMemory: 16 << 20,
		// This package watches the room (see room.go); the server's own limit only has to
		// be out of the way, and explicit: the default follows the free disk and
		// can refuse a store that it already holds.
		JetStreamMaxStore: 1 << 50,
		MaxPayload:        maxMessage,
		MaxPending:        4 * maxMessage,
		NoLog:             true,
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("embedded nats server: %w", err)
	}
	srv.SetLoggerV2(&natsLog{log: cfg.Logger}, false, false, false)
	srv.Start()
	if !srv.ReadyForConnections(30 * time.Second) {
		stopServer(srv)
		return nil, errors.New("embedded nats server: not ready after 30s")
	}
	return srv, nil
}

func stopServer(srv *server.Server) {
	if srv == nil {
		return
	}
	srv.Shutdown()
	srv.WaitForShutdown()
}

// connect opens the connection to the embedded server or an external one.
func (q *Queue) connect(opts ...nats.Option) (err error) {
	opts = append(opts, nats.Name("pmm-callgoose"), nats.MaxReconnects(-1), nats.ReconnectBufSize(-1))
	if q.nc, err = nats.Connect(q.cfg.URL, opts...); err != nil {
		return fmt.Errorf("%w: connect to nats: %w", ErrUnavailable, withoutAddress(err))
	}
	if q.js, err = jetstream.New(q.nc, jetstream.WithPublishAsyncMaxPending(4096)); err != nil {
		return fmt.Errorf("open jetstream: %w", err)
	}
	return nil
}

// withoutAddress is the error without the URL, which may hold a password.
func withoutAddress(err error) error {
	if wrong, ok := errors.AsType[*url.Error](err); ok {
		return wrong.Err
	}
	return err
}

// natsLog hands the server's log lines to slog. Its notices are our debug:
// operators run pmm-callgoose, not NATS.
type natsLog struct{ log *slog.Logger }

func (l *natsLog) line(level slog.Level, format string, v []any) {
	if l.log.Enabled(context.Background(), level) {
		l.log.Log(context.Background(), level, "embedded nats server", "component", "nats", "detail", fmt.Sprintf(format, v...))
	}
}
func (l *natsLog) Noticef(f string, v ...any) { l.line(slog.LevelDebug, f, v) }
func (l *natsLog) Warnf(f string, v ...any) {
	level := slog.LevelWarn
	if strings.HasPrefix(f, "Maximum payloads over") {
		level = slog.LevelDebug // ours are large on purpose: --max-body
	}
	l.line(level, f, v)
}

func (l *natsLog) Errorf(f string, v ...any) { l.line(slog.LevelError, f, v) }
func (l *natsLog) Fatalf(f string, v ...any) { l.line(slog.LevelError, f, v) }
func (l *natsLog) Debugf(string, ...any)     {}
func (l *natsLog) Tracef(string, ...any)     {}
