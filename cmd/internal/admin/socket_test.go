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
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), strings.Repeat("long", 30))} {
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
		for _, replace := range []func(string) error{
			os.Remove,
			func(path string) error { return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)) },
		} {
			path := filepath.Join(dir, SocketName)
			client := NewSocketClient(dir)
			if err := client.Health(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			if err := replace(path); err != nil {
				t.Fatal(err)
			}
			for NewSocketClient(dir).Health(t.Context(), true) != nil { // until the test's own time is over
				time.Sleep(10 * time.Millisecond)
			}
			if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeSocket|0o600 {
				t.Error(info.Mode(), err)
			}
		}
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}
}
