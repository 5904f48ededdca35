package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"pmm-callgoose/store/event/faultpoint"
)

// restartAbove is from how many blocks of EVENTS on (8 MiB each, of 20,000 events or
// so) it is worth half a second to forget how they were recovered.
const restartAbove = 32

// openServer starts the embedded server. After a crash the index of a stream is
// older than its blocks: the server reads them all, and keeps an index of the
// subjects of each in memory for minutes, 100 bytes for every event that is stored.
// A clean stop writes the index that a second start begins with, in milliseconds
// and without all that. If we die here, the next start does the same.
func openServer(cfg Config, above int) (*server.Server, error) {
	behind, err := indexBehind(cfg.Dir, above)
	if err != nil {
		return nil, err
	}
	srv, err := startServer(cfg)
	if err != nil || !behind {
		return srv, err
	}
	stopServer(srv)
	debug.FreeOSMemory() // of all that was read
	return startServer(cfg)
}

// indexBehind reports whether EVENTS has so many blocks, and no index or one that
// is older than the newest of them.
func indexBehind(dir string, above int) (bool, error) {
	msgs := filepath.Join(dir, streamDir(events), "msgs")
	blocks, err := blocksOf(msgs)
	if err != nil || len(blocks) < above {
		return false, err
	}
	newest, err := os.Stat(filepath.Join(msgs, strconv.Itoa(blocks[len(blocks)-1])+".blk"))
	if err != nil {
		return false, err
	}
	index, err := os.Stat(filepath.Join(msgs, "index.db"))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return err == nil && index.ModTime().Before(newest.ModTime()), err
}

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
