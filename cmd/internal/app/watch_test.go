package app

import (
	"context"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pmm-callgoose/cmd/internal/config"
	"pmm-callgoose/cmd/internal/sdnotify"
	"pmm-callgoose/store"
	"pmm-callgoose/worker/callgoose/callgoosetest"
)

// manager is a service manager that writes down what it is told.
type manager struct {
	path string
	mu   sync.Mutex
	told []string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{path: filepath.Join(t.TempDir(), "notify")}
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := l.Read(b)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.told = append(m.told, string(b[:n]))
			m.mu.Unlock()
		}
	}()
	return m
}

func (m *manager) has(prefix string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.told, func(s string) bool { return strings.HasPrefix(s, prefix) })
}

// eventually polls; what it waits for comes or the whole test times out.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for !ok() {
		if t.Context().Err() != nil {
			t.Fatal("never: " + what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// The watchdog is fed by loops that turn, and by nothing else. Here the ledger
// is held, as by a disk that hangs: real time, for a mutex stops a bubble.
func TestWatchdogIsFedByProgress(t *testing.T) {
	m := newManager(t)
	cfg := &config.Config{
		DataDir: t.TempDir(), CallgooseURL: "https://callgoose.test/v1/process", CallgooseToken: config.NewSecret(token),
		IncidentBy: "alert", OnBacklog: "deliver", RetryMin: time.Second, RetryMax: time.Minute,
		RetryFor: 72 * time.Hour, Timeout: time.Second, Concurrency: 1, MaxBody: 1 << 20, MaxStore: 1 << 30,
	}
	refusing := callgoosetest.New(callgoosetest.Config{}).RoundTripper()
	refusing.Refuse(true)
	a, err := New(cfg, Options{
		NoListen: true, NoSync: true, Transport: refusing,
		Notify: sdnotify.New([]string{"NOTIFY_SOCKET=" + m.path, "WATCHDOG_USEC=80000"}),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	for _, want := range []string{"EXTEND_TIMEOUT_USEC=", "READY=1\nSTATUS=Nothing was sent to Callgoose yet", "WATCHDOG=1"} {
		eventually(t, want, func() bool { return m.has(want) })
	}

	c := a.core.Load()
	held, release := make(chan struct{}), make(chan struct{})
	go func() {
		_ = c.ledger.Do(ctx, func(*store.Tx) {
			close(held)
			<-release
		})
	}()
	<-held
	r := &rig{t: t, app: a}
	r.accept(group(mysqlDown(1, "firing", time.Now())))
	short := func() error {
		within, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		return a.progress(within)
	}
	eventually(t, "no progress", func() bool { err := short(); return err != nil && strings.Contains(err.Error(), "splitter") })
	eventually(t, "the status says so", func() bool { return m.has("STATUS=NO PROGRESS: splitter") })
	close(release)
	eventually(t, "progress again", func() bool { return short() == nil })
	eventually(t, "the status is true again", func() bool { return m.has("STATUS=Callgoose cannot be reached") })

	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	eventually(t, "stopping", func() bool { return m.has("STOPPING=1") })
}
