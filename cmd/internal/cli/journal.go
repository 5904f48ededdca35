package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
)

// toJournal reports whether what is written to f goes to the journal of systemd, as
// it says in JOURNAL_STREAM.
func (p *program) toJournal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	for _, kv := range p.environ {
		stream, found := strings.CutPrefix(kv, "JOURNAL_STREAM=")
		if !found {
			continue
		}
		info, err := f.Stat()
		if err != nil {
			return false
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		return ok && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
	}
	return false
}

// journal puts the priority in front of each line, where the journal takes it from,
// so that journalctl -p err finds errors. It is a Handler over another one that
// writes to it; safe concurrently.
type journal struct {
	slog.Handler
	out *prioritised
}

// prioritised writes each line with a priority in front.
type prioritised struct {
	w        io.Writer
	mu       sync.Mutex // held by journal.Handle
	priority int        // guarded by mu
}

func (p *prioritised) Write(line []byte) (int, error) {
	if _, err := p.w.Write(append(fmt.Appendf(nil, "<%d>", p.priority), line...)); err != nil {
		return 0, err
	}
	return len(line), nil
}

// Handle implements slog.Handler. The journal has a time of its own.
func (j journal) Handle(ctx context.Context, r slog.Record) error {
	j.out.mu.Lock()
	defer j.out.mu.Unlock()
	switch {
	case r.Level >= slog.LevelError:
		j.out.priority = 3
	case r.Level >= slog.LevelWarn:
		j.out.priority = 4
	case r.Level >= slog.LevelInfo:
		j.out.priority = 6
	default:
		j.out.priority = 7
	}
	timeless := slog.Record{Message: r.Message, Level: r.Level, PC: r.PC}
	r.Attrs(func(a slog.Attr) bool { timeless.AddAttrs(a); return true })
	return j.Handler.Handle(ctx, timeless)
}

// WithAttrs implements slog.Handler.
func (j journal) WithAttrs(attrs []slog.Attr) slog.Handler {
	return journal{j.Handler.WithAttrs(attrs), j.out}
}

// WithGroup implements slog.Handler.
func (j journal) WithGroup(name string) slog.Handler {
	return journal{j.Handler.WithGroup(name), j.out}
}
