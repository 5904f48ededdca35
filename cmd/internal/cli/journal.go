package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"syscall"
)

// toJournal reports whether what is written to f goes to the journal of systemd, as
// it says in JOURNAL_STREAM.
func (p *program) toJournal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && p.env("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// priorities are what the journal calls the levels.
var priorities = map[string]string{"ERROR": "<3>", "WARN": "<4>", "INFO": "<6>", "DEBUG": "<7>"}

// journal puts the priority in front of each line, where the journal takes it from,
// so that journalctl -p err finds errors. A handler of slog writes a line at once,
// and the level first where there is no time.
type journal struct{ io.Writer }

func (j journal) Write(line []byte) (int, error) {
	level := bytes.TrimPrefix(bytes.TrimPrefix(line, []byte("level=")), []byte(`{"level":"`))
	end := max(bytes.IndexAny(level, ` "`), 0)
	if _, err := j.Writer.Write(append([]byte(priorities[string(level[:end])]), line...)); err != nil {
		return 0, err
	}
	return len(line), nil
}
