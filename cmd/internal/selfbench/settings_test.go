package selfbench

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// settings are the arguments of a run, behind -args.
type settings struct {
	Program     string
	Dir         string
	Connections numbers
	For         time.Duration
	Rounds      int
	Alerts      int
	Size        int
	Keys        int
	Backlog     int
	BacklogKeys int
	Outage      time.Duration
	Young       int
	SinkDelay   time.Duration
	PerSecond   int
	Senders     int
	SlowSync    time.Duration
}

var given = settings{Connections: numbers{1, 16, 64}}

func init() {
	flag.StringVar(&given.Program, "program", "", "the `binary` of pmm-callgoose that is measured; without it every test here is skipped")
	flag.StringVar(&given.Dir, "dir", os.TempDir(), "a new directory is made in this one: it decides which disk is measured")
	flag.Var(&given.Connections, "connections", "connections of the intake, each measured; several with commas")
	flag.DurationVar(&given.For, "for", 5*time.Second, "how long each load lasts")
	flag.IntVar(&given.Rounds, "rounds", 3, "how often each is measured; the median counts")
	flag.IntVar(&given.Alerts, "alerts", 5, "alerts in each webhook")
	flag.IntVar(&given.Size, "body-size", 5500, "about how many bytes each webhook has")
	flag.IntVar(&given.Keys, "keys", 10_000, "incident keys")
	flag.IntVar(&given.Backlog, "backlog", 100_000, "events to queue, kill and drain; 0 leaves it out")
	flag.IntVar(&given.BacklogKeys, "backlog-keys", 10_000, "incident keys of the backlog")
	flag.DurationVar(&given.Outage, "outage", 20*time.Second, "how long the sink answers 503 while 100 webhooks/s come in; 0 leaves it out")
	flag.IntVar(&given.Young, "growth", 0, "events of a drain before and after the backlog; 0 leaves it out")
	flag.DurationVar(&given.SinkDelay, "sink-delay", 0, "before each answer of the sink, in TestEverything")
	flag.IntVar(&given.PerSecond, "per-second", 100, "webhooks a second of the ordinary load")
	flag.IntVar(&given.Senders, "senders", 16, "connections of the ordinary load; 16 are enough that one slow answer does not hold the next webhook back")
	flag.DurationVar(&given.SlowSync, "slow-sync", 0, "how much longer each fsync of the ordinary load takes (needs strace)")
}

// numbers is a list such as 1,16,64.
type numbers []int

func (n *numbers) String() string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint([]int(*n)), " ", ","), "[]")
}

// Set replaces the list.
func (n *numbers) Set(list string) error {
	*n = nil
	for part := range strings.SplitSeq(list, ",") {
		i, err := strconv.Atoi(part)
		if err != nil {
			return err
		}
		*n = append(*n, i)
	}
	return nil
}

// required are the settings of a run, in a directory of its own.
func required(t *testing.T) settings {
	t.Helper()
	if given.Program == "" {
		t.Skip("no binary to measure: -args -program PATH")
	}
	s := given
	dir, err := os.MkdirTemp(s.Dir, "pmm-callgoose-bench-") //nolint:usetesting // the disk that is measured is chosen
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s.Dir = dir
	return s
}

// pause waits, at most until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
