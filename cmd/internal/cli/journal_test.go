package cli

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/config"
)

func TestLinesForTheJournalCarryTheirPriority(t *testing.T) {
	for format, want := range map[string]string{
		"text": "<7>level=DEBUG msg=looked\n<6>level=INFO msg=said took=1.5s\n<4>level=WARN msg=odd component=x\n<3>level=ERROR msg=broken g.a=1\n",
		"json": "<7>{\"level\":\"DEBUG\",\"msg\":\"looked\"}\n<6>{\"level\":\"INFO\",\"msg\":\"said\",\"took\":\"1.5s\"}\n" +
			"<4>{\"level\":\"WARN\",\"msg\":\"odd\",\"component\":\"x\"}\n<3>{\"level\":\"ERROR\",\"msg\":\"broken\",\"g\":{\"a\":1}}\n",
	} {
		var out bytes.Buffer
		log := newLogger(&config.Config{LogFormat: format, LogLevel: slog.LevelDebug}, &out, true)
		log.Debug("looked")
		log.Info("said", "took", 1500*time.Millisecond)
		log.With("component", "x").Warn("odd")
		log.WithGroup("g").Error("broken", "a", 1)
		if out.String() != want {
			t.Errorf("%s: got\n%s\nwant\n%s", format, out.String(), want)
		}
	}
}

func TestTheJournalIsKnownByItsStream(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	for env, want := range map[string]bool{
		fmt.Sprintf("JOURNAL_STREAM=%d:%d", st.Dev, st.Ino):   true,
		fmt.Sprintf("JOURNAL_STREAM=%d:%d", st.Dev, st.Ino+1): false, // inherited; this is written elsewhere
		"HOME=/": false,
	} {
		if got := (&program{environ: []string{env}}).toJournal(f); got != want {
			t.Errorf("%s: %v", env, got)
		}
	}
}
