package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"pmm-callgoose/store/event/faultpoint"
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
		SyncAlways:         !cfg.NoSync && !faultpoint.NoSync(),
		JetStreamMaxMemory: 16 << 20,
		// Room is watched by us (see room.go); the server's own limit only has to
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

// connect dials the external server, or the embedded one through memory.
func connect(cfg Config, srv *server.Server) (*nats.Conn, error) {
	opts := []nats.Option{nats.Name("pmm-callgoose"), nats.MaxReconnects(-1), nats.ReconnectBufSize(-1)}
	url := cfg.URL
	if cfg.CredsFile != "" {
		text, err := os.ReadFile(cfg.CredsFile)
		if err != nil {
			return nil, fmt.Errorf("nats credentials: %w", err)
		}
		opt := nats.UserCredentials(cfg.CredsFile)
		if !bytes.Contains(text, []byte("-----BEGIN NATS USER JWT")) {
			if opt, err = nats.NkeyOptionFromSeed(cfg.CredsFile); err != nil {
				return nil, fmt.Errorf("nats credentials %s: neither a .creds file nor the seed of an nkey: %w", cfg.CredsFile, err)
			}
		}
		opts = append(opts, opt)
	}
	if srv != nil {
		url = ""
		opts = append(opts, nats.InProcessServer(srv))
	}
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to nats: %w", err)
	}
	return nc, nil
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
