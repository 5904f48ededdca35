package admin

import (
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestADeletedSocketComesBack(t *testing.T) {
	for place, part := range map[string]string{"in a short path": "", "in a long path": strings.Repeat("long", 30)} {
		for how, replace := range map[string]func(string) error{
			"removed":  os.Remove,
			"replaced": func(path string) error { return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)) },
		} {
			dir := filepath.Join(t.TempDir(), part)
			t.Run(how+" "+place, func(t *testing.T) {
				t.Parallel()
				if err := os.MkdirAll(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				l, err := ListenSocket(dir)
				if err != nil {
					t.Fatal(err)
				}
				ended := make(chan error)
				srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) }), ReadHeaderTimeout: time.Second}
				go func() { ended <- srv.Serve(l) }()
				path := filepath.Join(dir, SocketName)
				if _, err := NewSocketClient(dir).Status(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := replace(path); err != nil {
					t.Fatal(err)
				}
				for _, err := NewSocketClient(dir).Status(t.Context()); err != nil; _, err = NewSocketClient(dir).Status(t.Context()) { // until the test's own time is over
					time.Sleep(10 * time.Millisecond)
				}
				if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeSocket|0o600 {
					t.Error(info.Mode(), err)
				}
				if err := srv.Close(); err != nil {
					t.Error(err)
				}
				if err := <-ended; !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
			})
		}
	}
}
